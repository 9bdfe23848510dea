"""The version of a recipe: what its settings mean."""

from __future__ import annotations

from typing import Any

from groundup.core.errors import ConfigError

RECIPE_VERSION = 2  # since then learning rates are absolute
VERSION = "version"


def take_version(values: dict[str, Any], file: str) -> int:
    """Take the version out of a recipe; one without is of version 1.

    Raises:
        ConfigError: no whole number, or a version of a later release.
    """
    version = values.pop(VERSION, 1)
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ConfigError(
            f"{file}: version = {version!r}",
            rule="the version of a recipe is a whole number",
            fix=f"Write: version = {RECIPE_VERSION}",
        )
    if version > RECIPE_VERSION:
        raise ConfigError(
            f"{file}: version = {version}",
            rule=f"this release reads recipes up to version {RECIPE_VERSION}",
            fix="Upgrade groundup: pip install --upgrade groundup.",
        )
    return version
