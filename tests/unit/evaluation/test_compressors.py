"""Compressors: sizes compared with the programs, and with the definition in two full passes."""

from __future__ import annotations

import multiprocessing
import shutil
import subprocess
from pathlib import Path

import pyppmd
import pytest

from groundup.evaluation import compressors
from groundup.evaluation.compressors import PPMD_ORDERS, CompressorScore, score_compressors

Texts = tuple[list[str], list[str]]  # To read first, and held-out texts.


@pytest.fixture(scope="module")
def texts(real_documents: list[str]) -> Texts:
    return real_documents[:-12], real_documents[-12:]


@pytest.fixture(scope="module")
def shares() -> list[float]:
    return []


@pytest.fixture(scope="module")
def scores(texts: Texts, shares: list[float]) -> dict[str, CompressorScore]:
    return {score.label: score for score in score_compressors(*texts, advance=shares.append)}


def joined(documents: list[str]) -> bytes:
    return "".join(text + "\n" for text in documents).encode()


def xz(data: bytes) -> int:
    command = shutil.which("xz")
    if command is None:
        pytest.skip("no xz on this machine")
    return len(subprocess.run([command, "-9e", "-T1"], input=data, capture_output=True, check=True).stdout)


def test_xz_equals_the_program(texts: Texts, scores: dict[str, CompressorScore]):
    train, held_out = map(joined, texts)
    assert scores["xz -9e alone"].compressed_bytes == xz(held_out)
    assert scores["xz -9e after the training text"].compressed_bytes == xz(train + held_out) - xz(train)


@pytest.mark.parametrize("order", PPMD_ORDERS)
def test_ppmd_equals_the_difference_of_two_files(order: int, texts: Texts, scores: dict[str, CompressorScore]):
    """The definition needs two passes; groundup reads the training text once and flushes a copy of the stream."""
    train, held_out = map(joined, texts)

    def size(data: bytes) -> int:
        encoder = pyppmd.Ppmd7Encoder(order, 64 << 20)
        return len(encoder.encode(data)) + len(encoder.flush())

    difference = size(train + held_out) - size(train)
    assert scores[f"PPMd order {order} after the training text"].compressed_bytes == difference


def test_without_fork_the_result_is_the_same(
    texts: Texts,
    scores: dict[str, CompressorScore],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """Windows cannot fork, so the training text is compressed twice."""
    paths = [tmp_path / name for name in ("train", "held-out")]
    for path, documents in zip(paths, texts, strict=True):
        path.write_bytes(joined(documents))
    monkeypatch.setattr(compressors, "_CAN_FORK", False)
    monkeypatch.setattr(compressors, "_done", multiprocessing.Value("q", 0), raising=False)
    job = compressors._Job("PPMd order 5", True, "ppmd", 64 << 20, 5)
    expected = scores["PPMd order 5 after the training text"].compressed_bytes
    assert compressors._cost(job, *paths) == expected


def test_the_denominator_is_the_bytes_of_the_documents(texts: Texts, scores: dict[str, CompressorScore]):
    """Line ends between documents count in the size, but not as scored bytes."""
    n_bytes = sum(len(text.encode()) for text in texts[1])
    for score in scores.values():
        assert score.bpb == pytest.approx(8 * score.compressed_bytes / n_bytes)


def test_training_text_improves_compression(scores: dict[str, CompressorScore]):
    """PPM with the training text is better than xz; errors in the accounting would change that order."""
    after = {name: scores[f"{name} after the training text"].bpb for name in ("xz -9e", "PPMd order 5")}
    assert after["PPMd order 5"] < after["xz -9e"] < scores["xz -9e alone"].bpb < scores["gzip -9 alone"].bpb


def test_progress_ends_at_100_percent(scores: dict[str, CompressorScore], shares: list[float]):
    """A progress bar that stops at 83 % looks like a crash."""
    assert scores
    assert sum(shares) == pytest.approx(1)
