"""Estimates before training: published runs, and every quantity from every other."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path

import pytest

from groundup.core.errors import ConfigError, DataError
from groundup.core.files import write_json
from groundup.model.flops import matmul_parameters
from groundup.model.presets import PRESETS
from groundup.train.initial_model import ShapeConfig, given_shape
from groundup.train.measurement.training_text import read_training_text, token_shards_of
from groundup.train.planner.estimate import Estimator, PlanTarget, Text
from groundup.train.planner.estimate_table import as_table
from groundup.train.planner.forecast import MIN_GAIN
from groundup.train.planner.hardware import Hardware, rented_gpus
from groundup.train.planner.law import DEFAULT_LAW

LAPTOP = Hardware("laptop", 4e11, 1, None, 8 * 10**9, 0.05, "assumed")
SHAPE = {"family": "qwen3", "context_length": 512}


def _estimator(text_bytes: int | None = None, hardware: Hardware = LAPTOP) -> Estimator:
    return Estimator(SHAPE, 8192, Text(text_bytes), hardware)


def _gpt3(hardware: Hardware) -> dict[str, object]:
    given = given_shape(ShapeConfig(preset="gpt3-175b"))
    estimator = Estimator(given | {"vocab_size": 50_257}, PRESETS["gpt3-175b"].config.vocab_size, Text(), hardware)
    return estimator.estimate(PlanTarget(tokens=300e9)).to_json()


def test_gpt3_costs_what_was_published() -> None:
    """Brown et al. 2020, table D.1: 3.14e23 FLOPs. Lambda 2020: 355 V100-years and 4.6 million dollars."""
    facts = _gpt3(rented_gpus("v100", 1))
    assert facts["flops"] == pytest.approx(3.14e23, rel=0.005)
    assert facts["device_hours"] / 24 / 365 == pytest.approx(355, rel=0.01)  # type: ignore[operator]
    assert facts["dollars"] == pytest.approx([4.6e6, 4.6e6], rel=0.02)
    assert "GPU-years" in as_table(facts)


def test_gpt3_today() -> None:
    """3.14e23 FLOPs at 40 % of 989 TFLOP/s are 220,000 hours, for 2 to 3 dollars each."""
    facts = _gpt3(rented_gpus("h100", 1024))
    assert facts["device_hours"] == pytest.approx(220_000, rel=0.01)
    assert facts["dollars"] == pytest.approx([441e3, 661e3], rel=0.01)
    assert facts["seconds"] == pytest.approx(220_000 * 3600 / 1024, rel=0.01)
    assert rented_gpus("h100", 8, price=1.5, utilization=0.5).cost(3600) == (12.0, 12.0)
    with pytest.raises(ConfigError, match="h100"):
        rented_gpus("h1000", 1)


def test_each_quantity_gives_the_others() -> None:
    """From the time follow tokens, size and quality; from each of them, the same run must follow."""
    estimator = _estimator(30_000_000)
    found = estimator.estimate(PlanTarget(minutes=20))
    assert found.seconds == pytest.approx(1200, rel=0.01)
    same_size = estimator.estimate(PlanTarget(minutes=20, parameters=found.to_json()["parameters"]))
    assert same_size.model == found.model
    again = estimator.estimate(PlanTarget(bits_per_byte=found.bits_per_byte.value))
    assert again.seconds == pytest.approx(1200, rel=0.05)
    # On a small text, more time gives a larger model, not more tokens. So tokens give the size only for a large text.
    large = _estimator(10**10)
    found = large.estimate(PlanTarget(minutes=20))
    assert abs(large.estimate(PlanTarget(tokens=found.tokens)).model.n_layers - found.model.n_layers) <= 1


def test_a_budget_is_converted_to_time() -> None:
    found = _estimator(hardware=rented_gpus("a100", 2, price=2.0)).estimate(PlanTarget(budget_dollars=8))
    assert found.seconds == pytest.approx(2 * 3600, rel=0.01)
    with pytest.raises(ConfigError, match="--gpu"):
        _estimator().estimate(PlanTarget(budget_dollars=8))


def test_a_small_text_limits_what_more_compute_can_reach() -> None:
    """One megabyte was planned for a quality that only 100 GB of text can give."""
    with pytest.raises(ConfigError, match="cannot be reached"):
        _estimator(1_000_000).estimate(PlanTarget(bits_per_byte=0.9))
    assert _estimator(10**12, rented_gpus("h100", 64)).estimate(PlanTarget(bits_per_byte=0.9)).epochs < 1.1


def test_teachers_are_planned_if_text_repeats_often() -> None:
    """`groundup pretrain` trains teachers on one device only, and only within a time limit."""
    alone, taught = (_estimator(1_000_000).estimate(PlanTarget(minutes=minutes)) for minutes in (1, 60))
    assert (alone.num_teachers, taught.num_teachers) == (0, 4)
    assert taught.seconds <= 60 * 60 and taught.flops > 30 * matmul_parameters(taught.model) * taught.tokens
    forecast = Text(1_000_000).forecast(taught.tokens, DEFAULT_LAW)
    assert taught.bits_per_byte.value < 0.97 * forecast.bits_per_byte(taught.model, taught.tokens)
    assert "4 models with other seeds" in as_table(taught.to_json())
    two = dataclasses.replace(LAPTOP, count=2)
    assert _estimator(1_000_000, two).estimate(PlanTarget(minutes=60)).num_teachers == 0


def test_teachers_are_preferred_to_a_larger_model_that_leaves_time() -> None:
    """For 5 MB and 80 minutes, the largest useful model stopped early, without teachers."""
    two = dataclasses.replace(LAPTOP, count=2)
    taught, large = (_estimator(5_000_000, each).estimate(PlanTarget(minutes=80)) for each in (LAPTOP, two))
    assert taught.num_teachers >= 2 and taught.model.n_layers < large.model.n_layers
    assert taught.bits_per_byte.value < 0.99 * large.bits_per_byte.value
    assert taught.epochs >= 6


def test_contradictions_are_errors() -> None:
    with pytest.raises(ConfigError, match="minutes are available"):
        _estimator().estimate(PlanTarget(minutes=1, tokens=10**9, parameters=50e6))
    with pytest.raises(ConfigError, match="unset"):
        _estimator().estimate(PlanTarget())


def test_more_time_is_never_worse() -> None:
    losses = [each.bits_per_byte.value for each in _estimator(5_000_000).by_minutes()]
    assert all(later <= earlier + MIN_GAIN for earlier, later in pairwise(losses))
    times = [each.seconds for each in _estimator(100_000).by_minutes()]
    assert times == sorted(set(times)), "the table repeated the run that is long enough"
    slow = _estimator(5_000_000, dataclasses.replace(LAPTOP, flops=4e10)).by_minutes()
    assert slow[1].bits_per_byte.value > losses[1]


def test_the_reachable_bits_per_byte_do_not_depend_on_the_search_limit() -> None:
    """The largest time once had only candidates of thousands of epochs, which overfit, so nothing could be reached."""
    estimator = _estimator(5_000_000)
    within = min(each.bits_per_byte.value for each in estimator.by_minutes())
    assert estimator.estimate(PlanTarget(bits_per_byte=within + 0.01)).bits_per_byte.value <= within + 0.01


def test_text_whose_beginning_ends_with_a_whole_character_is_text(tmp_path: Path) -> None:
    for number, text in enumerate(("Слово за словом, строка за строкой: книга готова вся.\n", "它是一本书。\n")):
        (tmp_path / f"{number}.txt").write_text(text * 300, encoding="utf-8")
    (tmp_path / "image.bin").write_bytes(bytes(range(256)) * 100)
    assert read_training_text(tmp_path).skipped == 1


def test_a_ladder_on_text_names_the_commands_that_tokenize_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A corpus or a folder was reported as damaged token shards."""

    def fix(path: Path) -> str:
        with pytest.raises(DataError, match="needed: token shards") as error:
            token_shards_of(path)
        return str(error.value).rpartition("Run first: ")[2]

    folder, run = tmp_path / "my notes", tmp_path / "run"
    for path in (folder / "sub", run / "corpus"):
        path.mkdir(parents=True)
    write_json(run / "corpus" / "artifact.json", {"stage": "collect"})
    for path in (run, run / "corpus"):
        assert fix(path) == f"groundup tokenize {run}/corpus --out {run}/tokens"
    collect, tokenize = fix(folder).split(" && ")
    assert collect == f"groundup collect --folder '{folder}' --out 'runs/my notes/corpus'"
    assert tokenize == "groundup tokenize 'runs/my notes/corpus' --out 'runs/my notes/tokens'"
    book = tmp_path / "book.txt"  # Other files in the directory are not part of the text.
    book.write_text("A book.", encoding="utf-8")
    assert fix(book).startswith(f"groundup collect --folder {book} --out runs/book/corpus && ")
    monkeypatch.chdir(folder)  # `collect` refuses to write into the folder that it reads.
    assert "--folder . --out '../runs/my notes/corpus' && " in fix(Path())
    monkeypatch.chdir(folder / "sub")
    assert "--folder .. --out '../../runs/my notes/corpus' && " in fix(Path(".."))
    assert f"--out '{tmp_path}/runs/my notes/corpus' && " in fix(folder)
    monkeypatch.chdir(run / "corpus")
    assert fix(Path()) == "groundup tokenize . --out ../tokens"
