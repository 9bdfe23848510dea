"""nanoGPT (github.com/karpathy/nanoGPT): `train.py` with --device=cpu or cuda, compiled (its default).

--dtype=bfloat16 has no effect on a CPU, because train.py does not enable autocast there. For bf16, this driver enables
it. Learning rates are from config/train_shakespeare_char.py, the configuration for small models. As in the README's CPU
command, there is no dropout.
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

_RATE, _MIN_RATE = 1e-3, 1e-4
_BETAS = (0.9, 0.99)
_WARMUP_STEPS = 100
_MAX_WARMUP = 0.05  # fraction of the steps; the README's CPU command has 100 of 2000 warm-up steps


def train(job: Job, clock: Clock) -> Logits:
    """Train with the step of train.py: forward with autocast, backward, clipping to 1, AdamW."""
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
        scores: Tensor = model(input_ids_BT, input_ids_BT)[0]  # without targets it returns only the last position
        return scores

    return logits


def _rate(step: int, horizon: int) -> float:
    """Return the learning rate of train.py: linear warm-up, then cosine decay to a tenth."""
    warmup = min(_WARMUP_STEPS, int(_MAX_WARMUP * horizon))
    if step < warmup:
        return _RATE * (step + 1) / (warmup + 1)
    part = min(1.0, (step - warmup) / max(1, horizon - warmup))
    return _MIN_RATE + 0.5 * (1 + math.cos(math.pi * part)) * (_RATE - _MIN_RATE)
