"""The Trainer in a user's program: the example of docs/training-from-python.md, a resumed run, and an own objective."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from groundup.commands.generate import GenerateConfig
from groundup.commands.generate import run as generate
from groundup.core.checksums import read_checked_json, write_checked_json
from groundup.core.errors import ConfigError, FormatError
from groundup.data import Loader, TokenShards, write_shards
from groundup.hub import load_model
from groundup.kernels import Machine, measure_machine
from groundup.kernels.kernel_choice import Kernel, KernelChoice
from groundup.kernels.native_library import native_library
from groundup.model import Transformer
from groundup.optim import WarmupStableDecay
from groundup.tokenizer import CorpusEncoder, Tokenizer
from groundup.train import Selection, StepReport, Trainer, TrainingSettings, TrainingSteps, training_run
from groundup.train.objectives import NextToken
from groundup.train.planner import shape_for_depth
from groundup.train.run import PLAN_VERSION

PAGE = Path(__file__).parents[3] / "docs" / "training-from-python.md"
MACHINE = Machine("cpu", "float32", False, 1, 1e9)


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def tokens(tokenizer: Tokenizer, real_documents: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tokens")
    texts = [text[:2000] for text in real_documents[:60]]
    write_shards(
        directory,
        {"train": texts[6:], "validation": texts[:6]},
        CorpusEncoder(tokenizer, []).encode,
        vocab_size=tokenizer.vocab_size,
        bos_id=tokenizer.bos_id,
    )
    (directory / "tokenizer").mkdir()
    tokenizer.save(directory / "tokenizer")
    return directory


def trained(
    tokens: Path,
    out: Path,
    steps: int = 12,
    stop_at: int = 0,
    selection: Selection | None = None,
    dropouts: tuple[float, float] = (0.0, 0.0),
    ema_fraction: float = 0.0,
    callback: Callable[..., object] | None = None,
) -> Trainer[Transformer, object]:
    """Train a small model; `stop_at` interrupts it after a checkpoint, as a kill would."""
    shards = TokenShards(tokens, "train")
    torch.manual_seed(0)
    model = Transformer(shape_for_depth(1, shards.vocab_size, {"family": "llama", "context_length": 64, "dim": 32}))
    model.set_dropout(*dropouts)
    loader = Loader(shards, context_length=64, batch_size=2, bos_id=shards.bos_id, seed=0)

    class Stop:
        def after_step(self, report: StepReport) -> None:
            if report.step == stop_at + 1:
                raise KeyboardInterrupt

    settings = TrainingSettings(checkpoint_seconds=0, learning_rate=0.003, optimizer="adamw", ema_fraction=ema_fraction)
    with training_run(out) as run:
        trainer = Trainer(model, NextToken(), settings, run, machine=MACHINE)
        schedule = WarmupStableDecay(steps, 2, steps // 2)
        callbacks = [callback(trainer)] if callback else [Stop()] if stop_at else []
        trainer.train(loader.batch, TrainingSteps(schedule), callbacks=callbacks, selection=selection)
    return trainer


def test_the_example_of_the_documentation_trains_a_model_that_generates(
    tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Readers copy the example, so it must run unchanged."""
    (tmp_path / "runs" / "quickstart").mkdir(parents=True)
    (tmp_path / "runs" / "quickstart" / "tokens").symlink_to(tokens)
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks()[0], str(PAGE), "exec"), {})
    rows = [json.loads(line) for line in Path("runs/mine/metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 20 and rows[-1]["loss"] < rows[0]["loss"]
    assert generate(GenerateConfig(model=Path("runs/mine"), prompt="Once", max_tokens=4))


def test_the_objective_of_the_documentation_raises_the_entropy(tokens: Path, tmp_path: Path) -> None:
    names: dict[str, type] = {}
    exec(compile(blocks()[1], str(PAGE), "exec"), names)
    shards = TokenShards(tokens, "train")
    shape = shape_for_depth(1, shards.vocab_size, {"family": "llama", "context_length": 64, "dim": 32})
    loader = Loader(shards, context_length=64, batch_size=2, bos_id=shards.bos_id, seed=0)
    found = {}
    for name, objective in {"plain": NextToken(), "penalty": names["ConfidencePenalty"]()}.items():
        torch.manual_seed(0)
        model = Transformer(shape)
        settings = TrainingSettings(learning_rate=0.01, optimizer="adamw")
        with training_run(tmp_path / name) as run:
            trainer = Trainer(model, objective, settings, run, machine=MACHINE)
            trainer.train(loader.batch, TrainingSteps(WarmupStableDecay(30, 1, 1)))
        batch = loader.batch(0)
        logits = model.eval()(batch.input_ids, positions_BT=batch.positions, document_ids_BT=batch.document_ids)
        found[name] = torch.distributions.Categorical(logits=logits.float()).entropy().mean().item()
    assert found["penalty"] > found["plain"]


@pytest.mark.parametrize("settings", [{}, {"dropouts": (0.2, 0.2)}, {"ema_fraction": 0.3}], ids=str)
def test_an_interrupted_run_ends_with_the_same_weights(
    settings: dict[str, float], tokens: Path, tmp_path: Path
) -> None:
    whole = trained(tokens, tmp_path / "whole", **settings).gathered().state_dict()
    with pytest.raises(KeyboardInterrupt):
        trained(tokens, tmp_path / "halves", stop_at=5, **settings)
    resumed = trained(tokens, tmp_path / "halves", **settings).gathered().state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_the_averaged_weights_are_evaluated_and_saved_but_not_trained(tokens: Path, tmp_path: Path) -> None:
    """The expected average is the sum over all steps of weight times share, computed in float64 at the end."""
    steps, fraction = 12, 0.3
    trajectory: list[dict[str, torch.Tensor]] = []
    evaluated: list[dict[str, torch.Tensor]] = []

    def weights(trainer: Trainer[Transformer, object]) -> dict[str, torch.Tensor]:
        return {name: p.detach().double().clone() for name, p in trainer.model.named_parameters()}

    class Record:
        def __init__(self, trainer: Trainer[Transformer, object]) -> None:
            self.trainer = trainer

        def after_step(self, report: StepReport) -> None:
            trajectory.append(weights(self.trainer))
            with self.trainer.readable():
                evaluated.append(weights(self.trainer))

    def expected(step: int, name: str) -> torch.Tensor:
        shares = []
        for number in range(1, step + 1):
            moved = min(1.0, 1 / (fraction * number))
            shares = [share * (1 - moved) for share in shares] + [moved]
        return sum(share * each[name] for share, each in zip(shares, trajectory, strict=False))

    trainer = trained(tokens, tmp_path / "averaged", steps, ema_fraction=fraction, callback=Record)
    plain = trained(tokens, tmp_path / "plain", steps)
    for name, value in weights(plain).items():
        assert torch.equal(trajectory[-1][name], value)
        assert torch.equal(evaluated[-1][name], weights(trainer)[name])
        assert (expected(steps, name) - value).abs().max() > 1e-4
        for step in (1, 2, 5, steps):
            torch.testing.assert_close(evaluated[step - 1][name], expected(step, name), atol=1e-6, rtol=0)


@pytest.mark.skipif(native_library() is None, reason="no C++ kernels on this machine")
def test_a_resumed_run_keeps_its_kernels(tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels round differently. On another machine, or under load, other kernels are the fastest ones."""
    bf16 = Machine("cpu", "bfloat16", False, 1, 1e9, native=True)
    monkeypatch.setitem(globals(), "MACHINE", None)  # a Trainer without a machine measures it
    monkeypatch.setattr("groundup.train.measurement.machine.measure_machine", lambda **settings: bf16)
    weights = {}
    kernels: tuple[Kernel, Kernel] = ("native", "torch")
    for kernel, other in (kernels, kernels[::-1]):
        fastest = KernelChoice(default=kernel)
        monkeypatch.setattr("groundup.kernels.machine.choose_kernels", lambda *_, fastest=fastest: fastest)
        weights[kernel] = trained(tokens, tmp_path / kernel / "whole", 6).gathered().state_dict()
        with pytest.raises(KeyboardInterrupt):
            trained(tokens, tmp_path / kernel / "halves", 6, stop_at=3)
        fastest = KernelChoice(default=other)
        monkeypatch.setattr("groundup.kernels.machine.choose_kernels", lambda *_, fastest=fastest: fastest)
        resumed = trained(tokens, tmp_path / kernel / "halves", 6).gathered().state_dict()
        assert all(torch.equal(values, resumed[name]) for name, values in weights[kernel].items())
    native, torchs = weights["native"], weights["torch"]
    assert any(not torch.equal(native[name], torchs[name]) for name in native)


def test_a_run_on_another_processor_says_that_its_result_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that was resumed on a CPU without bf16 instructions was reported as if it were bit-identical."""
    flags = {"avx2", "avx512f", "avx512_bf16"}
    monkeypatch.setattr("groundup.kernels.native_library._cpu_flags", lambda: flags)
    monkeypatch.setattr("groundup.kernels.machine.default_device", lambda: "cpu")
    with training_run(tmp_path / "run") as run:
        run.save_plan(machine=measure_machine(native=False, compile=False, dtype="float32").to_json())
        assert run.saved_machine() is not None
        assert capsys.readouterr().err == ""
        flags.discard("avx512_bf16")
        run.saved_machine()
    printed = " ".join(capsys.readouterr().err.split())
    assert "another processor (CPU with avx2, avx512f, avx512_bf16), which rounds differently" in printed
    assert "this one (CPU with avx2, avx512f)." in printed
    assert "not bit-identical" in printed


def test_an_unknown_processor_is_another_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was resumed on a CPU whose instruction sets are unknown continued without a warning."""
    monkeypatch.setattr("groundup.kernels.machine.instruction_sets", list)
    assert replace(MACHINE, processor="CPU with avx2").other_processor() == "unknown"
    assert replace(MACHINE, processor="").other_processor() == ""


def test_an_unfinished_run_with_a_plan_of_another_version_is_refused(tmp_path: Path) -> None:
    """The run can still be resumed with the release that started it, so its files must stay unchanged."""
    for earlier_output in (False, True):
        out = tmp_path / f"run-{earlier_output}"
        if earlier_output:
            with training_run(out, keys={"key": 1}) as run:
                (out / "made.txt").touch()
                run.work.finish({}, [out / "made.txt"])
        with training_run(out, keys={"key": 2}) as run:
            run.save_plan(step=1)
            plan = run.plan_file
        write_checked_json(plan, read_checked_json(plan, fix="") | {"version": PLAN_VERSION - 1})
        unfinished = {path: path.read_bytes() for path in plan.parent.iterdir()}
        with (
            pytest.raises(ConfigError, match=f"version {PLAN_VERSION - 1} of an unfinished run.* delete {plan.parent}"),
            training_run(out, keys={"key": 2}),
        ):
            pass
        assert {path: path.read_bytes() for path in plan.parent.iterdir()} == unfinished


@pytest.mark.parametrize("dropouts", [(0.5, 0.0), (0.0, 0.5)], ids=["dropout", "token_dropout"])
def test_dropout_changes_training_but_not_scores(tokens: Path, dropouts: tuple[float, float]) -> None:
    shards = TokenShards(tokens, "train")
    model = Transformer(shape_for_depth(1, shards.vocab_size, {"family": "llama", "context_length": 64, "dim": 32}))
    ids = torch.arange(32)[None]
    with torch.no_grad():
        score = model(ids)
    model.set_dropout(*dropouts)
    with torch.no_grad():
        assert torch.equal(model.train()(ids), score)
    assert not torch.equal(model(ids), model(ids))
    torch.testing.assert_close(model.eval()(ids), score)


def test_a_checkpoint_of_other_steps_is_rejected(tokens: Path, tmp_path: Path) -> None:
    """Resuming with another schedule would give neither of the two runs."""
    with pytest.raises(KeyboardInterrupt):
        trained(tokens, tmp_path / "run", stop_at=5)
    with pytest.raises(FormatError, match="another plan"):
        trained(tokens, tmp_path / "run", steps=14)


def test_the_best_weights_are_kept_and_training_stops_early(tokens: Path, tmp_path: Path) -> None:
    scores = iter([3.0, 1.0, *[2.0] * 30])
    trainer = trained(tokens, tmp_path / "run", 40, selection=Selection(lambda: next(scores), patience=3))
    assert trainer.progress.stopped and trainer.progress.step < 40
    best = min(trainer.progress.scores, key=lambda pair: pair[1])
    assert best == (4, 1.0)


def test_a_finished_run_is_a_model_directory(tokens: Path, tmp_path: Path) -> None:
    from groundup.hub import save_model

    shards = TokenShards(tokens, "train")
    model = Transformer(shape_for_depth(1, shards.vocab_size, {"family": "llama", "context_length": 64, "dim": 32}))
    with training_run(tmp_path / "out") as run:
        run.work.finish({}, save_model(run.directory, model, bos_id=0, eos_id=0))
    assert load_model(tmp_path / "out").config == model.config
