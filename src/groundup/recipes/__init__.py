"""Bundled recipes.

The first comment line of each recipe is its description, a sentence of at most 80 characters.
"""

from __future__ import annotations

from pathlib import Path

from groundup.core.config import nearest
from groundup.core.errors import ConfigError

DIRECTORY = Path(__file__).parent


def bundled() -> dict[str, Path]:
    """Return the bundled recipes by name, in alphabetical order."""
    return {path.stem: path for path in sorted(DIRECTORY.glob("*.toml"))}


def description_of(recipe: Path) -> str:
    """Return the first comment line of a recipe, or "".

    Args:
        recipe: The file.
    """
    first, _, _ = recipe.read_text(encoding="utf-8-sig").partition("\n")
    return first.removeprefix("#").strip() if first.startswith("#") else ""


def find_recipe(recipe: Path) -> Path:
    """Return the file of a recipe. A file takes precedence over a bundled recipe with the same name.

    Args:
        recipe: Path of the recipe, or name of a bundled recipe.

    Raises:
        ConfigError: The recipe does not exist.
    """
    recipes = bundled()
    if recipe.exists() and not recipe.is_dir():  # a pipe is valid, too
        return recipe
    if str(recipe) in recipes:
        return recipes[str(recipe)]
    if recipe.exists():
        raise ConfigError(f"{recipe} is a directory", fix=f"Give a file in it: {recipe}/NAME.toml.")
    match = recipe.stem if recipe.stem in recipes else nearest(recipe.stem, recipes)
    proposal = f"Did you mean groundup run {match}? " if match else ""
    raise ConfigError(
        f"{recipe}: No such file or bundled recipe",
        fix=f"{proposal}Bundled recipes: {', '.join(recipes)}.",
    )
