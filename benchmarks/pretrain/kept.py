"""What is measured already is not measured again: a benchmark of hours, cut off, goes on with what is left."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.pretrain.processes import ROOT, Workplace
from groundup.core.files import file_digest, read_json, write_json


def kept(
    place: Workplace, name: str, asked: Mapping[str, Any], tokens: Path, run: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """What `run` gives, or what it gave in an earlier command in this --work: asked the same, of this code and text.

    Args:
        asked: as JSON; whatever the result hangs on beside the code and the text.
        tokens: token shards.

    Raises:
        ContenderError: from `run`; nothing is kept then.
    """
    path = place.directory / "kept" / f"{name}.json"
    asked = dict(asked) | {"threads": place.threads}
    identity = {"asked": asked, "code": _code(), "text": file_digest(tokens / "index.json")}
    if path.is_file() and (before := read_json(path))["of"] == identity:
        result: dict[str, Any] = before["result"]
        return result
    result = run()
    path.parent.mkdir(exist_ok=True)
    write_json(path, {"of": identity, "result": result})
    return result


@cache
def _code() -> str:
    """Of our own program and of this benchmark, whether committed or not; peers are taken to stay as they are."""
    digest = hashlib.sha256()
    for directory in (ROOT / "src", ROOT / "benchmarks" / "pretrain"):
        for path in sorted(directory.rglob("*")):
            if path.suffix in (".py", ".cpp", ".h"):
                digest.update(file_digest(path).encode())
    return digest.hexdigest()
