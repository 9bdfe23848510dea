"""Measurement of the throughput with which `groundup tokenize` encodes text and writes token shards."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.pretrain.targets import TargetResult, median_over_rounds
from groundup.data import TokenShards, write_shards
from groundup.tokenizer import CorpusEncoder, Tokenizer

THREADS = 2
_MAX_BYTES = 40_000_000
_CHECKED_BYTES = 1_000_000  # size of the sample on which groundup tokenize compares tiktoken with the tokenizer
_TARGET = 30.0


def encode_figure(tokens: Path, *, rounds: int, log: Callable[[str], None]) -> TargetResult:
    """Return the throughput in MB of UTF-8 text per second with two threads.

    Args:
        tokens: Output directory of `groundup tokenize`. Its ids are decoded, and the texts are encoded again.
        rounds: Number of measurements.
        log: A function that prints a line.

    Raises:
        SystemExit: The ids of a text differ from the ids in `tokens`.
    """
    shards, tokenizer = TokenShards(tokens, "train"), Tokenizer.load(tokens / "tokenizer")
    count = int(np.searchsorted(np.cumsum(shards.byte_lengths), _MAX_BYTES)) + 1
    texts = [tokenizer.decode(shards.document(number).tolist()) for number in range(min(count, shards.n_documents))]
    size = sum(len(text.encode()) for text in texts)
    sample = texts[: int(np.searchsorted(np.cumsum(shards.byte_lengths), _CHECKED_BYTES)) + 1]
    encoder = CorpusEncoder(tokenizer, sample, threads=THREADS)
    rates = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as directory:
            started = time.perf_counter()
            write_shards(
                Path(directory),
                {"train": texts},
                encoder.encode,
                vocab_size=shards.vocab_size,
                bos_id=shards.bos_id,
            )
            rates.append(size / (time.perf_counter() - started) / 1e6)
            written = TokenShards(Path(directory), "train")
            for number in range(len(texts)):
                if not np.array_equal(written.document(number), shards.document(number)):
                    raise SystemExit(f"document {number}: the ids differ from the ids in {tokens}")
    figure = median_over_rounds(rates, _TARGET)
    log(f"encoding {size / 1e6:.1f} MB with {THREADS} threads: {figure.estimate:.1f} MB/s, tiktoken: {encoder.fast}")
    return figure
