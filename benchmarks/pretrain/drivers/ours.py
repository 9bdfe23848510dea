"""groundup, by the pieces that `groundup pretrain` is made of: `place`, `Loader`, `Spread`, `fit`.

A SwiGLU layer of 8/3 the width has the products of GPT-2's of 4: the shapes have the same FLOPs in every family. Where
GPT-2 ties its head, Llama and Qwen3 have one of their own by default, and so more parameters than GPT-2.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields

from torch import Tensor

from benchmarks.pretrain.clock import Clock
from benchmarks.pretrain.job import Job, Logits
from groundup.model import Transformer, init_weights
from groundup.objectives import NextToken
from groundup.optim import MATRIX_LR, OptimizerConfig, WarmupStableDecay
from groundup.parallel import Spread, measure_machine, place
from groundup.planner import shape_for_depth
from groundup.ranks import Ranks
from groundup.tokens import Loader, PackedWindows, TokenShards
from groundup.train import Progress, StepReport, fit


class _EnoughError(Exception):
    """Leaves `fit`, which has no other way to end before its last step."""


def train(job: Job, clock: Clock) -> Logits:
    """Train with `fit`; the machine decides the dtype, as for everyone who runs `groundup pretrain`."""
    shape = job.shape
    given = {"family": job.family, "context_length": shape.context, "dim": shape.dim, "n_heads": shape.n_heads}
    machine = measure_machine(fp8=job.dtype == "float8")
    model = Transformer(shape_for_depth(shape.n_layers, shape.vocab_size, given))
    init_weights(model, job.seed)
    place(model, machine)
    config = OptimizerConfig(matrix_lr=MATRIX_LR[job.matrices], matrices=job.matrices)
    optimizer = Spread(model, "single", Ranks()).optimizer(config)
    shards = TokenShards(job.tokens, "train")
    loader = Loader(shards, context_length=shape.context, batch_size=shape.rows, bos_id=shards.bos_id, seed=job.seed)

    def batches(index: int) -> PackedWindows:
        windows = loader.batch(index)
        return PackedWindows(*(getattr(windows, field.name).to(machine.device) for field in fields(windows)))

    class Timed:
        def after_step(self, report: StepReport) -> None:
            if not clock.tick(report.metrics["loss"]):
                raise _EnoughError

    schedule = WarmupStableDecay(clock.horizon, warmup_steps=clock.horizon // 50, decay_steps=clock.horizon // 2)
    clock.begin(model)
    with suppress(_EnoughError):
        fit(model, NextToken(), batches, optimizer, schedule, progress=Progress(), callbacks=[Timed()])
    model.eval()

    def logits(input_ids_BT: Tensor) -> Tensor:
        scores: Tensor = model(input_ids_BT)
        return scores

    return logits
