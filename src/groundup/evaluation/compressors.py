"""What compressors make of the held-out text: the bar that a model has to take.

A compressor that has read the training text first is a language model of its own: PPM with long contexts was
the best one known for decades (Cleary and Witten 1984; PPMd: Shkarin 2002). What it spends on the held-out
text is size(training + held-out) - size(training), in bits for each held-out byte, as a model's bits per byte
are.

This module imports no torch, because each of its processes imports it.
"""

from __future__ import annotations

import lzma
import multiprocessing
import os
import tempfile
import zlib
from collections.abc import Callable, Iterable, Sequence
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
_XZ_DICTIONARY = 64 << 20  # that of preset 9
_XZ_LARGEST_DICTIONARY = 1536 << 20
_PPMD_BYTES_PER_BYTE = 64  # of text; a model that is full forgets all it knows
_PPMD_SMALLEST, _PPMD_LARGEST = 16 << 20, 2 << 30
_CAN_FORK = hasattr(os, "fork")


@dataclass(frozen=True, slots=True)
class CompressorScore:
    """One row of the table.

    Attributes:
        name: the compressor, as its users call it.
        saw_training: whether it had read the training text first.
        compressed_bytes: what the held-out text costs.
        bpb: the same in bits for each held-out byte.
        memory_bytes: memory that a PPMd model was given; None for others.
    """

    name: str
    saw_training: bool
    compressed_bytes: int
    bpb: float
    memory_bytes: int | None = None

    @property
    def label(self) -> str:
        """The name with what the compressor had read."""
        return self.name + (" after the training text" if self.saw_training else " alone")


@dataclass(frozen=True, slots=True)
class _Job:
    """One compressor over the held-out text, after the training text or without it."""

    name: str
    saw_training: bool
    method: Literal["gzip", "xz", "ppmd"]
    memory: int = 0  # the dictionary of xz, the model of PPMd
    order: int = 0

    def open(self) -> _Stream:
        """A fresh stream of this compressor."""
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
    """PPMd variant H as 7-Zip has it, with the face of the standard library's compressors."""

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
    advance: Callable[[float], object] = lambda _: None,
) -> list[CompressorScore]:
    """Bits per byte of gzip and xz on the held-out text alone, and of `xz -9e` and PPMd after the training
    text.

    Documents are joined with one "\\n" after each, in the order given; these line ends are paid for and not
    counted as bytes scored, to the compressors' disadvantage by a few bits a document. The dictionary of xz
    is no smaller than all of the text. The result depends on the texts alone (on a machine with little memory
    also on PPMd's share of it).

    Args:
        advance: called with the share (of 1) of the work done since the last call.
        processes: compressors that run at a time. They are separate processes, started by "spawn": a script
            that calls this needs the usual `if __name__ == "__main__"` guard.

    Raises:
        ResourceError: not enough memory.
    """
    with tempfile.TemporaryDirectory(prefix="groundup-") as directory:
        train_file, held_file = Path(directory, "train"), Path(directory, "held-out")
        n_train, _ = _write_joined(train, train_file)
        n_held, held_bytes = _write_joined(held_out, held_file)
        dictionary = min(max(_XZ_DICTIONARY, n_train + n_held), _XZ_LARGEST_DICTIONARY)
        memory = _ppmd_memory(n_train + n_held, processes)
        jobs = [  # the longest first, so that no process is left with it at the end
            _Job("xz -9e", True, "xz", memory=dictionary),
            *(_Job(f"PPMd order {order}", True, "ppmd", memory, order) for order in reversed(PPMD_ORDERS)),
            _Job("xz -9e", False, "xz", memory=_XZ_DICTIONARY),
            _Job("gzip -9", False, "gzip"),
        ]
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


def _write_joined(texts: Iterable[str], path: Path) -> tuple[int, int]:
    """Write the texts, a line end after each; (bytes written, bytes of the texts alone)."""
    count = written = 0
    with path.open("wb") as file:
        for text in texts:
            written += file.write(text.encode("utf-8") + b"\n")
            count += 1
    return written, written - count


def _ppmd_memory(total: int, processes: int) -> int:
    wanted = min(max(total * _PPMD_BYTES_PER_BYTE, _PPMD_SMALLEST), _PPMD_LARGEST)
    from groundup.kernels import memory_bytes  # imports torch, for which the workers that compress need not wait

    memory = memory_bytes("cpu") or _PPMD_LARGEST
    return max(_PPMD_SMALLEST, min(wanted, memory // (2 * processes)))


def _run_all(costs: Sequence[Callable[[], int]], processes: int, advance: Callable[[int], object]) -> list[int]:
    context = multiprocessing.get_context("spawn")
    done, seen = context.Value("q", 0), 0
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_share, initargs=(done,)) as pool:
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
                rule="xz and PPMd hold tables of some twenty times the text",
                fix="Close other programs, or leave them out: --set compressors=false.",
            ) from error


_done: Synchronized[int]  # in a worker process: bytes that all of them have read


def _share(done: Synchronized[int]) -> None:
    global _done
    _done = done


def _cost(job: _Job, train: Path, held_out: Path) -> int:
    """size(train + held-out) - size(train), or of the held-out text alone."""
    stream = job.open()
    size = before = 0
    if job.saw_training:
        size = _feed(stream, train)
        before = size + _rest_in_a_copy(stream) if _CAN_FORK else _size(job.open(), train)
    return size + _size(stream, held_out) - before


def _rest_in_a_copy(stream: _Stream) -> int:
    """What would still come out if the stream ended here; it does not. A forked process, whose memory is a
    copy, ends it in our place and tells: that saves the compression of all of the training text once more."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, str(len(stream.flush())).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    if not told:
        raise MemoryError
    return int(told)


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
