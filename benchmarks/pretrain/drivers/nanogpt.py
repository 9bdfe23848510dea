"""The driver of nanoGPT (github.com/karpathy/nanoGPT).

The driver repeats `train.py` with --device=cpu or --device=cuda. The model is compiled, which is nanoGPT's default. On
a CPU, train.py does not enable autocast, so --dtype=bfloat16 has no effect. In the bf16 mode, this driver enables
autocast, and in the optimized mode, it also uses the fused AdamW. The learning rates are from
config/train_shakespeare_char.py, which is nanoGPT's configuration for small models. Dropout is disabled, as in the CPU
command of the README.
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
# Maximum length of the warm-up, as a fraction of the steps. In the CPU command of the README, 100 of 2000 steps are
# warm-up steps.
_MAX_WARMUP = 0.05


def train(job: Job, clock: Clock) -> Logits:
    """Train with the steps of nanoGPT's train.py.

    A step consists of the forward pass with autocast, the backward pass, clipping to norm 1, and AdamW.
    """
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
            bias=False,  # the default of train.py
        )
    ).to(job.device)
    # nanoGPT uses the fused AdamW only on the device type "cuda", and does not use the device type for anything else.
    optimizer = model.configure_optimizers(0.1, _RATE, _BETAS, "cuda" if job.fused else job.device)
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
        # Without targets, the model returns only the logits of the last position, so pass the inputs as targets.
        scores: Tensor = model(input_ids_BT, input_ids_BT)[0]
        return scores

    return logits


def _rate(step: int, horizon: int) -> float:
    """Return the learning rate of train.py, which has a linear warm-up and a cosine decay to a tenth of the peak."""
    warmup = min(_WARMUP_STEPS, int(_MAX_WARMUP * horizon))
    if step < warmup:
        return _RATE * (step + 1) / (warmup + 1)
    part = min(1.0, (step - warmup) / max(1, horizon - warmup))
    return _MIN_RATE + 0.5 * (1 + math.cos(math.pi * part)) * (_RATE - _MIN_RATE)
