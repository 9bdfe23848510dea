"""Training state on disk: safetensors and JSON, whole or absent, never a pickle."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from groundup.errors import FormatError
from groundup.files import atomic_directory, read_json, require_disk_space, write_json

FORMAT_VERSION = 1
_META = "state.json"


@dataclass(frozen=True, slots=True)
class TrainingState:
    """Everything that the next step depends on.

    Attributes:
        step: optimizer steps done.
        groups: name -> tensors, e.g. "model" and "optimizer"; a file each.
        meta: JSON values (tokens seen, the digest of the plan, random-number states as hex).
    """

    step: int
    groups: dict[str, dict[str, Tensor]]
    meta: dict[str, Any]


def save_state(directory: Path, state: TrainingState, *, keep: int = 2) -> Path:
    """Write `directory/step-N/` atomically, then drop all but the newest `keep`.

    The rename of the finished directory is the completeness marker: what has its final name is whole.
    """
    size = sum(t.numel() * t.element_size() for tensors in state.groups.values() for t in tensors.values())
    require_disk_space(directory, size + 10_000_000, "a checkpoint")
    path = directory / f"step-{state.step:08d}"
    with atomic_directory(path) as temporary:
        for name, tensors in state.groups.items():
            save_file(_contiguous(tensors), temporary / f"{name}.safetensors")
        write_json(
            temporary / _META,
            {
                "format_version": FORMAT_VERSION,
                "step": state.step,
                "groups": list(state.groups),
                "meta": state.meta,
            },
        )
    for old in _steps(directory)[:-keep]:
        shutil.rmtree(old)
    return path


def load_newest_state(directory: Path) -> TrainingState | None:
    """The newest whole checkpoint, or None where there is none.

    Raises:
        FormatError: written by a newer release, or damaged.
    """
    steps = _steps(directory)
    if not steps:
        return None
    path = steps[-1]
    record = read_json(path / _META)
    if record["format_version"] > FORMAT_VERSION:
        raise FormatError(
            f"{path}: format_version {record['format_version']}",
            rule=f"this release reads checkpoints up to {FORMAT_VERSION}",
            fix="Upgrade groundup, or start in a new --out directory.",
        )
    groups = {name: read_tensors(path / f"{name}.safetensors") for name in record["groups"]}
    return TrainingState(step=record["step"], groups=groups, meta=record["meta"])


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; a damaged one raises `FormatError` with its name."""
    try:
        return load_file(path)
    except Exception as error:  # safetensors raises its own type, OSError, or ValueError, by version
        raise FormatError(
            f"{path}: {error}",
            rule="a whole safetensors file is needed",
            fix="Delete it (of a checkpoint: its step-N directory) and run the same command again.",
        ) from error


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _steps(directory: Path) -> list[Path]:
    return sorted(path for path in directory.glob("step-*") if path.is_dir())
