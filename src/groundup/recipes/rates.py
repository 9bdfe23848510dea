"""Reading a recipe: its version, and the refusal of learning rates that meant something else in earlier releases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tomlkit

from groundup.core.config import RECIPE_VERSION, VERSION, take_version
from groundup.core.errors import ConfigError, GroundupError

# Learning rates of recipes without a version. Those of groups have other names now.
_GROUPS = ("matrix_lr", "embedding_lr", "head_lr", "vector_lr")
_OLD = {
    "pretrain": ("learning_rate", *_GROUPS),
    "finetune.instruct": ("learning_rate",),
    "finetune.classify": _GROUPS,
}

ModelOf = Callable[[str, Mapping[str, Any]], Path | None]
"""The model that a stage with this table trains, as far as it is known."""


def stage_table(values: Any, stage: str) -> dict[str, Any] | None:
    """Return the table of a stage in a recipe, or None."""
    for part in stage.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return dict(values) if isinstance(values, dict) else None


def require_absolute_rates(values: dict[str, Any], file: str, model_of: ModelOf, stage: str | None = None) -> None:
    """Take the version out of a recipe, and refuse learning rates of one that has none.

    Args:
        values: the recipe; its version is removed.
        stage: the only table that is used, which may also be the whole file; None: all of them.

    Raises:
        ConfigError: with the lines that mean the same now.
    """
    if take_version(values, file) >= RECIPE_VERSION:
        return
    for name in _OLD if stage is None else {stage} & _OLD.keys():
        table = stage_table(values, name)
        if table is None and stage is not None:
            table = values
        if table and (found := _old_rates(name, table)):
            raise _refused(name, table, found, file, model_of)


def _old_rates(stage: str, table: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: table[key] for key in _OLD[stage] if key in table}
    lora = table.get("lora")
    if isinstance(lora, dict) and "learning_rate" in lora:
        found["lora.learning_rate"] = lora["learning_rate"]
    return found


def _refused(
    stage: str, table: Mapping[str, Any], found: Mapping[str, Any], file: str, model_of: ModelOf
) -> ConfigError:
    from groundup.train.planner.rates import absolute, converted

    given = ", ".join(f"{key} = {value!r}" for key, value in found.items())
    value = f"{file}: {given} in [{stage}], and no version"
    if not all(isinstance(rate, int | float) and rate > 0 for rate in found.values()):
        return ConfigError(value, rule="a learning rate is a number above 0", fix="Correct it.")
    scaled = "learning_rate" in found and (stage != "pretrain" or "model" in table)
    dim = _width(model_of(stage, table)) if scaled or "lora.learning_rate" in found else None
    lines = [f"{VERSION} = {RECIPE_VERSION}", f"[{stage}]"]
    lines += [f"{key} = {tomlkit.item(setting).as_string()}" for key, setting in converted(stage, table, dim).items()]
    written = "".join(f"\n    {line}" for line in lines)
    fix = f"Write these lines in place of {given}; the version comes first in the file:{written}"
    if scaled:
        old, width = (
            found["learning_rate"],
            f"{dim} wide" if dim else "up to 256 wide (for a wider one times 256 / width)",
        )
        fix += f"\nlearning_rate = {old!r} meant {absolute(stage, table, dim):.4g} for a model {width}."
        fix += f"\nOr, for the same rates at any width, write: learning_rate_scale = {old!r}."
    if "learning_rate" in found:
        fix += (
            f"\nIf {found['learning_rate']!r} is meant as an absolute rate, only write: {VERSION} = {RECIPE_VERSION}."
        )
    rule = "without a version, learning_rate is a multiple of the rates of pretraining; now learning rates are absolute"
    if "learning_rate" not in found:
        rule = "without a version, these settings have the names of an earlier release"
    return ConfigError(value, rule=rule, fix=fix)


def _width(model: Path | None) -> int | None:
    """Return the width of a model, if it is there."""
    from groundup.core.files import expand_home
    from groundup.hub import read_config
    from groundup.hub.resolve import resolve_model

    if model is None:
        return None
    try:
        return read_config(resolve_model(expand_home(model))).dim
    except (GroundupError, OSError):
        return None
