"""An index finds passages with their position, is updated file by file, and refuses files that it cannot read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from groundup.commands import collect, index
from groundup.core.checksums import write_checked_json
from groundup.core.console import Console
from groundup.core.errors import ConfigError, DataError, FormatError
from groundup.core.locks import LOCK
from groundup.corpus.sources import FolderSource
from groundup.retrieval import Index, answer_question, documents
from groundup.retrieval.index import searched_text
from groundup.retrieval.passages import split_passages, title_of
from groundup.retrieval.terms import terms, words

RETURNS = "# Returns\n\nYou can return an item within 30 days of delivery. The item must be unused.\n\n"
SHIPPING = "# Shipping\n\nA parcel to Norway takes five working days. Express parcels take two days.\n"
GERMAN = "# Rückgabe\n\nBücher können innerhalb von vierzehn Tagen zurückgegeben werden, Häuser natürlich nicht.\n"
CHINESE = "# 退货\n\n您可以在收到商品后三十天内退货。商品必须未使用，并且包装完好。\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "documents"
    path.mkdir()
    (path / "returns.md").write_text(RETURNS, encoding="utf-8")
    (path / "shipping.md").write_text(SHIPPING, encoding="utf-8")
    (path / "de.md").write_text(GERMAN, encoding="utf-8")
    (path / "zh.md").write_text(CHINESE, encoding="utf-8")
    return path


def build(source: Path, out: Path) -> Index:
    index.run(index.IndexConfig(source=source, out=out), console=Console(quiet=True))
    return Index.open(out)


@pytest.mark.parametrize(
    ("question", "file"),
    [
        ("How many days do I have to return an item?", "returns.md"),
        ("When does an express parcel arrive?", "shipping.md"),
        ("In wie vielen Tagen kann man ein Buch zurückgeben?", "de.md"),
        ("商品可以退货吗", "zh.md"),
    ],
)
def test_the_passage_of_each_language_is_found(folder: Path, tmp_path: Path, question: str, file: str) -> None:
    """Without stems "Buch" misses "Bücher", and without bigrams a Chinese sentence is a single word."""
    found = build(folder, tmp_path / "index").search(question)[0]
    assert found.origin == file
    assert (folder / file).read_text(encoding="utf-8")[found.start : found.end] == found.text


def test_the_page_of_a_pdf_is_found(documents_folder: Path, tmp_path: Path) -> None:
    """The offsets of the pages must survive the joining of paragraphs across pages, and the cleaning of the text."""
    documents = build(documents_folder / "multicolumn.pdf", tmp_path / "index")
    (passage,) = documents.search("population of Austria and Belgium")
    table = passage.start + passage.text.index("Austria")
    assert passage.place == "multicolumn.pdf, page 2"
    assert documents.documents[passage.document].page(table) == 3
    (citation,) = answer_question(documents, "What is the population of Austria?").citations
    assert citation.place == "multicolumn.pdf, page 3"


def test_an_update_extracts_changed_files_only(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text of a deleted file must not remain in the index, and also not on the disk."""
    out = tmp_path / "index"
    assert build(folder, out).search("unused")[0].origin == "returns.md"
    (folder / "returns.md").unlink()
    (folder / "shipping.md").write_text(SHIPPING + "\nBulky parcels need a crane.\n", encoding="utf-8")
    read: list[str] = []

    def extract(source: FolderSource, item: documents.Item) -> object:
        read.append(item.path)
        return documents.extract_file(source, item)

    monkeypatch.setattr("groundup.retrieval.build.extract_file", extract)
    updated = build(folder, out)
    assert read == ["shipping.md"]
    assert updated.search("crane")[0].origin == "shipping.md"
    assert updated.search("unused") == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["documents", "index"]
    assert b"unused" not in b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())


