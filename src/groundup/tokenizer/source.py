"""Reading of tokenizer files from a directory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from groundup.core.errors import DataError, FormatError
from groundup.tokenizer.definition import MAX_FILE_BYTES

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
TEMPLATE_FILE = "chat_template.jinja"
_NAMES_FILE = "special_tokens_map.json"
_SLOW_FILES = ("tokenizer.model", "vocab.json", "merges.txt")  # files of slow (Python) tokenizers in transformers
_FILES = (TOKENIZER_FILE, CONFIG_FILE, TEMPLATE_FILE, _NAMES_FILE, "added_tokens.json", *_SLOW_FILES)
_IDS_FILES = ("generation_config.json", "config.json")  # The value in generation_config.json takes precedence.


@dataclass(frozen=True, slots=True)
class TokenizerSource:
    """The files of a tokenizer.

    Attributes:
        files: Contents of each tokenizer file, keyed by file name.
        config: Contents of `tokenizer_config.json`. If the file is missing, `config` is empty.
        names: Contents of `special_tokens_map.json`: special tokens, keyed by names such as "bos_token".
        ids: Token ids of the roles "bos", "eos" and "pad", from `generation_config.json` and `config.json`.
    """

    files: Mapping[str, bytes] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    names: Mapping[str, Any] = field(default_factory=dict)
    ids: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def read_source(directory: Path) -> TokenizerSource:
    """Read the files of a tokenizer.

    Args:
        directory: A tokenizer directory or a model directory.

    Raises:
        DataError: `tokenizer.json` is missing, or none of the files defines the special tokens.
        FormatError: A file is too large, or its format is invalid.
    """
    files = {name: _read(directory / name) for name in _FILES if (directory / name).is_file()}
    if TOKENIZER_FILE not in files:
        _refuse_missing(directory, [name for name in _SLOW_FILES if name in files])
    config, names = (_table(directory / name, files.get(name)) for name in (CONFIG_FILE, _NAMES_FILE))
    configs = [_table(directory / name, _read(directory / name)) for name in _IDS_FILES if (directory / name).is_file()]
    if CONFIG_FILE not in files and not names and not configs:
        raise DataError(
            f"{directory / CONFIG_FILE}: no such file",
            rule=f"a tokenizer directory needs {TOKENIZER_FILE} and {CONFIG_FILE}",
            fix="Use the output directory of groundup tokenize, or a model directory.",
        )
    ids = {role: next(filter(None, (_ids(c.get(f"{role}_token_id")) for c in configs)), ()) for role in _ROLES}
    return TokenizerSource(files, config, names, ids)


_ROLES = ("bos", "eos", "pad")


def _refuse_missing(directory: Path, slow: list[str]) -> None:
    if slow:
        raise DataError(
            f"{directory}: {', '.join(slow)}, but no {TOKENIZER_FILE}",
            rule=f"only {TOKENIZER_FILE} is supported",
            fix="Convert the tokenizer once with transformers (tokenizer.model also needs sentencepiece): "
            f"AutoTokenizer.from_pretrained({str(directory)!r}).save_pretrained({str(directory)!r})",
        )
    raise DataError(
        f"{directory / TOKENIZER_FILE}: no such file",
        rule=f"a tokenizer directory needs {TOKENIZER_FILE} and {CONFIG_FILE}",
        fix="Use the output directory of groundup tokenize, or a model directory.",
    )


def _read(path: Path) -> bytes:
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise FormatError(
            f"{path}: {size:,} bytes",
            rule=f"the maximum size of a tokenizer file is {MAX_FILE_BYTES:,} bytes",
            fix="Check the file. No known vocabulary is this large.",
        )
    return path.read_bytes()


def _table(path: Path, content: bytes | None) -> dict[str, Any]:
    try:
        found = {} if content is None else json.loads(content)
    except (ValueError, RecursionError) as error:
        found = error
    if not isinstance(found, dict):
        raise FormatError(
            f"{path}: {found if isinstance(found, Exception) else 'not a JSON object'}",
            rule="the file must contain a JSON object",
            fix="Copy the file again from its source.",
        )
    return found


def _ids(found: Any) -> tuple[int, ...]:
    """Convert an id or a list of ids to a tuple.

    Negative ids are skipped, because some configs use them for tokens that do not exist.
    """
    listed = found if isinstance(found, list) else [found]
    return tuple(number for number in listed if type(number) is int and number >= 0)
