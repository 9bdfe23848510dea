"""Functions that sample real web pages from a directory and write them as WARC files."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from itertools import chain, zip_longest
from pathlib import Path

PAGES = "PAGES"
MIN_BYTES = 2048  # Smaller files are usually redirects or frame sets.


def sample(root: Path, count: int) -> list[Path]:
    """Return up to `count` pages in pseudorandom order. The pages are distributed evenly over all packages.

    A package is a directory at the fourth level, such as `usr/share/doc/NAME`.
    """
    packages: dict[tuple[str, ...], list[Path]] = defaultdict(list)
    for path in sorted(root.rglob("*.html")):
        if path.is_file() and not path.is_symlink() and path.stat().st_size >= MIN_BYTES:
            packages[path.relative_to(root).parts[:4]].append(path)
    for name in packages:
        packages[name].sort(key=lambda path: _random_key(path.relative_to(root)))
    rounds = zip_longest(*(packages[name] for name in sorted(packages)))
    chosen = [path for path in chain.from_iterable(rounds) if path is not None][:count]
    return sorted(chosen, key=lambda path: _random_key(path.relative_to(root)))


def _random_key(path: Path) -> str:
    return hashlib.sha256(str(path).encode()).hexdigest()


def pages_root() -> Path:
    """Return the directory that the environment variable PAGES names."""
    if PAGES not in os.environ:
        raise SystemExit(
            f"set {PAGES} to a directory of HTML pages, such as unpacked Debian documentation packages:\n"
            "  apt-get download postgresql-doc-17 python3.13-doc && for f in *.deb; do dpkg -x $f pages; done"
        )
    return Path(os.environ[PAGES])


def write_warcs(root: Path, pages: list[Path], directory: Path, files: int) -> None:
    """Write the pages to `files` gzipped WARC files. Each page is one response record in its own gzip member."""
    from warcio.statusandheaders import StatusAndHeaders  # pip install warcio
    from warcio.warcwriter import WARCWriter

    directory.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        with (directory / f"part-{number}.warc.gz").open("wb") as raw:
            writer = WARCWriter(raw, gzip=True)
            for path in pages[number::files]:
                headers = StatusAndHeaders("200 OK", [("Content-Type", "text/html")], protocol="HTTP/1.1")
                url = f"https://docs.example/{path.relative_to(root)}"
                with path.open("rb") as payload:
                    writer.write_record(
                        writer.create_warc_record(
                            url,
                            "response",
                            payload=payload,
                            http_headers=headers,
                            warc_headers_dict={"WARC-Identified-Payload-Type": "text/html"},
                        )
                    )
