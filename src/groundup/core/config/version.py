"""Version of the recipe format."""

from __future__ import annotations

from typing import Any

from groundup.core.errors import ConfigError

RECIPE_VERSION = 2  # learning rates are absolute since version 2
VERSION = "version"


def take_version(values: dict[str, Any], file: str) -> int:
    """Remove the version from a recipe and return it. The default is 1.

    Args:
        values: Recipe. The key `version` is removed.
        file: Name of the recipe for errors.

    Raises:
        ConfigError: The version is invalid, or of a later release.
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
