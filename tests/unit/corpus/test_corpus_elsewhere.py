"""From the network to the corpus: worker processes read by themselves, and the card tells what was lost."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest
from site_server import Answer, Site, site_running

from groundup.console import Console
from groundup.corpus import CorpusSettings, build_corpus, read_documents
from groundup.corpus.executor import ProcessPool
from groundup.corpus.sources import RemoteSource, SourceConfig
from groundup.errors import DownloadError
from groundup.files import file_digest
from groundup.stages.collect import CollectConfig
from groundup.stages.collect import run as collect


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


def test_a_corpus_from_a_web_server_is_that_of_the_folder(
    site: Site, prose: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("groundup.corpus.reading.UNIT_BYTES", 20_000)
    urls = [f"{site.url}/page{n:02d}.txt.gz" for n in range(len(prose))]
    source = RemoteSource(name="pages", urls=urls, allow_private_hosts=True)
    site.cut_after = [700, 500, 300]
    once = build(source, tmp_path / "once", workers=2)
    assert not site.cut_after
    assert build(source, tmp_path / "again") == once
    texts = [
        document.text for split in ("train", "validation") for document in read_documents(tmp_path / "once", split)
    ]
    assert {text[:40] for text in texts} >= {text.strip()[:40] for text in prose[:3]}


def test_a_server_that_goes_away_and_comes_back(
    site: Site, prose: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No corpus without the missing file: the run ends, and goes on when it can."""
    monkeypatch.setattr("groundup.corpus.fetching.stream.pause_after", lambda *_: 0)
    urls = [f"{site.url}/page{n:02d}.txt.gz" for n in range(len(prose))]
    source = RemoteSource(name="pages", urls=urls, allow_private_hosts=True)
    whole = build(source, tmp_path / "whole")
    kept, site.paths["/page07.txt.gz"] = site.paths["/page07.txt.gz"], Answer(status=503)
    with pytest.raises(DownloadError, match=r"page07.*503"):
        build(source, tmp_path / "out")
    site.paths["/page07.txt.gz"] = kept
    assert build(source, tmp_path / "out") == whole


def test_a_finished_corpus_needs_no_network(site: Site, prose: list[str], tmp_path: Path) -> None:
    urls = [f"{site.url}/page{n:02d}.txt.gz" for n in range(len(prose))]
    source = RemoteSource(name="pages", urls=urls, allow_private_hosts=True)
    config = CollectConfig(sources=[source], filters=[], min_bytes=1000, out=tmp_path / "corpus", workers=1)
    first = collect(config, console=Console(quiet=True))
    asked = len(site.asked)
    assert collect(config, console=Console(quiet=True)) == first
    assert len(site.asked) == asked
