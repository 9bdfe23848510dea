"""What a stage leaves beside its output: `artifact.json`, which makes `groundup run` a build system in miniature.

A stage whose config and inputs have not changed is skipped; one that was cut off resumes; one whose config changed
sets the old output aside. From the last artifact the whole chain of provenance can be read.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, TextIO

from groundup.console import Console
from groundup.errors import ConfigError, DataError, FormatError
from groundup.files import file_digest, read_json, write_json
from groundup.locks import LOCK, hold
from groundup.redact import redacted_config

FORMAT_VERSION = 1
ARTIFACT = "artifact.json"
STARTED = "started.json"
SET_ASIDE = ".replaced-"  # in the name of a directory that gave way to the output of another config
_LIBRARIES = ("groundup", "torch", "tokenizers", "tiktoken", "numpy", "pyarrow", "safetensors")


@dataclass(frozen=True, slots=True)
class Artifact:
    """The record of one finished stage.

    Attributes:
        stage: the stage's name, a table of the recipe.
        config: the config as given (paths and the console's switches left out of the fingerprint).
        fingerprint: digest of config and inputs; equal fingerprints mean equal work.
        inputs: name -> digest of each input.
        outputs: file name -> digest of each file left in the directory.
        facts: what the stage found out (counts, losses, the resolved plan), for the report.
    """

    stage: str
    config: dict[str, Any]
    fingerprint: str
    inputs: dict[str, str]
    outputs: dict[str, str]
    facts: dict[str, Any]
    seconds: float
    finished_at: str
    versions: dict[str, str] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    @property
    def digest(self) -> str:
        """Identity of the output: what a later stage records as its input."""
        return _digest(self.outputs)


def record(
    stage: str,
    config: Mapping[str, Any],
    inputs: Mapping[str, str],
    directory: Path,
    outputs: Sequence[Path],
    facts: Mapping[str, Any],
    seconds: float,
) -> Artifact:
    """The record of work that is finished, made here and now; `outputs` lie in `directory`.

    Secrets in the config and the facts are left out (`groundup.redact`).
    """
    return Artifact(
        stage=stage,
        config=redacted_config(config),
        fingerprint=fingerprint_of(stage, config, inputs),
        inputs=dict(inputs),
        outputs={path.relative_to(directory).as_posix(): file_digest(path) for path in sorted(outputs)},
        facts=redacted_config(facts),
        seconds=round(seconds, 3),
        finished_at=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        versions=_versions(),
        machine=_machine(),
    )


def fingerprint_of(stage: str, config: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """What makes two pieces of work equal; another password does not make them differ."""
    config = redacted_config(config, variables=False)
    return _digest({"stage": stage, "config": config, "inputs": dict(inputs), "format": FORMAT_VERSION})


def _digest(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()


def read(directory: Path) -> Artifact:
    """Read the artifact of a finished stage.

    Raises:
        DataError: the directory is absent or its stage did not finish.
        FormatError: written by a newer release.
    """
    path = directory / ARTIFACT
    if not path.is_file():
        found = "no such directory" if not directory.exists() else "no artifact.json in it"
        raise DataError(
            f"{directory}: {found}",
            rule="a stage reads the finished output of the stage before",
            fix="Check the path, or run the earlier stage (again) until it says that it is done.",
        )
    record = read_json(path)
    if isinstance(record, dict) and record.get("format_version", 0) > FORMAT_VERSION:
        raise FormatError(
            f"{path}: format_version {record['format_version']}",
            rule=f"this release reads up to {FORMAT_VERSION}",
            fix="Upgrade groundup: pip install --upgrade groundup.",
        )
    try:
        made = Artifact(**record)
        if not all(isinstance(table, dict) for table in (made.config, made.inputs, made.outputs, made.facts)):
            raise TypeError("config, inputs, outputs and facts are tables")
        if not (isinstance(made.stage, str) and made.seconds >= 0):
            raise TypeError("stage is a name, and seconds are a number")
        datetime.fromisoformat(made.finished_at)
        return made
    except (TypeError, ValueError) as error:
        raise FormatError(
            f"{path}: {error}",
            rule="this file is the record that a stage of groundup leaves",
            fix="Delete its directory and run the stage that wrote it again.",
        ) from error


def outputs_in(run: Path) -> dict[Path, Artifact]:
    """The finished outputs of stages in a run's directory, oldest first; what was set aside is left out.

    Raises:
        FormatError: a record is damaged.
    """
    found = {
        child: read(child)
        for child in sorted(run.iterdir())
        if (child / ARTIFACT).is_file() and SET_ASIDE not in child.name and not child.name.startswith(".")
    }
    return dict(sorted(found.items(), key=lambda item: datetime.fromisoformat(item[1].finished_at).timestamp()))


@dataclass(slots=True)
class Work:
    """One run of a stage over its output directory. Make it with `begin`, end it with `finish`."""

    directory: Path
    stage: str
    config: dict[str, Any]
    inputs: dict[str, str]
    fingerprint: str
    state: Literal["fresh", "resumed", "done"]
    seconds_before: float
    held: TextIO | None = None  # the lock; gone with this value or with the process
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Wall time of this stage, earlier runs that were cut off included (up to their last `keep_time`)."""
        return self.seconds_before + time.monotonic() - self.started

    def keep_time(self) -> None:
        """Write down the time spent so far; long stages call it when they save their own progress."""
        write_json(
            self.directory / STARTED,
            {"stage": self.stage, "fingerprint": self.fingerprint, "seconds": round(self.seconds, 3)},
        )

    def finish(self, facts: Mapping[str, Any], outputs: list[Path]) -> Artifact:
        """Write the artifact. `outputs` are the files (inside the directory) that make up the result."""
        artifact = record(self.stage, self.config, self.inputs, self.directory, outputs, facts, self.seconds)
        write_json(self.directory / ARTIFACT, asdict(artifact))
        (self.directory / STARTED).unlink(missing_ok=True)
        if self.held is not None:
            self.held.close()
            (self.directory / LOCK).unlink(missing_ok=True)
        return artifact

    def abandon(self) -> None:
        """Take back what `begin` made, where nothing came of the work: no half-made directory stays behind."""
        if self.held is not None:
            self.held.close()
        shutil.rmtree(self.directory, ignore_errors=True)


def begin(
    directory: Path,
    stage: str,
    config: Mapping[str, Any],
    inputs: Mapping[str, str],
    *,
    shared: bool = False,
    console: Console | None = None,
) -> Work:
    """Look at the output directory, say what there is to do, and hold it for this process.

    The state of the work is "done" (same config and inputs, finished: read the artifact), "resumed" (same, cut
    off: partial files may be there) or "fresh" (empty directory). Another config's output is renamed to
    `DIR.replaced-TIME`, so that nothing is lost: so whatever can be refused should be before. A directory that is not
    ours, or another stage's, is refused.

    Args:
        config: everything that changes the output, as JSON values; leave paths of inputs and outputs out.
        inputs: name -> digest of each input.
        shared: the directory is that of a run, with the outputs of other stages in it: nothing is refused or renamed,
            the work is done if its record and all its outputs are there, and the run has locked it.
        console: is told where an earlier output went, or that nothing is to do.

    Raises:
        ConfigError: the directory cannot take this stage's output.
        ResourceError: another process works in it.
    """
    fingerprint = fingerprint_of(stage, config, inputs)
    state: Literal["fresh", "resumed", "done"] = "fresh"
    if directory.is_file():
        raise ConfigError(f"--out {directory}: a file", rule="output goes to a directory", fix="Give another --out.")
    held = None
    if shared:
        made = read(directory) if (directory / ARTIFACT).is_file() else None
        whole = made is not None and all((directory / name).is_file() for name in made.outputs)
        state = "done" if whole and made and made.fingerprint == fingerprint else "fresh"
    else:
        old = _state_of(directory, stage, fingerprint)
        if old != "done":
            held = hold(directory, fix="choose another --out")
        if old == "another":
            _set_aside(directory, console)
            held = hold(directory, fix="choose another --out")
        else:
            state = old
    directory.mkdir(parents=True, exist_ok=True)
    # Of a process killed inside an atomic write; beside other stages' outputs, only what lies on our own level.
    for leftover in list(directory.glob(".*.tmp") if shared else directory.rglob(".*.tmp")):
        # Missing, where it lay inside of one before it.
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)
    seconds_before = read_json(directory / STARTED)["seconds"] if state == "resumed" else 0.0
    work = Work(directory, stage, dict(config), dict(inputs), fingerprint, state, seconds_before, held)
    if state == "fresh":
        work.keep_time()
    if state == "done" and console is not None:
        console.note(f"{directory} is finished, with these settings and inputs: nothing to do.")
    return work


