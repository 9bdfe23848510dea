"""The files of a directory that make up a tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from groundup.core.errors import DataError, FormatError
from groundup.tokenizer.definition import LARGEST_FILE

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
TEMPLATE_FILE = "chat_template.jinja"
_NAMES_FILE = "special_tokens_map.json"
_SLOW_FILES = ("tokenizer.model", "vocab.json", "merges.txt")  # from which others build a tokenizer
_KEPT = (TOKENIZER_FILE, CONFIG_FILE, TEMPLATE_FILE, _NAMES_FILE, "added_tokens.json", *_SLOW_FILES)
_IDS_FILES = ("generation_config.json", "config.json")  # the first one that says it counts


@dataclass(frozen=True, slots=True)
class TokenizerSource:
    """What was found in a directory.

    Attributes:
        files: the contents of each file that belongs to the tokenizer and no other part of a model.
        config: the contents of `tokenizer_config.json`; empty without one.
        names: special tokens by their roles, from `special_tokens_map.json`.
        ids: the ids that the model's own configs give the roles "bos", "eos" and "pad".
    """

    files: Mapping[str, bytes] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    names: Mapping[str, Any] = field(default_factory=dict)
    ids: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def read_source(directory: Path) -> TokenizerSource:
    """Read them all.

    Raises:
        DataError: no `tokenizer.json`, or nothing beside it that names special tokens.
        FormatError: a file that is too large, or is not what its name says.
    """
    files = {name: _read(directory / name) for name in _KEPT if (directory / name).is_file()}
    if TOKENIZER_FILE not in files:
        _refuse_missing(directory, [name for name in _SLOW_FILES if name in files])
    config, names = (_table(directory / name, files.get(name)) for name in (CONFIG_FILE, _NAMES_FILE))
    configs = [_table(directory / name, _read(directory / name)) for name in _IDS_FILES if (directory / name).is_file()]
    if CONFIG_FILE not in files and not names and not configs:
        raise DataError(
            f"{directory / CONFIG_FILE}: no such file",
            rule=f"a tokenizer is a directory with {TOKENIZER_FILE} and {CONFIG_FILE}",
            fix="Give the directory that groundup tokenize left, or a model directory.",
        )
    ids = {role: next(filter(None, (_ids(c.get(f"{role}_token_id")) for c in configs)), ()) for role in _ROLES}
    return TokenizerSource(files, config, names, ids)


_ROLES = ("bos", "eos", "pad")


def _refuse_missing(directory: Path, slow: list[str]) -> None:
    if slow:
        raise DataError(
            f"{directory}: {', '.join(slow)}, and no {TOKENIZER_FILE}",
            rule=f"groundup reads tokenizers from {TOKENIZER_FILE}",
            fix="Let transformers convert it once (it needs sentencepiece for a tokenizer.model): "
            f"AutoTokenizer.from_pretrained({str(directory)!r}).save_pretrained({str(directory)!r})",
        )
    raise DataError(
        f"{directory / TOKENIZER_FILE}: no such file",
        rule=f"a tokenizer is a directory with {TOKENIZER_FILE} and {CONFIG_FILE}",
        fix="Give the directory that groundup tokenize left, or a model directory.",
    )


def _read(path: Path) -> bytes:
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise FormatError(
            f"{path}: {size:,} bytes",
            rule=f"a tokenizer's file has at most {LARGEST_FILE:,}",
            fix="Look at what the file is: no known vocabulary comes near.",
        )
    return path.read_bytes()


def _table(path: Path, content: bytes | None) -> dict[str, Any]:
    try:
        found = {} if content is None else json.loads(content)
    except (ValueError, RecursionError) as error:
        found = error
    if not isinstance(found, dict):
        raise FormatError(
            f"{path}: {found if isinstance(found, Exception) else 'no table'}",
            rule="this file must be a JSON object",
            fix="Copy it again from where it came.",
        )
    return found


def _ids(found: Any) -> tuple[int, ...]:
    """One id or a list of them; what is none (-1 stands for "no such token" in some) is left out."""
    listed = found if isinstance(found, list) else [found]
    return tuple(number for number in listed if type(number) is int and number >= 0)
