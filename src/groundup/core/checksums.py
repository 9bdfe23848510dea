"""Checksums of files and of JSON records, and a memory of the files whose checksum is known.

A file of some hundred megabytes takes a third of a second to hash. So its checksum is remembered in the cache together
with size, inode and times; a file that was written since is hashed again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from groundup.core.errors import FormatError, GroundupError
from groundup.core.files import cache_dir, file_digest, read_json, write_json

CHECKSUM = "checksum"  # the key of a JSON record's own checksum
MISSING = "missing"  # what is wrong with a file that is not there
_MEMORY = "checksums.json"
_MAX_REMEMBERED = 4096
_SETTLED_NS = 2_000_000_000  # file systems with coarse times give two writes within 2 s the same time
_THREADS = 4

_Stamp = tuple[int, int, int, int]
_known: dict[str, tuple[_Stamp, str]] = {}
_loaded: set[Path] = set()  # memories that were read by this process


def digests_of(paths: Iterable[Path], *, remember: bool = True) -> dict[Path, str]:
    """Return the BLAKE2b-128 of files, hashing only those that changed since their checksum was remembered.

    Args:
        paths: Existing files.
        remember: Use the memory; otherwise every file is read.
    """
    wanted = {path: (str(path.resolve()), _stamp(path)) for path in paths}
    if remember:
        _load()
    found: dict[Path, str] = {}
    for path, (name, stamp) in wanted.items():
        if remember and (known := _known.get(name)) is not None and known[0] == stamp:
            found[path] = known[1]
    missing = [path for path in wanted if path not in found]
    with ThreadPoolExecutor(min(_THREADS, len(missing) or 1)) as pool:
        found |= dict(zip(missing, pool.map(file_digest, missing), strict=True))
    now = time.time_ns()
    new = {}
    for path in missing:
        name, stamp = wanted[path]
        if stamp == _stamp(path) and now - max(stamp[1], stamp[2]) > _SETTLED_NS:
            new[name] = (stamp, found[path])
    if new:
        _save(new)
    return found


def damaged_files(directory: Path, digests: Mapping[str, str], *, remember: bool = True) -> dict[str, str]:
    """Return the files that are not as they were written, with what is wrong with each.

    Args:
        directory: Where the files are.
        digests: Name -> BLAKE2b-128 of each file.
        remember: See `digests_of`.
    """
    there = {name: directory / name for name in digests if (directory / name).is_file()}
    found = digests_of(there.values(), remember=remember)
    damaged = {name: MISSING for name in digests if name not in there}
    for name, path in there.items():
        # What the memory holds may itself be damaged: only the file decides.
        if found[path] != digests[name] and not (remember and file_digest(path) == digests[name]):
            damaged[name] = "its contents do not match its checksum"
    return {name: damaged[name] for name in digests if name in damaged}


def write_checked_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a JSON object atomically, with a checksum of its own values."""
    plain = _plain(record)
    write_json(path, plain | {CHECKSUM: _checksum(plain)})


def read_checked_json(path: Path, *, fix: str) -> dict[str, Any]:
    """Read what `write_checked_json` wrote; a record of an earlier release, without checksum, is taken as it is.

    Args:
        path: The file.
        fix: What to do if it is damaged, as an instruction.

    Raises:
        FormatError: The values are not those that were written.
    """
    record = read_json(path)
    if not isinstance(record, dict):
        raise FormatError(f"{path}: not a JSON object", rule="this file holds a record of groundup", fix=fix)
    checksum = record.pop(CHECKSUM, None)
    if checksum is not None and checksum != _checksum(_plain(record)):
        raise FormatError(
            f"{path}: its contents do not match its checksum",
            rule="the file is damaged, or was changed after groundup wrote it",
            fix=fix,
        )
    return record


def is_checked_json(path: Path) -> bool:
    """Whether the record carries a checksum of its own."""
    record = read_json(path)
    return isinstance(record, dict) and CHECKSUM in record


def _plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record's values as JSON gives them back."""
    values: dict[str, Any] = json.loads(json.dumps(dict(record), default=str))
    values.pop(CHECKSUM, None)
    return values


def _checksum(plain: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(plain, sort_keys=True).encode(), digest_size=16).hexdigest()


def _stamp(path: Path) -> _Stamp:
    seen = path.stat()
    return seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino


def _load() -> None:
    try:
        memory = cache_dir() / _MEMORY
        if memory in _loaded:
            return
        _loaded.add(memory)
        record = read_json(memory) if memory.is_file() else {}
        for name, (size, modified, changed, inode, digest) in record.items():
            _known.setdefault(name, ((size, modified, changed, inode), digest))
    except (GroundupError, OSError, AttributeError, TypeError, ValueError):
        return  # no memory, or a damaged one: files are hashed again


def _save(new: Mapping[str, tuple[_Stamp, str]]) -> None:
    _known.update(new)
    newest = list(_known.items())[-_MAX_REMEMBERED:]
    try:
        write_json(cache_dir() / _MEMORY, {name: [*stamp, digest] for name, (stamp, digest) in newest})
    except (GroundupError, OSError):
        return  # a read-only or full cache costs time, and nothing else
