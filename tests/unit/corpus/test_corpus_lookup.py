"""`corpus explain` finds each input document, and `corpus search` the source of each string."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from groundup.core.console import Console
from groundup.core.errors import DataError
from groundup.corpus import CorpusSettings, FolderSource, build_corpus
from groundup.corpus.drop_log import DropRecord, read_drop_log
from groundup.corpus.executor import ProcessPool
from groundup.corpus.lookup import Kept, find_documents, occurrences
from groundup.corpus.manifest import MANIFEST, SourceFile, files_of
from groundup.corpus.rows import read_rows, rows_file


@pytest.fixture
def corpus(folder: Path, prose: list[str], tmp_path: Path) -> Path:
    """Forty pages, a duplicate, a repetitive page, a short page and a binary file."""
    (folder / "copy.txt").write_text(prose[3], encoding="utf-8")
    (folder / "spam.txt").write_text("buy now " * 200)
    (folder / "short.txt").write_text("hello")
    (folder / "broken.json").write_text('{"text": ')
    settings = CorpusSettings(sources=[FolderSource(path=folder)], min_bytes=1000, max_document_bytes=1 << 20)
    build_corpus(settings, tmp_path / "corpus", executor=ProcessPool(1), console=Console(quiet=True))
    return tmp_path / "corpus"


def test_every_file_is_kept_or_dropped(corpus: Path, folder: Path) -> None:
    for path in folder.iterdir():
        assert list(find_documents(corpus, path.name)), path.name


def test_a_drop_names_step_reason_and_figures(corpus: Path) -> None:
    (spam,), (short,), (broken,) = (
        list(find_documents(corpus, name)) for name in ("spam.txt", "short.txt", "broken.json")
    )
    assert isinstance(spam, DropRecord)
    assert spam.step == "gopher_repetition"
    assert spam.beginning.startswith("buy now")
    assert isinstance(short, DropRecord)
    assert (short.step, short.reason, short.detail) == ("length", "too short", "5 bytes, minimum 64")
    assert isinstance(broken, DropRecord)
    assert broken.step == "reading"


def test_a_duplicate_names_the_kept_document(corpus: Path) -> None:
    (first,) = find_documents(corpus, "page03.txt")
    (copy,) = find_documents(corpus, "copy.txt")
    kept, gone = (first, copy) if isinstance(first, Kept) else (copy, first)
    assert isinstance(kept, Kept)
    assert isinstance(gone, DropRecord)
    assert gone.reason == "duplicate"
    assert gone.kept == kept.id
    assert {type(record) for record in find_documents(corpus, kept.id)} == {Kept, DropRecord}


def test_documents_are_traced_to_file_digests(corpus: Path, folder: Path) -> None:
    """A document names its file, and the manifest has the digest of every file that was read."""
    (kept,) = find_documents(corpus, "page05.txt")
    (file,) = files_of(corpus, [(kept.source, kept.origin)]).values()
    assert file.path == "page05.txt"
    content = (folder / "page05.txt").read_bytes()
    assert (file.bytes, file.digest) == (len(content), f"sha256:{hashlib.sha256(content).hexdigest()}")
    every = read_rows(sorted((corpus / MANIFEST).glob("*.parquet")), SourceFile)
    assert [each.path for each in every] == sorted(path.name for path in folder.iterdir())


def test_the_longest_matching_file_name_is_the_file(tmp_path: Path) -> None:
    """ "notes" and "notes.zip" can be in one directory; "notes.zip/a.txt#2" belongs to the second."""
    (tmp_path / MANIFEST).mkdir()
    files = [SourceFile("s", name, 1, f"version:{name}") for name in ("notes", "notes.zip", "notes.zip/b")]
    with rows_file(tmp_path / MANIFEST / "00000.parquet", SourceFile) as manifest:
        for file in [*files, SourceFile("other", "notes.zip/a.txt", 1, "")]:
            manifest.add(file)
    origins = [("s", "notes.zip/a.txt#2"), ("s", "notes/3"), ("other", "notes"), ("s", "x")]
    assert {origin: file.path for (_, origin), file in files_of(tmp_path, origins).items()} == {
        "notes.zip/a.txt#2": "notes.zip",
        "notes/3": "notes",
    }


def test_a_string_is_found_with_its_context(corpus: Path, prose: list[str]) -> None:
    wanted = prose[7].split("\n")[0][:40]
    matches = list(occurrences(corpus, wanted))
    assert "page07.txt" in {match.document.origin for match in matches}
    for match in matches:
        assert match.around[1] == wanted
    assert list(occurrences(corpus, wanted.swapcase(), ignore_case=True))
    assert not list(occurrences(corpus, "no page says this: zyxw"))


def test_no_corpus_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no train shards"):
        list(occurrences(tmp_path, "text"))


def test_a_secret_is_masked_everywhere(prose: list[str], tmp_path: Path) -> None:
    """No shard, drop log or card contains it; they show and count its placeholder token."""
    (tmp_path / "text").mkdir()
    for number, text in enumerate(prose):
        (tmp_path / "text" / f"{number}.txt").write_text(text, encoding="utf-8")
    secret = "jonathan.frakes@starfleet.example.org"
    (tmp_path / "text" / "0.txt").write_text(f"{prose[0]}\n\nWrite to {secret} for more.", encoding="utf-8")
    (tmp_path / "text" / "reject.txt").write_text(f"{secret}\n" * 9)
    (tmp_path / "text" / "broken.jsonl").write_text(f'{{"text": "{secret}\n' * 9)
    settings = CorpusSettings(sources=[FolderSource(path=tmp_path / "text")], min_bytes=1000)
    out = tmp_path / "corpus"
    card, _ = build_corpus(settings, out, executor=ProcessPool(1), console=Console(quiet=True))
    assert not list(occurrences(out, secret))
    assert "0.txt" in {match.document.origin.split("/")[0] for match in occurrences(out, "Write to [EMAIL] for more.")}
    assert card["sources"][0]["masked"]["email"] >= 1
    assert {record.step for record in read_drop_log(out) if "[EMAIL]" in record.beginning} >= {
        "reading",
        "gopher_repetition",
    }
    assert not [record for record in read_drop_log(out) if secret in repr(record)]
    assert not [path for path in out.glob("card.*") if secret in path.read_text(encoding="utf-8")]
