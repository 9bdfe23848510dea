"""Texts to score or train on, from a corpus, token shards, or a user's files."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from groundup.core.artifact import ARTIFACT, read_intact
from groundup.core.config import nearest
from groundup.core.console import Console
from groundup.core.errors import ConfigError, DataError
from groundup.core.plural import pluralize
from groundup.core.types import Split
from groundup.corpus import FolderSource, read_documents
from groundup.corpus.records import FIELD
from groundup.corpus.sources.base import TABLE_FORMAT_NAMES, TEXT_FORMAT_NAMES
from groundup.corpus.user_files import Tables, find_tables, iter_texts
from groundup.data import TokenShards
from groundup.tokenizer import Tokenizer

_SCORED = "evaluating bits per byte needs text"
_SHOWN_COLUMNS = 12


def require_data(path: Path | None) -> None:
    """Check that the data to score exists.

    Raises:
        DataError: The path does not exist.
    """
    if path is None or path.exists():
        return
    match = nearest(path.name, [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else [])
    raise DataError(
        f"--data {path}: no such file or folder",
        fix=f"Did you mean {path.parent / match}?" if match else "Check the path.",
    )


def split_texts(directory: Path, split: Split, max_bytes: int) -> Iterator[str]:
    """Yield texts of one split of a corpus or of token shards, about `max_bytes` at most.

    From a larger split, every k-th document is used. Documents are ordered by hash, so this is a random sample, and the
    same one each time.

    Raises:
        DataError: The directory contains neither a corpus nor token shards, or the split is empty.
    """
    total = sum(len(text.encode("utf-8")) for text in _all_texts(directory, split))
    yield from islice(_all_texts(directory, split), 0, None, max(1, -(-total // max_bytes)))


def _all_texts(directory: Path, split: Split) -> Iterator[str]:
    kept = directory / "tokenizer"
    if not kept.is_dir():
        return (document.text for document in read_documents(directory, split))
    shards, tokenizer = TokenShards(directory, split), Tokenizer.load(kept)
    return (tokenizer.decode(shards.document(index).tolist()) for index in range(shards.n_documents))


def read_texts(path: Path) -> Iterator[str]:
    """Yield the texts of a file, or of all files of a folder, in any format that a source of a corpus may have.

    Raises:
        DataError: The path does not exist, contains no text, or has a table with several possible text columns.
    """
    for name, columns in find_tables(path).ambiguous.items():
        raise DataError(
            f"{path if path.is_file() else path / name}: several columns could contain the text: "
            f"{', '.join(columns[:_SHOWN_COLUMNS])}",
            fix=f"Rename the right one to text, e.g. {columns[0]}.",
        )
    return iter_texts(path, _SCORED)


def scored_texts(path: Path, text: str | None, console: Console) -> Iterator[str]:
    """Return the texts of a file or folder to evaluate in bits per byte; text columns of tables are not detected.

    Args:
        path: File or folder.
        text: Column of a table, or a template of columns; None: skip tables.
        console: Console to print to.

    Raises:
        ConfigError: The column does not exist, or no file is a table.
        DataError: The path does not exist, contains only tables, or has no text.
    """
    tables = find_tables(path)
    if text is not None:
        return iter_texts(path, _SCORED, text=_template(path, text, tables))
    if tables.only:
        raise _not_text(path, tables)
    if tables.columns:
        names = ", ".join(list(tables.columns)[:3]) + (", ..." if len(tables.columns) > 3 else "")
        count = len(tables.columns)
        console.warn(f"{path}: skipping {pluralize(count, 'table')} ({names}).")
    return iter_texts(path, _SCORED, exclude=tables.columns)


def _not_text(path: Path, tables: Tables) -> DataError:
    """Return the error for tables that match no task; it lists the tasks and formats."""
    columns = list(dict.fromkeys(name for names in tables.columns.values() for name in names))
    shown = ", ".join(columns[:_SHOWN_COLUMNS]) + (", ..." if len(columns) > _SHOWN_COLUMNS else "")
    return DataError(
        f"--data {path}: a table{f' with the columns {shown}' if columns else ''} matches no task",
        rule=f"evaluate reads tables ({TABLE_FORMAT_NAMES}, also compressed) with the columns choices and answer, "
        "prompt and response, or messages (models with a chat template), text and label (classifiers); and text files "
        f"({TEXT_FORMAT_NAMES})",
        fix="Rename the columns, name them (--prompt and --response, or --messages), or score one as text: "
        f"--measure text --set text={columns[0] if len(columns) == 1 else 'COLUMN'}.",
    )


def _template(path: Path, text: str, tables: Tables) -> str:
    if not tables.columns:
        raise ConfigError(
            f"text = {text!r}: {path} is not a table",
            rule="text names a column of a table; other files are read whole",
            fix="Remove it.",
        )
    template = text if FIELD.search(text) else f"{{{text}}}"
    columns = list(dict.fromkeys(name for names in tables.columns.values() for name in names))
    for field in FIELD.findall(template):
        if field not in columns and field.split(".")[0] not in columns:
            match = nearest(field, columns)
            raise ConfigError(
                f"text = {text!r}: {path} has no column {field!r}, only "
                f"{', '.join(columns[:_SHOWN_COLUMNS]) or 'columns without names'}",
                fix=f"Did you mean {match!r}?" if match else "Name one of them.",
            )
    return template.replace("\\n", "\n")  # a shell passes backslash and n


def texts_identity(path: Path) -> str:
    """Return a value that changes if the texts of `read_texts` change."""
    return FolderSource(path=path).identity()


def general_text_identity(path: Path) -> str:
    """Return a value that changes if the texts of `general_texts` change."""
    return read_intact(path).digest if (path / ARTIFACT).is_file() else texts_identity(path)


def general_texts(path: Path, max_bytes: int, *, split: Split = "validation") -> list[str]:
    """Return about `max_bytes` of one split of a corpus or of token shards, or of the texts of a file or folder.

    The texts are evenly spaced, and only the beginning of each is used.
    """
    if (path / ARTIFACT).is_file():
        found = list(split_texts(path, split, max_bytes))
    else:
        found = list(read_texts(path))
        total = sum(len(text.encode("utf-8")) for text in found)
        found = found[:: max(1, -(-total // max_bytes))]
    # A single long text must not use up the whole limit.
    max_chars, left, kept = max(1, 4 * max_bytes // len(found)), max_bytes, []
    for text in found:
        kept.append(text[: min(max_chars, left)])
        left -= len(kept[-1].encode("utf-8"))
        if left <= 0:
            break
    return kept
