"""The losses of a run as they come: what a page has not seen yet of `metrics.jsonl`, its plan and its samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from groundup.core.errors import GroundupError
from groundup.core.files import read_json
from groundup.train.samples import SAMPLES

_MOST_ROWS = 1500  # at once: what a curve can show
_SAMPLES = 40

Json = dict[str, Any]


def new_rows(directory: Path, mark: str) -> Json:
    """The steps that were logged since a page looked last.

    Args:
        mark: what the answer before said as "mark"; empty at first.

    Returns:
        "rows" of the log, thinned where there are too many; "mark"; and "again", whether these are all from the first
        on: a run that goes on from a checkpoint writes its log anew.
    """
    path = directory / "metrics.jsonl"
    if not path.is_file():
        return {"rows": [], "mark": "", "again": True}
    with path.open("rb") as file:
        inode = Path(path).stat().st_ino
        before, _, offset = mark.partition("-")
        size = file.seek(0, 2)
        again = not (before == str(inode) and offset.isdecimal() and int(offset) <= size)
        start = 0 if again else int(offset)
        file.seek(start)
        read = file.read()
    whole = read[: read.rfind(b"\n") + 1]  # the last line may be half written
    rows = [row for line in whole.splitlines() if (row := _row(line)) is not None]
    stride = -(-len(rows) // _MOST_ROWS) or 1
    thinned = rows[stride - 1 :: stride]
    if rows and thinned[-1] is not rows[-1]:
        thinned.append(rows[-1])
    return {"rows": thinned, "mark": f"{inode}-{start + len(whole)}", "again": again}


def told(directory: Path) -> Json:
    """The plan of a stage that trains, and what it wrote on the way."""
    plan: Json = {}
    if (path := directory / "plan.json").is_file():
        try:
            plan = dict(read_json(path).get("plan", {}))
        except GroundupError:
            plan = {}
    return {"plan": plan, "samples": _samples(directory / SAMPLES)}


def _samples(path: Path) -> list[Json]:
    if not path.is_file():
        return []
    # A run that goes on from a checkpoint comes by some steps again.
    found = {row["step"]: row for line in path.read_bytes().splitlines() if (row := _row(line)) and "step" in row}
    return [found[step] for step in sorted(found)][-_SAMPLES:]


def _row(line: bytes) -> Json | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
