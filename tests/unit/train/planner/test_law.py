"""The scaling law: published values, the effect of repetition, and the fit on a few runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from groundup.core.console import Console
from groundup.core.errors import DataError, FormatError
from groundup.model.flops import layer_parameters
from groundup.train.measurement.ladder import fit_ladder
from groundup.train.planner.forecast import Forecast, ppmd_bits_per_byte
from groundup.train.planner.law import DEFAULT_LAW, LadderRun, Law, fit_law, law_for
from groundup.train.planner.sizes import shape_for_depth

TRUE = replace(DEFAULT_LAW, entropy=0.65, size=0.81, data=1.24, repeats=6.6, overfitting=0.0015)
POINTS = [
    *[(n, 1e6, e) for n in (2e6, 5e6, 12e6) for e in (2, 8, 20)],
    *[(n, 5e6, e) for n in (2e6, 7e6) for e in (1, 4, 12)],
    *[(n, 3e7, e) for n in (4e6, 11e6) for e in (0.5, 1, 3)],
]


def _runs(law: Law, noise: float = 0.003) -> list[LadderRun]:
    random = np.random.default_rng(1)
    return [
        LadderRun(n, u, e, law.bits_per_byte(n, u, e) * float(np.exp(noise * random.normal()))) for n, u, e in POINTS
    ]


def test_a_fit_predicts_runs_that_it_has_not_seen() -> None:
    """A fit that only repeats its starting point would be wrong by 3 to 12 % here."""
    law = fit_law(_runs(TRUE))
    for point in [(3e6, 1e6, 14), (9e6, 5e6, 8), (20e6, 3e7, 2)]:
        assert law.bits_per_byte(*point) == pytest.approx(TRUE.bits_per_byte(*point), rel=0.01)
    assert law.residual < 0.02
    assert law.runs == len(POINTS)
    assert Law.from_json(law.to_json()) == law


def test_three_runs_shift_the_law_but_keep_its_form() -> None:
    """Unregularized least squares of seven coefficients on three runs extrapolated to negative bits per byte."""
    law = fit_law(_runs(TRUE)[:3])
    assert 0.9 < law.bits_per_byte(5e7, 1e8, 2) / TRUE.bits_per_byte(5e7, 1e8, 2) < 1.15
    with pytest.raises(DataError, match="1 finished"):
        fit_law(_runs(TRUE)[:1])


def test_repetition_helps_less_and_less_and_then_hurts() -> None:
    losses = [DEFAULT_LAW.bits_per_byte(2e6, 1e6, epochs) for epochs in (1, 4, 16, 64, 256)]
    assert losses[0] > losses[1] > losses[2]
    assert losses[4] > losses[3] > losses[2]
    assert DEFAULT_LAW.bits_per_byte(2e6, 1e6, 16, weight_decay=0.0) > losses[2] + 0.01


def test_intervals_widen_outside_of_the_fitted_runs() -> None:
    law = fit_law(_runs(TRUE))
    inside, outside = law.interval(5e6, 5e6, 4), law.interval(1e9, 5e9, 1)
    assert inside.low < TRUE.bits_per_byte(5e6, 5e6, 4) < inside.high
    assert outside.high / outside.low > 1.3 * inside.high / inside.low


def test_tokens_that_do_not_help_are_not_trained() -> None:
    config = shape_for_depth(3, 4096, {"family": "qwen3", "context_length": 512})
    small, large = Forecast(250_000, 10**6), Forecast(10**9, 4 * 10**9)
    enough = small.useful_tokens(config, 10**9)
    assert 2 < enough / small.tokens < 100
    assert small.bits_per_byte(config, enough) < small.bits_per_byte(config, small.best_tokens(config, 10**9)) + 0.006
    assert large.useful_tokens(config, 10**8) == 10**8


def test_predictable_text_has_a_lower_forecast() -> None:
    noise = np.random.default_rng(0).integers(97, 123, 20_000, dtype=np.uint8).tobytes()
    repeated = b"the same line again\n" * 1000
    assert ppmd_bits_per_byte(repeated, repeated[:1000]) < 1 < 4 < ppmd_bits_per_byte(noise[1000:], noise[:1000])
    law = replace(DEFAULT_LAW, ppmd=2.5)
    usual, hard = law.interval(1e7, 1e7, 1, ppmd=2.5), law.interval(1e7, 1e7, 1, ppmd=3.0)
    assert usual.value == law.bits_per_byte(1e7, 1e7, 1)
    assert 1.2 < hard.value / usual.value < 1.3
    assert hard.high / hard.low > usual.high / usual.low


@pytest.mark.parametrize("minutes", [30.0, None])
def test_a_ladder_of_runs_gives_the_law_that_later_plans_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minutes: float | None
) -> None:
    """A law that is fitted on the runs must predict them better than the default law, also after it is read again."""
    shards = SimpleNamespace(directory=tmp_path, n_bytes=10**6, n_tokens=250_000, n_documents=0)
    monkeypatch.setattr("groundup.tokenizer.Tokenizer.load", lambda path: SimpleNamespace(decode=None))
    monkeypatch.setattr("groundup.train.measurement.ladder.ppmd_of_shards", lambda directory, decode: 2.4)
    trained = []
    config = {
        layers: shape_for_depth(layers, 2048, {"family": "qwen3", "context_length": 512}) for layers in (2, 3, 4, 5)
    }

    def train(layers: int, length: Mapping[str, float]) -> dict[str, object]:
        assert law_for(tmp_path) == DEFAULT_LAW  # pretrain reads the law
        trained.append(layers)
        tokens = length.get("tokens") or 100_000 * length["minutes"]
        value = TRUE.bits_per_byte(layer_parameters(config[layers]), 10**6, tokens / 250_000)
        plan = {"model": config[layers].to_json(), "optimizer": {"weight_decay": None}}
        return {"plan": plan, "tokens_seen": tokens, "prediction": {"measured": {"bits_per_byte": value}}}

    assert law_for(tmp_path) == DEFAULT_LAW
    file = tmp_path / "scaling_law.json"
    file.write_text(json.dumps(DEFAULT_LAW.to_json()), encoding="utf-8")
    with pytest.raises(FormatError, match="format_version None") as refused:  # coefficients of another formula
        law_for(tmp_path)
    assert f"groundup plan {tmp_path} --minutes" in str(refused.value)
    fit_ladder(shards, train, minutes, Console(quiet=True))  # type: ignore[arg-type]
    count = len(trained)
    fit_ladder(shards, train, None, Console(quiet=True))  # type: ignore[arg-type]
    assert len(trained) == count  # a text that has a law is not calibrated again
    point = (layer_parameters(config[3]), 1e6, 3.0)
    error = abs(law_for(tmp_path).bits_per_byte(*point) / TRUE.bits_per_byte(*point) - 1)
    assert (
        error
        < (0.01 if minutes else 0.03)
        < 0.04
        < abs(DEFAULT_LAW.bits_per_byte(*point) / TRUE.bits_per_byte(*point) - 1)
    )
