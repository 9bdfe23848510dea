"""The model families, each declared in one module. To add one, see docs/adding-a-family.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from groundup.model.families.base import Family
from groundup.model.families.gemma3 import GEMMA3
from groundup.model.families.gpt2 import GPT2
from groundup.model.families.llama import LLAMA
from groundup.model.families.mistral import MISTRAL
from groundup.model.families.qwen2 import QWEN2
from groundup.model.families.qwen3 import QWEN3

__all__ = ["DEFAULT_FAMILY", "FAMILIES", "GUIDE", "Family", "FamilyName"]

FAMILIES: dict[str, Family] = {family.name: family for family in (GPT2, LLAMA, MISTRAL, QWEN2, QWEN3, GEMMA3)}
DEFAULT_FAMILY = QWEN3.name  # for training from scratch
GUIDE = "docs/adding-a-family.md"

if TYPE_CHECKING:
    FamilyName = str
else:
    FamilyName = Literal[tuple(FAMILIES)]  # the choices of a setting