def _state_of(directory: Path, stage: str, fingerprint: str) -> Literal["fresh", "resumed", "done", "another"]:
    """What stands in a stage's directory; "another": what it leaves for another config or other inputs.

    Raises:
        ConfigError: what no stage of ours wrote, or another one.
    """
    if not directory.exists() or not any(path.name != LOCK for path in directory.iterdir()):
        return "fresh"
    mark = next((p for p in (directory / ARTIFACT, directory / STARTED) if p.is_file()), None)
    if mark is None:
        raise ConfigError(
            f"--out {directory}: holds files that groundup did not write",
            rule="output goes to a new or empty directory",
            fix="Give another --out.",
        )
    record = read_json(mark)
    if record.get("stage") != stage:
        raise ConfigError(
            f"--out {directory}: holds what {record.get('stage')} left",
            rule=f"a directory is the output of one stage, and here {stage} would take its place",
            fix="Give another --out.",
        )
    if record.get("fingerprint") != fingerprint:
        return "another"
    if mark.name == STARTED:
        return "resumed"
    whole = all((directory / name).is_file() for name in record["outputs"])
    return "done" if whole else "another"


def _set_aside(directory: Path, console: Console | None) -> None:
    if {path.name for path in directory.iterdir()} <= {STARTED, LOCK}:  # a try that failed before it made anything
        shutil.rmtree(directory)
        return
    aside = _unused(f"{directory}{SET_ASIDE}{time.strftime('%Y%m%d-%H%M%S')}")
    directory.rename(aside)
    (aside / LOCK).unlink(missing_ok=True)
    if console is not None:
        console.note(f"What was in {directory} is now in {aside}.")


def _unused(name: str) -> Path:
    candidates = (Path(name if n == 1 else f"{name}-{n}") for n in itertools.count(1))
    return next(path for path in candidates if not path.exists())


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def _machine() -> dict[str, Any]:
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "platform": sys.platform,
    }
