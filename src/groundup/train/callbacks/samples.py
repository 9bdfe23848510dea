"""Log of texts that a model generates during training."""

from __future__ import annotations

import json
from pathlib import Path

from groundup.distributed.ranks import Ranks

SAMPLES = "samples.jsonl"


class SampleLog:
    """Log that appends one JSON object per generated sample to `samples.jsonl`.

    A resumed run repeats the steps after its last checkpoint, so the log may contain samples of these steps twice.

    Args:
        directory: Output directory of the stage.
        ranks: Ranks of the run. Only the first rank writes the log.
    """

    def __init__(self, directory: Path, ranks: Ranks) -> None:
        self._path = directory / SAMPLES if ranks.first else None

    def add(self, step: int, text: str, **scores: float) -> None:
        """Append a generated text, with the step and the validation scores of the model at this step."""
        if self._path is None:
            return
        row = {"step": step, **{name: round(score, 4) for name, score in scores.items()}, "text": text}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
