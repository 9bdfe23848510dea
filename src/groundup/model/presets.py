"""Published shapes: the architectures of models that people know by name, as `ModelConfig`.

Only shapes: a preset has no weights, and `groundup pretrain` fills it with random ones. Every row is what the paper or
the published configuration of that model says, so that parameter counts are exact (tests/unit/model/test_presets.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from groundup.core.config import nearest
from groundup.core.errors import ConfigError
from groundup.model.config import ModelConfig
from groundup.model.families import FAMILIES


@dataclass(frozen=True, slots=True)
class Preset:
    """A shape with a name.

    Attributes:
        source: where it was published.
        note: in what it differs from the published model; empty where it does not.
    """

    name: str
    config: ModelConfig
    source: str
    note: str = ""


def preset(name: str) -> Preset:
    """The preset of that name; letter case does not matter.

    Raises:
        ConfigError: there is none; the nearest name is proposed.
    """
    if found := PRESETS.get(name.lower()):
        return found
    near = nearest(name, PRESETS)
    raise ConfigError(
        f"preset {name!r}",
        rule="a preset is one of the published shapes",
        fix=f"Did you mean {near}?" if near else "groundup model list shows them all.",
    )


PRESETS: dict[str, Preset] = {
    row.name: Preset(row.name, ModelConfig.from_json({"family": family.name, **row.shape}), row.source, row.note)
    for family in FAMILIES.values()
    for row in family.presets
}
