"""Construction and update of an index."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from groundup.core.artifact import ARTIFACT, REPLACED_INFIX, STARTED, read, read_record
from groundup.core.artifact.work import NEW
from groundup.core.console import Console
from groundup.core.errors import DataError, GroundupError
from groundup.core.files import read_json, write_json
from groundup.core.locks import LOCK, locked
from groundup.core.types import text_id
from groundup.corpus.sources import FolderSource, Item
from groundup.corpus.sources.base import FORMAT_NAMES
from groundup.retrieval.documents import (
    DOCUMENTS,
    Documents,
    DocumentWriter,
    FileState,
    corpus_documents,
    extract_file,
    file_state,
    problem_lines,
)
from groundup.retrieval.index import BM25, FILES, K1, PASSAGES, STAGE, VERSIONS, B, searched_text
from groundup.retrieval.passages import split_passages
from groundup.retrieval.terms import terms
from groundup.retrieval.vectors import MEAN, VECTORS, EncoderRecord, write_vectors

_MIN_SHARE = 0.02  # minimum share of documents of a language whose stop words are left out of questions
_THREADS = 4  # PDF files are read in child processes


@dataclass(frozen=True, slots=True)
class FileCounts:
    """What an update did with the files of a folder.

    Attributes:
        read: Number of new or changed files that were extracted.
        kept: Number of unchanged files, whose documents were copied from the earlier index.
        deleted: Number of files of the earlier index that no longer exist.
    """

    read: int = 0
    kept: int = 0
    deleted: int = 0


def write_documents(source: FolderSource, directory: Path, previous: Path | None, console: Console) -> FileCounts:
    """Write the documents of a folder, and the states of its files.

    Only new and changed files are extracted. The documents of other files are copied from the earlier index.

    Args:
        source: The folder.
        directory: Directory that gets `documents.arrow` and `files.json`.
        previous: Directory of an earlier index of this folder, or None.
        console: Console for the progress.

    Returns:
        The number of files that were read, kept and deleted.
    """
    old = _states(previous) if previous else {}
    stored = Documents(previous / DOCUMENTS) if previous and old else None
    numbers = stored.of_files() if stored else {}
    items = source.items()
    states: dict[str, FileState] = {}
    read, writer = 0, DocumentWriter(directory / DOCUMENTS)
    with console.progress("reading", len(items), "files") as progress, ThreadPoolExecutor(_THREADS) as pool:
        for group in _groups(items):
            now = {item.path: file_state(source, item) for item in group}
            changed = [item for item in group if not _is_unchanged(old.get(_name(item)), now[item.path])]
            extracted = pool.map(partial(extract_file, source), changed)
            found = dict(zip((item.path for item in changed), extracted, strict=True))
            for item in group:
                name = _name(item)
                if item.path in found:
                    documents, problems = found[item.path]
                    states[name] = FileState(now[item.path].size, now[item.path].modified, problems)
                    read += 1
                else:
                    documents = [stored[number] for number in numbers.get(name, [])] if stored else []
                    states[name] = old[name]
                for document in documents:
                    writer.add(document)
            progress.advance(len(group))
    writer.close()
    write_json(directory / FILES, {name: asdict(state) for name, state in states.items()})
    return FileCounts(read, len(states) - read, len(old.keys() - states.keys()))


def write_corpus_documents(corpus: Path, directory: Path, console: Console) -> None:
    """Write the documents of a corpus.

    Args:
        corpus: Output directory of `groundup collect`.
        directory: Directory that gets `documents.arrow`.
        console: Console for the progress.
    """
    facts = read(corpus).facts
    total = sum(facts.get(split, {}).get("documents", 0) for split in ("train", "validation"))
    writer = DocumentWriter(directory / DOCUMENTS)
    with console.progress("reading", total, "documents") as progress:
        for document in corpus_documents(corpus):
            writer.add(document)
            progress.advance(1)
    writer.close()


def write_search_files(directory: Path, source: Path, max_characters: int, console: Console) -> dict[str, Any]:
    """Split the documents of a directory into passages, and write the BM25 index.

    Args:
        directory: Directory with `documents.arrow`.
        source: Folder or corpus of the documents, for messages.
        max_characters: Maximum size of a passage; see `split_passages`.
        console: Console for the progress.

    Returns:
        Facts for the artifact.

    Raises:
        DataError: There is no document with a word.
    """
    import bm25s
    import numpy as np

    documents = Documents(directory / DOCUMENTS)
    vocabulary: dict[str, int] = {}
    positions: list[tuple[int, int, int]] = []
    ids: list[list[int]] = []
    languages: Counter[str] = Counter()
    with console.progress("indexing", len(documents), "documents") as progress:
        for number, document in enumerate(documents):
            languages[document.language] += 1
            for start, end in split_passages(document.text, max_characters):
                found = terms(searched_text(document, start, end), document.language)
                if found:
                    ids.append([vocabulary.setdefault(term, len(vocabulary)) for term in found])
                    positions.append((number, start, end))
            progress.advance(1)
    if not positions:
        raise _nothing_to_index(directory, source)
    bm25 = bm25s.BM25(k1=K1, b=B, method="lucene", backend="numpy", csc_backend="scipy")
    bm25.index((ids, vocabulary), show_progress=False, create_empty_token=False)
    bm25.csc_backend = "numpy"
    bm25.save(directory / BM25, show_progress=False, allow_pickle=False)
    np.save(directory / PASSAGES, np.array(positions, np.int64), allow_pickle=False)
    common = [code for code, count in languages.most_common() if count >= _MIN_SHARE * len(documents)]
    return {
        "versions": VERSIONS,
        "documents": len(documents),
        "passages": len(positions),
        "terms": len(vocabulary),
        "languages": [code for code, _ in languages.most_common()],
        "common_languages": common,
    }


def write_passage_vectors(
    directory: Path, record: EncoderRecord, previous: Path | None, console: Console
) -> dict[str, Any]:
    """Write the vectors of all passages. Vectors of an earlier index are copied if the same model computed them.

    Args:
        directory: Directory with the documents and passages.
        record: The model.
        previous: Directory of an earlier index, or None.
        console: Console for the progress.

    Returns:
        Facts for the artifact.
    """
    import numpy as np

    texts = list(_searched_texts(directory))
    known: dict[str, Any] = {}
    earlier = read(previous).facts.get("encoder") if previous is not None else None
    if previous is not None and earlier and EncoderRecord(**earlier).digest == record.digest:
        stored = np.load(previous / VECTORS, mmap_mode="r", allow_pickle=False)
        known = dict(zip(map(text_id, _searched_texts(previous)), stored, strict=True))
    with console.progress("computing vectors of", len(texts), "passages") as progress:
        return write_vectors(directory, texts, record, known, progress.advance)


def _searched_texts(directory: Path) -> Iterator[str]:
    """Yield the text of each passage of an index, with its title."""
    import numpy as np

    documents = Documents(directory / DOCUMENTS)
    for number, start, end in np.load(directory / PASSAGES, allow_pickle=False).tolist():
        document = documents[number]
        yield searched_text(document, start, end)


def index_files(directory: Path) -> list[Path]:
    """Return the files of an index, except its artifact."""
    names = (DOCUMENTS, PASSAGES, FILES, VECTORS, MEAN)
    return [*(path for name in names if (path := directory / name).is_file()), *sorted((directory / BM25).iterdir())]


def problems_of(directory: Path) -> list[str]:
    """Return a line for each file of an index that could not be read, with the reason."""
    return problem_lines(_states(directory))


def delete_replaced(directory: Path) -> None:
    """Delete the earlier versions of an index, so that deleted documents do not remain on the disk."""
    _delete_indexes(directory, f"{directory.name}{REPLACED_INFIX}")


def delete_unfinished(directory: Path, kept: Path | None = None) -> None:
    """Delete what interrupted updates of an index wrote. The caller holds the lock of the index.

    Args:
        directory: Directory of the index.
        kept: Directory that is used now.
    """
    _delete_indexes(directory, f".{directory.name}{NEW}", kept)


def delete_leftovers(directory: Path) -> None:
    """Delete what killed updates of an index left behind, unless another process updates the index now."""
    starts = (f"{directory.name}{REPLACED_INFIX}", f".{directory.name}{NEW}")
    if not any(_indexes(directory, start) for start in starts):
        return
    with locked(directory / LOCK) as held:
        if held is not None:
            delete_replaced(directory)
            delete_unfinished(directory)
            (directory / LOCK).unlink(missing_ok=True)


def _delete_indexes(directory: Path, start: str, kept: Path | None = None) -> None:
    for path in _indexes(directory, start):
        if kept is None or path.name != kept.name:
            shutil.rmtree(path)


def _indexes(directory: Path, start: str) -> list[Path]:
    """Return the finished and unfinished indexes next to a directory whose name starts with a text."""
    parent = directory.resolve().parent
    return [path for path in parent.iterdir() if path.name.startswith(start) and _stage(path) == STAGE]


def _stage(path: Path) -> str:
    """Return the stage that wrote a directory, or "" if this is not certain."""
    try:
        if (path / ARTIFACT).is_file():
            return read_record(path / ARTIFACT).stage
        return str(read_json(path / STARTED).get("stage", ""))
    except (GroundupError, OSError, ValueError):
        return ""


def _groups(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Yield the files in small groups, so that only few extracted documents are in memory."""
    size = 4 * _THREADS
    return (items[start : start + size] for start in range(0, len(items), size))


def _states(directory: Path) -> dict[str, FileState]:
    path = directory / FILES
    stored = read_json(path) if path.is_file() else {}
    return {
        name: FileState(state["size"], state["modified"], tuple(state["problems"])) for name, state in stored.items()
    }


def _is_unchanged(old: FileState | None, new: FileState) -> bool:
    return old is not None and (old.size, old.modified) == (new.size, new.modified)


def _name(item: Item) -> str:
    return item.path.encode("utf-8", "replace").decode()


def _nothing_to_index(directory: Path, source: Path) -> DataError:
    problems = problems_of(directory)
    shown = "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
    return DataError(
        f"{source}: no text to index" + (f" ({shown})" if shown else ""),
        fix=f"Give a folder with documents. Supported formats: {FORMAT_NAMES}.",
    )
