"""The record of a finished stage, `artifact.json`: config, inputs, and the checksum of every file of its output."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from groundup.core.checksums import CHECKSUM, MISSING, damaged_files, digests_of, read_checked_json, write_checked_json
from groundup.core.errors import DataError, FormatError
from groundup.core.files import file_digest, read_json
from groundup.core.redact import redacted_config

FORMAT_VERSION = 2  # 1: without a checksum of its own and without logs
# Fingerprints use the original name of a renamed setting, so that finished stages of earlier releases stay finished.
_RENAMED_IN = ("pretrain", "finetune.instruct", "finetune.classify")
_ORIGINAL_NAMES = {
    "early_stopping_patience": "patience",
    "max_test_examples": "test_examples",
    "num_epochs": "epochs",
    "num_evaluations": "evaluations",
    "replay_fraction": "replay_share",
    "skip_loss_spikes": "skip_spikes",
    "truncate": "cut_long",
    "validation_fraction": "set_apart",
}
_ORIGINAL_COLLECT_NAMES = {
    "file_type": "what",
    "license": "licence",
    "max_delay": "longest_delay",
    "min_alphabetic_words": "min_lettered_words",
    "min_punctuated_lines": "min_marked_lines",
    "perplexity_model": "judge",
    "short_document_words": "short_words",
    "skip": "first",
    "terminal_punctuation": "end_mark",
}
_ORIGINAL_EVALUATION_NAMES = {
    "compare": {"max_examples": "examples", "max_general_bytes": "general_bytes"},
    "evaluate": {"max_compressor_bytes": "compressors_read"},
    "export.gguf": {"verify": "gate"},
}
_FINGERPRINTED_FORMAT = 1  # in fingerprints: what was finished by an earlier release stays finished
ARTIFACT = "artifact.json"
STARTED = "started.json"
REPLACED_INFIX = ".replaced-"  # in the name of a directory that gave way to the output of another config
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
        logs: file name -> digest of each log that the stage wrote on the way; no part of the output's identity.
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
    logs: Sequence[Path] = (),
) -> Artifact:
    """The record of work that is finished, made here and now; `outputs` and `logs` lie in `directory`.

    Secrets in the config and the facts are left out (`groundup.core.redact`).
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
        logs={path.name: file_digest(path) for path in sorted(logs)},
    )


