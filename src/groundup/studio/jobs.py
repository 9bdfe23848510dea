"""Runs that are started from the Studio's page. Each run is a `groundup run` process that has its own log."""

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
from groundup.studio.workspace import LOG

_SHUTDOWN_SECONDS = 20
_LOG_TAIL_BYTES = 64_000


@dataclass(slots=True)
class StudioJob:
    """The process and the log file of a run."""

    process: subprocess.Popen[bytes]
    log: Path
    stopping: bool = False

    @property
    def running(self) -> bool:
        """Whether the process is still running."""
        return self.process.poll() is None


class Jobs:
    """The runs that this Studio has started.

    Args:
        runs: Directory that contains the runs.
    """

    def __init__(self, runs: Path) -> None:
        self._runs = runs
        self._jobs: dict[str, StudioJob] = {}
        self._lock = threading.Lock()

    def start(self, recipe: Path, name: str, overrides: Sequence[str] = ()) -> None:
        """Start or resume a run in a new process.

        Args:
            recipe: Recipe file.
            name: Name of the run, which is also the name of the run directory.
            overrides: Settings that replace settings of the recipe, each in the form "stage.setting=value".

        Raises:
            ConfigError: `name` is not a valid run name.
            DataError: The run is already in progress.
        """
        if not name or name.startswith(".") or Path(name).name != name:
            raise ConfigError(
                f"run name {name[:80]!r}",
                rule="not a valid directory name",
                fix='Choose a name without "/" that does not start with a dot.',
            )
        with self._lock:
            job = self._jobs.get(name)
            if job is not None and job.running:
                raise DataError(f"run {name!r}", rule="already running", fix="Stop it first.")
            log = self._runs / name / LOG
            log.parent.mkdir(parents=True, exist_ok=True)
            # The option and its value are one argument, so a value from the page cannot become another option.
            settings = [f"--set={override}" for override in (*overrides, f"name={name}")]
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
                    command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, **_new_process_group()
                )
            self._jobs[name] = StudioJob(process, log)

    def stop(self, name: str) -> None:
        """Interrupt a run as Ctrl-C does. The run saves a checkpoint, so that `start` can resume the run.

        Raises:
            DataError: This Studio did not start the run, or the run has ended.
        """
        job = self._jobs.get(name)
        if job is None or not job.running:
            raise DataError(
                f"run {name!r}",
                rule="not running in this Studio",
                fix="Press Ctrl-C in the terminal in which it was started.",
            )
        job.stopping = True
        _interrupt(job.process)

    def status(self, name: str) -> dict[str, Any] | None:
        """Return the state of a run, or None if this Studio did not start the run.

        The state is a dict with the keys "running", "stopping" and "code", which is the exit code of the process.
        """
        job = self._jobs.get(name)
        if job is None:
            return None
        return {"running": job.running, "stopping": job.stopping and job.running, "code": job.process.poll()}

    def log(self, name: str) -> str:
        """Return the last 64 kB of the log of a run, or an empty string if this Studio did not start the run."""
        job = self._jobs.get(name)
        if job is None or not job.log.is_file():
            return ""
        with job.log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _LOG_TAIL_BYTES))
            return file.read().decode("utf-8", errors="replace")

    def close(self) -> None:
        """Interrupt all runs. A run that has not exited after 20 seconds is killed."""
        running = [job for job in self._jobs.values() if job.running]
        for job in running:
            _interrupt(job.process)
        for job in running:
            try:
                job.process.wait(_SHUTDOWN_SECONDS)
            except subprocess.TimeoutExpired:
                job.process.kill()


if sys.platform == "win32":

    def _new_process_group() -> dict[str, Any]:
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}

    def _interrupt(process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.CTRL_BREAK_EVENT)

else:

    def _new_process_group() -> dict[str, Any]:
        # In the Studio's process group, Ctrl-C in the terminal would interrupt the run, and then `close` would
        # interrupt the run a second time.
        return {"start_new_session": True}

    def _interrupt(process: subprocess.Popen[bytes]) -> None:
        try:
            os.killpg(process.pid, signal.SIGINT)
        except ProcessLookupError:  # The process has already exited.
            return
