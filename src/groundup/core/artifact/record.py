"""Record of a finished stage, `artifact.json`, with its config, its inputs and the checksums of its output files."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from groundup.core.checksums import CHECKSUM, MISSING, damaged_files, digests_of, read_checked_json, write_checked_json
from groundup.core.environment import library_versions, machine_facts
from groundup.core.errors import DataError, FormatError
from groundup.core.files import file_digest, read_json
from groundup.core.redact import redacted_config

FORMAT_VERSION = 3
ARTIFACT = "artifact.json"
STARTED = "started.json"
REPLACED_INFIX = ".replaced-"  # part of the directory name of a replaced output
_WRITE_AGAIN = "Delete its directory and run the stage that wrote it again"


@dataclass(frozen=True, slots=True)
class Artifact:
    """Record of a finished stage.

    Attributes:
        stage: Name of the stage.
        config: Config of the stage, without paths and console settings.
        fingerprint: Digest of config and inputs. Two executions with equal fingerprints produce the same output.
        inputs: Maps the name of each input to its digest.
        outputs: Maps the name of each output file to its digest.
        facts: Results for the report, such as counts, losses and the training plan.
        seconds: Wall time of the stage in seconds.
        finished_at: Local time at which the stage finished, in ISO 8601 format.
        versions: Versions of Python and of the libraries.
        machine: Operating system and number of CPU cores.
        logs: Maps the name of each log file to its digest. Logs do not influence the digest of the output.
        format_version: Version of the format of this record.
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
    logs: dict[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    @property
    def digest(self) -> str:
        """Digest of the output. A later stage records it as the digest of its input."""
        return _digest(self.outputs)


def record(
    stage: str,
    config: Mapping[str, Any],
    inputs: Mapping[str, str],
    directory: Path,
    outputs: Sequence[Path],
    facts: Mapping[str, Any],
    seconds: float,
    logs: Sequence[Path] = (),
) -> Artifact:
    """Return the artifact of a finished stage. Secrets are removed from the config and the facts.

    Args:
        stage: Name of the stage.
        config: Config of the stage.
        inputs: Maps the name of each input to its digest.
        directory: Output directory of the stage.
        outputs: Output files in `directory`.
        facts: Results for the report.
        seconds: Wall time of the stage in seconds.
        logs: Log files in `directory`.
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
        versions=library_versions(),
        machine=machine_facts(),
        logs={path.name: file_digest(path) for path in sorted(logs)},
    )


def fingerprint_of(stage: str, config: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """Return a digest of the name, config and inputs of a stage. Passwords do not influence the digest.

    Args:
        stage: Name of the stage.
        config: Config of the stage.
        inputs: Maps the name of each input to its digest.
    """
    config = redacted_config(config, variables=False)
    return _digest({"stage": stage, "config": config, "inputs": dict(inputs)})


def _digest(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()


def read(directory: Path) -> Artifact:
    """Read the artifact of a finished stage.

    Args:
        directory: Output directory of the stage.

    Raises:
        DataError: The directory does not exist, or the stage did not finish.
        FormatError: The artifact is damaged, or has another format version.
    """
    path = directory / ARTIFACT
    if not path.is_file():
        found = "no such directory" if not directory.exists() else "no artifact.json, so no finished stage"
        raise DataError(
            f"{directory}: {found}",
            fix="Check the path, or run the earlier stage again until it finishes.",
        )
    return read_record(path)


def read_record(path: Path) -> Artifact:
    """Read the record of a stage: an `artifact.json` file, or the record next to an exported file.

    Args:
        path: File to read.

    Raises:
        FormatError: The record is damaged, or has another format version.
    """
    return _parsed(path, read_checked_json(path, fix=_fix(path.parent)))


def _parsed(path: Path, record: dict[str, Any]) -> Artifact:
    if (version := record.get("format_version")) != FORMAT_VERSION:
        raise FormatError(
            f"{path}: format_version {version}",
            rule=f"this release reads format_version {FORMAT_VERSION}",
            fix=f"{_WRITE_AGAIN}, or upgrade groundup: pip install --upgrade groundup.",
        )
    try:
        made = Artifact(**record)
        if not all(
            isinstance(table, dict) for table in (made.config, made.inputs, made.outputs, made.facts, made.logs)
        ):
            raise TypeError("config, inputs, outputs, facts and logs must be objects")
        if not (isinstance(made.stage, str) and made.seconds >= 0):
            raise TypeError("stage must be text, and seconds a number")
        datetime.fromisoformat(made.finished_at)
        return made
    except (TypeError, ValueError) as error:
        raise FormatError(
            f"{path} is not a record of a stage: {error}",
            fix=f"{_WRITE_AGAIN}.",
        ) from error


def write_record(path: Path, made: Artifact) -> None:
    """Write the record of a stage with a checksum of its values.

    Args:
        path: File to write.
        made: Artifact to write.
    """
    write_checked_json(path, asdict(made))


def read_intact(directory: Path, *, missing_ok: bool = False) -> Artifact:
    """Read the artifact of a finished stage, and verify the checksums of the output files.

    Args:
        directory: Output directory of the stage.
        missing_ok: Whether to accept missing output files.

    Raises:
        DataError: The directory does not exist, or the stage did not finish.
        FormatError: A file is missing or damaged, or was changed after groundup wrote it.
    """
    made = read(directory)
    first = os.environ.get("RANK", "0") == "0"  # if torchrun started several processes, only rank 0 reads the files
    if first and (damaged := damaged_files(directory, made.outputs | made.logs)):
        damaged = {name: how for name, how in damaged.items() if not (missing_ok and how == MISSING)}
        if damaged:
            raise damage_error(directory, damaged)
    return made


def require_intact(directory: Path, *, missing_ok: bool = False) -> None:
    """Verify the checksums of an output of groundup. A directory without artifact.json is accepted.

    Args:
        directory: Directory to verify.
        missing_ok: Whether to accept missing output files.

    Raises:
        FormatError: A file is missing or damaged, or was changed after groundup wrote it.
    """
    if (directory / ARTIFACT).is_file():
        read_intact(directory, missing_ok=missing_ok)


def damage_error(directory: Path, damaged: Mapping[str, str]) -> FormatError:
    """Return the error that reports damaged files.

    Args:
        directory: Directory that contains the files.
        damaged: Maps the name of each damaged file to a description of the problem, from `damaged_files`.
    """
    name, problem = next(iter(damaged.items()))
    more = f" (and {len(damaged) - 1} more)" if len(damaged) > 1 else ""
    return FormatError(
        f"{directory / name}: {problem}{more}",
        rule="the file is damaged, or was changed after groundup wrote it",
        fix=_fix(directory),
    )


def accept(path: Path) -> list[str]:
    """Replace the checksums in a record by the checksums of the current files.

    Args:
        path: The record: an `artifact.json` file, or the record next to an exported file.

    Returns:
        Names of the files that were changed or deleted since the record was written.

    Raises:
        FormatError: The record is damaged.
    """
    directory, record = path.parent, read_json(path)
    made = _parsed(path, {key: value for key, value in record.items() if key != CHECKSUM})
    changed = damaged_files(directory, made.outputs | made.logs, remember=False)

    def current(digests: Mapping[str, str]) -> dict[str, str]:
        there = {directory / name: name for name in digests if (directory / name).is_file()}
        return {there[file]: digest for file, digest in digests_of(there, remember=False).items()}

    write_record(
        path, replace(made, outputs=current(made.outputs), logs=current(made.logs), format_version=FORMAT_VERSION)
    )
    return list(changed)


def _fix(directory: Path) -> str:
    return (
        f"Restore it from a backup, or delete {directory} and run its stage again. "
        f"If you changed it on purpose: groundup model verify {shlex.quote(str(directory))} --accept."
    )


def outputs_in(run: Path) -> dict[Path, Artifact]:
    """Return the finished outputs of a run from oldest to newest. Replaced outputs are left out.

    Args:
        run: Directory of the run.

    Raises:
        FormatError: The record of an output is damaged.
    """
    found = {
        child: read(child)
        for child in sorted(run.iterdir())
        if (child / ARTIFACT).is_file() and REPLACED_INFIX not in child.name and not child.name.startswith(".")
    }
    return dict(sorted(found.items(), key=lambda item: datetime.fromisoformat(item[1].finished_at).timestamp()))
