"""Version of the recipe format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from groundup.core.errors import ConfigError

RECIPE_VERSION = 2
VERSION = "version"


def without_version(recipe: Mapping[str, Any], file: str) -> dict[str, Any]:
    """Check the version of a recipe, which is optional, and return the other keys.

    Args:
        recipe: Tables and keys of the recipe.
        file: File name of the recipe, for error messages.

    Raises:
        ConfigError: The recipe has another version.
    """
    version = recipe.get(VERSION, RECIPE_VERSION)
    if version != RECIPE_VERSION or type(version) is not int:
        raise ConfigError(
            f"{file}: version = {version!r}",
            rule=f"this release reads recipes of version {RECIPE_VERSION}",
            fix=f"Write version = {RECIPE_VERSION}, or upgrade groundup: pip install --upgrade groundup.",
        )
    return {key: value for key, value in recipe.items() if key != VERSION}
