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
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any, Literal, Protocol

from groundup.errors import ResourceError

PPMD_ORDERS = (5, 8)
_CHUNK = 1 << 20
_XZ_DICTIONARY = 64 << 20  # that of preset 9
_XZ_LARGEST_DICTIONARY = 1536 << 20
_PPMD_BYTES_PER_BYTE = 64  # of text; a model that is full forgets all it knows
_PPMD_SMALLEST, _PPMD_LARGEST = 16 << 20, 2 << 30

Method = Literal["gzip", "xz", "ppmd"]


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
    """One pass of one compressor over `before`, which it only learns from, and `counted`."""

    method: Method
    before: tuple[Path, ...]
    counted: tuple[Path, ...]
    size: int
    order: int = 0
    memory: int = 0


class _Stream(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


class _Ppmd:
    """PPMd variant H as 7-Zip has it, with the face of the standard library's compressors."""

    def __init__(self, order: int, memory: int) -> None:
        import pyppmd

        self._encoder = pyppmd.Ppmd7Encoder(order, memory)

    def compress(self, data: bytes, /) -> bytes:
        return self._encoder.encode(data)  # type: ignore[no-any-return]

    def flush(self) -> bytes:
        return self._encoder.flush()  # type: ignore[no-any-return]


def score_compressors(
    train: Iterable[str],
    held_out: Iterable[str],
    *,
    processes: int = 2,
    advance: Callable[[float], None] = lambda _: None,
) -> list[CompressorScore]:
    """Bits per byte of `xz -9e` and PPMd after the training text, and of gzip and xz on the held-out text
    alone.

    Documents are joined with one "\\n" after each, in the order given; these are paid for and not counted as
    bytes scored, in the compressors' disfavour by a few bits a document. The dictionary of xz is no smaller
    than all of the text. The result depends on nothing but the texts (and, on a machine with little memory,
    on PPMd's share of it).

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
        total = n_train + n_held
        memory = _ppmd_memory(total, processes)
        jobs = {
            "xz all": _Job("xz", (), (train_file, held_file), total, memory=max(_XZ_DICTIONARY, total)),
            "xz train": _Job("xz", (), (train_file,), n_train, memory=max(_XZ_DICTIONARY, total)),
            **{
                f"ppmd {order}": _Job("ppmd", (train_file,), (held_file,), total, order=order, memory=memory)
                for order in sorted(PPMD_ORDERS, reverse=True)  # the longest first
            },
            "xz held": _Job("xz", (), (held_file,), n_held, memory=_XZ_DICTIONARY),
            "gzip held": _Job("gzip", (), (held_file,), n_held),
        }
        sizes = dict(zip(jobs, _run_all(list(jobs.values()), processes, advance), strict=True))

    def score(name: str, size: int, *, saw_training: bool, memory: int | None = None) -> CompressorScore:
        return CompressorScore(name, saw_training, size, 8 * size / held_bytes, memory)

    return [
        score("gzip -9", sizes["gzip held"], saw_training=False),
        score("xz -9e", sizes["xz held"], saw_training=False),
        score("xz -9e", sizes["xz all"] - sizes["xz train"], saw_training=True),
        *(
            score(f"PPMd order {order}", sizes[f"ppmd {order}"], saw_training=True, memory=memory)
            for order in PPMD_ORDERS
        ),
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
    return max(_PPMD_SMALLEST, min(wanted, _physical_memory() // (2 * processes)))


def _physical_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has none of these names
        return 8 << 30


def _run_all(jobs: Sequence[_Job], processes: int, advance: Callable[[float], None]) -> list[int]:
    context = multiprocessing.get_context("spawn")
    done = context.Value("q", 0)
    everything, seen = max(1, sum(job.size for job in jobs)), 0
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_share, initargs=(done,)) as pool:
        futures = [pool.submit(_run, job) for job in jobs]
        pending = set(futures)
        while pending:
            _, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
            if (now := done.value) > seen:
                advance((now - seen) / everything)
                seen = now
        try:
            return [future.result() for future in futures]
        except (MemoryError, BrokenProcessPool) as error:
            raise ResourceError(
                "compressors: out of memory",
                rule=f"xz and PPMd hold tables of some {_PPMD_BYTES_PER_BYTE} times the text",
                fix="Close other programs, or leave them out: --set evaluate.compressors=false.",
            ) from error


_done: Synchronized[int]  # in a worker process: bytes that all of them have read


def _share(done: Synchronized[int]) -> None:
    global _done
    _done = done


def _run(job: _Job) -> int:
    """The bytes that `counted` costs. After other text, that is what comes out from there on, without the end
    of the stream: the coder's few bytes of delay are the same at both ends, so a second pass over the
    training text would say the same."""
    stream = _stream(job)
    for chunk in _chunks(job.before):
        stream.compress(chunk)
    size = sum(len(stream.compress(chunk)) for chunk in _chunks(job.counted))
    return size if job.before else size + len(stream.flush())


def _stream(job: _Job) -> _Stream:
    if job.method == "ppmd":
        return _Ppmd(job.order, job.memory)
    if job.method == "gzip":
        return zlib.compressobj(9, wbits=31)
    dictionary = min(job.memory, _XZ_LARGEST_DICTIONARY)
    lzma2: dict[str, Any] = {
        "id": lzma.FILTER_LZMA2,
        "preset": 9 | lzma.PRESET_EXTREME,
        "dict_size": dictionary,
    }
    return lzma.LZMACompressor(format=lzma.FORMAT_XZ, filters=[lzma2])


def _chunks(paths: Sequence[Path]) -> Iterator[bytes]:
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
                with _done.get_lock():
                    _done.value += len(chunk)
