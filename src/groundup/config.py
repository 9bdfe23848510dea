"""Strict, typed configs and their TOML: one declaration gives the recipe key, the flag, its help and its check."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Config(BaseModel):
    """A frozen table of a recipe; unknown keys are refused with the nearest match."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


def setting(
    default: Any = ...,
    *,
    help: str,
    flag: bool = False,
    positional: bool = False,
    **constraints: Any,
) -> Any:
    """Declare one key of a config: its default, its one-line explanation, and whether the command line has it.

    Args:
        default: the default value; `...` makes the key required.
        help: one line, shown by `--help` and as the comment in `groundup config STAGE`.
        flag: also a command-line option (`--vocab-size` for `vocab_size`).
        positional: also the command's positional argument.
        constraints: pydantic's (`ge`, `gt`, `le`, ...).
    """
    return Field(
        default,
        description=help,
        json_schema_extra={"flag": flag, "positional": positional},
        **constraints,
    )
