"""Package archives: found with the settings of pip and npm, pinned, resumed, and read in place."""

from __future__ import annotations

import io
import random
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from index_server import Index, serve

from groundup.core.console import Console
from groundup.core.errors import DataError, DownloadError
from groundup.corpus.download import Digest
from groundup.corpus.formats import Extracted, extract
from groundup.corpus.sources import PackageSource
from groundup.corpus.sources.pypi import is_release, parse_page

MEMBERS = {
    "pkg/a.txt": b"alpha",
    "pkg/deep/b.txt": b"beta",
    "pkg/code.py": b"1/0",
    "pkg-1.0.dist-info/top.txt": b"pkg",
}


def wheel(members: dict[str, bytes] = MEMBERS) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def tarball(members: dict[str, bytes] = MEMBERS, extra: list[tarfile.TarInfo] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
        for info in extra or []:
            file.addfile(info)
    return buffer.getvalue()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """A package index that is set only in the pip configuration file."""
    with serve(Index()) as running:
        settings = tmp_path / "pip.conf"
        settings.write_text(f"[global]\nindex-url = {running.url}/simple\n")
        for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX", "PIP_FIND_LINKS"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PIP_CONFIG_FILE", str(settings))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield running


def source(digest: str | None, **more: Any) -> PackageSource:
    return PackageSource(package="Some_Pkg", version="1.0", hash=digest, license="MIT", **more)


def contents(package: PackageSource) -> dict[str, str]:
    found: dict[str, str] = {}
    for item, opener in package.open_items(package.items()):
        for each in extract(item, opener, package.record_options, package.format):
            found[each.origin] = each.text if isinstance(each, Extracted) else f"{each.reason}!"
    return found


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize(
    ("filename", "archive"), [("some_pkg-1.0-py3-none-any.whl", wheel()), ("some-pkg-1.0.tar.gz", tarball())]
)
def test_pypi(index: Index, console: Console, as_json: bool, filename: str, archive: bytes) -> None:
    index.as_json = as_json
    digest = index.add("some-pkg", filename, archive)
    package = source(digest)
    package.fetch(console)
    texts = contents(package)
    assert texts == {"pkg/a.txt": "alpha", "pkg/deep/b.txt": "beta", "pkg/code.py": "unsupported format .py!"}
    asked = len(index.served)
    package.fetch(console)
    assert len(index.served) == asked, "a verified archive in the cache needs no network"


def test_patterns(index: Index, console: Console) -> None:
    digest = index.add("some-pkg", "some_pkg-1.0-py3-none-any.whl", wheel())
    source(digest).fetch(console)
    for patterns, chosen in {
        ("*.txt",): {"pkg/a.txt", "pkg/deep/b.txt", "pkg-1.0.dist-info/top.txt"},
        ("pkg/*.txt",): {"pkg/a.txt"},
        ("pkg/**/*.txt",): {"pkg/a.txt", "pkg/deep/b.txt"},
        ("deep/?.txt",): {"pkg/deep/b.txt"},
        ("/pkg/a.txt", "b.txt"): {"pkg/a.txt", "pkg/deep/b.txt"},
    }.items():
        assert set(contents(source(digest, files=list(patterns)))) == chosen


def test_no_file_matches(index: Index, console: Console) -> None:
    package = source(index.add("some-pkg", "some_pkg-1.0-py3-none-any.whl", wheel()), files=["*.md"])
    package.fetch(console)
    with pytest.raises(DataError, match=r"pkg/a\.txt"):  # lists the available files
        package.items()


