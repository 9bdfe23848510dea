"""Corpora from remote sources: workers read over the network, and the card counts failures."""

from __future__ import annotations

import contextlib
import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fastwarc.warc import ArchiveIterator
from site_server import Answer, Site, site_running

from groundup.commands.collect import CollectConfig
from groundup.commands.collect import run as collect
from groundup.core.console import Console
from groundup.core.errors import DataError, DownloadError
from groundup.core.files import file_digest
from groundup.core.types import Document
from groundup.corpus import CorpusSettings, build_corpus, read_documents
from groundup.corpus.executor import ProcessPool
from groundup.corpus.formats import Extracted, extract
from groundup.corpus.sources import CrawlSource, LinksSource, RemoteSource, SourceConfig


@pytest.fixture(autouse=True)
def _direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def site(prose: list[str]) -> Iterator[Site]:
    pages = {f"/page{n:02d}.txt.gz": Answer(gzip.compress(text.encode())) for n, text in enumerate(prose)}
    pages |= {
        f"/page{n:02d}": Answer(text.encode(), headers={"Content-Type": "text/plain"}) for n, text in enumerate(prose)
    }
    with site_running(Site(dict(pages))) as running:
        yield running


def build(source: SourceConfig, out: Path, workers: int = 1) -> dict[str, str]:
    settings = CorpusSettings(sources=[source], filters=[], min_bytes=1000)
    build_corpus(settings, out, executor=ProcessPool(workers), console=Console(quiet=True))
    return {path.name: file_digest(path) for path in out.glob("*.parquet")}


def documents(out: Path) -> list[Document]:
    return [*read_documents(out, "train"), *read_documents(out, "validation")]


