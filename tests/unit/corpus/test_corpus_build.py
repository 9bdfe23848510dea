"""A corpus depends only on its texts, not on workers, interruptions or the order of files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from groundup.core.console import Console
from groundup.core.errors import DataError, FormatError
from groundup.core.files import file_digest
from groundup.core.types import Document
from groundup.corpus import CorpusSettings, FolderSource, build_corpus, read_card, read_documents
from groundup.corpus.executor import ProcessPool


def _settings(*folders: Path, **more: object) -> CorpusSettings:
    return CorpusSettings(sources=[FolderSource(path=path) for path in folders], **{"min_bytes": 1000, **more})


def _build(settings: CorpusSettings, out: Path, workers: int = 1) -> dict[str, str]:
    """Build a corpus and return the digest of each file."""
    with ProcessPool(workers) as executor:
        _, files = build_corpus(settings, out, executor=executor, console=Console(quiet=True))
    assert set(files) == {path for path in out.rglob("*") if path.is_file()}
    return {path.relative_to(out).as_posix(): file_digest(path) for path in files}


def _all(out: Path) -> list[Document]:
    return [*read_documents(out, "train"), *read_documents(out, "validation")]


@pytest.fixture
def units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use small units and runs, so that a small folder is processed like a large one."""
    monkeypatch.setattr("groundup.corpus.reading.UNIT_BYTES", 10_000)
    monkeypatch.setattr("groundup.corpus.reading.RUN_BYTES", 4_000)
    monkeypatch.setattr("groundup.corpus.shards._ROW_GROUP_BYTES", 2_000)
    monkeypatch.setattr("groundup.corpus.shards._RUN_ROW_GROUP_BYTES", 1_000)
    monkeypatch.setattr("groundup.corpus.merging.FAN_IN", 3)


