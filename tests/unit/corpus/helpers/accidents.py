"""Work for a pool, some of which meets an accident. Its own module: the workers must be able to import it."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from groundup.core.errors import DataError


@dataclass(frozen=True)
class Work:
    """Writes a file; some kinds of work meet an accident first."""

    directory: Path
    name: str
    accident: str = ""

    @property
    def label(self) -> str:
        return self.name

    @property
    def result(self) -> Path:
        return self.directory / self.name

    def done(self) -> bool:
        return self.result.exists()

    def run(self) -> None:
        scar = self.directory / f"{self.name}.scar"
        if self.accident == "always killed" or (self.accident == "killed once" and not scar.exists()):
            scar.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.accident == "slow":
            scar.touch()
            time.sleep(60)
        if self.accident == "user error":
            raise DataError("notes.txt", rule="must be text", fix="Give text.")
        with self.result.open("x") as file:  # a second run of finished work would fail here
            file.write(self.name)
