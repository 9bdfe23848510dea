"""The training loop: micro-batch splits and interruptions must not change the result."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch.distributed import HashStore

from groundup.core.errors import FormatError, TrainingError
from groundup.core.types import IGNORE_INDEX
from groundup.distributed.ranks import Ranks
from groundup.hub import load_newest_state
from groundup.model import ModelConfig, Transformer, init_weights
from groundup.optim import Optimizer, OptimizerConfig, WarmupStableDecay
from groundup.train import Checkpoints, EverySeconds, MetricsLog, Progress, Speed, StepReport
from groundup.train.fit import fit
from groundup.train.objectives import Metrics, NextToken
from groundup.train.objectives.next_token import PackedBatch

TEXT = "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness. "


@dataclass(frozen=True)
class Rows:
    input_ids: torch.Tensor
    labels: torch.Tensor
    positions: torch.Tensor
    document_ids: torch.Tensor


def rows(first: int, count: int) -> Rows:
    """Windows of 16 bytes of the text, starting every 5 bytes; some labels are ignored."""
    stream = torch.tensor(list((TEXT * 40).encode()))
    starts = 5 * torch.arange(first, first + count)[:, None]
    places = starts + torch.arange(16)
    labels = stream[places + 1].clone()
    labels[:, :: 2 + first % 3] = IGNORE_INDEX  # micro-batches with different numbers of labels
    return Rows(stream[places], labels, torch.arange(16).expand(count, 16), torch.zeros(count, 16, dtype=torch.long))


def a_model(tied: bool = False) -> Transformer:
    model = Transformer(ModelConfig("qwen3", 32, 2, 2, 1, 16, 48, 256, 16, tie_embeddings=tied))
    init_weights(model, 0)
    return model


class Losses:
    def __init__(self) -> None:
        self.seen: list[float] = []

    def after_step(self, report: StepReport) -> None:
        self.seen.append(report.metrics["loss"])


def test_micro_batch_splits_give_the_same_gradient() -> None:
    # Several trainers divided each micro-batch by its own count, which weights tokens unequally.
    whole, split = a_model(), a_model()
    for model in (whole, split):  # not the zero initialization, whose gradients are mostly zero
        torch.manual_seed(1)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    parts = [rows(i * 2, 2) for i in range(4)]
    joined = Rows(*(torch.cat([getattr(p, f) for p in parts]) for f in Rows.__dataclass_fields__))
    objective = NextToken()
    (objective(whole, joined)[0] / objective.normalizer(joined)).backward()
    total = sum(objective.normalizer(p) for p in parts)
    for part in parts:
        (objective(split, part)[0] / total).backward()
    for (name, a), b in zip(whole.named_parameters(), split.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-6, rtol=1e-5, msg=name)


def _train(directory: Path, *, stop_after: int | None, total: int = 12) -> tuple[Transformer, Path]:
    model = a_model(tied=True)
    optimizer = Optimizer(model, OptimizerConfig())
    checkpoints = Checkpoints(directory / "checkpoints", model, optimizer, plan_digest="p")
    progress = checkpoints.restore()

    class KilledError(Exception):
        pass

    class Kill:
        def after_step(self, report: StepReport) -> None:
            if report.step == stop_after:
                raise KilledError

    log = directory / "metrics.jsonl"
    with contextlib.suppress(KilledError):
        fit(
            model,
            NextToken(),
            lambda i: rows(3 * i, 3),
            optimizer,
            WarmupStableDecay(total, 2, 6),
            progress=progress,
            grad_accum_steps=2,
            callbacks=[
                MetricsLog(log, kept_rows=progress.batches, speed=Speed(None, 1.0)),
                Kill(),  # after the log and before the checkpoint
                EverySeconds(0, lambda r: checkpoints.save(progress) if r.step % 3 == 0 else None),
            ],
        )
    return model, log


def _without_times(path: Path) -> list[dict[str, float]]:
    rows = map(json.loads, path.read_text().splitlines())
    return [{key: value for key, value in row.items() if key not in ("seconds", "waited")} for row in rows]


def test_an_interrupted_run_ends_like_an_uninterrupted_one(tmp_path: Path) -> None:
    expected, expected_log = _train(tmp_path / "whole", stop_after=None)
    for cut in (2, 5, 5, 10):  # before the first checkpoint, between two, and twice at the same step
        _train(tmp_path / "cut", stop_after=cut)
    got, log = _train(tmp_path / "cut", stop_after=None)
    assert _without_times(log) == _without_times(expected_log)
    for (name, a), b in zip(expected.named_parameters(), got.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_a_tied_head_is_saved_once(tmp_path: Path) -> None:
    """Saved twice, it was a tenth of each checkpoint of GPT-2's shape."""
    model, other = a_model(tied=True), a_model(tied=True)
    for parameter in model.parameters():
        parameter.data.add_(0.01)
    Checkpoints(tmp_path, model, Optimizer(model, OptimizerConfig()), plan_digest="p").save(Progress(step=1))
    saved = load_newest_state(tmp_path)
    assert saved is not None
    assert "lm_head.weight" not in saved.groups["model"]
    init_weights(other, 3)
    Checkpoints(tmp_path, other, Optimizer(other, OptimizerConfig()), plan_digest="p").restore()
    assert other.lm_head.weight is other.model.embed_tokens.weight
    for (name, a), b in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b), name
    untied = a_model()
    with pytest.raises(FormatError, match=r"lm_head\.weight"):
        Checkpoints(tmp_path, untied, Optimizer(untied, OptimizerConfig()), plan_digest="p").restore()


