"""Grammars from the options of a command."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from groundup.core.errors import ConfigError, DataError
from groundup.inference.grammar.grammar import Grammar
from groundup.tokenizer import Tokenizer


def one_grammar(
    tokenizer: Tokenizer, *, schema: Path | None, regex: str | None, choices: Sequence[str], lark: Path | None
) -> Grammar | None:
    """Compile the grammar of a command, or return None if it has none.

    Args:
        tokenizer: Tokenizer whose vocabulary the grammar is compiled for.
        schema: File with a JSON schema.
        regex: Regex.
        choices: Texts, of which the output is one.
        lark: File with a Lark or GBNF grammar.

    Raises:
        ConfigError: Several options are given, or the grammar is not supported.
        DataError: A file cannot be read.
    """
    options = {"--json-schema": schema, "--regex": regex, "--choice": choices or None, "--grammar": lark}
    given = [name for name, value in options.items() if value is not None]
    if len(given) > 1:
        raise ConfigError(f"{given[0]} and {given[1]}", rule="the output has one grammar", fix="Omit one of them.")
    if schema is not None:
        return Grammar.of_schema(_json(schema), tokenizer)
    if regex is not None:
        return Grammar.of_regex(regex, tokenizer)
    if choices:
        return Grammar.of_choice(choices, tokenizer)
    return None if lark is None else Grammar.of_lark(_read(lark), tokenizer)


def _json(path: Path) -> Any:
    try:
        return json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON ({error})", fix="Correct the file.") from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}", fix="Give the path of a text file in UTF-8.") from error
