"""Reading and writing of weight files: one safetensors file, or several shards with an index."""

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
SHARD_BYTES = 4_000_000_000  # Maximum size of a file. Some upload services and old file systems have this limit.
INDEX_BYTES = 100_000_000
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_GGUF_MAGIC = b"GGUF"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
# Memory-mapped pages count as used memory until the file is closed. The files are therefore closed and opened again
# each time 1 / _MAPPED_SHARE of all weights was read.
_MAPPED_SHARE = 20


@dataclass(frozen=True, slots=True)
class _Entry:
    path: Path
    dtype: str
    shape: tuple[int, ...]


class WeightFiles:
    """Memory-mapped tensors of a model directory, with the tensor names that the files use."""

    def __init__(self, directory: Path) -> None:
        """Read the names, dtypes and shapes of all tensors. The tensors themselves are not read.

        Args:
            directory: model directory.

        Raises:
            FormatError: a file is missing or damaged, the weights are pickles, or the index contains paths outside of
                the directory.
        """
        self._kept: dict[Path, Any] = {}
        self._transient: dict[Path, Any] = {}
        self._transient_bytes = 0
        self._entries: dict[str, _Entry] = {}
        for path, names in _files(directory):
            file = self._kept[path] = open_tensors(path)
            inside = set(file.keys())
            for name in sorted(inside) if names is None else names:
                if name not in inside:
                    raise _incomplete(f"{path}: no tensor {name!r}", f"listed in {INDEX}")
                found = file.get_slice(name)
                self._entries[name] = _Entry(path, found.get_dtype(), tuple(found.get_shape()))
        self.bytes = sum(path.stat().st_size for path in self._kept)

    @property
    def names(self) -> Iterable[str]:
        """Names of all tensors."""
        return self._entries.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self._entries[name].shape

    def dtype(self, name: str) -> torch.dtype:
        """Return the dtype of a tensor.

        Raises:
            FormatError: the stored type is not a floating-point type.
        """
        entry = self._entries[name]
        if entry.dtype not in _DTYPES:
            raise FormatError(
                f"{entry.path}: {name} has the type {entry.dtype}",
                rule=f"supported types are {', '.join(_DTYPES)}",
                fix="groundup does not support this quantization: get the model in another precision.",
            )
        return _DTYPES[entry.dtype]

    def type_name(self, name: str) -> str:
        """Return the name of a tensor's type in safetensors, such as "BF16". The type may be unsupported."""
        return self._entries[name].dtype

    def tensor(self, name: str, *, transient: bool = False) -> Tensor:
        """Return a memory-mapped tensor.

        Args:
            name: name of the tensor.
            transient: whether the caller copies the tensor and drops it immediately. Its pages can then be released.

        Returns:
            The tensor.
        """
        entry = self._entries[name]
        if not transient:
            return self._kept[entry.path].get_tensor(name)
        if self._transient_bytes > self.bytes // _MAPPED_SHARE:
            self._transient, self._transient_bytes = {}, 0
        if entry.path not in self._transient:
            self._transient[entry.path] = open_tensors(entry.path)
        tensor: Tensor = self._transient[entry.path].get_tensor(name)
        self._transient_bytes += tensor.nbytes
        return tensor


def weight_files(directory: Path) -> list[Path]:
    """Return the weight files of a directory, beginning with the index if the weights are sharded.

    The list is empty if the directory does not contain weights.
    """
    if (directory / WEIGHTS).is_file():
        return [directory / WEIGHTS]
    if not (directory / INDEX).is_file():
        return []
    return [directory / INDEX, *(path for path, _ in _files(directory))]


