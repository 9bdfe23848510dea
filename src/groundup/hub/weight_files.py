"""Weights on disk: one safetensors file, or several with an index. Read where they lie, without a copy of the whole."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from groundup.core.errors import FormatError
from groundup.core.files import atomic_file, read_json, require_disk_space, system_errors, write_json

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD_BYTES = 4_000_000_000  # of one file; what uploads and old file systems take
INDEX_BYTES = 100_000_000
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
# Pages of a file that were read for a copy count as memory in use until its mapping is closed: a twentieth of them.
_MAPPED_SHARE = 20


@dataclass(frozen=True, slots=True)
class _Entry:
    path: Path
    dtype: str
    shape: tuple[int, ...]


class WeightFiles:
    """The tensors of a directory under the names in its files. What is handed out is mapped, not copied."""

    def __init__(self, directory: Path) -> None:
        """Look at names, dtypes and shapes; no tensor is read.

        Raises:
            FormatError: no such files, pickles, a damaged file, an index that leads out of the directory.
        """
        self._kept: dict[Path, Any] = {}
        self._passing: dict[Path, Any] = {}
        self._passed = 0
        self._entries: dict[str, _Entry] = {}
        for path, names in _files(directory):
            file = self._kept[path] = open_tensors(path)
            inside = set(file.keys())
            for name in sorted(inside) if names is None else names:
                if name not in inside:
                    raise _incomplete(f"{path}: no tensor {name!r}", f"{INDEX} says that it is there")
                found = file.get_slice(name)
                self._entries[name] = _Entry(path, found.get_dtype(), tuple(found.get_shape()))
        self.bytes = sum(path.stat().st_size for path in self._kept)

    @property
    def names(self) -> Iterable[str]:
        """Of all tensors."""
        return self._entries.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor, as its file's header says."""
        return self._entries[name].shape

    def dtype(self, name: str) -> torch.dtype:
        """Of a tensor.

        Raises:
            FormatError: it holds no plain numbers.
        """
        entry = self._entries[name]
        if entry.dtype not in _DTYPES:
            raise FormatError(
                f"{entry.path}: {name} has the type {entry.dtype}",
                rule=f"weights are plain numbers: {', '.join(_DTYPES)}",
                fix="The model is quantized in a way that groundup does not read; get it in another precision.",
            )
        return _DTYPES[entry.dtype]

    def tensor(self, name: str, *, passing: bool = False) -> Tensor:
        """A tensor, in the file's memory.

        Args:
            passing: it will be copied and dropped at once, so that its pages can be let go of.
        """
        entry = self._entries[name]
        if not passing:
            return self._kept[entry.path].get_tensor(name)
        if self._passed > self.bytes // _MAPPED_SHARE:
            self._passing, self._passed = {}, 0
        if entry.path not in self._passing:
            self._passing[entry.path] = open_tensors(entry.path)
        tensor: Tensor = self._passing[entry.path].get_tensor(name)
        self._passed += tensor.nbytes
        return tensor


def weight_files(directory: Path) -> list[Path]:
    """The files that hold the weights of a directory, the index first; none where there are no weights."""
    if (directory / WEIGHTS).is_file():
        return [directory / WEIGHTS]
    if not (directory / INDEX).is_file():
        return []
    return [directory / INDEX, *(path for path, _ in _files(directory))]


def require_no_pickle(directory: Path) -> None:
    """Say what to do about a directory whose weights are pickles only.

    Raises:
        FormatError: it is such a directory.
    """
    if (directory / WEIGHTS).is_file() or (directory / INDEX).is_file() or not directory.is_dir():
        return
    pickles = sorted(path.name for path in directory.iterdir() if path.suffix in _PICKLES)
    if pickles:
        raise FormatError(
            f"{directory}: {pickles[0]} is a pickle",
            rule="a pickle can run foreign code when it is read, and is never loaded",
            fix="Get the model as safetensors, or write it so on a machine that may run it: "
            "AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(OTHER) of transformers.",
        )


