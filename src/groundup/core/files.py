"""Files that are either whole or absent: atomic writes, digests, disk space, the cache."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from groundup.core.errors import ConfigError, FormatError, ResourceError


def expand_home(path: Path) -> Path:
    """The path, with a home directory in the place of a leading "~" or "~user".

    Raises:
        ConfigError: nobody of that name, or a user without a home directory.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise ConfigError(
            f"{path}: no home directory is known for {path.parts[0]}",
            rule="a path that begins with ~ is in a home directory",
            fix="Write the path in full, or set HOME (for the cache, XDG_CACHE_HOME does, too).",
        ) from None


def shell_quoted(path: Path | str) -> str:
    """Return a path as it is written in a command that a person copies into a shell."""
    return shlex.quote(str(path))


def cache_dir() -> Path:
    """Where downloads and compiled kernels are kept: `$XDG_CACHE_HOME/groundup`, else `~/.cache/groundup`.

    Raises:
        ConfigError: neither that variable nor a home directory.
    """
    root = os.environ.get("XDG_CACHE_HOME") or expand_home(Path("~/.cache"))
    return Path(root) / "groundup"


def sync_directory(path: Path) -> None:
    """Make renames inside a directory durable."""
    if os.name == "nt":  # Windows cannot open a directory; its rename is already durable enough
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the block ends well, fsync it and rename it into place.

    A process killed inside the block leaves `path` as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _errors_about(path):
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(descriptor)
        temporary = Path(name)
        try:
            yield temporary
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            temporary.chmod(0o666 & ~_umask())  # mkstemp's 0600 is for secrets; these are results
            temporary.replace(path)
            sync_directory(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Like `atomic_file`, for a whole directory; an existing directory at `path` is replaced at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _errors_about(path):
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
        try:
            yield temporary
            temporary.chmod(0o777 & ~_umask())
            for file in temporary.rglob("*"):
                if file.is_file():
                    with file.open("rb") as written:
                        os.fsync(written.fileno())
            with _away(path):
                temporary.replace(path)
            sync_directory(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def delete_directory(path: Path) -> None:
    """Delete a directory. A process killed in between leaves all of it or none, and a temporary beside it."""
    with _away(path):
        pass


@contextmanager
def _away(path: Path) -> Iterator[None]:
    """Take a directory, if it is one, out of the way: deleted when the block ends well, else put back."""
    if not path.is_dir() or path.is_symlink():
        yield
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    try:
        path.replace(aside / path.name)
        try:
            yield
        except BaseException:
            (aside / path.name).replace(path)
            raise
    finally:
        shutil.rmtree(aside)


@contextmanager
def _errors_about(path: Path) -> Iterator[None]:
    """Let the system's errors name what was asked for: not its temporary; and also when the disk is full."""
    try:
        yield
    except OSError as error:
        named = None if error.filename is None else os.fsdecode(error.filename)
        of_temporary = named is not None and Path(named).name.startswith(f".{path.name}.")
        if of_temporary or (named is None and error.errno in (errno.ENOSPC, errno.EDQUOT)):
            error.filename, error.filename2 = str(path), None
        raise


@contextmanager
def system_errors(path: Path) -> Iterator[None]:
    """Raise the system's error (a full disk) where a library has put it into the text of an error of its own.

    safetensors does so: "I/O error: No space left on device (os error 28)".

    Args:
        path: What is written.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        if (found := re.search(r"\(os error (\d+)\)", str(error))) is None:
            raise
        number = int(found[1])
        raise OSError(number, os.strerror(number), str(path)) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """Write a text atomically as UTF-8; lone surrogates, as in file names, are escaped."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, keys in the order given, human-readable."""
    with atomic_file(path) as temporary:
        # A lone surrogate, which UTF-8 cannot hold, is written as the escape that JSON has for it.
        text = json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n"
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def read_json(path: Path, *, max_bytes: int | None = None) -> Any:
    """Read a JSON file; a damaged one, or one of more than `max_bytes`, raises `FormatError` with the file's name."""
    if max_bytes is not None and path.stat().st_size > max_bytes:
        raise FormatError(
            f"{path}: {path.stat().st_size:,} bytes",
            rule=f"this file has at most {max_bytes:,}",
            fix="It is not what its name says; get it again.",
        )
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, an integer or a nesting without end
        raise FormatError(
            f"{path}: {error}",
            rule="this file must be valid JSON",
            fix="Delete its directory and run the stage that wrote it again.",
        ) from error


def file_digest(path: Path) -> str:
    """BLAKE2b-128 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def require_disk_space(directory: Path, needed_bytes: int, purpose: str) -> None:
    """Raise `ResourceError` unless `directory`'s disk has `needed_bytes` free."""
    existing = next(parent for parent in (directory, *directory.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed_bytes:
        raise ResourceError(
            f"{directory}: {free / 1e6:,.0f} MB free",
            rule=f"{purpose} needs {needed_bytes / 1e6:,.0f} MB",
            fix="Free some space, or choose another disk with --out (or XDG_CACHE_HOME for the cache).",
        )
