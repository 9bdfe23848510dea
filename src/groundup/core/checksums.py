"""Checksums of files and JSON records, with a cache.

Hashing a few hundred megabytes takes a third of a second. The cache stores checksums with the size, inode and times of
each file, and a changed file is hashed again.
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

CHECKSUM = "checksum"  # key of the checksum in a JSON record
MISSING = "missing"  # problem of a file that does not exist
_CACHE = "checksums.json"
_MAX_CACHED = 4096
_MIN_AGE_NS = 2_000_000_000  # some file systems have a time resolution of 2 s
_THREADS = 4

_Stamp = tuple[int, int, int, int]
_known: dict[str, tuple[_Stamp, str]] = {}
_loaded: set[Path] = set()  # cache files that this process has read


def digests_of(paths: Iterable[Path], *, remember: bool = True) -> dict[Path, str]:
    """Return the BLAKE2b-128 digests of files. Only changed files are hashed again.

    Args:
        paths: Existing files.
        remember: Use the cache. Otherwise all files are read.

    Returns:
        Path -> digest in hex.
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
        if stamp == _stamp(path) and now - max(stamp[1], stamp[2]) > _MIN_AGE_NS:
            new[name] = (stamp, found[path])
    if new:
        _save(new)
    return found


def damaged_files(directory: Path, digests: Mapping[str, str], *, remember: bool = True) -> dict[str, str]:
    """Return the files that differ from their recorded digests.

    Args:
        directory: Directory of the files.
        digests: Name -> BLAKE2b-128 digest of each file.
        remember: Use the cache, see `digests_of`.

    Returns:
        Name -> problem of each damaged or missing file.
    """
    there = {name: directory / name for name in digests if (directory / name).is_file()}
    found = digests_of(there.values(), remember=remember)
    damaged = {name: MISSING for name in digests if name not in there}
    for name, path in there.items():
        # The cache may be damaged, so a mismatch is confirmed by reading the file.
        if found[path] != digests[name] and not (remember and file_digest(path) == digests[name]):
            damaged[name] = "contents do not match the checksum"
    return {name: damaged[name] for name in digests if name in damaged}


def write_checked_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a JSON object atomically, with a checksum of its values.

    Args:
        path: The file.
        record: Keys and values.
    """
    plain = _plain(record)
    write_json(path, plain | {CHECKSUM: _checksum(plain)})


def read_checked_json(path: Path, *, fix: str) -> dict[str, Any]:
    """Read a record that `write_checked_json` wrote. Records of older releases have no checksum.

    Args:
        path: The file.
        fix: What to do if it is damaged, as an instruction.

    Returns:
        Keys and values, without the checksum.

    Raises:
        FormatError: The values do not match the checksum.
    """
    record = read_json(path)
    if not isinstance(record, dict):
        raise FormatError(f"{path}: not a JSON object", fix=fix)
    checksum = record.pop(CHECKSUM, None)
    if checksum is not None and checksum != _checksum(_plain(record)):
        raise FormatError(
            f"{path}: contents do not match the checksum",
            rule="the file is damaged, or was changed after groundup wrote it",
            fix=fix,
        )
    return record


def is_checked_json(path: Path) -> bool:
    """Return whether a JSON record contains a checksum.

    Args:
        path: The file.
    """
    record = read_json(path)
    return isinstance(record, dict) and CHECKSUM in record


def _plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values as JSON reads them back."""
    values: dict[str, Any] = json.loads(json.dumps(dict(record), default=str))
    values.pop(CHECKSUM, None)
    return values


def _checksum(plain: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(plain, sort_keys=True).encode(), digest_size=16).hexdigest()


def _stamp(path: Path) -> _Stamp:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def _load() -> None:
    try:
        cache = cache_dir() / _CACHE
        if cache in _loaded:
            return
        _loaded.add(cache)
        record = read_json(cache) if cache.is_file() else {}
        for name, (size, modified, changed, inode, digest) in record.items():
            _known.setdefault(name, ((size, modified, changed, inode), digest))
    except (GroundupError, OSError, AttributeError, TypeError, ValueError):
        return  # without a valid cache, files are hashed again


def _save(new: Mapping[str, tuple[_Stamp, str]]) -> None:
    _known.update(new)
    newest = list(_known.items())[-_MAX_CACHED:]
    try:
        write_json(cache_dir() / _CACHE, {name: [*stamp, digest] for name, (stamp, digest) in newest})
    except (GroundupError, OSError):
        return  # a read-only or full cache only costs time
