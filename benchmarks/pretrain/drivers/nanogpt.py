"""nanoGPT (github.com/karpathy/nanoGPT): `train.py` with --device=cpu or cuda, compiled as by default.

On a CPU its --dtype=bfloat16 changes nothing (train.py enters no autocast there), so bf16 means the one line that a
user would change: autocast for the CPU as well. Learning rates are those of config/train_shakespeare_char.py, the
configuration for small models; its README's CPU command has no dropout.
"""

from __future__ import annotations

import math
import sys
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from benchmarks.pretrain.clock import Clock
from benchmarks.pretrain.job import Job, Logits
from benchmarks.pretrain.tokens import random_windows

_RATE, _LEAST_RATE = 1e-3, 1e-4
_BETAS = (0.9, 0.99)
_WARMUP_STEPS = 100
_LONGEST_WARMUP = 0.05  # of the run: README's CPU command warms up for 100 of 2000 steps


def train(job: Job, clock: Clock) -> Logits:
    """Train by train.py's step: autocast forward, backward, clipping to 1, AdamW."""
    sys.path.insert(0, str(job.checkout))
    from model import GPT, GPTConfig  # type: ignore[import-not-found]

    torch.manual_seed(1337 + job.seed)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    shape = job.shape
    model = GPT(
        GPTConfig(
            block_size=shape.context,
            vocab_size=shape.vocab_size,
            n_layer=shape.n_layers,
            n_head=shape.n_heads,
            n_embd=shape.dim,
            dropout=0.0,
            bias=False,  # train.py's default
        )
    ).to(job.device)
    optimizer = model.configure_optimizers(0.1, _RATE, _BETAS, job.device)
    compiled: Any = torch.compile(model)
    autocast = torch.autocast(job.device, torch.bfloat16) if job.dtype == "bfloat16" else nullcontext()
    batch = random_windows(job.tokens, shape, job.seed, job.device)
    inputs, targets = batch()
    clock.begin(model)
    while True:
        for group in optimizer.param_groups:
            group["lr"] = _rate(clock.steps, clock.horizon)
        with autocast:
            _, loss = compiled(inputs, targets)
        inputs, targets = batch()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if not clock.tick(loss.item()):
            break
    model.eval()

    def logits(input_ids_BT: Tensor) -> Tensor:
        scores: Tensor = model(input_ids_BT, input_ids_BT)[0]  # without targets it scores the last position only
        return scores

    return logits


def _rate(step: int, horizon: int) -> float:
    """train.py's schedule: linear warm-up, then a cosine down to a tenth."""
    warmup = min(_WARMUP_STEPS, int(_LONGEST_WARMUP * horizon))
    if step < warmup:
        return _RATE * (step + 1) / (warmup + 1)
    part = min(1.0, (step - warmup) / max(1, horizon - warmup))
    return _LEAST_RATE + 0.5 * (1 + math.cos(math.pi * part)) * (_RATE - _LEAST_RATE)
