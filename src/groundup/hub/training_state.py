"""Checkpoints of training, which are written atomically as safetensors and JSON files, without pickle.

Each group of tensors ("model", "optimizer") is one file. In distributed training, each rank writes one file per group,
which contains the rank's part of the tensors. A checkpoint can be loaded with any number of ranks, because each rank
reads only the rows that it needs. `state.json` contains the checksums of all files, including its own checksum. If the
newest checkpoint is damaged, the previous checkpoint is loaded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from groundup.core.checksums import damaged_files, read_checked_json, write_checked_json
from groundup.core.errors import FormatError
from groundup.core.files import (
    atomic_directory,
    delete_directory,
    file_digest,
    read_json,
    require_disk_space,
    system_errors,
    write_json,
)
from groundup.distributed.ranks import Ranks, Rows

FORMAT_VERSION = 2
_META = "state.json"
_STEP = re.compile(r"step-\d+")
_ROWS = "rows"  # Key in a file's metadata for tensors that are split by rows: {name: [first row, total rows]}.
_UNKNOWN_FORMAT = f"this release of groundup reads checkpoints of format_version {FORMAT_VERSION}"
_SINGLE_RANK = Ranks()


@dataclass(frozen=True, slots=True)
class TrainingState:
    """State of a training run between two optimizer steps.

    Attributes:
        step: number of completed optimizer steps.
        groups: name of each group, such as "model" or "optimizer", -> its tensors. In distributed training, each rank
            provides its own part of the tensors.
        meta: other state as JSON values, such as the number of processed tokens, the digest of the plan, and the states
            of random-number generators (in hexadecimal).
    """

    step: int
    groups: Mapping[str, Mapping[str, Tensor | Rows]]
    meta: dict[str, Any]


class StoredTensors(Mapping[str, Tensor]):
    """Mapping from names to the tensors of a group in a checkpoint. Tensors are read on access.

    If several ranks wrote the checkpoint, the parts of a tensor are concatenated.
    """

    def __init__(self, files: list[Path]) -> None:
        self._parts: dict[str, list[tuple[Path, int]]] = {}
        self._totals: dict[str, int | None] = {}
        for path in files:
            with _opened(path) as file:
                rows = json.loads((file.metadata() or {}).get(_ROWS, "{}"))
                for name in file.keys():  # noqa: SIM118  a safetensors file is not a mapping
                    first, total = rows.get(name, (0, None))
                    self._parts.setdefault(name, []).append((path, first))
                    self._totals[name] = total
        for parts in self._parts.values():
            parts.sort(key=lambda part: part[1])

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, name: str) -> Tensor:
        found = []
        for path, _ in self._parts[name]:
            with _opened(path) as file:
                found.append(file.get_tensor(name))
        total = self._totals[name]
        if total is not None and sum(map(len, found)) != total:
            raise FormatError(
                f"{self._parts[name][0][0].parent}: only {sum(map(len, found))} of {total} rows of {name} exist",
                rule="the checkpoint is incomplete",
                fix="Delete this step-N directory and run the same command again.",
            )
        return found[0] if len(found) == 1 else torch.cat(found)

    def rows(self, name: str, first: int, count: int) -> Tensor:
        """Return `count` rows of a tensor, beginning with row `first`. A scalar tensor is returned unchanged.

        Args:
            name: name of the tensor.
            first: index of the first returned row.
            count: number of rows.

        Returns:
            A tensor that contains these rows.
        """
        found = []
        for path, start in self._parts[name]:
            with _opened(path) as file:
                part = file.get_slice(name)
                shape = part.get_shape()
                if not shape:
                    return cast(Tensor, file.get_tensor(name))
                low, high = max(first - start, 0), min(first + count - start, shape[0])
                found.append(part[low : max(low, high)])
        return torch.cat(found)


@dataclass(frozen=True, slots=True)
class StoredState:
    """A `TrainingState` that was opened from a checkpoint. Tensors are read on access.

    Attributes:
        step: number of completed optimizer steps.
        groups: name of each group -> its tensors.
        meta: other state as JSON values; see `TrainingState`.
    """

    step: int
    groups: dict[str, StoredTensors]
    meta: dict[str, Any]


def save_state(directory: Path, state: TrainingState, *, keep: int = 2, ranks: Ranks = _SINGLE_RANK) -> Path:
    """Write the checkpoint `directory/step-N/` atomically, and delete old checkpoints.

    Checkpoints of later steps are deleted too, because they are invalid after a rollback. All ranks must call this
    function. The checkpoint gets its final name only after all files were written.

    Args:
        directory: directory of all checkpoints of the run.
        state: state to save.
        keep: number of newest checkpoints that are kept, including this one.
        ranks: ranks of the run.

    Returns:
        The directory of the new checkpoint.

    Raises:
        ResourceError: there is not enough disk space.
    """
    size = sum(_tensor(t).numel() * _tensor(t).element_size() for g in state.groups.values() for t in g.values())
    require_disk_space(directory, ranks.size * size + 10_000_000, "a checkpoint")
    path = directory / f"step-{state.step:08d}"
    with ExitStack() as stack:
        begun = str(stack.enter_context(atomic_directory(path))) if ranks.first else ""
        temporary = Path(ranks.broadcast_object(begun))
        for name, tensors in state.groups.items():
            parts = {key: (part.first, part.total) for key, part in tensors.items() if isinstance(part, Rows)}
            values = {key: _tensor(value).detach().cpu().contiguous() for key, value in tensors.items()}
            metadata = {_ROWS: json.dumps(parts)} if parts else None
            file = temporary / _file(name, ranks.rank, ranks.size)
            with system_errors(file):
                save_file(values, file, metadata=metadata)
        _write_digests(temporary, list(state.groups), ranks)
        ranks.barrier()
        if ranks.first:
            write_checked_json(
                temporary / _META,
                {
                    "format_version": FORMAT_VERSION,
                    "step": state.step,
                    "groups": list(state.groups),
                    "files": _collect_digests(temporary, ranks),
                    "ranks": ranks.size,
                    "meta": state.meta,
                },
            )
    if ranks.first:
        until_here = [step for step in _steps(directory) if step <= path]
        for other in directory.glob("step-*"):
            if other.is_dir() and other not in until_here[-keep:]:
                delete_directory(other)
    return path


def load_newest_state(
    directory: Path,
    *,
    ranks: Ranks = _SINGLE_RANK,
    at_most: int | None = None,
    warn: Callable[[str], None] = lambda _: None,
) -> StoredState | None:
    """Open the newest intact checkpoint.

    All ranks must call this function. Rank 0 verifies the checksums, and all ranks open the same checkpoint.

    Args:
        directory: directory of all checkpoints of the run; see `save_state`.
        ranks: ranks of the run.
        at_most: maximum step; checkpoints of later steps are ignored.
        warn: function that receives messages about damaged checkpoints.

    Returns:
        The checkpoint; None if there are no checkpoints.

    Raises:
        FormatError: all checkpoints are damaged, or one has another format version.
    """
    chosen = _newest_intact(directory, at_most, warn) if ranks.first else None
    name = ranks.broadcast_object(chosen.name if chosen is not None else "")
    if not name:
        return None
    path = directory / name
    record = _record(path)
    writers = record["ranks"]
    groups = {
        group: StoredTensors([path / _file(group, rank, writers) for rank in range(writers)])
        for group in record["groups"]
    }
    return StoredState(step=record["step"], groups=groups, meta=record["meta"])


def damaged_state(path: Path) -> str:
    """Check whether a checkpoint is damaged.

    Args:
        path: a `step-N` directory.

    Returns:
        A message with the first damaged file and a description of the damage; empty if the checkpoint is intact.

    Raises:
        FormatError: the checkpoint has another format version.
    """
    try:
        record = _record(path)
        writers = record["ranks"]
        expected = [_file(group, rank, writers) for group in record["groups"] for rank in range(writers)]
        damaged = {name: "missing" for name in expected if not (path / name).is_file()}
        damaged |= damaged_files(path, record["files"], remember=False)
    except FormatError as error:
        if error.rule == _UNKNOWN_FORMAT:
            raise
        return error.value
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return f"{path / _META}: {error!r}"
    return next((f"{path / name}: {problem}" for name, problem in damaged.items()), "")


def _newest_intact(directory: Path, at_most: int | None, warn: Callable[[str], None]) -> Path | None:
    steps = [path for path in _steps(directory) if at_most is None or _step(path) <= at_most]
    problems: list[str] = []
    for path in reversed(steps):
        if problem := damaged_state(path):
            problems.append(problem)
            continue
        for each in problems:
            warn(f"{each}. This checkpoint is damaged; using step {_step(path):,} instead.")
        return path
    if not steps:
        return None
    raise FormatError(
        problems[0],
        rule="no intact checkpoint exists",
        fix=f"Restore {directory} from a backup, or delete it and run the same command again to start from step 1.",
    )


def _record(path: Path) -> dict[str, Any]:
    record = read_checked_json(path / _META, fix="Delete this step-N directory and run the same command again.")
    if record["format_version"] != FORMAT_VERSION:
        raise FormatError(
            f"{path}: format_version {record['format_version']}",
            rule=_UNKNOWN_FORMAT,
            fix="Resume with the release that wrote it, or start in a new --out directory.",
        )
    return record


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _write_digests(temporary: Path, groups: list[str], ranks: Ranks) -> None:
    """Write the checksums of the files that this rank wrote."""
    names = [_file(group, ranks.rank, ranks.size) for group in groups]
    write_json(temporary / _digests(ranks.rank), {name: file_digest(temporary / name) for name in names})


def _collect_digests(temporary: Path, ranks: Ranks) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in [temporary / _digests(rank) for rank in range(ranks.size)]:
        found |= read_json(path)
        path.unlink()
    return found


def _digests(rank: int) -> str:
    return f"digests-{rank}.json"


def _damaged(path: Path, error: Exception) -> FormatError:
    return FormatError(
        f"{path}: {error}",
        rule="invalid safetensors file",
        fix="Delete the file (or the step-N directory of a checkpoint) and run the same command again.",
    )


def _file(group: str, rank: int, ranks: int) -> str:
    return f"{group}.safetensors" if ranks == 1 else f"{group}-{rank + 1:05d}-of-{ranks:05d}.safetensors"


def _tensor(value: Tensor | Rows) -> Tensor:
    return value.tensor if isinstance(value, Rows) else value


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a safetensors file so that parts of its tensors can be read."""
    try:
        with safe_open(path, "pt") as file:
            yield file
    except FormatError:
        raise
    except Exception as error:
        raise _damaged(path, error) from error


def _steps(directory: Path) -> list[Path]:
    """Return the complete checkpoints, sorted by step."""
    return sorted(path for path in directory.glob("step-*") if _STEP.fullmatch(path.name) and (path / _META).is_file())
