"""Figures of llama.cpp: the output formats of llama-bench, and clear errors if the program fails."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from groundup.core.errors import ConfigError, ResourceError
from groundup.evaluation.speed.llama_cpp import (
    LlamaCppSpeed,
    batched_bench_figures,
    bench_figures,
    find_llama_cpp,
)
from groundup.inference.speed import SpeedTest

# Fields of a result as the README of llama-bench documents them, shortened.
RESULTS = json.loads(
    """[
  {"build_commit": "8cf427ff", "n_threads": 8, "flash_attn": false, "n_prompt": 512, "n_gen": 0, "n_depth": 0,
   "avg_ns": 72135640, "stddev_ns": 1453752, "avg_ts": 7100.002165, "stddev_ts": 140.341520, "samples_ns": [72135640]},
  {"build_commit": "8cf427ff", "n_threads": 8, "flash_attn": true, "n_prompt": 512, "n_gen": 0, "n_depth": 0,
   "avg_ns": 64000000, "stddev_ns": 1453752, "avg_ts": 8000.0, "stddev_ts": 140.341520, "samples_ns": [64000000]}
]"""
)


def test_the_results_of_llama_bench() -> None:
    slow, fast = bench_figures(SpeedTest(1, 512), RESULTS)
    assert slow == {"prefill": 7100.002165, "first_token": pytest.approx(0.07211265)}
    assert fast["first_token"] == pytest.approx(0.064)
    assert bench_figures(SpeedTest(1, 512, 64), RESULTS)[1] == {"decode": 8000.0}
    line = {"pp": 128, "tg": 64, "pl": 8, "n_kv": 1536, "t_pp": 0.2, "speed_pp": 5120.0, "t_tg": 1.8}
    found = batched_bench_figures(line | {"speed_tg": 284.4, "t": 2.0, "speed": 768.0})
    assert found == {"decode": 284.4, "with_prefill": 256.0}


def test_a_program_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no such program"):
        find_llama_cpp(Path("/nowhere/llama-bench"))


@pytest.mark.parametrize(
    ("script", "reason"), [(f'exec "{sys.executable}" -S "$@"', "xllamacpp"), ("exit 3", "exit code 3")]
)
def test_a_program_that_ends_early_fails_with_its_reason(script: str, reason: str, tmp_path: Path) -> None:
    test = SpeedTest(1, 8, 4)
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    found = find_llama_cpp(program)
    assert found is not None
    with (
        pytest.raises(ResourceError, match=reason),
        LlamaCppSpeed(found, tmp_path / "model.gguf", 1, [test], 100) as peer,
    ):
        peer.run(test)
