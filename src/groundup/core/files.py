"""Atomic file writes, digests, disk space and the cache directory."""

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
    """Expand "~" or "~user" at the start of a path.

    Args:
        path: Path that may start with "~".

    Raises:
        ConfigError: The named user does not exist, or has no home directory.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise ConfigError(
            f"{path}: no home directory for {path.parts[0]}",
            fix="Write the path in full, or set HOME (or XDG_CACHE_HOME for the cache).",
        ) from None


def shell_quoted(path: Path | str) -> str:
    """Quote a path for use in a shell command.

    Args:
        path: Path to quote.
    """
    return shlex.quote(str(path))


def cache_dir() -> Path:
    """Return the directory for downloads and compiled kernels: `$XDG_CACHE_HOME/groundup` or `~/.cache/groundup`.

    Raises:
        ConfigError: XDG_CACHE_HOME is not set and the user has no home directory.
    """
    root = os.environ.get("XDG_CACHE_HOME") or expand_home(Path("~/.cache"))
    return Path(root) / "groundup"


def sync_directory(path: Path) -> None:
    """Flush a directory to disk, so that renames of its entries survive a power failure.

    Args:
        path: Directory to flush.
    """
    if os.name == "nt":  # Windows cannot open directories, and does not need this flush
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`, and rename the temporary file to `path` after the block succeeds.

    If the block fails or the process is killed inside the block, the file at `path` is unchanged.

    Args:
        path: Final path of the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _errors_with_path(path):
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(descriptor)
        temporary = Path(name)
        try:
            yield temporary
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            temporary.chmod(0o666 & ~_umask())  # mkstemp creates files with mode 0600
            temporary.replace(path)
            sync_directory(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary directory, and rename it to `path` after the block succeeds (see `atomic_file`).

    Args:
        path: Final path of the directory. An existing directory at this path is replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _errors_with_path(path):
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
        try:
            yield temporary
            temporary.chmod(0o777 & ~_umask())
            for file in temporary.rglob("*"):
                if file.is_file():
                    with file.open("rb") as written:
                        os.fsync(written.fileno())
            with _moved_aside(path):
                temporary.replace(path)
            sync_directory(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def delete_directory(path: Path) -> None:
    """Delete a directory atomically.

    If the process is killed meanwhile, either the complete directory or only a hidden temporary directory remains.

    Args:
        path: Directory to delete.
    """
    with _moved_aside(path):
        pass


@contextmanager
def _moved_aside(path: Path) -> Iterator[None]:
    """Rename an existing directory for the duration of the block. Delete it if the block succeeds, else restore it."""
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
def _errors_with_path(path: Path) -> Iterator[None]:
    """Replace temporary paths in OS errors by `path`. Disk-full errors without a path also get `path`."""
    try:
        yield
    except OSError as error:
        filename = None if error.filename is None else os.fsdecode(error.filename)
        is_temporary = filename is not None and Path(filename).name.startswith(f".{path.name}.")
        if is_temporary or (filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT)):
            error.filename, error.filename2 = str(path), None
        raise


@contextmanager
def system_errors(path: Path) -> Iterator[None]:
    """Convert exceptions of a library whose message contains an OS error number to an OSError.

    For example, safetensors raises an exception with the message "I/O error: No space left on device (os error 28)".

    Args:
        path: File that the library writes.

    Raises:
        OSError: The error with the number that the library's message contains.
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
    """Write text to a file atomically as UTF-8. Lone surrogates, which occur in file names, are escaped.

    Args:
        path: File to write.
        text: Content of the file.
    """
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Any) -> None:
    """Write a value to a file atomically as indented JSON.

    Args:
        path: File to write.
        value: JSON value. Values of types that JSON does not have are converted with `str`.
    """
    with atomic_file(path) as temporary:
        # UTF-8 cannot encode lone surrogates, so they are written as JSON escapes.
        text = json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n"
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def read_json(path: Path, *, max_bytes: int | None = None) -> Any:
    """Read a JSON file and return its value.

    Args:
        path: File to read.
        max_bytes: Maximum file size in bytes. Default: no limit.

    Raises:
        FormatError: The file is not valid JSON, or is larger than `max_bytes`.
    """
    if max_bytes is not None and path.stat().st_size > max_bytes:
        raise FormatError(
            f"{path}: {path.stat().st_size:,} bytes",
            rule=f"the maximum is {max_bytes:,}",
            fix="Download or copy the file again.",
        )
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # invalid JSON or UTF-8, a very long integer, or deep nesting
        raise FormatError(
            f"{path} is not valid JSON: {error}",
            fix="Delete its directory and run the stage that wrote it again.",
        ) from error


def file_digest(path: Path) -> str:
    """Return the hexadecimal BLAKE2b-128 digest of a file's content.

    Args:
        path: File to hash.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def require_disk_space(directory: Path, needed_bytes: int, purpose: str) -> None:
    """Raise an error if the disk has less free space than needed.

    Args:
        directory: Directory that will be written to. It need not exist.
        needed_bytes: Required space in bytes.
        purpose: Operation that needs the space, for the error message.

    Raises:
        ResourceError: The free space is smaller than `needed_bytes`.
    """
    existing = next(parent for parent in (directory, *directory.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed_bytes:
        raise ResourceError(
            f"{directory}: {free / 1e6:,.0f} MB free",
            rule=f"{purpose} needs {needed_bytes / 1e6:,.0f} MB",
            fix="Free some space, or choose another disk with --out (or XDG_CACHE_HOME for the cache).",
        )
