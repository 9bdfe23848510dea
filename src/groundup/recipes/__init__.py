"""Find the bundled recipes and the recipes of the user.

The first line of each bundled recipe is a comment with its description, a sentence of at most 80 characters.
"""

from __future__ import annotations

from pathlib import Path

from groundup.core.config import nearest
from groundup.core.errors import ConfigError

DIRECTORY = Path(__file__).parent


def bundled() -> dict[str, Path]:
    """Return a dict from the name of each bundled recipe to its path, in alphabetical order."""
    return {path.stem: path for path in sorted(DIRECTORY.glob("*.toml"))}


def description_of(recipe: Path) -> str:
    """Return the description of a recipe, or "" if the first line of the file is not a comment.

    Args:
        recipe: Path of the recipe file.
    """
    first, _, _ = recipe.read_text(encoding="utf-8-sig").partition("\n")
    return first.removeprefix("#").strip() if first.startswith("#") else ""


def find_recipe(recipe: Path) -> Path:
    """Return the path of a recipe. A file takes precedence over a bundled recipe with the same name.

    Args:
        recipe: Path of a recipe file, or name of a bundled recipe.

    Raises:
        ConfigError: The recipe does not exist.
    """
    recipes = bundled()
    if recipe.exists() and not recipe.is_dir():  # A recipe can also be read from a pipe.
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
