"""Compression of the held-out text with general-purpose compressors, as a baseline for a language model.

A compressor that compresses the training text before the held-out text acts as a simple language model. The strongest
classical compressor for text is PPM with long contexts (Cleary and Witten 1984; PPMd: Shkarin 2002). The compressed
size of the held-out text is size(training + held-out) - size(training). In bits, and divided by the bytes of the
held-out text, this size can be compared with a model's bits per byte.

This module does not import torch, because every worker process imports this module and torch takes long to import.
"""

from __future__ import annotations

import lzma
import multiprocessing
import os
import tempfile
import zlib
from collections.abc import Callable, Container, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any, Literal, Protocol

from groundup.core.errors import ResourceError

PPMD_ORDERS = (5, 8)
_CHUNK = 1 << 20
_XZ_DICTIONARY = 64 << 20  # Dictionary size of preset 9.
_XZ_MAX_DICTIONARY = 1536 << 20
_PPMD_BYTES_PER_BYTE = 64  # Bytes of memory per byte of text. If its memory is full, PPMd discards all statistics.
_PPMD_MIN_MEMORY, _PPMD_MAX_MEMORY = 16 << 20, 2 << 30
_CAN_FORK = hasattr(os, "fork")


@dataclass(frozen=True, slots=True)
class CompressorScore:
    """Size of the held-out text after compression by one compressor.

    Attributes:
        name: name of the compressor with its options.
        saw_training: whether the training text was compressed before the held-out text.
        compressed_bytes: compressed size of the held-out text.
        bpb: size of the compressed held-out text in bits, divided by its uncompressed size in bytes.
        memory_bytes: memory limit of the PPMd model, or None for other compressors.
    """

    name: str
    saw_training: bool
    compressed_bytes: int
    bpb: float
    memory_bytes: int | None = None

    @property
    def label(self) -> str:
        """Name of the compressor, followed by "after the training text" or "alone"."""
        return self.name + (" after the training text" if self.saw_training else " alone")


@dataclass(frozen=True, slots=True)
class _Job:
    """A run of one compressor on the held-out text, either alone or after the training text."""

    name: str
    saw_training: bool
    method: Literal["gzip", "xz", "ppmd"]
    memory: int = 0  # Dictionary size of xz or memory limit of PPMd, in bytes.
    order: int = 0

    def open(self) -> _Stream:
        """Return a new stream of this compressor."""
        if self.method == "ppmd":
            return _Ppmd(self.order, self.memory)
        if self.method == "gzip":
            return zlib.compressobj(9, wbits=31)
        preset = 9 | lzma.PRESET_EXTREME
        lzma2: dict[str, Any] = {"id": lzma.FILTER_LZMA2, "preset": preset, "dict_size": self.memory}
        return lzma.LZMACompressor(format=lzma.FORMAT_XZ, filters=[lzma2])