def test_slow_checkpoints_are_written_less_often_on_all_ranks() -> None:
    """Checkpoints of 1.5 GB every 30 seconds took a tenth of a run's time."""
    store = HashStore()

    def saved_at(rank: int, costs: list[float]) -> list[int]:
        at: list[int] = []

        def save(report: StepReport) -> None:
            at.append(report.step)
            time.sleep(costs[len(at) - 1])

        every = EverySeconds(10, save, ranks=Ranks(rank, 2, store))
        for step in range(1, 61):
            every.after_step(StepReport(step, 60, 1, step, 1.0, 1.0, seconds=1.0))
        return at

    first = saved_at(0, [0.6, *[0.0] * 9])
    assert first[0] == 10
    assert first[1] >= 22  # 20 x 0.6 s of steps
    assert first[2] == first[1] + 10
    assert first[-1] == 60
    assert saved_at(1, [0.0] * 10) == first  # a faster rank waits for slower ones


def test_a_checkpoint_of_another_plan_is_rejected(tmp_path: Path) -> None:
    model = a_model()
    optimizer = Optimizer(model, OptimizerConfig())
    Checkpoints(tmp_path, model, optimizer, plan_digest="one").save(Progress(step=1))
    with pytest.raises(FormatError, match="another plan"):
        Checkpoints(tmp_path, model, optimizer, plan_digest="two").restore()


def test_no_pickle_is_loaded_on_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    _train(tmp_path, stop_after=7)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a pickle was loaded")

    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(pickle, "Unpickler", refuse)
    _train(tmp_path, stop_after=None)


def test_every_parameter_is_updated() -> None:
    # A parameter in none of the optimizer's groups would silently keep its initial value.
    for tied in (True, False):
        model = a_model(tied)
        before = {name: p.clone() for name, p in model.named_parameters()}
        schedule = WarmupStableDecay(3, 1, 1)
        fit(
            model,
            NextToken(),
            lambda i: rows(i, 4),
            Optimizer(model, OptimizerConfig()),
            schedule,
            progress=Progress(),
        )
        assert [n for n, p in model.named_parameters() if torch.equal(p, before[n])] == []


def test_the_loss_falls() -> None:
    losses = Losses()
    model = a_model()
    fit(
        model,
        NextToken(),
        lambda i: rows(i % 7, 8),
        Optimizer(model, OptimizerConfig()),
        WarmupStableDecay(40, 2, 20),
        progress=Progress(),
        callbacks=[losses],
    )
    assert losses.seen[-1] < 0.5 * losses.seen[0]


def test_the_schedule_warms_up_stays_and_decays() -> None:
    schedule = WarmupStableDecay(total_steps=10, warmup_steps=2, decay_steps=4)
    assert [schedule(i) for i in range(10)] == [0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25]


def test_schedules_follow_the_steps_of_the_whole_run() -> None:
    """A resumed run must continue the schedule of the weight decay, and a time limit may change the number of steps."""
    seen: list[tuple[float, float]] = []

    class Recorder(Optimizer):
        def step(self, lr_factor: float, grad_factor: torch.Tensor | None = None, *, fraction: float = 1.0) -> None:
            seen.append((lr_factor, fraction))

    model, progress = a_model(), Progress(step=5, batches=5, total_steps=8)
    recorder, schedule = Recorder(model, OptimizerConfig()), WarmupStableDecay(16, warmup_steps=1, decay_steps=8)
    fit(model, NextToken(), lambda i: rows(i, 2), recorder, schedule, progress=progress)
    assert seen == [(0.75, 5 / 8), (0.5, 6 / 8), (0.25, 7 / 8)]


def test_a_gradient_that_is_not_finite_stops_the_run_before_the_step() -> None:
    """A diverged run once ended with exit code 0 and NaN weights."""
    model = a_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    class Diverged(NextToken):
        def __call__(self, model: torch.nn.Module, batch: PackedBatch) -> tuple[torch.Tensor, Metrics]:
            loss, metrics = super().__call__(model, batch)
            return loss * float("nan"), metrics

    progress = Progress()
    optimizer, schedule = Optimizer(model, OptimizerConfig()), WarmupStableDecay(4, warmup_steps=1, decay_steps=1)
    with pytest.raises(TrainingError, match="step 1"):
        fit(model, Diverged(), lambda i: rows(i, 2), optimizer, schedule, progress=progress)
    assert progress.step == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
