"""The texts that are scored and learned from: of a corpus, of token shards, or of a user's files."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from groundup.core.artifact import ARTIFACT, read_intact
from groundup.core.config import nearest
from groundup.core.console import Console
from groundup.core.errors import ConfigError, DataError
from groundup.core.types import Split
from groundup.corpus import FolderSource, read_documents
from groundup.corpus.records import FIELD
from groundup.corpus.sources.base import TABLE_FORMAT_NAMES, TEXT_FORMAT_NAMES
from groundup.corpus.user_files import Tables, find_tables, iter_texts
from groundup.data import TokenShards
from groundup.tokenizer import Tokenizer

_SCORED = "bits per byte need text to score"
_SHOWN_COLUMNS = 12


def require_data(path: Path | None) -> None:
    """Check that the data to score exist.

    Raises:
        DataError: they do not.
    """
    if path is None or path.exists():
        return
    match = nearest(path.name, [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else [])
    raise DataError(
        f"--data {path}: no such file or folder",
        rule="what is scored is a file of texts or examples, or a folder of them",
        fix=f"Did you mean {path.parent / match}?" if match else "Check the path.",
    )


def split_texts(directory: Path, split: Split, max_bytes: int) -> Iterator[str]:
    """Texts of one split of a corpus, or of token shards, about `max_bytes` of them at most.

    Where there are more, every k-th document is taken. Their order is that of a hash, so this is a fair
    sample, and the same one each time.

    Raises:
        DataError: neither a corpus nor token shards, or nothing of this split in it.
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
    """The texts of a file, or of all files of a folder, in every format that a source of a corpus may have.

    Raises:
        DataError: nothing there, no text in it, or a table with several columns that could be the text.
    """
    for name, columns in find_tables(path).ambiguous.items():
        raise DataError(
            f"{path if path.is_file() else path / name}: the text could be in {', '.join(columns[:_SHOWN_COLUMNS])}",
            rule="a table of texts has one column with running text, or a column named text",
            fix=f"Rename that column to text, e.g. {columns[0]}.",
        )
    return iter_texts(path, _SCORED)


def scored_texts(path: Path, text: str | None, console: Console) -> Iterator[str]:
    """The texts of a file or folder to measure in bits per byte; no column of a table is guessed to be running text.

    Args:
        text: the column of a table with the text, or a template of columns; None: there is no table.

    Raises:
        ConfigError: no such column, or no table that it could be in.
        DataError: nothing there, tables only, or no text.
    """
    tables = find_tables(path)
    if text is not None:
        return iter_texts(path, _SCORED, text=_template(path, text, tables))
    if tables.only:
        raise _not_text(path, tables)
    if tables.columns:
        names = ", ".join(list(tables.columns)[:3]) + (", ..." if len(tables.columns) > 3 else "")
        count = len(tables.columns)
        console.warn(f"{path}: {count:,} table{'s are' if count > 1 else ' is'} left out ({names}).")
    return iter_texts(path, _SCORED, without=tables.columns)


def _not_text(path: Path, tables: Tables) -> DataError:
    """The error for tables that fit no task: which tasks and formats there are."""
    columns = list(dict.fromkeys(name for names in tables.columns.values() for name in names))
    shown = ", ".join(columns[:_SHOWN_COLUMNS]) + (", ..." if len(columns) > _SHOWN_COLUMNS else "")
    return DataError(
        f"--data {path}: a table{f' with the columns {shown}' if columns else ''}",
        rule=f"evaluate measures tables ({TABLE_FORMAT_NAMES}, also compressed) with the columns choices and answer, "
        "prompt and response, or messages (models with a chat template), text and label (classifiers); and text that "
        f"is no table ({TEXT_FORMAT_NAMES})",
        fix="Rename the columns, name them (--prompt and --response, or --messages), or choose one as running text: "
        f"--measure text --set text={columns[0] if len(columns) == 1 else 'COLUMN'}.",
    )


def _template(path: Path, text: str, tables: Tables) -> str:
    if not tables.columns:
        raise ConfigError(
            f"text = {text!r}: {path} is no table",
            rule="text names a column of a table; other files are read whole",
            fix="Leave it out.",
        )
    template = text if FIELD.search(text) else f"{{{text}}}"
    columns = list(dict.fromkeys(name for names in tables.columns.values() for name in names))
    for field in FIELD.findall(template):
        if field not in columns and field.split(".")[0] not in columns:
            match = nearest(field, columns)
            raise ConfigError(
                f"text = {text!r}: {path} has no column {field!r}",
                rule=f"its columns are {', '.join(columns[:_SHOWN_COLUMNS]) or 'without names'}",
                fix=f"Did you mean {match!r}?" if match else "Name one of them.",
            )
    return template.replace("\\n", "\n")  # a shell passes the two characters on


def texts_identity(path: Path) -> str:
    """A value that changes when the texts of `read_texts` do."""
    return FolderSource(path=path).identity()


def general_text_identity(path: Path) -> str:
    """Return a value that changes when the texts of `general_texts` do."""
    return read_intact(path).digest if (path / ARTIFACT).is_file() else texts_identity(path)


def general_texts(path: Path, max_bytes: int, *, split: Split = "validation") -> list[str]:
    """About `max_bytes` of one split of a corpus or of token shards, or of the texts of a file or a folder.

    Texts are taken from everywhere among them, and of each its beginning.
    """
    if (path / ARTIFACT).is_file():
        found = list(split_texts(path, split, max_bytes))
    else:
        found = list(read_texts(path))
        total = sum(len(text.encode("utf-8")) for text in found)
        found = found[:: max(1, -(-total // max_bytes))]
    # One book among letters must not be all that is read.
    most, room, kept = max(1, 4 * max_bytes // len(found)), max_bytes, []
    for text in found:
        kept.append(text[: min(most, room)])
        room -= len(kept[-1].encode("utf-8"))
        if room <= 0:
            break
    return kept
