"""Training of a tokenizer: vocabulary size, limits, and reproducibility."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from groundup.core.errors import ConfigError, DataError
from groundup.tokenizer import train_tokenizer, vocab_size_for


def test_size_grows_with_the_square_root_of_the_corpus() -> None:
    sizes = [vocab_size_for(size) for size in (0, 10**5, 10**6, 10**7, 3 * 10**7, 10**8, 10**9, 10**12)]
    assert sizes == sorted(sizes)
    assert all(size % 64 == 0 and 320 <= size <= 65_536 for size in sizes)
    assert 4096 <= vocab_size_for(30_000_000) <= 8192
    assert vocab_size_for(10**8) / vocab_size_for(10**6) == pytest.approx(10, rel=0.05)


def test_order_of_the_texts_does_not_matter(real_documents: list[str]) -> None:
    """A pool of workers may return texts in any order, and a resumed run must give the same vocabulary."""
    some = real_documents[:30]
    shuffled = some[:]
    random.Random(0).shuffle(shuffled)
    assert train_tokenizer(some, 512).definition == train_tokenizer(iter(shuffled), 512).definition


@pytest.mark.parametrize("size", [64, 319, 1000, -64])
def test_invalid_sizes_are_errors(size: int) -> None:
    with pytest.raises(ConfigError, match="multiple of 64"):
        train_tokenizer(["text"], size)


def test_too_little_text_states_the_possible_size() -> None:
    """The library silently stops early, and a model would have unused embedding rows."""
    text = "to be or not to be, that is the question " * 20
    with pytest.raises(DataError, match="Collect more text"):
        train_tokenizer([text], 4096)
    with pytest.raises(DataError, match="Collect more text"):
        train_tokenizer([], 4096, allow_smaller=True)


def test_allow_smaller_equals_training_for_that_size(real_documents: list[str]) -> None:
    """A reduced vocabulary must not have merges with removed tokens."""
    some = [text[:2000] for text in real_documents[:5]]
    largest = train_tokenizer(some, 8192, allow_smaller=True)
    assert 512 < largest.vocab_size < 8192
    assert largest.vocab_size % 64 == 0
    assert largest.definition == train_tokenizer(some, largest.vocab_size).definition


_LONG_WORK = """
import random
from groundup.tokenizer import train_tokenizer

def letters(size):
    table = bytes(b"abcdefghijklmnopqrstuvwx "[code % 25] for code in range(256))
    return random.Random(size).randbytes(size).translate(table).decode()

def merging():
    yield letters(6_000_000)
    print("begun", flush=True)

def reading():
    print("begun", flush=True)
    for size in range(10_000, 100_000):
        yield letters(size)

train_tokenizer(PHASE(), 16_000)
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("phase", ["reading", "merging"])
def test_ctrl_c_stops_training_immediately(phase: str) -> None:
    """The library does not handle signals, so Ctrl-C once took 10 to 30 seconds. 8 seconds allow for a busy machine.

    A thread that still reads texts at exit would abort the process.
    """
    code = _LONG_WORK.replace("PHASE", phase)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    try:
        assert process.wait(timeout=8) == -signal.SIGINT
    finally:
        process.kill()
        process.stdout.close()


def test_errors_while_reading_texts_are_raised() -> None:
    """A damaged corpus must not give a vocabulary from the texts before the damage."""

    def damaged() -> Iterator[str]:
        yield "some text " * 1000
        raise DataError("shard 3", rule="must be whole", fix="Collect again.")

    with pytest.raises(DataError, match="shard 3"):
        train_tokenizer(damaged(), 320)
