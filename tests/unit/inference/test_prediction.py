"""Predictions follow from measured rates, and earlier benchmarks of the same machine and format correct them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from groundup.inference.prediction import (
    MachineRates,
    machine_rates,
    predict_formats,
    predict_speed,
    read_history,
    remember,
)
from groundup.model.flops import matmul_parameters
from groundup.model.presets import preset

RATES = MachineRates("a CPU", 2, 20e9, {"float32": 1e11, "bfloat16": 3e11}, 0.0)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "groundup" / "speed"


def test_decode_reads_the_weights_and_prefill_computes_them() -> None:
    config = preset("gpt2").config
    half = predict_speed(config, "bfloat16", RATES)
    assert 0.6 < half.decode / (20e9 / (2 * matmul_parameters(config))) < 1
    faster = predict_speed(config, "bfloat16", replace(RATES, read_bytes=40e9))
    assert 1.7 < faster.decode / half.decode < 2.0
    assert faster.prefill == pytest.approx(half.prefill, rel=0.1)
    assert 4 * half.decode < half.decode_batch_8 < 8 * half.decode
    assert predict_speed(config, "int4", RATES).weights < predict_speed(config, "int8", RATES).weights < half.weights
    # GPT-2 has 12 layers with keys and values of 768 numbers.
    assert half.cache_per_1k == 1000 * 12 * 2 * 768 * 2


def test_a_model_that_is_too_large_does_not_fit() -> None:
    large = predict_speed(preset("gpt3-175b").config, "bfloat16", RATES)
    assert not large.fits
    assert large.needed > 350e9
    assert predict_speed(preset("gpt2").config, "int8", RATES).fits


def test_measurements_correct_later_predictions_of_the_same_machine_and_format() -> None:
    config = preset("gpt2").config
    first = predict_speed(config, "int8", RATES)
    for ratio in (0.4, 0.5, 3.0):
        remember(RATES, "gpt2", predict_speed(config, "int8", RATES, read_history()), {"decode": ratio * first.decode})
    second = predict_speed(config, "int8", RATES, read_history())
    assert second.decode == pytest.approx(0.5 * first.decode)  # the median, not pulled by the outlier
    assert second.prefill == first.prefill
    for other in (replace(RATES, threads=1), replace(RATES, cpu="another CPU")):
        assert not predict_speed(config, "int8", other, read_history()).corrections
    assert not predict_speed(config, "int4", RATES, read_history()).corrections


def test_damaged_and_foreign_files_are_ignored(cache: Path) -> None:
    cache.mkdir(parents=True)
    entry = {"machine": RATES.key, "format": "float32", "figure": "decode"}
    lines = "\n".join(json.dumps(each) for each in (entry, 3, entry | {"measured": 1, "uncorrected": 0}))
    for text in ("{", '{"a": 1}', "[1]", lines):
        (cache / "machine.json").write_text(text)
        (cache / "predictions.jsonl").write_text(text)
        assert predict_formats(preset("gpt2").config, RATES)
    rates = machine_rates()
    assert rates.read_bytes > 1e8
    assert min(rates.flops.values()) > 1e8