def test_the_earlier_index_survives_a_killed_update(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "index"
    build(folder, out)
    (folder / "new.txt").write_text("A crane lifts bulky parcels.", encoding="utf-8")
    with monkeypatch.context() as patch:
        patch.setattr("groundup.retrieval.build.split_passages", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            build(folder, out)
    assert Index.open(out).search("return an item")[0].origin == "returns.md"
    assert build(folder, out).search("crane")[0].origin == "new.txt"


def test_a_corpus_is_indexed(folder: Path, tmp_path: Path) -> None:
    settings = collect.CollectConfig(
        folder=folder, out=tmp_path / "corpus", workers=1, min_document_bytes=1, min_bytes=1
    )
    collect.run(settings, console=Console(quiet=True))
    assert build(tmp_path / "corpus", tmp_path / "index").search("express parcel")[0].origin == "shipping.md"


def test_an_index_of_another_version_is_refused_and_rebuilt(folder: Path, tmp_path: Path) -> None:
    """Terms of another version do not match the terms of a question, so the search would silently find nothing."""
    out = tmp_path / "index"
    build(folder, out)
    record = json.loads((out / "artifact.json").read_text(encoding="utf-8"))
    record["facts"]["versions"]["terms"] = 0
    record["fingerprint"] = "old"
    write_checked_json(out / "artifact.json", record)
    with pytest.raises(FormatError, match="this release reads version"):
        Index.open(out)
    assert build(folder, out).search("unused")


def test_errors_name_the_files(folder: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="no files"):
        build(empty, tmp_path / "index")
    (empty / "scan.pdf").write_bytes(b"%PDF-1.4 broken")
    with pytest.raises(DataError, match=r"no text to index \(scan.pdf: "):
        build(empty, tmp_path / "index")
    with pytest.raises(ConfigError, match="inside the source folder"):
        build(folder, folder / "index")
    with pytest.raises(DataError, match="not an index"):
        Index.open(folder)


def test_a_long_document_that_is_left_out_does_not_hide_others(folder: Path, tmp_path: Path) -> None:
    """Its passages were removed from the best 200, so that nothing else was found."""
    book = "".join(f"# Part {n}\n\nParcels to Norway, Norway, parcel number {n}.\n\n" for n in range(300))
    (folder / "book.md").write_text(book, encoding="utf-8")
    opened = build(folder, tmp_path / "index")
    found = opened.search("parcel to Norway")
    assert found[0].origin == "book.md"
    assert [each.origin for each in opened.without(found[0].document_id).search("parcel to Norway")] == ["shipping.md"]


def test_passages_are_whole_sentences_under_their_heading() -> None:
    """A heading at the end of a passage would be searched with the wrong text."""
    text = "# One\n\n" + "This is a sentence of the first part. " * 9 + "\n\n# Two\n\nThe second part is short.\n"
    passages = [text[start:end] for start, end in split_passages(text, 200)]
    assert all(passage.endswith(".") for passage in passages)
    assert passages[-1] == "# Two\n\nThe second part is short."
    assert all(len(passage) <= 200 for passage in passages)
    assert all(sum(text[s:e].count(word) for s, e in split_passages(text, 200)) >= 9 for word in ("first",))


@pytest.mark.parametrize("heading", ["# Car", "## Car", "Car"])
def test_the_title_is_indexed_once_with_each_passage(heading: str) -> None:
    """A Markdown title was indexed twice with the first passage, and not with a passage that began with its letters."""
    text = f"{heading}\n\n" + "It has four wheels. " * 6 + "\n\n" + "Carpets inside are washed by hand. " * 3
    document = documents.IndexedDocument("car.md", "car.md", text, title=title_of(text))
    passages = split_passages(text, 130)
    assert text[passages[-1][0] :].startswith("Carpets")
    assert [terms(searched_text(document, *each), "en").count("car") for each in passages] == [1] * len(passages)


def test_terms_of_scripts() -> None:
    assert words("हिन्दी में 1,234.5 E-Mails") == ["हिन्दी", "में", "1234.5", "e", "mails"]
    assert words("東京タワー") == ["東京", "京タ", "タワ", "ワー"]
    assert terms("Die Häuser", "de") == terms("die Haus", "de")


def test_a_document_in_a_rare_language_is_found(tmp_path: Path) -> None:
    """A question must be stemmed in each language of the index, not only in common ones."""
    path = tmp_path / "documents"
    path.mkdir()
    for number in range(60):
        (path / f"{number}.md").write_text(f"{SHIPPING}The parcel number is {number}.\n", encoding="utf-8")
    (path / "de.md").write_text(GERMAN, encoding="utf-8")
    found = build(path, tmp_path / "index")
    assert "de" not in found.common_languages
    assert found.search("zurückgegebenes Buch")[0].origin == "de.md"
    assert answer_question(found, "In wie vielen Tagen kann man ein Buch zurückgeben?").kind == "quote"


def test_interrupted_updates_leave_no_documents_on_the_disk(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deleted document stayed in a copy of the index, because no later update deleted the copy."""
    out = tmp_path / "index [1]"
    build(folder, out)
    (folder / "secret.txt").write_text("The password is swordfish.", encoding="utf-8")
    with monkeypatch.context() as patch:
        patch.setattr("groundup.retrieval.build.split_passages", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            build(folder, out)
    (folder / "secret.txt").unlink()
    (folder / "returns.md").unlink()
    with monkeypatch.context() as patch:
        patch.setattr("groundup.retrieval.build.delete_replaced", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            build(folder, out)
    build(folder, out)
    assert {each.name for each in tmp_path.iterdir()} == {"documents", "index [1]"}
    (folder / "secret.txt").write_text("The password is swordfish.", encoding="utf-8")
    with monkeypatch.context() as patch:
        patch.setattr("groundup.retrieval.build.split_passages", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            build(folder, out)
    assert len(list(tmp_path.iterdir())) == 3
    (folder / "secret.txt").unlink()
    build(folder, out)  # is up to date
    assert {each.name for each in tmp_path.iterdir()} == {"documents", "index [1]"}
    assert not (out / LOCK).exists()


def test_an_index_is_not_opened_while_its_files_change(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The passages of one version with the documents of another version give wrong quotes."""
    out = tmp_path / "index"
    build(folder, out)
    opened = []

    def load(path: Path) -> documents.Documents:
        found = documents.Documents(path)
        opened.append(path)
        if len(opened) == 1:
            (folder / "returns.md").unlink()
            monkeypatch.setattr("groundup.retrieval.index.Documents", documents.Documents)
            index.run(index.IndexConfig(source=folder, out=out), console=Console(quiet=True))
        return found

    monkeypatch.setattr("groundup.retrieval.index.Documents", load)
    found = Index.open(out)
    assert len(found.documents) == 3
    assert found.search("unused") == []