def fingerprint_of(stage: str, config: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """What makes two pieces of work equal; another password does not make them differ."""
    config = _with_original_names(stage, redacted_config(config, variables=False))
    inputs = _rename_keys(inputs, _ORIGINAL_COLLECT_NAMES) if stage == "collect" else dict(inputs)
    return _digest({"stage": stage, "config": config, "inputs": inputs, "format": _FINGERPRINTED_FORMAT})


def _with_original_names(stage: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Undo renames of settings, so that stages that an earlier release finished stay finished."""
    if stage == "collect":
        renamed: dict[str, Any] = _rename_keys(config, _ORIGINAL_COLLECT_NAMES)
        return renamed
    if stage not in _RENAMED_IN:
        names = _ORIGINAL_EVALUATION_NAMES.get(stage, {})
        return {names.get(key, key): value for key, value in config.items()}
    lora = config.get("lora")
    if isinstance(lora, Mapping):
        config = {**config, "lora": {{"target_modules": "targets"}.get(key, key): lora[key] for key in lora}}
    return {_ORIGINAL_NAMES.get(key, key): value for key, value in config.items()}


def _rename_keys(value: Any, names: Mapping[str, str]) -> Any:
    """Rename the keys of nested tables."""
    if isinstance(value, Mapping):
        return {names.get(key, key): _rename_keys(each, names) for key, each in value.items()}
    return [_rename_keys(each, names) for each in value] if isinstance(value, list) else value


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
    return read_record(path)


def read_record(path: Path) -> Artifact:
    """Read an `artifact.json`, or the record next to an exported file.

    Raises:
        FormatError: damaged, or written by a newer release.
    """
    return _parsed(path, read_checked_json(path, fix=_fix(path.parent)))


def _parsed(path: Path, record: dict[str, Any]) -> Artifact:
    if record.get("format_version", 0) > FORMAT_VERSION:
        raise FormatError(
            f"{path}: format_version {record['format_version']}",
            rule=f"this release reads up to {FORMAT_VERSION}",
            fix="Upgrade groundup: pip install --upgrade groundup.",
        )
    try:
        made = Artifact(**record)
        if not all(
            isinstance(table, dict) for table in (made.config, made.inputs, made.outputs, made.facts, made.logs)
        ):
            raise TypeError("config, inputs, outputs, facts and logs are tables")
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


def write_record(path: Path, made: Artifact) -> None:
    """Write a record with its own checksum."""
    write_checked_json(path, asdict(made))


def read_intact(directory: Path, *, missing_ok: bool = False) -> Artifact:
    """Read the artifact of a finished stage whose output another stage is about to use.

    Args:
        directory: Where the stage left it.
        missing_ok: Let files be gone.

    Raises:
        DataError: The directory is absent or its stage did not finish.
        FormatError: A file is missing, damaged, or was changed after it was written.
    """
    made = read(directory)
    first = os.environ.get("RANK", "0") == "0"  # of the ranks that torchrun starts, one reads all files
    if first and (damaged := damaged_files(directory, made.outputs | made.logs)):
        damaged = {name: how for name, how in damaged.items() if not (missing_ok and how == MISSING)}
        if damaged:
            raise damage_error(directory, damaged)
    return made


def require_intact(directory: Path, *, missing_ok: bool = False) -> None:
    """`read_intact` of a directory that groundup wrote; any other has no checksums.

    Raises:
        FormatError: As `read_intact`.
    """
    if (directory / ARTIFACT).is_file():
        read_intact(directory, missing_ok=missing_ok)


def damage_error(directory: Path, damaged: Mapping[str, str]) -> FormatError:
    """Return the error that names damaged files, which `damaged_files` found."""
    name, trouble = next(iter(damaged.items()))
    more = f" (and {len(damaged) - 1} more)" if len(damaged) > 1 else ""
    return FormatError(
        f"{directory / name}: {trouble}{more}",
        rule="the file is damaged, or was changed after groundup wrote it",
        fix=_fix(directory),
    )


def accept(path: Path) -> list[str]:
    """Take the files of a finished output as they are now: their checksums are written into its record.

    Args:
        path: The record, an `artifact.json` or one next to an exported file.

    Returns:
        The names of the files that had changed or are gone.

    Raises:
        FormatError: The record is no longer one.
    """
    directory, record = path.parent, read_json(path)
    made = _parsed(path, {key: value for key, value in record.items() if key != CHECKSUM})
    changed = damaged_files(directory, made.outputs | made.logs, remember=False)

    def now(digests: Mapping[str, str]) -> dict[str, str]:
        there = {directory / name: name for name in digests if (directory / name).is_file()}
        return {there[file]: digest for file, digest in digests_of(there, remember=False).items()}

    write_record(path, replace(made, outputs=now(made.outputs), logs=now(made.logs), format_version=FORMAT_VERSION))
    return list(changed)


def _fix(directory: Path) -> str:
    return (
        f"Restore it from a copy, or delete {directory} and run the stage that wrote it again. "
        f"If you changed it yourself: groundup model verify {shlex.quote(str(directory))} --accept."
    )


def outputs_in(run: Path) -> dict[Path, Artifact]:
    """The finished outputs of stages in a run's directory, oldest first; what was set aside is left out.

    Raises:
        FormatError: a record is damaged.
    """
    found = {
        child: read(child)
        for child in sorted(run.iterdir())
        if (child / ARTIFACT).is_file() and REPLACED_INFIX not in child.name and not child.name.startswith(".")
    }
    return dict(sorted(found.items(), key=lambda item: datetime.fromisoformat(item[1].finished_at).timestamp()))


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
