"""Checksums of files and JSON records, with a cache of file checksums.

Hashing a few hundred megabytes takes a third of a second. The cache therefore stores the checksum of each file together
with its size, inode and modification times. If one of these values has changed, the file is hashed again.
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

CHECKSUM = "checksum"  # JSON key that holds the checksum of the record
MISSING = "missing"  # reported problem if a file does not exist
_CACHE = "checksums.json"
_MAX_CACHED = 4096
_MIN_AGE_NS = 2_000_000_000  # some file systems store times with a resolution of 2 s
_THREADS = 4

_Stamp = tuple[int, int, int, int]
_known: dict[str, tuple[_Stamp, str]] = {}
_loaded: set[Path] = set()  # cache files that this process has already read


def digests_of(paths: Iterable[Path], *, remember: bool = True) -> dict[Path, str]:
    """Return the BLAKE2b-128 digests of files. Files that did not change since the last call are not read again.

    Args:
        paths: Files to hash. All of them must exist.
        remember: If true, use cached digests of unchanged files. If false, read all files.

    Returns:
        A dictionary that maps each path to its hexadecimal digest.
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
    """Return the files whose contents differ from their recorded digests.

    Args:
        directory: Directory that contains the files.
        digests: Maps each file name to the expected BLAKE2b-128 digest.
        remember: Whether to use cached digests of unchanged files, see `digests_of`.

    Returns:
        A dictionary that maps the name of each damaged or missing file to a description of the problem.
    """
    there = {name: directory / name for name in digests if (directory / name).is_file()}
    found = digests_of(there.values(), remember=remember)
    damaged = {name: MISSING for name in digests if name not in there}
    for name, path in there.items():
        # The cached digest may itself be wrong, so a mismatch is confirmed by reading the file.
        if found[path] != digests[name] and not (remember and file_digest(path) == digests[name]):
            damaged[name] = "contents do not match the checksum"
    return {name: damaged[name] for name in digests if name in damaged}


def write_checked_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a JSON object to a file atomically, and add a checksum of its values.

    Args:
        path: File to write.
        record: Keys and values of the JSON object.
    """
    plain = _plain(record)
    write_json(path, plain | {CHECKSUM: _checksum(plain)})


def read_checked_json(path: Path, *, fix: str) -> dict[str, Any]:
    """Read a JSON object that `write_checked_json` wrote, and verify its checksum.

    Args:
        path: File to read.
        fix: Instruction to the user for the case that the file is damaged.

    Returns:
        The keys and values of the JSON object, without the checksum.

    Raises:
        FormatError: The values do not match the checksum, or the file does not contain a JSON object.
    """
    record = read_json(path)
    if not isinstance(record, dict):
        raise FormatError(f"{path}: not a JSON object", fix=fix)
    if record.pop(CHECKSUM, None) != _checksum(_plain(record)):
        raise FormatError(
            f"{path}: contents do not match the checksum",
            rule="the file is damaged, or was changed after groundup wrote it",
            fix=fix,
        )
    return record


def _plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record after a round trip through JSON, without its checksum."""
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
        return  # if the cache is invalid, all files are hashed again


def _save(new: Mapping[str, tuple[_Stamp, str]]) -> None:
    _known.update(new)
    newest = list(_known.items())[-_MAX_CACHED:]
    try:
        write_json(cache_dir() / _CACHE, {name: [*stamp, digest] for name, (stamp, digest) in newest})
    except (GroundupError, OSError):
        return  # if the cache cannot be written, later calls are slower but correct
