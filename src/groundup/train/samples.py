"""Log of texts that a model generates during training."""

from __future__ import annotations

import json
from pathlib import Path

from groundup.distributed.ranks import Ranks

SAMPLES = "samples.jsonl"


class SampleLog:
    """Append a JSON object per sample to `samples.jsonl`; a resumed run may write some samples again.

    Args:
        directory: Output directory of the stage.
        ranks: Ranks of the run; the first one writes.
    """

    def __init__(self, directory: Path, ranks: Ranks) -> None:
        self._path = directory / SAMPLES if ranks.first else None

    def add(self, step: int, text: str, **scores: float) -> None:
        """Append a text with the scores of the model at that step."""
        if self._path is None:
            return
        row = {"step": step, **{name: round(score, 4) for name, score in scores.items()}, "text": text}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