def test_an_interrupted_download_resumes(index: Index, console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    """A 60 MB archive over a slow connection must not restart from the beginning."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    index.cut_after = 1000
    noise = random.Random(0).randbytes(50_000)  # incompressible
    package = source(index.add("some-pkg", "some_pkg-1.0.zip", wheel({"big.txt": noise})))
    package.fetch(console)
    assert [item.path for item in package.items()] == ["big.txt"]
    assert index.served.count("/files/some_pkg-1.0.zip") == 2


def test_a_file_with_a_different_hash(index: Index, console: Console, tmp_path: Path) -> None:
    digest = index.add("some-pkg", "some_pkg-1.0.zip", wheel())
    index.files["some_pkg-1.0.zip"] = wheel({"evil.txt": b"x"})
    with pytest.raises(DownloadError, match=digest):
        source(digest).fetch(console)
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("other", [{"package": "other-pkg"}, {"version": "2.0"}, {"index": "npm"}])
def test_a_cached_archive_with_the_hash_of_another_release(
    index: Index, console: Console, monkeypatch: pytest.MonkeyPatch, other: dict[str, str]
) -> None:
    """With a lookup by hash alone, any cached archive could pass under the name and license in the recipe."""
    monkeypatch.setenv("npm_config_registry", index.url + "/")
    digest = index.add("some-pkg", "some_pkg-1.0-py3-none-any.whl", wheel())
    index.add("other-pkg", "other_pkg-1.0.zip", wheel({"b.txt": b"beta"}))
    package = source(digest)
    package.fetch(console)
    with pytest.raises(DownloadError):
        package.model_copy(update=other).fetch(console)


def test_an_unpinned_archive_shows_its_hash(index: Index, console: Console) -> None:
    digest = index.add("some-pkg", "some_pkg-1.0-py3-none-any.whl", wheel())
    with pytest.raises(DownloadError, match=f'hash = "{digest}"'):
        source(None).fetch(console)


def test_unknown_package_and_version(index: Index, console: Console) -> None:
    with pytest.raises(DownloadError, match="not found on the package index"):
        source("0" * 64).fetch(console)
    index.add("some-pkg", "some_pkg-2.0.zip", wheel())
    with pytest.raises(DownloadError, match="not found on the package index"):
        source("0" * 64).fetch(console)


def test_a_damaged_cache_is_replaced(index: Index, console: Console, tmp_path: Path) -> None:
    digest = index.add("some-pkg", "some_pkg-1.0.zip", wheel())
    package = source(digest)
    package.fetch(console)
    (stored,) = (tmp_path / "cache").rglob("*.zip")
    stored.write_bytes(b"rotten")
    package.fetch(console)
    assert "pkg/a.txt" in contents(package)


def test_find_links_folder(index: Index, console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline machines store archives in a directory that is set as find-links in pip."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    (shelf / "some_pkg-1.0-py3-none-any.whl").write_bytes(wheel())
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    package = source(Digest("sha256", "").of(shelf / "some_pkg-1.0-py3-none-any.whl"))
    package.fetch(console)
    assert contents(package)["pkg/a.txt"] == "alpha"
    assert index.served == []


def test_unsafe_members_are_refused(index: Index, console: Console) -> None:
    link = tarfile.TarInfo("pkg/link.txt")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    device = tarfile.TarInfo("pkg/device.txt")
    device.type = tarfile.CHRTYPE
    archive = tarball({"../../up.txt": b"x", "/abs.txt": b"x", "pkg/ok.txt": b"fine"}, [link, device])
    package = source(index.add("some-pkg", "some-pkg-1.0.tar.gz", archive))
    package.fetch(console)
    assert contents(package) == {
        "../../up.txt": "unsafe path!",
        "/abs.txt": "unsafe path!",
        "pkg/ok.txt": "fine",
        "pkg/link.txt": "not a regular file!",
        "pkg/device.txt": "not a regular file!",
    }


def test_zip_bomb_and_wrong_checksum(index: Index, console: Console) -> None:
    data = bytearray(wheel({"ok.txt": b"fine", "bomb.txt": b"0" * (80 << 20), "bad.txt": b"CONTENTS" * 9}))
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        info = file.getinfo("bad.txt")
        at = info.header_offset + 30 + len(info.filename) + 3
    data[at] ^= 0xFF
    package = source(index.add("some-pkg", "some_pkg-1.0.zip", bytes(data)))
    package.fetch(console)
    assert contents(package) == {"ok.txt": "fine", "bomb.txt": "decompression bomb!", "bad.txt": "damaged!"}


def test_truncated_archive(index: Index, console: Console) -> None:
    package = source(index.add("some-pkg", "some-pkg-1.0.tar.gz", tarball({"a.txt": bytes(range(256)) * 99})[:-60]))
    package.fetch(console)
    with pytest.raises(DataError, match="not a readable zip or tar"):
        package.items()


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_npm(index: Index, console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index.add("some-pkg", "some-pkg-1.0.0.tgz", tarball({"package/a.txt": b"alpha"}))
    monkeypatch.setenv("npm_config_registry", index.url + "/")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
    monkeypatch.setenv("npm_config_update_notifier", "false")
    about = index.packument("some-pkg", "1.0.0", "some-pkg-1.0.0.tgz")["versions"]["1.0.0"]["dist"]
    package = PackageSource(index="npm", package="some-pkg", version="1.0.0", hash=about["integrity"], license="MIT")
    package.fetch(console)
    assert contents(package) == {"package/a.txt": "alpha"}
    unpinned = package.model_copy(update={"hash": None})
    with pytest.raises(DownloadError) as caught:
        unpinned.fetch(console)
    assert about["integrity"] in caught.value.fix
    wrong = Digest("sha512", "0" * 128)
    with pytest.raises(DownloadError) as caught:
        package.model_copy(update={"hash": str(wrong)}).fetch(console)
    # In the notation of recipes, for comparison with the pinned value.
    assert about["integrity"] in caught.value.value
    assert str(wrong) in caught.value.rule


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_npm_errors_are_readable(
    index: Index, console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first line of npm is only a code, "npm error code E404"."""
    monkeypatch.setenv("npm_config_registry", index.url + "/")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
    with pytest.raises(DownloadError, match=r"npm view none@1\.0\.0: Not Found"):
        PackageSource(index="npm", package="none", version="1.0.0", license="MIT").fetch(console)


def test_npm_package_without_npm(index: Index, console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.delenv("NPM_CONFIG_REGISTRY", raising=False)
    monkeypatch.setattr("pathlib.Path.home", lambda: Path("/nowhere"))
    package = PackageSource(index="npm", package="some-pkg", version="1.0.0", license="MIT")
    with pytest.raises(DownloadError, match="NPM_CONFIG_REGISTRY"):
        package.fetch(console)


@pytest.mark.parametrize(
    ("filename", "yes"),
    [
        ("Some.Pkg-1.0-py3-none-any.whl", True),
        ("some_pkg-1.0.tar.gz", True),
        ("some-pkg-1.0-py2.5.egg", True),
        ("some-pkg-extra-1.0.tar.gz", False),
        ("some_pkg-1.0.1.tar.gz", False),
        ("some_pkg-1.0.exe", False),
    ],
)
def test_release_file_names(filename: str, yes: bool) -> None:
    assert is_release(filename, "some-pkg", "1.0") is yes


def test_page_with_relative_links_and_no_hashes() -> None:
    (found,) = parse_page("text/html", '<a href="../x-1.zip">x-1.zip</a>', "https://example.org/simple/x/")
    assert (found.url, found.sha256) == ("https://example.org/simple/x-1.zip", "")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("package", "../up", "a package name has"),
        ("package", "a b", "@scope/name"),
        ("version", ">=1.0", "exact version"),
    ],
)
def test_invalid_package_names(key: str, value: str, words: str) -> None:
    """The error must not show a regular expression ("String should match pattern '^...'")."""
    with pytest.raises(ValueError, match=words):
        PackageSource(**{"package": "p", "version": "1.0", "license": "MIT", key: value})


@pytest.mark.parametrize("text", ["abc", "sha512-!!!", "md5:" + "0" * 32, "0" * 63])
def test_invalid_hashes(text: str) -> None:
    with pytest.raises(ValueError):
        Digest.parse(text)
