"""Data for the training charts: the rows of `metrics.jsonl` since the last request, the plan, and the samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from groundup.core.errors import GroundupError
from groundup.core.files import read_json
from groundup.train.callbacks.samples import SAMPLES

_MAX_ROWS = 1500  # Maximum number of rows per response, which is about the width of a chart in pixels.
_MAX_SAMPLES = 40

Json = dict[str, Any]


def new_rows(directory: Path, cursor: str) -> Json:
    """Return the metrics that were logged after `cursor`.

    Args:
        directory: Output directory of a training stage.
        cursor: The value "cursor" of the previous response, or an empty string for the first request.

    Returns:
        A dict with three keys. "rows" has the new rows of the log, downsampled to about 1,500. "cursor" is the cursor
        for the next request. "reset" is true if the rows replace all earlier rows. This occurs because a run that
        resumes from a checkpoint rewrites its log.
    """
    path = directory / "metrics.jsonl"
    if not path.is_file():
        return {"rows": [], "cursor": "", "reset": True}
    with path.open("rb") as file:
        inode = Path(path).stat().st_ino
        previous, _, offset = cursor.partition("-")
        size = file.seek(0, 2)
        reset = not (previous == str(inode) and offset.isdecimal() and int(offset) <= size)
        start = 0 if reset else int(offset)
        file.seek(start)
        new = file.read()
    complete = new[: new.rfind(b"\n") + 1]  # The last line is excluded if it is incomplete.
    rows = [row for line in complete.splitlines() if (row := _row(line)) is not None]
    stride = -(-len(rows) // _MAX_ROWS) or 1
    thinned = rows[stride - 1 :: stride]
    if rows and thinned[-1] is not rows[-1]:
        thinned.append(rows[-1])
    return {"rows": thinned, "cursor": f"{inode}-{start + len(complete)}", "reset": reset}


def plan_and_samples(directory: Path) -> Json:
    """Return the plan of a training stage, and the samples that it has generated, sorted by step."""
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
    # A run that resumes from a checkpoint repeats some steps, so the log may contain several samples of a step. The
    # last sample is used.
    by_step = {row["step"]: row for line in path.read_bytes().splitlines() if (row := _row(line)) and "step" in row}
    return [by_step[step] for step in sorted(by_step)][-_MAX_SAMPLES:]


def _row(line: bytes) -> Json | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
