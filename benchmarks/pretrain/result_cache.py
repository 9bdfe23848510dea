"""A cache of results, so that an interrupted benchmark of several hours can be resumed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.pretrain.processes import ROOT, ProcessRunner
from groundup.core.files import file_digest, read_json, write_json


def cached(
    runner: ProcessRunner,
    name: str,
    settings: Mapping[str, Any],
    tokens: Path,
    run: Callable[[], dict[str, Any]],
    *,
    code: str | None = None,
) -> dict[str, Any]:
    """Return a cached result with the same settings, code and text, or run the measurement if no result is cached.

    Args:
        runner: The process runner, whose directory contains the cache.
        name: Name of the result.
        settings: JSON values that determine the result, in addition to the code and the text.
        tokens: Directory of token shards.
        run: A function that runs the measurement and returns the result.
        code: Identity of the measured code. Default: a digest of groundup and of this benchmark.

    Raises:
        ContenderError: `run` failed. In this case, the result is not cached.
    """
    path = runner.directory / "results" / f"{name}.json"
    settings = dict(settings) | {"threads": runner.threads}
    identity = {"settings": settings, "code": code or _code(), "text": file_digest(tokens / "index.json")}
    if path.is_file() and (stored := read_json(path))["identity"] == identity:
        result: dict[str, Any] = stored["result"]
        return result
    result = run()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"identity": identity, "result": result})
    return result


@cache
def _code() -> str:
    """Return a digest of the source code of groundup and of this benchmark.

    The digest does not include the other programs, because they are assumed not to change.
    """
    digest = hashlib.sha256()
    for directory in (ROOT / "src", ROOT / "benchmarks" / "pretrain"):
        for path in sorted(directory.rglob("*")):
            if path.suffix in (".py", ".cpp", ".h"):
                digest.update(file_digest(path).encode())
    return digest.hexdigest()
