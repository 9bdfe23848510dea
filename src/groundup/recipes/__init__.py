"""The recipes that come with the package, and how `groundup run` finds one by its name.

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
    """Return the first comment line of a recipe without its mark; "" if the recipe does not begin with one."""
    first, _, _ = recipe.read_text(encoding="utf-8-sig").partition("\n")
    return first.removeprefix("#").strip() if first.startswith("#") else ""


def find_recipe(recipe: Path) -> Path:
    """Return the file of a recipe, which is given as a path or as the name of a bundled recipe.

    A file in the working directory comes before a bundled recipe of the same name.

    Raises:
        ConfigError: neither exists; the message lists the bundled recipes.
    """
    recipes = bundled()
    if recipe.exists() and not recipe.is_dir():  # a pipe is a recipe, too
        return recipe
    if str(recipe) in recipes:
        return recipes[str(recipe)]
    if recipe.exists():
        raise ConfigError(
            f"{recipe}: a directory", rule="a recipe is a TOML file", fix=f"Give a file in it: {recipe}/NAME.toml."
        )
    match = recipe.stem if recipe.stem in recipes else nearest(recipe.stem, recipes)
    proposal = f"Did you mean groundup run {match}? " if match else ""
    raise ConfigError(
        f"{recipe}: No such file or bundled recipe",
        rule="a recipe is a TOML file or the name of a bundled recipe",
        fix=f"{proposal}Bundled recipes: {', '.join(recipes)}.",
    )