def is_gguf(path: Path) -> bool:
    """Return whether the path is a file that begins with the magic bytes of GGUF."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == _GGUF_MAGIC


def require_no_pickle(directory: Path) -> None:
    """Check that the weights of a directory are not stored only as pickles.

    Raises:
        FormatError: the directory contains pickles and no safetensors.
    """
    if (directory / WEIGHTS).is_file() or (directory / INDEX).is_file() or not directory.is_dir():
        return
    pickles = sorted(path.name for path in directory.iterdir() if path.suffix in _PICKLES)
    if pickles:
        raise FormatError(
            f"{directory}: {pickles[0]} is a pickle",
            rule="pickles can run arbitrary code and are never loaded",
            fix="Get the model as safetensors, or if you trust it, convert it with transformers: "
            "AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(OTHER).",
        )


def write_weight_files(
    directory: Path, sizes: Mapping[str, int], tensors: Iterable[tuple[str, Tensor]], *, shard_bytes: int
) -> list[Path]:
    """Write tensors to one safetensors file, or to several shards with an index.

    Args:
        directory: output directory.
        sizes: size of each tensor in bytes, in the same order as `tensors`.
        tensors: name and value of each tensor. The iterator is consumed one shard at a time.
        shard_bytes: maximum size of a shard in bytes. A tensor that is larger is written to a separate file.

    Returns:
        The files written, beginning with the index if there are several shards.
    """
    shards = _shards(sizes, shard_bytes)
    require_disk_space(directory, sum(sizes.values()) + 10_000_000, "the model")
    remaining = iter(tensors)
    written: list[Path] = []
    places: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = WEIGHTS if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        shard = {name: tensor.detach().cpu().contiguous() for name, tensor in _next(remaining, len(names))}
        assert list(shard) == names
        with atomic_file(directory / file) as temporary, system_errors(temporary):
            save_file(shard, temporary, metadata={"format": "pt"})
        places |= dict.fromkeys(names, file)
        written.append(directory / file)
    if len(shards) > 1:
        write_json(directory / INDEX, {"metadata": {"total_size": sum(sizes.values())}, "weight_map": places})
        written.insert(0, directory / INDEX)
    for old in directory.iterdir():  # Delete the weight files of a model that was in the directory before.
        if (old.name in (WEIGHTS, INDEX) or _SHARD.fullmatch(old.name)) and old not in written:
            old.unlink()
    return written


def _next(remaining: Iterator[tuple[str, Tensor]], count: int) -> Iterator[tuple[str, Tensor]]:
    for _ in range(count):
        yield next(remaining)


def _shards(sizes: Mapping[str, int], shard_bytes: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if shards[-1] and filled + size > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def _files(directory: Path) -> Iterator[tuple[Path, list[str] | None]]:
    """Yield each weight file with the names of the tensors to read from it. None means all tensors of the file."""
    if (directory / WEIGHTS).is_file():
        yield directory / WEIGHTS, None
        return
    if not (directory / INDEX).is_file():
        require_no_pickle(directory)
        raise _incomplete(f"{directory}: neither {WEIGHTS} nor {INDEX}", "a model directory contains one of them")
    index = read_json(directory / INDEX, max_bytes=INDEX_BYTES)
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise _incomplete(f"{directory / INDEX}: no weight_map", "weight_map must map each tensor to a file")
    by_file: dict[str, list[str]] = {}
    for name, file in places.items():
        by_file.setdefault(file, []).append(name)
    for file, names in by_file.items():
        yield _inside(directory, file), names


def _inside(directory: Path, file: str) -> Path:
    """Return the path of a file that an index lists. Raise an error if the file is not in the same directory.

    Symbolic links of the Hugging Face cache are allowed. They are in `snapshots/REVISION` and point to files in
    `blobs`.
    """
    root, path = directory.resolve(), directory / file
    roots = [root, *([root.parents[1] / "blobs"] if root.parent.name == "snapshots" else [])]
    plain = file != "" and file == Path(file).name and "\\" not in file
    if not plain or not any(path.resolve().is_relative_to(allowed) for allowed in roots):
        raise FormatError(
            f"{directory / INDEX}: {file!r}"[:300],
            rule="an index may only list files of its own directory",
            fix="Do not trust this model: download it from its publisher.",
        )
    if not path.is_file():
        raise _incomplete(f"{path}: no such file", f"listed in {INDEX}")
    return path


def _incomplete(value: str, rule: str) -> FormatError:
    return FormatError(value, rule=rule, fix="The files are incomplete: download them again.")


def open_tensors(path: Path) -> Any:
    """Open a safetensors file with memory mapping. The result has `keys()`, `get_tensor(name)` and `get_slice(name)`.

    Raises:
        FormatError: the file is missing or damaged.
    """
    try:
        return safe_open(path, framework="pt")
    except Exception as error:  # The type of the exception depends on the version of safetensors.
        raise FormatError(
            f"{path}: {error}",
            rule="invalid safetensors file",
            fix="Download the file again, or run the stage that wrote it again.",
        ) from error
