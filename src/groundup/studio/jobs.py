"""Recipes that were started from the page: each a `groundup run` of its own, with a log of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.core.errors import ConfigError, DataError
from groundup.studio.home import LOG

_PATIENCE = 20  # seconds for a run to end well when the Studio does
_TAIL_BYTES = 64_000


@dataclass(slots=True)
class StudioJob:
    """One run under way, or ended."""

    process: subprocess.Popen[bytes]
    log: Path
    stopping: bool = False

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None


class Jobs:
    """The runs that this Studio has started.

    Args:
        runs: the directory that holds the runs.
    """

    def __init__(self, runs: Path) -> None:
        self._runs = runs
        self._jobs: dict[str, StudioJob] = {}
        self._lock = threading.Lock()

    def start(self, recipe: Path, name: str, changes: Sequence[str] = ()) -> None:
        """Run a recipe, or go on with it, in a process of its own.

        Raises:
            ConfigError: no name for a run, or no change.
            DataError: it is running.
        """
        if not name or name.startswith(".") or Path(name).name != name:
            raise ConfigError(
                f"name = {name[:80]!r}", rule="a run's name is that of one directory", fix="Give a plain name."
            )
        with self._lock:
            job = self._jobs.get(name)
            if job is not None and job.running:
                raise DataError(f"{name}: it is running", rule="a run runs once at a time", fix="Stop it first.")
            log = self._runs / name / LOG
            log.parent.mkdir(parents=True, exist_ok=True)
            # Each in one word with its value, so that no text from a page can become an option of its own.
            settings = [f"--set={change}" for change in (*changes, f"name={name}")]
            command = [
                sys.executable,
                "-m",
                "groundup",
                "run",
                str(recipe.resolve()),
                f"--runs={self._runs}",
                *settings,
            ]
            with log.open("wb") as file:
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, **_apart()
                )
            self._jobs[name] = StudioJob(process, log)

    def stop(self, name: str) -> None:
        """Let a run end as Ctrl-C ends it: whole files, and the same command goes on from there.

        Raises:
            DataError: this Studio has not started it, or it has ended.
        """
        job = self._jobs.get(name)
        if job is None or not job.running:
            raise DataError(
                f"{name}: not running from here",
                rule="the Studio stops what it has started",
                fix="Stop it where it was started, with Ctrl-C.",
            )
        job.stopping = True
        _interrupt(job.process)

    def told(self, name: str) -> dict[str, Any] | None:
        """How a run is doing; None where this Studio has not started it."""
        job = self._jobs.get(name)
        if job is None:
            return None
        return {"running": job.running, "stopping": job.stopping and job.running, "code": job.process.poll()}

    def log(self, name: str) -> str:
        """The end of a run's log; empty where there is none."""
        job = self._jobs.get(name)
        if job is None or not job.log.is_file():
            return ""
        with job.log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
            return file.read().decode("utf-8", errors="replace")

    def close(self) -> None:
        """End all that runs, as `stop` does; what does not end in time is killed."""
        running = [job for job in self._jobs.values() if job.running]
        for job in running:
            _interrupt(job.process)
        for job in running:
            try:
                job.process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                job.process.kill()


if sys.platform == "win32":

    def _apart() -> dict[str, Any]:
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}

    def _interrupt(process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.CTRL_BREAK_EVENT)

else:

    def _apart() -> dict[str, Any]:
        # Else Ctrl-C in the Studio's terminal would reach it, too, and a second time through `close`.
        return {"start_new_session": True}

    def _interrupt(process: subprocess.Popen[bytes]) -> None:
        try:
            os.killpg(process.pid, signal.SIGINT)
        except ProcessLookupError:  # it has ended in this moment
            return
