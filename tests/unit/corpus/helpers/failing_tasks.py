"""Tasks for a pool, some of which fail or kill their worker. Workers import this module."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from groundup.core.errors import DataError


@dataclass(frozen=True)
class Work:
    """Writes a file. Some kinds of work fail first."""

    directory: Path
    name: str
    failure: str = ""

    @property
    def label(self) -> str:
        return self.name

    @property
    def result(self) -> Path:
        return self.directory / self.name

    def done(self) -> bool:
        return self.result.exists()

    def run(self) -> None:
        marker = self.directory / f"{self.name}.marker"
        if self.failure == "always killed" or (self.failure == "killed once" and not marker.exists()):
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.failure == "slow":
            marker.touch()
            time.sleep(60)
        if self.failure == "user error":
            raise DataError("notes.txt", rule="must be text", fix="Give text.")
        with self.result.open("x") as file:  # fails if finished work runs again
            file.write(self.name)