def write_weight_files(
    directory: Path, sizes: Mapping[str, int], tensors: Iterable[tuple[str, Tensor]], *, shard_bytes: int
) -> list[Path]:
    """Write tensors to one file, or to several of at most `shard_bytes` each (a larger tensor has one of its own).

    Args:
        sizes: bytes of each tensor, in the order in which they come.
        tensors: made one shard at a time, so that a lazy iterator is never held whole.

    Returns:
        The files, the index first where there is one.
    """
    shards = _shards(sizes, shard_bytes)
    require_disk_space(directory, sum(sizes.values()) + 10_000_000, "the model")
    coming = iter(tensors)
    written: list[Path] = []
    places: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = WEIGHTS if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        shard = {name: tensor.detach().cpu().contiguous() for name, tensor in _next(coming, len(names))}
        assert list(shard) == names
        with atomic_file(directory / file) as temporary, system_errors(temporary):
            save_file(shard, temporary, metadata={"format": "pt"})
        places |= dict.fromkeys(names, file)
        written.append(directory / file)
    if len(shards) > 1:
        write_json(directory / INDEX, {"metadata": {"total_size": sum(sizes.values())}, "weight_map": places})
        written.insert(0, directory / INDEX)
    for old in directory.iterdir():  # of what was here before: a reader must not find two models
        if (old.name in (WEIGHTS, INDEX) or _SHARD.fullmatch(old.name)) and old not in written:
            old.unlink()
    return written


def _next(coming: Iterator[tuple[str, Tensor]], count: int) -> Iterator[tuple[str, Tensor]]:
    for _ in range(count):
        yield next(coming)


def _shards(sizes: Mapping[str, int], most: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if shards[-1] and filled + size > most:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def _files(directory: Path) -> Iterator[tuple[Path, list[str] | None]]:
    """Each file and the tensors that are looked for in it; None: all that it has."""
    if (directory / WEIGHTS).is_file():
        yield directory / WEIGHTS, None
        return
    if not (directory / INDEX).is_file():
        require_no_pickle(directory)
        raise _incomplete(f"{directory}: neither {WEIGHTS} nor {INDEX} in it", "a model directory holds one of them")
    index = read_json(directory / INDEX, max_bytes=INDEX_BYTES)
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise _incomplete(f"{directory / INDEX}: no weight_map", "it names the file of each tensor")
    by_file: dict[str, list[str]] = {}
    for name, file in places.items():
        by_file.setdefault(file, []).append(name)
    for file, names in by_file.items():
        yield _inside(directory, file), names


def _inside(directory: Path, file: str) -> Path:
    """The path of a file that an index names, which must lie in the directory itself.

    In a hub's cache, that is `snapshots/REVISION`, whose files are links into `blobs` beside `snapshots`.
    """
    root, path = directory.resolve(), directory / file
    roots = [root, *([root.parents[1] / "blobs"] if root.parent.name == "snapshots" else [])]
    plain = file != "" and file == Path(file).name and "\\" not in file
    if not plain or not any(path.resolve().is_relative_to(allowed) for allowed in roots):
        raise FormatError(
            f"{directory / INDEX}: {file!r}"[:300],
            rule="an index names files of its own directory",
            fix="Do not trust this model; get it from where it was published.",
        )
    if not path.is_file():
        raise _incomplete(f"{path}: no such file", f"{INDEX} names it")
    return path


def _incomplete(value: str, rule: str) -> FormatError:
    return FormatError(value, rule=rule, fix="The files are incomplete; get them again.")


def open_tensors(path: Path) -> Any:
    """A safetensors file, mapped: `keys()`, `get_tensor(name)`, `get_slice(name)`.

    Raises:
        FormatError: none, or a damaged one.
    """
    try:
        return safe_open(path, framework="pt")
    except Exception as error:  # safetensors raises its own type, OSError, or ValueError, by version
        raise FormatError(
            f"{path}: {error}",
            rule="a whole safetensors file is needed",
            fix="Get it again, or run the stage that wrote it again.",
        ) from error
