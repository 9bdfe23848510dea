"""What a model writes while it learns, kept for whoever looks later."""

from __future__ import annotations

import json
from pathlib import Path

from groundup.distributed.ranks import Ranks

SAMPLES = "samples.jsonl"


class SampleLog:
    """One JSON object a look in `samples.jsonl`; a run that goes on from a checkpoint may write some of them again.

    Args:
        directory: of the stage.
        ranks: the first of them writes.
    """

    def __init__(self, directory: Path, ranks: Ranks) -> None:
        self._path = directory / SAMPLES if ranks.first else None

    def add(self, step: int, text: str, **scores: float) -> None:
        """Keep a text, and how good the model was then."""
        if self._path is None:
            return
        row = {"step": step, **{name: round(score, 4) for name, score in scores.items()}, "text": text}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
