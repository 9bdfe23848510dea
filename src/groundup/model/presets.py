"""Presets, which are the configs of published models.

A preset does not contain weights. `groundup pretrain` initializes the weights randomly. All values are from the paper
or the published config of the model, so that parameter counts are exact (tests/unit/model/test_presets.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from groundup.core.config import nearest
from groundup.core.errors import ConfigError
from groundup.model.config import ModelConfig
from groundup.model.families import FAMILIES


@dataclass(frozen=True, slots=True)
class Preset:
    """The config of a published model.

    Attributes:
        name: Name of the preset.
        config: The model config.
        source: The paper or model card from which the config was taken.
        note: Differences between the preset and the published model; empty if there are no differences.
    """

    name: str
    config: ModelConfig
    source: str
    note: str = ""


def preset(name: str) -> Preset:
    """Return the preset that has the given name. Upper and lower case are not distinguished.

    Raises:
        ConfigError: A preset with this name does not exist.
    """
    if found := PRESETS.get(name.lower()):
        return found
    near = nearest(name, PRESETS)
    raise ConfigError(
        f"preset {name!r}",
        rule="no preset has this name",
        fix=f"Did you mean {near}?" if near else "Run groundup model list to see all presets.",
    )


PRESETS: dict[str, Preset] = {
    row.name: Preset(row.name, ModelConfig.from_json({"family": family.name, **row.shape}), row.source, row.note)
    for family in FAMILIES.values()
    for row in family.presets
}
