"""Reader of texts to score or train on, from a corpus, from token shards, or from the user's files."""

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
    """Yield texts of one split of a corpus or of token shards, up to about `max_bytes` bytes.

    If the split is larger, every k-th document is used. Documents are sorted by hash, so the result is a random sample,
    which is the same in each call.

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
    """Yield the texts of a file, or of all files of a folder, in any format that `groundup collect` supports.

    Raises:
        DataError: The path does not exist or does not contain text, or a table has several possible text columns.
    """
    for name, columns in find_tables(path).ambiguous.items():
        raise DataError(
            f"{path if path.is_file() else path / name}: several columns could contain the text: "
            f"{', '.join(columns[:_SHOWN_COLUMNS])}",
            fix=f"Rename the column that contains the text, e.g. {columns[0]}, to text.",
        )
    return iter_texts(path, _SCORED)


def scored_texts(path: Path, text: str | None, console: Console) -> Iterator[str]:
    """Yield the texts of a file or folder whose bits per byte are evaluated.

    Tables are read only if `text` names their text column, because text columns are not detected here.

    Args:
        path: File or folder.
        text: Name of the text column of tables, or a template that combines columns, or None to skip tables.
        console: Console that prints warnings.

    Raises:
        ConfigError: The column does not exist, or there are no tables.
        DataError: The path does not exist or does not contain text, or it contains only tables but `text` is None.
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
    """Return an error for tables that do not fit any kind of evaluation, with the columns that each kind needs."""
    columns = list(dict.fromkeys(name for names in tables.columns.values() for name in names))
    shown = ", ".join(columns[:_SHOWN_COLUMNS]) + (", ..." if len(columns) > _SHOWN_COLUMNS else "")
    return DataError(
        f"--data {path}: a table{f' with the columns {shown}' if columns else ''} does not match any task",
        rule=f"evaluate reads tables ({TABLE_FORMAT_NAMES}, also compressed) with the columns choices and answer, "
        "prompt and response, or messages (models with a chat template), text and label (classifiers); and text files "
        f"({TEXT_FORMAT_NAMES})",
        fix="Rename the columns, set their names (--prompt and --response, or --messages), or score a column as text: "
        f"--measure text --set text={columns[0] if len(columns) == 1 else 'COLUMN'}.",
    )


def _template(path: Path, text: str, tables: Tables) -> str:
    if not tables.columns:
        raise ConfigError(
            f"text = {text!r}: {path} is not a table",
            rule="text names a column of a table; other files are read completely",
            fix="Remove the setting text.",
        )
    template = text if FIELD.search(text) else f"{{{text}}}"
    columns = list(dict.fromkeys(name for names in tables.columns.values() for name in names))
    for field in FIELD.findall(template):
        if field not in columns and field.split(".")[0] not in columns:
            match = nearest(field, columns)
            raise ConfigError(
                f"text = {text!r}: {path} has no column {field!r}, only "
                f"{', '.join(columns[:_SHOWN_COLUMNS]) or 'columns without names'}",
                fix=f"Did you mean {match!r}?" if match else "Set text to one of these columns.",
            )
    return template.replace("\\n", "\n")  # On the command line, a line break is written as a backslash and n.


def texts_identity(path: Path) -> str:
    """Return a digest that changes if the texts of `read_texts` change."""
    return FolderSource(path=path).identity()


def general_text_identity(path: Path) -> str:
    """Return a digest that changes if the texts of `general_texts` change."""
    return read_intact(path).digest if (path / ARTIFACT).is_file() else texts_identity(path)


def general_texts(path: Path, max_bytes: int, *, split: Split = "validation") -> list[str]:
    """Return about `max_bytes` bytes of text from a corpus, token shards, a file or a folder.

    `split` selects the split of a corpus or of token shards. The texts are evenly spaced, and long texts are truncated.
    """
    if (path / ARTIFACT).is_file():
        found = list(split_texts(path, split, max_bytes))
    else:
        found = list(read_texts(path))
        total = sum(len(text.encode("utf-8")) for text in found)
        found = found[:: max(1, -(-total // max_bytes))]
    # The length of each text is limited too, so that a single long text does not exhaust `max_bytes`.
    max_chars, left, kept = max(1, 4 * max_bytes // len(found)), max_bytes, []
    for text in found:
        kept.append(text[: min(max_chars, left)])
        left -= len(kept[-1].encode("utf-8"))
        if left <= 0:
            break
    return kept
