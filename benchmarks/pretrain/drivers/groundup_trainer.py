"""The driver of groundup, which uses the same Trainer as `groundup pretrain`.

A SwiGLU MLP with an FFN size of 8/3 of the hidden size needs the same number of FLOPs as GPT-2's MLP, whose FFN size is
4 times the hidden size. So all model families need the same number of FLOPs. Llama and Qwen3 do not tie the embeddings
by default, so they have more parameters.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from benchmarks.pretrain.clock import Clock
from benchmarks.pretrain.job import Job, Logits
from groundup.data import Loader, PackedWindows, TokenShards
from groundup.kernels import measure_machine
from groundup.model import Transformer, init_weights
from groundup.optim import MATRIX_LR, OptimizerConfig, WarmupStableDecay
from groundup.train import StepReport, Trainer, TrainingSettings, TrainingSteps, training_run
from groundup.train.objectives import NextToken
from groundup.train.planner import shape_for_depth


@dataclass(frozen=True)
class _ClockSchedule(WarmupStableDecay):
    """groundup's learning rate schedule, for the number of steps that the clock estimates."""

    clock: Clock

    def __call__(self, step: int) -> float:
        horizon = max(self.clock.horizon, step + 1)
        return WarmupStableDecay(horizon, warmup_steps=horizon // 50, decay_steps=horizon // 2)(step)


def train(job: Job, clock: Clock) -> Logits:
    """Train with the Trainer. As in `groundup pretrain`, the fastest dtype of the machine is used."""
    shape = job.shape
    family = "llama" if job.variant == "no QK-norm" else job.family  # Qwen3, except for QK-norm
    rows = {"half batch size": shape.rows // 2, "double batch size": 2 * shape.rows}.get(job.variant, shape.rows)
    settings = {"family": family, "context_length": shape.context, "dim": shape.dim, "n_heads": shape.n_heads}
    machine = measure_machine(fp8=job.dtype == "float8")
    model = Transformer(shape_for_depth(shape.n_layers, shape.vocab_size, settings))
    init_weights(model, job.seed)
    config = OptimizerConfig(matrix_lr=MATRIX_LR[job.matrices], matrices=job.matrices)
    shards = TokenShards(job.tokens, "train")
    loader = Loader(shards, context_length=shape.context, batch_size=rows, bos_id=shards.bos_id, seed=job.seed)

    def batches(index: int) -> PackedWindows:
        windows = loader.batch(index)
        if job.variant == "no document masking":
            positions = torch.arange(shape.context).expand_as(windows.positions)
            windows = replace(windows, positions=positions, document_ids=torch.zeros_like(positions))
        if job.variant == "batch size warm-up" and 3 * index < clock.horizon:
            windows = PackedWindows(*(getattr(windows, each.name)[: rows // 2] for each in fields(windows)))
        return PackedWindows(*(getattr(windows, field.name).to(machine.device) for field in fields(windows)))

    class ClockCallback:
        def after_step(self, report: StepReport) -> None:
            clock.tokens = report.tokens_seen
            trainer.progress.stopped = not clock.tick(report.metrics["loss"])

    schedule = _ClockSchedule(1 << 60, 0, 0, clock)
    objective = NextToken(z_loss=1e-4 if job.variant == "z-loss 1e-4" else 0.0)
    training_settings = TrainingSettings(checkpoint_seconds=1e9)
    with TemporaryDirectory() as directory, training_run(Path(directory) / "run") as run:
        trainer = Trainer(model, objective, training_settings, run, machine=machine)
        clock.begin(model)
        trainer.train(batches, TrainingSteps(schedule, config), callbacks=[ClockCallback()])
    model.eval()

    def logits(input_ids_BT: Tensor) -> Tensor:
        scores: Tensor = model(input_ids_BT)
        return scores

    return logits
