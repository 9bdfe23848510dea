"""Check the version of recipes, and reject learning rates that had another meaning in earlier releases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tomlkit

from groundup.core.config import RECIPE_VERSION, VERSION, take_version
from groundup.core.errors import ConfigError, GroundupError

# Settings for learning rates in recipes without a version. The settings in _GROUPS were renamed in a later release.
_GROUPS = ("matrix_lr", "embedding_lr", "head_lr", "vector_lr")
_OLD_RATES = {
    "pretrain": ("learning_rate", *_GROUPS),
    "finetune.instruct": ("learning_rate",),
    "finetune.classify": _GROUPS,
}

ModelOf = Callable[[str, Mapping[str, Any]], Path | None]
"""Function of (stage, table of the stage) that returns the path of the model that the stage trains, or None."""


def stage_table(values: Any, stage: str) -> dict[str, Any] | None:
    """Return the table of a stage in a recipe, or None if the recipe does not contain the stage."""
    for part in stage.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return dict(values) if isinstance(values, dict) else None


def require_absolute_rates(values: dict[str, Any], file: str, model_of: ModelOf, stage: str | None = None) -> None:
    """Remove the version from a recipe, and raise an error if a recipe without a version sets learning rates.

    Args:
        values: The recipe, from which the version is removed in place.
        file: Name of the recipe file, for error messages.
        model_of: Returns the path of the model that a stage trains.
        stage: Stage whose table is checked, or None to check the tables of all stages. If the recipe does not contain
            the table of this stage, the whole recipe is checked as its table.

    Raises:
        ConfigError: The recipe has no version and sets learning rates. The message contains the equivalent settings.
    """
    if take_version(values, file) >= RECIPE_VERSION:
        return
    for name in _OLD_RATES if stage is None else {stage} & _OLD_RATES.keys():
        table = stage_table(values, name)
        if table is None and stage is not None:
            table = values
        if table and (found := _old_rates(name, table)):
            raise _old_rates_error(name, table, found, file, model_of)


def _old_rates(stage: str, table: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: table[key] for key in _OLD_RATES[stage] if key in table}
    lora = table.get("lora")
    if isinstance(lora, dict) and "learning_rate" in lora:
        found["lora.learning_rate"] = lora["learning_rate"]
    return found


def _old_rates_error(
    stage: str, table: Mapping[str, Any], found: Mapping[str, Any], file: str, model_of: ModelOf
) -> ConfigError:
    from groundup.train.planner.rates import absolute_rate, convert_rates

    given = ", ".join(f"{key} = {value!r}" for key, value in found.items())
    value = f"{file}: {given} in [{stage}], and no version"
    if not all(isinstance(rate, int | float) and rate > 0 for rate in found.values()):
        return ConfigError(f"{value}: a learning rate must be a number above 0", fix="Correct it.")
    scaled = "learning_rate" in found and (stage != "pretrain" or "model" in table)
    dim = _width(model_of(stage, table)) if scaled or "lora.learning_rate" in found else None
    lines = [f"{VERSION} = {RECIPE_VERSION}", f"[{stage}]"]
    lines += [
        f"{key} = {tomlkit.item(setting).as_string()}" for key, setting in convert_rates(stage, table, dim).items()
    ]
    written = "".join(f"\n    {line}" for line in lines)
    fix = f"Replace {given} with these lines; the version comes first in the file:{written}"
    if scaled:
        old, size = (
            found["learning_rate"],
            f"hidden size {dim}" if dim else "a hidden size up to 256 (for larger ones times 256 / hidden size)",
        )
        fix += f"\nlearning_rate = {old!r} was equivalent to {absolute_rate(stage, table, dim):.4g} for {size}."
        fix += f"\nFor the same rates at any hidden size, use: learning_rate_scale = {old!r}."
    if "learning_rate" in found:
        fix += f"\nIf {found['learning_rate']!r} is an absolute rate, only add: {VERSION} = {RECIPE_VERSION}."
    rule = "without a version, learning_rate was a multiple of the pretraining rates; now it is absolute"
    if "learning_rate" not in found:
        rule = "without a version, these settings have the names of an earlier release"
    return ConfigError(value, rule=rule, fix=fix)


def _width(model: Path | None) -> int | None:
    """Return the hidden size of a model, or None if the model does not exist or cannot be read."""
    from groundup.core.files import expand_home
    from groundup.hub import read_config
    from groundup.hub.resolve import resolve_model

    if model is None:
        return None
    try:
        return read_config(resolve_model(expand_home(model))).dim
    except (GroundupError, OSError):
        return None