def test_a_corpus_from_a_web_server_equals_that_of_the_directory(
    site: Site, prose: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("groundup.corpus.reading.UNIT_BYTES", 20_000)
    urls = [f"{site.url}/page{n:02d}.txt.gz" for n in range(len(prose))]
    source = RemoteSource(name="pages", urls=urls, allow_private_hosts=True)
    site.cut_after = [700, 500, 300]
    once = build(source, tmp_path / "once", workers=2)
    assert not site.cut_after
    assert build(source, tmp_path / "again") == once
    assert {document.text[:40] for document in documents(tmp_path / "once")} >= {
        text.strip()[:40] for text in prose[:3]
    }


def test_a_server_outage(site: Site, prose: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run fails instead of skipping a file, and can be resumed."""
    monkeypatch.setattr("groundup.corpus.fetching.stream.retry_delay", lambda *_: 0)
    urls = [f"{site.url}/page{n:02d}.txt.gz" for n in range(len(prose))]
    source = RemoteSource(name="pages", urls=urls, allow_private_hosts=True)
    whole = build(source, tmp_path / "whole")
    kept, site.paths["/page07.txt.gz"] = site.paths["/page07.txt.gz"], Answer(status=503)
    with pytest.raises(DownloadError, match=r"page07.*503"):
        build(source, tmp_path / "out")
    site.paths["/page07.txt.gz"] = kept
    assert build(source, tmp_path / "out") == whole


def test_a_crawl_needs_less_disk_than_its_size() -> None:
    """800 GB are read and a few GB of text are kept, so the check must not require 1.6 TB."""
    assert 800e9 * CrawlSource(crawl="CC-MAIN-2025-05", limit=800).disk_ratio < 60e9


def test_a_finished_corpus_needs_no_network(site: Site, prose: list[str], tmp_path: Path) -> None:
    urls = [f"{site.url}/page{n:02d}.txt.gz" for n in range(len(prose))]
    source = RemoteSource(name="pages", urls=urls, allow_private_hosts=True)
    config = CollectConfig(sources=[source], filters=[], min_bytes=1000, out=tmp_path / "corpus", workers=1)
    first = collect(config, console=Console(quiet=True))
    asked = len(site.asked)
    assert collect(config, console=Console(quiet=True)) == first
    assert len(site.asked) == asked


def test_links_that_failed_are_in_the_card(site: Site, prose: list[str], tmp_path: Path) -> None:
    listing = tmp_path / "list.txt"
    lines = [f"{site.url}/page{n:02d}" for n in range(len(prose))]
    listing.write_text("\n".join([*lines, f"{site.url}/gone", "file:///etc/passwd"]) + "\n")
    source = LinksSource(path=listing, allow_private_hosts=True, delay=0.0, filters=[])
    settings = CorpusSettings(sources=[source], filters=[], min_bytes=0)
    card, _ = build_corpus(settings, tmp_path / "out", executor=ProcessPool(1), console=Console(quiet=True))
    text = (tmp_path / "out" / "card.md").read_text()
    assert "HTTP 404" in text
    assert "refused: not http or https" in text
    assert card["sources"][0]["provenance"]["list"] == "list.txt"
    addresses = {document.url for document in documents(tmp_path / "out")}
    assert addresses <= set(lines) and len(addresses) > 30


def test_a_damaged_archive_is_read_after_the_damage(
    site: Site, request: pytest.FixtureRequest, console: Console
) -> None:
    capture = request.config.rootpath / "../shared/data/web/whirlwind.warc.gz"
    if not capture.is_file():
        pytest.skip("the shared test data is not on this machine: web/whirlwind.warc.gz")
    data = capture.read_bytes()
    site.paths["/a.warc.gz"] = Answer(data + b"\x1f\x8b torn" + data)
    source = RemoteSource(urls=[f"{site.url}/a.warc.gz"], allow_private_hosts=True)
    source.fetch(console)
    ((item, opener),) = source.open_items(source.items())
    found = list(extract(item, opener, source.record_options, None))
    assert [each.url for each in found if isinstance(each, Extracted)] == ["https://an.wikipedia.org/wiki/Escopete"] * 2
    site.cut_after = [5000, 9000]
    ((item, opener),) = source.open_items([replace(item, start=len(data))])
    found = list(extract(item, opener, source.record_options, None))
    assert sum(isinstance(each, Extracted) for each in found) == 1


def test_a_real_capture_through_a_crawl(site: Site, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """A file list, a file name and byte ranges give the same page with its URL and date."""
    capture = request.config.rootpath / "../shared/data/web/whirlwind.warc.gz"
    if not capture.is_file():
        pytest.skip("the shared test data is not on this machine: web/whirlwind.warc.gz")
    data = capture.read_bytes()
    site.paths["/crawl/a.warc.gz"] = Answer(data)
    (tmp_path / "warc.paths").write_text("crawl/a.warc.gz\n")
    with capture.open("rb") as stream:
        records = {record.headers["WARC-Type"]: record.stream_pos for record in ArchiveIterator(stream)}
    start = records["response"]
    length = min([at for at in records.values() if at > start], default=len(data)) - start
    rows = {"filename": "crawl/a.warc.gz", "offset": start, "length": length}
    (tmp_path / "captures.jsonl").write_text(json.dumps(rows) + "\n")
    found = []
    for listed in ({"paths": str(tmp_path / "warc.paths")}, {"captures": str(tmp_path / "captures.jsonl")}):
        source = CrawlSource(base=site.url, allow_private_hosts=True, filters=[], **listed)
        settings = CorpusSettings(sources=[source], filters=[], min_bytes=0, max_document_bytes=1 << 20)
        out = tmp_path / next(iter(listed))
        with contextlib.suppress(DataError):  # the only page is in the validation set
            build_corpus(settings, out, executor=ProcessPool(1), console=Console(quiet=True))
        found.append(documents(out))
    for (document,) in found:
        assert document.url == "https://an.wikipedia.org/wiki/Escopete"
        assert document.date.startswith("2024-05-18")
    assert found[0][0].text == found[1][0].text
