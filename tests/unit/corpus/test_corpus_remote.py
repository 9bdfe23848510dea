"""Remote files: listed once, streamed with reconnects, and checked for changes."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import pickle
import random
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
from site_server import Answer, Site, site_running

from groundup.core.config import load
from groundup.core.console import Console
from groundup.core.errors import ConfigError, DataError, DownloadError
from groundup.corpus import CorpusSettings
from groundup.corpus.sources import CrawlSource, RemoteSource, SourceConfig, WikipediaSource
from groundup.corpus.sources.remote_files import RemoteItem

NOISE = random.Random(0).randbytes(3_000_000)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr("groundup.corpus.fetching.network.retry_delay", lambda *_: 0)
    monkeypatch.setattr("groundup.corpus.fetching.stream.retry_delay", lambda *_: 0)


@pytest.fixture
def site() -> Iterator[Site]:
    with site_running(Site({"/data/a.bin": Answer(NOISE), "/data/b.bin": Answer(b"beta")})) as running:
        yield running


def remote(*urls: str, **more: Any) -> RemoteSource:
    return RemoteSource(urls=list(urls), allow_private_hosts=True, **more)


def contents(source: SourceConfig) -> dict[str, bytes]:
    found = {}
    for item, opener in pickle.loads(pickle.dumps(source)).open_items(source.items()):
        with opener() as stream:
            found[item.path] = stream.read()
    return found


def test_files_of_a_web_server(site: Site, console: Console) -> None:
    source = remote(f"{site.url}/data/a.bin", f"{site.url}/data/b.bin")
    source.fetch(console)
    assert [(item.path, item.size) for item in source.items()] == [("a.bin", 3_000_000), ("b.bin", 4)]
    assert contents(source) == {"a.bin": NOISE, "b.bin": b"beta"}
    assert all(headers["User-Agent"].startswith("groundup/") for *_, headers in site.asked)


def test_files_with_the_same_name_get_unique_paths(site: Site, console: Console) -> None:
    """The origin of a document must identify one file."""
    site.paths["/more/b.bin"] = Answer(b"another")
    source = remote(f"{site.url}/data/b.bin", f"{site.url}/more/b.bin")
    source.fetch(console)
    host = site.url.removeprefix("http://")
    assert contents(source) == {f"{host}/data/b.bin": b"beta", f"{host}/more/b.bin": b"another"}


@pytest.mark.parametrize("ranges", [True, False])
def test_a_failed_connection_resumes_at_its_position(site: Site, console: Console, ranges: bool) -> None:
    site.ranges = ranges
    source = remote(f"{site.url}/data/a.bin")
    source.fetch(console)
    site.cut_after = [1_000_000, 500_000]
    assert contents(source)["a.bin"] == NOISE
    begun = [headers["Range"] for *_, headers in site.asked if "Range" in headers]
    assert begun[0] == "bytes=1000000-"


def test_a_connection_that_always_fails_is_an_error(site: Site, console: Console) -> None:
    """Taking the failure for the end of the file would produce a different corpus."""
    site.ranges = False
    source = remote(f"{site.url}/data/a.bin")
    source.fetch(console)
    site.cut_after = [1000] * 100
    with pytest.raises(DownloadError, match=r"a\.bin"):
        contents(source)


def test_reading_from_the_middle(site: Site, console: Console) -> None:
    source = remote(f"{site.url}/data/a.bin")
    source.fetch(console)
    ((_, opener),) = source.open_items(source.items())
    with opener() as stream:
        assert stream.seekable()
        stream.seek(2_000_000)
        assert stream.read(10) == NOISE[2_000_000:2_000_010]
        stream.seek(-5, io.SEEK_END)
        assert stream.read() == NOISE[-5:]
    assert sum(method == "GET" for _, method, *_ in site.asked) == 2


def test_a_file_that_changed_since_it_was_listed(site: Site, console: Console) -> None:
    source = remote(f"{site.url}/data/b.bin")
    source.fetch(console)
    site.paths["/data/b.bin"] = Answer(b"gamma")
    source.fetch(console)  # a resumed run uses the existing list
    with pytest.raises(DownloadError, match="edition"):
        contents(source)
    anew = source.model_copy(update={"edition": "today"})
    assert anew.identity() != source.identity()
    anew.fetch(console)
    assert contents(anew) == {"b.bin": b"gamma"}


def test_a_pinned_list(site: Site, console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = remote(f"{site.url}/data/b.bin")
    source.fetch(console)
    pinned = source.model_copy(update={"pin": source.provenance()["pin"]})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine"))
    pinned.fetch(console)
    site.paths["/data/b.bin"] = Answer(b"gamma")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a third"))
    with pytest.raises(DataError, match="digest"):
        pinned.fetch(console)


def test_listing_happens_once(site: Site, console: Console) -> None:
    source = remote(f"{site.url}/data/b.bin")
    source.fetch(console)
    asked = len(site.asked)
    source.fetch(console)
    source.identity()
    source.items()
    assert len(site.asked) == asked


def test_private_hosts_are_refused_unless_allowed(site: Site, console: Console) -> None:
    with pytest.raises(DownloadError, match="allow_private_hosts"):
        RemoteSource(urls=[f"{site.url}/data/a.bin"]).fetch(console)
    assert site.asked == []


def test_a_server_without_head_requests_and_lengths(site: Site, console: Console) -> None:
    def only_get() -> Answer:
        return Answer(status=405) if site.asked[-1][1] == "HEAD" else Answer(NOISE)

    site.paths["/signed?key=1"] = only_get
    source = remote(f"{site.url}/signed?key=1")
    source.fetch(console)
    assert [(item.path, item.size) for item in source.items()] == [("signed", 3_000_000)]
    assert "key" not in source.provenance()["urls"]


def test_missing_files_and_unknown_schemes(site: Site, console: Console) -> None:
    with pytest.raises(DownloadError, match="404"):
        remote(f"{site.url}/data/c.bin").fetch(console)
    with pytest.raises(ConfigError, match="nosuch"):
        remote("nosuch://bucket/file").fetch(console)
    for wrong in ("data/a.bin", "https://example.org/*.gz"):
        with pytest.raises(ValueError):
            RemoteSource(urls=[wrong])


def test_a_store_whose_library_is_not_installed(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsspec.core.url_to_fs", lambda *_, **__: (_ for _ in ()).throw(ImportError("no s3fs")))
    with pytest.raises(ConfigError, match=r"pip install 'groundup\[remote\]'"):
        remote("s3://bucket/file").fetch(console)


@pytest.fixture
def store() -> Iterator[Any]:
    files = fsspec.filesystem("memory")
    files.pipe({"/shelf/deep/a.txt": b"alpha", "/shelf/b.txt": b"beta", "/shelf/c.md": b"gamma"})
    yield files
    files.rm("/shelf", recursive=True)


def test_an_object_store(store: Any, console: Console) -> None:
    everything = remote("memory://shelf")
    everything.fetch(console)
    assert contents(everything) == {"b.txt": b"beta", "c.md": b"gamma", "deep/a.txt": b"alpha"}
    chosen = remote("memory://shelf/**/*.txt", name="by pattern")
    chosen.fetch(console)
    assert contents(chosen) == {"b.txt": b"beta", "deep/a.txt": b"alpha"}
    with_files = remote("memory://shelf", files=["*.md"])
    with_files.fetch(console)
    assert contents(with_files) == {"c.md": b"gamma"}


def test_an_object_that_changed(store: Any, console: Console) -> None:
    source = remote("memory://shelf/b.txt")
    source.fetch(console)
    store.pipe("/shelf/b.txt", b"another")
    with pytest.raises(DownloadError, match="listed"):
        contents(source)


def test_a_file_url_of_a_directory(console: Console, tmp_path: Path) -> None:
    (tmp_path / "shelf").mkdir()
    (tmp_path / "shelf" / "a.txt").write_bytes(b"alpha")
    source = remote(f"file://{tmp_path}/shelf")
    source.fetch(console)
    assert contents(source) == {"a.txt": b"alpha"}


def member(text: str) -> bytes:
    return gzip.compress(text.encode())


@pytest.fixture
def crawl(site: Site) -> Site:
    """A crawl of two files with three records each, in the layout of Common Crawl."""
    paths = []
    for number in range(2):
        path = f"crawl-data/CC-TEST-1/segments/1/warc/{number}.warc.gz"
        site.paths[f"/{path}"] = Answer(b"".join(member(f"record {number}.{each};") for each in range(3)))
        paths.append(path)
    listing = "\n".join(paths) + "\n"
    site.paths["/crawl-data/CC-TEST-1/warc.paths.gz"] = Answer(gzip.compress(listing.encode()))
    return site


def crawl_source(site: Site, **more: Any) -> CrawlSource:
    return CrawlSource(base=site.url, index_base=site.url, allow_private_hosts=True, **more)


def unpacked(source: SourceConfig) -> dict[str, str]:
    return {path.rpartition("/")[2]: gzip.decompress(data).decode() for path, data in contents(source).items()}


def test_a_crawl_by_its_id(crawl: Site, console: Console) -> None:
    source = crawl_source(crawl, crawl="CC-TEST-1")
    source.fetch(console)
    assert unpacked(source) == {
        "0.warc.gz": "record 0.0;record 0.1;record 0.2;",
        "1.warc.gz": "record 1.0;record 1.1;record 1.2;",
    }
    assert all(item.size for item in source.items())
    second = crawl_source(crawl, crawl="CC-TEST-1", skip=1, limit=1)
    second.fetch(console)
    assert list(unpacked(second)) == ["1.warc.gz"]


def test_a_crawl_by_a_custom_list_and_a_directory(crawl: Site, console: Console, tmp_path: Path) -> None:
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "x.warc.gz").write_bytes(member("local;"))
    listing = tmp_path / "mine.txt"
    listing.write_text(f"x.warc.gz\n\n{crawl.url}/crawl-data/CC-TEST-1/segments/1/warc/1.warc.gz\n")
    source = CrawlSource(paths=str(listing), base=str(tmp_path / "mirror"), allow_private_hosts=True)
    source.fetch(console)
    assert unpacked(source) == {"x.warc.gz": "local;", "1.warc.gz": "record 1.0;record 1.1;record 1.2;"}


def captures(*wanted: tuple[int, int]) -> list[dict[str, str]]:
    found = []
    for file, number in wanted:
        lengths = [len(member(f"record {file}.{each};")) for each in range(3)]
        path = f"crawl-data/CC-TEST-1/segments/1/warc/{file}.warc.gz"
        found.append({"filename": path, "offset": str(sum(lengths[:number])), "length": str(lengths[number])})
    return found


def test_a_crawl_by_its_index(crawl: Site, console: Console) -> None:
    """Only the bytes of the captures are read, with one request for adjacent captures."""
    query = "url=%2A.example.org%2F%2A&output=json&filter=%3Dstatus%3A200"
    pages = [captures((1, 2), (0, 0)), captures((0, 1), (1, 2))]
    crawl.paths[f"/CC-TEST-1-index?{query}&showNumPages=true"] = Answer(b'{"pages": 2, "pageSize": 5}')
    for number, page in enumerate(pages):
        lines = "".join(json.dumps(each) + "\n" for each in page)
        crawl.paths[f"/CC-TEST-1-index?{query}&page={number}"] = Answer(lines.encode())
    wanted = {"crawl": "CC-TEST-1", "index": ["*.example.org/*"], "index_filter": ["=status:200"]}
    source = crawl_source(crawl, **wanted)
    source.fetch(console)
    assert unpacked(source) == {"0.warc.gz": "record 0.0;record 0.1;", "1.warc.gz": "record 1.2;"}
    assert len([1 for *_, headers in crawl.asked if "Range" in headers]) == 2
    with pytest.raises(DataError, match="no files"):
        crawl_source(crawl, crawl="CC-TEST-1", index=["*.nowhere.example/*"]).fetch(console)


def test_an_index_server_with_errors(crawl: Site, console: Console) -> None:
    source = crawl_source(crawl, crawl="CC-TEST-1", index=["x"], index_filter=[])
    crawl.paths["/CC-TEST-1-index?url=x&output=json&showNumPages=true"] = Answer(b"<html>sorry</html>")
    with pytest.raises(DownloadError, match="JSON"):
        source.fetch(console)


@pytest.mark.parametrize("columnar", [False, True])
def test_a_crawl_by_a_table_of_captures(crawl: Site, console: Console, tmp_path: Path, columnar: bool) -> None:
    rows: list[dict[str, Any]] = list(captures((0, 2), (1, 0)))
    if columnar:
        names = {"filename": "warc_filename", "offset": "warc_record_offset", "length": "warc_record_length"}
        rows = [{names[key]: value for key, value in row.items()} for row in rows]
    table = tmp_path / "captures.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = crawl_source(crawl, captures=str(table))
    source.fetch(console)
    assert unpacked(source) == {"0.warc.gz": "record 0.2;", "1.warc.gz": "record 1.0;"}


def test_a_crawl_needs_one_list() -> None:
    for wrong in (
        {},
        {"crawl": "X", "paths": "y"},
        {"index": ["x"]},
        {"captures": "x", "file_type": "wet"},
        {"crawl": "../x"},
    ):
        with pytest.raises(ValueError):
            CrawlSource(**wrong)


@pytest.fixture
def dumps(site: Site) -> Site:
    part = b"BZh91AY" + bytes(200)
    site.paths["/simplewiki/"] = Answer(b'<a href="20250101/">20250101/</a><a href="20250120/">x</a><a href="latest/">')
    name = "simplewiki-{}-pages-articles-multistream{}.xml.bz2"
    for day, status in (("20250101", "done"), ("20250120", "in-progress")):
        about = {"size": len(part), "sha1": hashlib.sha1(part).hexdigest()}
        files = {name.format(day, number): about for number in ("10", "9", "1")}
        files[f"simplewiki-{day}-pages-articles-multistream-index.txt.bz2"] = about
        jobs = {"jobs": {"articlesmultistreamdump": {"status": status, "files": files}}}
        site.paths[f"/simplewiki/{day}/dumpstatus.json"] = Answer(json.dumps(jobs).encode())
        for each in files:
            site.paths[f"/simplewiki/{day}/{each}"] = Answer(part)
    return site


def wikipedia(site: Site, **more: Any) -> WikipediaSource:
    return WikipediaSource(language="simple", base=site.url, allow_private_hosts=True, **more)


def test_the_newest_finished_dump(dumps: Site, console: Console) -> None:
    source = wikipedia(dumps)
    source.fetch(console)
    stems = [item.path.removesuffix(".xml.bz2").rpartition("-")[2] for item in source.items()]
    assert stems == ["multistream1", "multistream9", "multistream10"]
    assert "20250101" in source.provenance()["dump"]
    assert len(contents(source)) == 3
    with pytest.raises(DataError, match="no finished dump of 20250120"):
        wikipedia(dumps, date="20250120").fetch(console)


def test_a_dump_with_a_wrong_digest(dumps: Site, console: Console) -> None:
    source = wikipedia(dumps, date="20250101")
    source.fetch(console)
    first = source.items()[0]
    assert isinstance(first, RemoteItem)
    dumps.paths[first.url.removeprefix(dumps.url)] = Answer(b"BZh91AY" + b"\1" * 200)
    with pytest.raises(DownloadError, match="sha1"):
        contents(source)


def test_the_examples_of_the_documentation(request: pytest.FixtureRequest) -> None:
    text = (request.config.rootpath / "docs" / "sources.md").read_text(encoding="utf-8")
    examples = tomllib.loads(text.partition("```toml\n")[2].partition("```")[0])["collect"]
    assert len(load(CorpusSettings, examples).sources) == len(examples["sources"]) >= 7


def test_items_can_be_split_and_sent_to_workers(site: Site, console: Console) -> None:
    source = remote(f"{site.url}/data/a.bin")
    source.fetch(console)
    (item,) = source.items()
    sent = pickle.loads(pickle.dumps(replace(item, size=5)))
    assert sent.url == item.url  # type: ignore[attr-defined]
