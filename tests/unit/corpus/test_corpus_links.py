"""Lists of links: pages are fetched once, according to robots.txt and from public hosts only. Failures are counted."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from fastwarc.warc import ArchiveIterator
from site_server import Answer, Site, site_running

from groundup.core.console import Console
from groundup.core.errors import DataError, DownloadError
from groundup.corpus import CorpusSettings, build_corpus, read_documents
from groundup.corpus.build import SPLITS
from groundup.corpus.executor import ProcessPool
from groundup.corpus.fetching.pages import normalize_url
from groundup.corpus.fetching.store import PageStore
from groundup.corpus.lookup import find_documents
from groundup.corpus.sources import LinksSource

HTML = {"Content-Type": "text/html; charset=utf-8"}


@pytest.fixture(autouse=True)
def _direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr("groundup.corpus.fetching.fetcher.retry_delay", lambda *_: 0.0)
    monkeypatch.setattr("groundup.corpus.fetching.pages.retry_delay", lambda *_: 0.0)


@pytest.fixture
def site() -> Iterator[Site]:
    pages: dict[str, Any] = {f"/{n}": Answer(f"<p>page {n}</p>".encode(), headers=HTML) for n in range(5)}
    with site_running(Site(pages)) as running:
        yield running


def links(tmp_path: Path, lines: list[str], name: str = "links.txt", **more: Any) -> LinksSource:
    path = tmp_path / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = {"allow_private_hosts": True, "delay": 0.0} | more
    return LinksSource(path=path, **settings)


def archived(source: LinksSource) -> dict[str, bytes]:
    found = {}
    for _, opener in source.open_items(item for item in source.items() if not item.refused):
        with opener() as stream:
            for record in ArchiveIterator(stream):
                found[record.headers["WARC-Target-URI"]] = record.reader.read()
    return found


def reasons(source: LinksSource) -> dict[str, str]:
    return {item.path: item.refused for item in source.items() if item.refused}


def test_pages_are_archived_and_fetched_once(site: Site, tmp_path: Path, console: Console) -> None:
    source = links(tmp_path, [f"{site.url}/{n}" for n in range(5)])
    source.fetch(console)
    assert archived(source) == {f"{site.url}/{n}": f"<p>page {n}</p>".encode() for n in range(5)}
    assert site.gets("/robots.txt") == 1
    asked = len(site.asked)
    source.fetch(console)
    assert len(site.asked) == asked


def test_scores_duplicates_and_limit(site: Site, tmp_path: Path, console: Console) -> None:
    lines = [
        f"{site.url}/0 5",
        f"{site.url}/1 2",
        f"{site.url}/2",
        f"{site.url}/0#end 9",
        f"{site.url}/3\t3",
        f"{site.url}/4,4",
    ]
    source = links(tmp_path, ["# a comment", *lines], min_score=3)
    source.fetch(console)
    assert {url[-1] for url in archived(source)} == {"0", "3", "4"}
    facts = source.provenance()
    assert facts["links below the minimum score"] == "2"
    assert facts["duplicate links"] == "1"
    few = links(tmp_path, lines, limit=2)
    few.fetch(console)
    assert len(archived(few)) == 2


@pytest.mark.parametrize("kind", ["csv", "jsonl", "jsonl.gz"])
def test_lists_with_columns(site: Site, tmp_path: Path, console: Console, kind: str) -> None:
    rows = [(f"{site.url}/0", 5), (f"{site.url}/1", 1), (f"{site.url}/2", 3)]
    if kind == "csv":
        text = "\n".join(["link,karma,title", *(f'{url},{score},"a, b"' for url, score in rows)]) + "\n"
    else:
        text = "".join(json.dumps({"link": url, "karma": score, "title": "x"}) + "\n" for url, score in rows)
    path = tmp_path / f"list.{kind}"
    path.write_bytes(gzip.compress(text.encode()) if kind.endswith("gz") else text.encode())
    source = LinksSource(
        path=path, url_field="link", score_field="karma", min_score=3, allow_private_hosts=True, delay=0.0
    )
    source.fetch(console)
    assert {url[-1] for url in archived(source)} == {"0", "2"}
    with pytest.raises(DataError, match="url_field"):
        source.model_copy(update={"url_field": "address"}).fetch(console)


def test_robots_txt(site: Site, tmp_path: Path, console: Console) -> None:
    site.paths["/robots.txt"] = Answer(b"User-agent: *\nDisallow: /\n\nUser-agent: groundup\nDisallow: /1\n")
    source = links(tmp_path, [f"{site.url}/{n}" for n in range(3)], contact="https://example.org/who")
    source.fetch(console)
    assert reasons(source) == {f"{site.url}/1": "disallowed by robots.txt"}
    assert site.gets("/1") == 0
    assert {headers["User-Agent"].partition("/")[0] for *_, headers in site.asked} == {"groundup"}
    assert all("https://example.org/who" in headers["User-Agent"] for *_, headers in site.asked)


def test_unreachable_robots_txt_disallows_everything(site: Site, tmp_path: Path, console: Console) -> None:
    site.paths["/robots.txt"] = Answer(status=503)
    source = links(tmp_path, [f"{site.url}/0", f"{site.url}/1"])
    source.fetch(console)
    assert set(reasons(source).values()) == {"robots.txt is unreachable"}
    assert site.gets("/0") == 0


def test_crawl_delay(site: Site, tmp_path: Path, console: Console) -> None:
    """The delay applies per host; other hosts are fetched in the meantime."""
    site.paths["/robots.txt"] = Answer(b"User-agent: *\nCrawl-delay: 0.3\n")
    source = links(tmp_path, [f"{site.url}/{n}" for n in range(3)] + [f"http://localhost:{site.port}/3"])
    source.fetch(console)
    times = {
        host: [when for when, _, _, h in site.asked if h["Host"].startswith(host)] for host in ("127", "localhost")
    }
    gaps = [later - earlier for earlier, later in zip(times["127"], times["127"][1:], strict=False)]
    assert len(gaps) == 3 and min(gaps) >= 0.3
    assert times["localhost"][0] < times["127"][1], "hosts do not wait for each other"
    slow = links(tmp_path, [f"{site.url}/4"], name="other.txt", max_delay=0.2)
    slow.fetch(console)
    assert "requires more than 0.2 seconds" in reasons(slow)[f"{site.url}/4"]


@pytest.mark.parametrize(
    ("link", "reason"),
    [
        ("file:///etc/passwd", "refused: not http or https"),
        ("FILE:///etc/passwd", "refused: not http or https"),
        ("ftp://example.org/x", "refused: not http or https"),
        ("javascript://alert(1)", "refused: not http or https"),
        ("http://127.0.0.1:PORT/0", "refused: private address"),
        ("http://localhost:PORT/0", "refused: private address"),
        ("http://2130706433:PORT/0", "refused: private address"),
        ("http://[::1]:PORT/0", "refused: private address"),
        ("http://169.254.169.254/latest/meta-data/", "refused: private address"),
        ("http://" + "a" * 300 + ".example/", "not a URL"),
        ("nothing like a link", "not a URL"),
        ("http://[broken/", "not a URL"),
    ],
)
def test_refused_links(site: Site, tmp_path: Path, console: Console, link: str, reason: str) -> None:
    source = links(tmp_path, [link.replace("PORT", str(site.port))], allow_private_hosts=False)
    source.fetch(console)
    assert list(reasons(source).values()) == [reason]
    assert site.asked == []


def test_a_malformed_list(site: Site, tmp_path: Path, console: Console) -> None:
    """Very long lines, commas in URLs, lone surrogates, and invalid scores."""
    rows = [
        json.dumps({"url": f"{site.url}/0", "score": 9}),
        '{"url": "http://\\ud800.example/", "score": 9}',
        json.dumps({"url": "http://" + "," * 5_000_000, "score": 9}),
        json.dumps({"url": f"{site.url}/1", "score": "nan"}),
        json.dumps({"url": ["http://example.org/"], "score": 9}),
        json.dumps({"url": f"{site.url}/2\0\u202e", "score": 9}),
    ]
    source = links(tmp_path, rows, name="list.jsonl", min_score=3)
    source.fetch(console)
    assert {url[-1] for url in archived(source)} == {"0"}
    assert Counter(reasons(source).values()) == {"not a URL": 3, "HTTP 404": 1}
    plain = links(tmp_path, ["http://" + "," * 5_000_000, f"{site.url}/3 5"])
    plain.fetch(console)
    assert {url[-1] for url in archived(plain)} == {"3"}
    assert list(reasons(plain).values()) == ["not a URL"]


def test_redirects_are_new_visits(site: Site, tmp_path: Path, console: Console) -> None:
    def to(location: str, status: int = 302) -> Answer:
        return Answer(status=status, headers={"Location": location})

    site.paths["/robots.txt"] = lambda: Answer(b"User-agent: *\nDisallow: /private\n")
    site.paths |= {
        "/moved": to("/0", 301),
        "/other-host": to(f"http://localhost:{site.port}/1", 308),
        "/to-private": to("/private/page"),
        "/round": to("/round"),
        "/to-file": to("file:///etc/passwd"),
        "/to-nowhere": to("http://[x"),
    }
    names = ["moved", "other-host", "to-private", "round", "to-file", "to-nowhere"]
    source = links(tmp_path, [f"{site.url}/{name}" for name in names])
    source.fetch(console)
    assert archived(source) == {f"{site.url}/0": b"<p>page 0</p>", f"http://localhost:{site.port}/1": b"<p>page 1</p>"}
    assert {url.rpartition("/")[2]: reason for url, reason in reasons(source).items()} == {
        "to-private": "disallowed by robots.txt",
        "round": "too many redirects",
        "to-file": "redirect to a URL that is not http or https",
        "to-nowhere": "redirect to a URL that is not http or https",
    }
    hosts = Counter(headers["Host"].partition(":")[0] for _, _, path, headers in site.asked if path == "/robots.txt")
    assert hosts == {"127.0.0.1": 1, "localhost": 1}


def test_skipped_pages(site: Site, tmp_path: Path, console: Console) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    site.paths |= {
        "/gone": Answer(status=410),
        "/image": Answer(b"PNG", headers={"Content-Type": "image/png"}),
        "/large": Answer(b"x" * 20_000, headers=HTML),
        "/bomb": Answer(bomb, headers=HTML | {"Content-Encoding": "gzip"}),
        "/brotli": Answer(b"x", headers=HTML | {"Content-Encoding": "br"}),
        "/torn": Answer(b"not gzip", headers=HTML | {"Content-Encoding": "gzip"}),
        "/short": Answer(b"abc", headers=HTML, length=900),
        "/drip": Answer(b"x" * 500, headers=HTML, drip=0.05),
        "/fails": Answer(status=500),
        "/odd": Answer(status=204),
    }
    names = ["gone", "image", "large", "bomb", "brotli", "torn", "short", "drip", "fails", "odd"]
    lines = [f"{site.url}/{name}" for name in names] + ["http://127.0.0.1:1/closed", "http://nohost.invalid/"]
    source = links(tmp_path, lines, max_page_bytes=10_000, max_page_seconds=0.5)
    source.fetch(console)
    assert archived(source) == {}
    found = {url.rstrip("/").rpartition("/")[2]: reason for url, reason in reasons(source).items()}
    assert found == {
        "gone": "HTTP 410",
        "image": "content type image/*",
        "large": "too large",
        "bomb": "too large",
        "brotli": "unknown content encoding",
        "torn": "damaged content encoding",
        "short": "connection failed",
        "drip": "timeout",
        "fails": "HTTP 500",
        "odd": "HTTP 204",
        "closed": "robots.txt is unreachable",
        "nohost.invalid": "host not found",
    }
    assert site.gets("/fails") == 3, "asked again, and not for ever"
    assert site.gets("/gone") == 1


def test_a_page_is_archived_decoded(site: Site, tmp_path: Path, console: Console) -> None:
    """The headers match the decoded body, without cookies and without injected header lines."""
    headers = HTML | {"Content-Encoding": "gzip", "Set-Cookie": "secret=1", "X-Odd": "caf\xe9"}
    site.paths["/zipped"] = Answer(gzip.compress("<p>größer</p>".encode()), headers=headers)
    source = links(tmp_path, [f"{site.url}/zipped"])
    source.fetch(console)
    ((_, opener),) = source.open_items(source.items())
    with opener() as stream:
        (record,) = ArchiveIterator(stream, parse_http=True, verify_digests=True)
        assert record.http_headers.get("Content-Type") == "text/html; charset=utf-8"
        names = {name.lower() for name, _ in record.http_headers.items()}
        assert "set-cookie" not in names and "content-encoding" not in names
        assert record.reader.read().decode() == "<p>größer</p>"


def test_kill_and_resume(site: Site, tmp_path: Path, console: Console) -> None:
    """After kill -9, pages are not fetched again, and no record is truncated or duplicated."""
    total = 90
    site.paths |= {f"/k{n}": Answer(f"<p>{n}</p>".encode() * 20, headers=HTML) for n in range(total)}
    source = links(tmp_path, [f"{site.url}/k{n}" for n in range(total)], delay=0.01, store=tmp_path / "pages")
    code = (
        "import sys; from groundup.core.console import Console; from groundup.corpus.sources import LinksSource;"
        "import groundup.corpus.fetching.store as s; s._COMMIT_SECONDS = 0.1;"
        "LinksSource.model_validate_json(sys.argv[1]).fetch(Console(quiet=True))"
    )
    for _ in range(2):
        before = len(site.asked)
        child = subprocess.Popen([sys.executable, "-c", code, source.model_dump_json()], env=dict(os.environ))
        while len(site.asked) - before < 25 and child.poll() is None:
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        child.wait()
    source.fetch(console)
    assert len(archived(source)) == total
    seen: Counter[str] = Counter()
    for item, opener in source.open_items(source.items()):
        with opener() as stream:
            data = stream.read()
        assert len(data) == item.size
        seen.update(record.headers["WARC-Target-URI"] for record in ArchiveIterator(io.BytesIO(data)))
    assert set(seen.values()) == {1}
    assert len(site.asked) < total + 2 * 25, "pages were fetched again"


def test_files_have_a_maximum_size(
    site: Site, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("groundup.corpus.fetching.store._FILE_BYTES", 600)
    source = links(tmp_path, [f"{site.url}/{n}" for n in range(5)])
    source.fetch(console)
    sizes = [item.size for item in source.items()]
    assert len(sizes) > 1 and all(sizes)
    assert len(archived(source)) == 5


def test_a_store_belongs_to_one_list(site: Site, tmp_path: Path, console: Console) -> None:
    links(tmp_path, [f"{site.url}/0"], store=tmp_path / "pages").fetch(console)
    again = links(tmp_path, [f"{site.url}/0"], store=tmp_path / "pages", delay=0.5, connections=1, name="links.txt")
    again.fetch(console)  # a different delay does not change the list
    with pytest.raises(DataError, match="another list"):
        links(tmp_path, [f"{site.url}/1"], store=tmp_path / "pages").fetch(console)


def test_no_link_fails_when_the_network_is_down(site: Site, tmp_path: Path, console: Console) -> None:
    """Otherwise one network outage would mark all links as failed."""
    dead = [f"http://localhost:{port}/" for port in range(1, 4)]
    source = links(tmp_path, [f"{site.url}/{n}" for n in range(5)] + dead, store=tmp_path / "pages")
    kept, site.paths = site.paths, {}
    port, site_is_down = site.port, links(tmp_path, dead, name="dead.txt")
    with pytest.raises(DownloadError, match="network"):
        site_is_down.fetch(console)
    with pytest.raises(DownloadError, match="network"):
        site_is_down.fetch(console)  # no outcome was recorded, so they are tried again
    site.paths = kept
    source.fetch(console)
    assert len(archived(source)) == 5 and site.port == port
    assert reasons(source) == dict.fromkeys(dead, "robots.txt is unreachable")


def test_many_unanswered_links_in_a_row(
    site: Site, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("groundup.corpus.fetching.fetcher._MAX_UNANSWERED", 5)
    dead = [f"http://localhost:{port}/" for port in range(1, 20)]
    source = links(tmp_path, [f"{site.url}/0", *dead], connections=2)
    source.fetch(console)
    assert len(reasons(source)) == 19 and len(archived(source)) == 1


def test_a_local_error_does_not_fail_the_link(
    site: Site, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PageStore, "add", full)
    with pytest.raises(OSError, match="No space"):
        links(tmp_path, [f"{site.url}/0", f"{site.url}/1"]).fetch(console)


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("HTTP://Example.ORG:80/a b?q=ü#part", "http://example.org/a%20b?q=%C3%BC"),
        ("https://user:secret@bücher.example", "https://xn--bcher-kva.example/"),
        ("http://example.org:8080/%7Ea/?x=[1]", "http://example.org:8080/%7Ea/?x=[1]"),
        ("http://[2001:db8::1]/", "http://[2001:db8::1]/"),
        ("http://example.org/\r\nHost: evil", "http://example.org/Host:%20evil"),
    ],
)
def test_normalized_urls(given: str, asked: str) -> None:
    assert normalize_url(given) == asked


def test_tokens_in_urls_are_removed_from_the_corpus(site: Site, tmp_path: Path, console: Console) -> None:
    """A signed URL was stored as the URL of the document, and as the name of a page without text."""
    token = "q7H2k9" + "ZxV4"
    addresses = [f"/{name}?a=1&token={token}" for name in ("seas", "rivers", "lakes")]
    for address in addresses:
        text = f"The {address[1:5]} are shown to whoever has a signed address. " * 20
        site.paths[address] = Answer(f"<html><body><p>{text}</p></body></html>".encode(), headers=HTML)
    source = links(tmp_path, [site.url + each for each in (*addresses, f"/gone?token={token}")], filters=[])
    settings = CorpusSettings(sources=[source], min_bytes=0)
    build_corpus(settings, tmp_path / "out", executor=ProcessPool(1), console=console)
    kept = [document for split in SPLITS for document in read_documents(tmp_path / "out", split)]
    expected = {site.url + address.replace(token, "REDACTED") for address in addresses}
    assert {document.url for document in kept} == expected
    assert [fate.origin for fate in find_documents(tmp_path / "out", "gone")] == [f"{site.url}/gone?token=REDACTED"]
    shown = [str(row) for path in (tmp_path / "out").rglob("*.parquet") for row in pq.read_table(path).to_pylist()]
    shown += [path.read_text() for path in (tmp_path / "out").rglob("*") if path.suffix in (".json", ".md")]
    assert not any(token in each for each in shown)
