"""Prefetched batches are the same, arrive in time, and waiting times are reported correctly."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from groundup.train import Prefetch


def test_loading_overlaps_with_the_step() -> None:
    def slow(index: int) -> int:
        time.sleep(0.03)
        return index

    with Prefetch(slow, ahead=2, last=lambda: 9) as batches:
        assert batches(0) == 0
        waited = 0.0
        for index in range(1, 10):
            time.sleep(0.06)  # the time of a step
            asked = time.perf_counter()
            assert batches(index) == index
            waited += time.perf_counter() - asked
    assert waited < 0.1  # 0.27 without prefetching


def test_any_requested_batch_is_returned() -> None:
    """A resumed run starts at an index above 0; nothing beyond the last index is loaded."""
    made: list[int] = []

    def batch(index: int) -> torch.Tensor:
        made.append(index)
        return torch.tensor(index)

    with Prefetch(batch, ahead=3, last=lambda: 12) as batches:
        for index in (7, 8, 9, 2, 3, 11, 12, 13):
            assert int(batches(index)) == index
    assert max(made) == 13
    assert 10 in made


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_batches_are_loaded_on_the_gpu_of_the_rank() -> None:
    """torch selects the GPU per thread: the batches of all ranks were once on GPU 0, and the first step failed."""
    with torch.cuda.device(1), Prefetch(lambda index: torch.ones(1, device="cuda"), ahead=1, last=lambda: 3) as batches:
        assert batches(0).device == torch.device("cuda", 1)


def test_an_error_in_a_batch_is_raised_and_no_thread_remains() -> None:
    def fails_at_two(index: int) -> int:
        if index == 2:
            raise ValueError("a damaged shard")
        return index

    with Prefetch(fails_at_two, ahead=5, last=lambda: 99) as batches:
        assert batches(0) == 0
        assert batches(1) == 1
        with pytest.raises(ValueError, match="damaged"):
            batches(2)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]
