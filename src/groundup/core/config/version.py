"""Version of the recipe format."""

from __future__ import annotations

from typing import Any

from groundup.core.errors import ConfigError

RECIPE_VERSION = 2  # since version 2, learning rates are absolute values
VERSION = "version"


def take_version(values: dict[str, Any], file: str) -> int:
    """Remove the version from a recipe, and return it. If the recipe has no version, return 1.

    Args:
        values: Tables and keys of the recipe. The key `version` is removed.
        file: File name of the recipe, for error messages.

    Raises:
        ConfigError: The version is not a positive integer, or only a later release supports it.
    """
    version = values.pop(VERSION, 1)
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ConfigError(
            f"{file}: version = {version!r}",
            rule="must be a whole number",
            fix=f"Write version = {RECIPE_VERSION}.",
        )
    if version > RECIPE_VERSION:
        raise ConfigError(
            f"{file}: version = {version}",
            rule=f"this release reads recipes up to version {RECIPE_VERSION}",
            fix="Upgrade groundup: pip install --upgrade groundup.",
        )
    return version