class _Stream(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


class _Ppmd:
    """PPMd variant H, which 7-Zip uses, with the interface of the compressors in the standard library."""

    def __init__(self, order: int, memory: int) -> None:
        import pyppmd

        self._encoder = pyppmd.Ppmd7Encoder(order, memory)

    def compress(self, data: bytes, /) -> bytes:
        return self._encoder.encode(data)

    def flush(self) -> bytes:
        return self._encoder.flush()


def score_compressors(
    train: Iterable[str],
    held_out: Iterable[str],
    *,
    processes: int = 2,
    names: Container[str] | None = None,
    advance: Callable[[float], object] = lambda _: None,
) -> list[CompressorScore]:
    """Compress the held-out text with several compressors.

    gzip and xz compress the held-out text alone. `xz -9e` and PPMd also compress the held-out text after the training
    text.

    A newline is written after each document. Newlines count in the compressed size but not in the uncompressed bytes,
    which costs the compressors a few bits per document. The dictionary of xz is as large as the text, up to 1.5 GiB.
    The scores depend only on the texts, except that PPMd gets less memory on machines with little memory.

    Args:
        train: training texts.
        held_out: held-out texts.
        processes: number of compressors that run in parallel. Each compressor runs in a spawned process, so a calling
            script needs the usual `if __name__ == "__main__"` guard.
        names: names of the compressors, such as "PPMd order 8"; default: all.
        advance: callback for progress, called with the fraction of the work done since the last call.

    Returns:
        One score per compressor.

    Raises:
        ResourceError: there is not enough memory.
    """
    with tempfile.TemporaryDirectory(prefix="groundup-") as directory:
        train_file, held_file = Path(directory, "train"), Path(directory, "held-out")
        n_train, _ = _write_joined(train, train_file)
        n_held, held_bytes = _write_joined(held_out, held_file)
        dictionary = min(max(_XZ_DICTIONARY, n_train + n_held), _XZ_MAX_DICTIONARY)
        memory = _ppmd_memory(n_train + n_held, processes)
        jobs = [job for job in _jobs(dictionary, memory) if names is None or job.name in names]
        passes = sum(job.saw_training for job in jobs) * (1 if _CAN_FORK else 2)
        work = passes * n_train + len(jobs) * n_held
        sizes = _run_all(
            [partial(_cost, job, train_file, held_file) for job in jobs],
            processes,
            lambda n_bytes: advance(n_bytes / work),
        )
    return [
        CompressorScore(
            name=job.name,
            saw_training=job.saw_training,
            compressed_bytes=size,
            bpb=8 * size / held_bytes,
            memory_bytes=job.memory if job.method == "ppmd" else None,
        )
        for job, size in reversed(list(zip(jobs, sizes, strict=True)))
    ]


def _jobs(dictionary: int, memory: int) -> list[_Job]:
    """Return the runs of all compressors. The longest run is the first, so that all processes end at a similar time."""
    return [
        _Job("xz -9e", True, "xz", memory=dictionary),
        *(_Job(f"PPMd order {order}", True, "ppmd", memory, order) for order in reversed(PPMD_ORDERS)),
        _Job("xz -9e", False, "xz", memory=_XZ_DICTIONARY),
        _Job("gzip -9", False, "gzip"),
    ]


def _write_joined(texts: Iterable[str], path: Path) -> tuple[int, int]:
    """Write each text followed by a newline, and return (bytes written, bytes of the texts without newlines)."""
    count = written = 0
    with path.open("wb") as file:
        for text in texts:
            written += file.write(text.encode("utf-8") + b"\n")
            count += 1
    return written, written - count


def _ppmd_memory(total: int, processes: int) -> int:
    wanted = min(max(total * _PPMD_BYTES_PER_BYTE, _PPMD_MIN_MEMORY), _PPMD_MAX_MEMORY)
    from groundup.kernels import memory_bytes  # Imported here because it imports torch, which workers do not need.

    memory = memory_bytes("cpu") or _PPMD_MAX_MEMORY
    return max(_PPMD_MIN_MEMORY, min(wanted, memory // (2 * processes)))


def _run_all(costs: Sequence[Callable[[], int]], processes: int, advance: Callable[[int], object]) -> list[int]:
    context = multiprocessing.get_context("spawn")
    done, seen = context.Value("q", 0), 0
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_init_worker, initargs=(done,)) as pool:
        futures = [pool.submit(cost) for cost in costs]
        pending = set(futures)
        while pending:
            _, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
            if (now := done.value) > seen:
                advance(now - seen)
                seen = now
        try:
            return [future.result() for future in futures]
        except (MemoryError, BrokenProcessPool) as error:
            raise ResourceError(
                "compressors: out of memory",
                rule="xz and PPMd need about 20 times the size of the text",
                fix="Close other programs, or skip the compressors: --set compressors=false.",
            ) from error


_done: Synchronized[int]  # Number of bytes that all workers together have read. Set only in worker processes.


def _init_worker(done: Synchronized[int]) -> None:
    global _done
    _done = done


def _cost(job: _Job, train: Path, held_out: Path) -> int:
    """Return the compressed size of the held-out text.

    If the compressor gets the training text first, this is size(train + held-out) - size(train).
    """
    stream = job.open()
    size = before = 0
    if job.saw_training:
        size = _feed(stream, train)
        before = size + _remaining_bytes(stream) if _CAN_FORK else _size(job.open(), train)
    return size + _size(stream, held_out) - before


def _remaining_bytes(stream: _Stream) -> int:
    """Return the number of bytes that `flush()` would write now, without ending the stream.

    `flush()` is called in a forked process on a copy of the stream. Therefore, the training text does not have to be
    compressed a second time.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, str(len(stream.flush())).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        output = pipe.read()
    os.waitpid(child, 0)
    if not output:
        raise MemoryError
    return int(output)


def _size(stream: _Stream, path: Path) -> int:
    return _feed(stream, path) + len(stream.flush())


def _feed(stream: _Stream, path: Path) -> int:
    size = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            size += len(stream.compress(chunk))
            with _done.get_lock():
                _done.value += len(chunk)
    return size