def test_corpus_has_the_texts_of_the_folder(folder: Path, prose: list[str], tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    _build(_settings(folder, filters=[], max_document_bytes=1 << 20), out)
    documents = _all(out)
    assert {document.origin for document in documents} == {path.name for path in folder.iterdir()}
    squeezed = {"".join(document.text.split()) for document in documents}
    assert squeezed == {"".join(text.split()) for text in prose}
    assert [d.id for d in read_documents(out, "train")] == sorted(d.id for d in read_documents(out, "train"))


def test_bytes_do_not_depend_on_workers_and_units(folder: Path, tmp_path: Path, units: None) -> None:
    settings = _settings(folder, max_document_bytes=2048)
    one = _build(settings, tmp_path / "one", workers=1)
    assert len(_all(tmp_path / "one")) > 50
    assert _build(settings, tmp_path / "two", workers=2) == one


def test_a_large_corpus_has_shards_by_hash(folder: Path, tmp_path: Path, units: None) -> None:
    settings = _settings(folder, max_document_bytes=2048)
    _build(settings, tmp_path / "one")
    parted = settings.model_copy(update={"shard_bytes": 20_000})
    _build(parted, tmp_path / "many")
    assert len(list((tmp_path / "many").glob("train-*.parquet"))) > 3
    ids = [document.id for document in read_documents(tmp_path / "many", "train")]
    assert ids == sorted(ids)
    assert {d.id for d in _all(tmp_path / "many")} == {d.id for d in _all(tmp_path / "one")}


def test_duplicates_across_sources_are_dropped_once(folder: Path, tmp_path: Path) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    for path in list(folder.iterdir())[:10]:
        (copies / path.name).write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    _build(_settings(folder, filters=[]), tmp_path / "corpus_a")
    _build(_settings(folder, copies, filters=[]), tmp_path / "corpus_b")
    assert {d.id for d in _all(tmp_path / "corpus_a")} == {d.id for d in _all(tmp_path / "corpus_b")}
    second = read_card(tmp_path / "corpus_b")["sources"][1]
    assert second["documents"] == 0
    assert second["drops"]["duplicate"]["documents"] >= 10


def test_validation_fraction(folder: Path, tmp_path: Path) -> None:
    def held(name: str, **more: object) -> set[str]:
        _build(_settings(folder, max_document_bytes=1024, **more), tmp_path / name)
        ids = {d.id for d in read_documents(tmp_path / name, "validation")}
        assert not ids & {d.id for d in read_documents(tmp_path / name, "train")}
        return ids

    tenth = held("tenth", validation_fraction=0.1)
    share = len(tenth) / len(_all(tmp_path / "tenth"))
    assert 0.04 < share < 0.18
    fifth = held("fifth", validation_fraction=0.2)
    assert tenth < fifth  # split by hash: a larger fraction is a superset
    assert len(held("capped", validation_fraction=0.2, validation_max_bytes=1000)) < len(tenth)
    assert len(held("least", validation_fraction=1e-9)) == 1  # every corpus has validation documents


def test_counts_add_up(folder: Path, tmp_path: Path) -> None:
    (folder / "junk.txt").write_text("click here\n" * 50)
    (folder / "short.txt").write_text("hi")
    (folder / "photo.jpg").write_bytes(b"\xff\xd8\xff")
    (folder / "copy.txt").write_bytes((folder / "page00.txt").read_bytes())
    _build(_settings(folder, max_document_bytes=1 << 20), tmp_path / "out")
    card = read_card(tmp_path / "out")
    (source,) = card["sources"]
    drops = {reason: drop["documents"] for reason, drop in source["drops"].items()}
    assert drops["duplicate lines"] >= 1
    assert drops["too short"] == drops["unsupported format .jpg"] == drops["duplicate"] == 1
    assert source["files"] == 44 == source["documents"] + sum(drops.values())
    assert source["documents"] == card["train"]["documents"] + card["validation"]["documents"]
    assert source["bytes"] == sum(len(d.text.encode()) for d in _all(tmp_path / "out"))
    samples = json.dumps(source["drops"]["too short"]["samples"])
    assert "short.txt" in samples


def test_unusual_names_and_links(folder: Path, tmp_path: Path) -> None:
    if os.name == "nt":
        pytest.skip("names of raw bytes, pipes and links are not for Windows")
    os.mkfifo(folder / "pipe.txt")  # reading it would block
    (folder / "loop").symlink_to(folder)
    (folder / "broken.txt").symlink_to(folder / "nothing")
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.txt")).write_text("A text under a Latin-1 name. " * 9)
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "secret.txt").write_text("A text that nobody wants to publish. " * 9)
    _build(_settings(folder, filters=[]), tmp_path / "out")
    origins = {document.origin.split("/")[0] for document in _all(tmp_path / "out")}
    assert "caf?.txt" in origins
    assert len(origins) == 41
    drops = read_card(tmp_path / "out")["sources"][0]["drops"]
    reasons = ("not a regular file", "broken symbolic link", "symbolic link to a folder")
    assert [drops[reason]["documents"] for reason in reasons] == [1, 1, 1]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "no files"),
        ({"a.jpg": b"\xff\xd8", "b.bin": bytes(9)}, "unsupported format"),
        ({"a.txt": bytes(range(256)) * 99, "b.txt": b"\0" * 99}, "2 binary"),
        ({"a.txt": b"A text of a few words, and not one more than that, to be true."}, "the minimum is 1.0 kB"),
        ({"a.csv": b"n,m\n1,2\n3,4\n"}, "too short"),
    ],
)
def test_no_training_text(tmp_path: Path, files: dict[str, bytes], words: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for name, content in files.items():
        (root / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        _build(_settings(root), tmp_path / "out")


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or directory"):
        _build(_settings(tmp_path / "nowhere"), tmp_path / "out")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_unreadable_folder(tmp_path: Path) -> None:
    root = tmp_path / "closed"
    root.mkdir(mode=0)
    with pytest.raises(DataError, match="Permission denied"):
        _build(_settings(root), tmp_path / "out")


@contextmanager
def _not_root() -> Iterator[None]:
    """Run as a user without root permissions."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.skipif(os.name == "nt", reason="needs Unix permissions")
def test_unreadable_subfolders_are_counted() -> None:
    """An unlistable folder was skipped silently, and an inaccessible one stopped the run."""
    with tempfile.TemporaryDirectory() as directory:  # other users cannot read pytest's folders
        root = Path(directory)
        root.chmod(0o755)
        for name in ("open", "unlisted", "unentered"):
            (root / name).mkdir()
            (root / name / "a.txt").write_text(f"A text in the folder {name}.")
        (root / "unlisted").chmod(0)
        (root / "unentered").chmod(0o444)
        with _not_root():
            found = {item.path: item.refused for item in FolderSource(path=root).items()}
            FolderSource(path=root).identity()
        for name in ("unlisted", "unentered"):
            (root / name).chmod(0o755)
    assert found == {"open/a.txt": "", "unlisted": "permission denied", "unentered/a.txt": "permission denied"}


def test_the_text_field_is_reported(tmp_path: Path, prose: list[str]) -> None:
    """A corpus of titles does not show that the passages were intended."""
    rows = [{"title": f"T{n}", "paragraphs": [{"context": text}]} for n, text in enumerate(prose)]
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "pages.jsonl").write_text("\n".join(map(json.dumps, rows)))
    _build(_settings(tmp_path / "a"), tmp_path / "out")
    (source,) = read_card(tmp_path / "out")["sources"]
    assert source["fields"] == {"paragraphs.*.context": len(rows)}
    line = next(line for line in (tmp_path / "out" / "card.md").read_text().splitlines() if "text read from" in line)
    assert line.replace("\\", "") == "- text read from: {paragraphs.*.context} (40 records)"


@pytest.mark.parametrize(
    ("source", "content", "words"),
    [
        ({"text": "{nosuch}"}, {"a.jsonl": '{"passage": "one", "question": "why"}\n' * 9}, ["question =", "text ="]),
        ({}, {"a.yml": "a: 1\n", "b.yml": "b: 2\n"}, ["2 unsupported format .yml", 'format = "text"']),
        ({}, {"a.txt": ""}, ["the minimum is 1 byte"]),
    ],
)
def test_what_to_do_about_a_corpus_too_small(
    tmp_path: Path, source: dict[str, str], content: dict[str, str], words: list[str]
) -> None:
    """Messages such as "1,000 record without text" or "at least 0 kB" did not help new users."""
    (tmp_path / "a").mkdir()
    for name, text in content.items():
        (tmp_path / "a" / name).write_text(text)
    with pytest.raises(DataError) as caught:
        _build(CorpusSettings(sources=[FolderSource(path=tmp_path / "a", **source)], min_bytes=0), tmp_path / "out")
    for word in words:
        assert word in str(caught.value)


def test_a_damaged_shard_is_named(folder: Path, tmp_path: Path) -> None:
    _build(_settings(folder), tmp_path / "out")
    shard = tmp_path / "out" / "train-00000.parquet"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(FormatError, match=r"train-00000\.parquet"):
        list(read_documents(tmp_path / "out", "train"))
    with pytest.raises(DataError, match="no train shards"):
        list(read_documents(tmp_path, "train"))


def test_duplicate_source_names(folder: Path) -> None:
    with pytest.raises(ValueError, match="two sources have the name"):
        _settings(folder, folder)


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_killed_build_resumes_with_the_same_result(folder: Path, tmp_path: Path) -> None:
    """After kill -9 in either step, the same command gives the same corpus."""
    script = tmp_path / "collect.py"
    script.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "import groundup.corpus.reading as reading\n"
        "from groundup.corpus import CorpusSettings, FolderSource, build_corpus\n"
        "from groundup.corpus.executor import ProcessPool\n"
        "from groundup.core.console import Console\n"
        "reading.UNIT_BYTES = 3000\n"
        "sources = [FolderSource(path=Path(sys.argv[1]))]\n"
        "settings = CorpusSettings(sources=sources, min_bytes=1000, max_document_bytes=1024)\n"
        "print('ready', flush=True)\n"
        "build_corpus(settings, Path(sys.argv[2]), executor=ProcessPool(1), console=Console(quiet=True))\n"
    )

    def start(out: Path) -> subprocess.Popen[str]:
        command = [sys.executable, str(script), str(folder), str(out)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    whole = start(tmp_path / "whole")
    assert whole.wait() == 0
    for delay in (0.02, 0.06, 0.12):
        run = start(tmp_path / "killed")
        assert run.stdout is not None
        run.stdout.readline()
        time.sleep(delay)
        run.send_signal(signal.SIGKILL)
        run.wait()
    assert start(tmp_path / "killed").wait() == 0
    whole_files, killed_files = (
        {p.relative_to(tmp_path / n).as_posix(): file_digest(p) for p in (tmp_path / n).rglob("*") if p.is_file()}
        for n in ("whole", "killed")
    )
    assert killed_files == whole_files
