"""The model families. Each family is a module; docs/adding-a-family.md describes how to add a family."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from groundup.model.families.base import Family
from groundup.model.families.gemma2 import GEMMA2
from groundup.model.families.gemma3 import GEMMA3
from groundup.model.families.gpt2 import GPT2
from groundup.model.families.gpt_neox import GPT_NEOX
from groundup.model.families.granite import GRANITE
from groundup.model.families.llama import LLAMA
from groundup.model.families.mistral import MISTRAL
from groundup.model.families.olmo2 import OLMO2
from groundup.model.families.phi3 import PHI3
from groundup.model.families.qwen2 import QWEN2
from groundup.model.families.qwen3 import QWEN3
from groundup.model.families.smollm3 import SMOLLM3

__all__ = ["DEFAULT_FAMILY", "FAMILIES", "GUIDE", "Family", "FamilyName"]

_ALL = (GPT2, GPT_NEOX, LLAMA, MISTRAL, OLMO2, PHI3, GRANITE, SMOLLM3, QWEN2, QWEN3, GEMMA2, GEMMA3)
FAMILIES: dict[str, Family] = {family.name: family for family in _ALL}
DEFAULT_FAMILY = QWEN3.name  # family of models that are trained from scratch
GUIDE = "docs/adding-a-family.md"

if TYPE_CHECKING:
    FamilyName = str
else:
    FamilyName = Literal[tuple(FAMILIES)]  # the values of the setting `family`
