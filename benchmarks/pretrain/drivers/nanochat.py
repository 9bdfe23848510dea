"""The driver of nanochat (github.com/karpathy/nanochat).

The driver repeats `scripts/base_train.py` with the flags of `runs/runcpu.sh`. On a CPU, nanochat uses fp32 by default.
In the bf16 mode, the parent process sets NANOCHAT_DTYPE=bfloat16.
"""

from __future__ import annotations

import gc
import math
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.pretrain.clock import Clock
from benchmarks.pretrain.job import Job, Logits
from benchmarks.pretrain.shapes import Shape
from groundup.data import TokenShards

_REFERENCE_TOKENS = 2**19  # nanochat's learning rates were tuned for this batch size and 12 layers.
_REFERENCE_LAYERS = 12
_WEIGHT_DECAY = 0.28
_WARMUP_STEPS = 40
_MAX_WARMUP = 0.05  # Maximum length of the warm-up, as a fraction of the steps. nanoGPT's driver has the same limit.
_WARMDOWN, _MIN_FACTOR = 0.65, 0.05


def train(job: Job, clock: Clock) -> Logits:
    """Train with the steps of nanochat's base_train.py.

    A step consists of the forward pass, the backward pass, Muon and AdamW. Gradients are not clipped.
    """
    sys.path.insert(0, str(job.checkout))
    torch.manual_seed(42 + job.seed)
    if job.device == "cuda":
        torch.set_float32_matmul_precision("high")
    model = _meta_model(job.shape, job.shape.n_layers, job.shape.dim)
    model.to_empty(device=job.device)
    model.init_weights()
    compiled: Any = torch.compile(model, dynamic=False)

    scale = (job.shape.step_tokens / _REFERENCE_TOKENS) ** 0.5
    reference = _meta_model(job.shape, _REFERENCE_LAYERS, 64 * _REFERENCE_LAYERS)
    weight_decay = _WEIGHT_DECAY * scale * _scaling_parameters(reference) / _scaling_parameters(model)
    optimizer = model.setup_optimizer(
        unembedding_lr=0.008 * scale,
        embedding_lr=0.3 * scale,
        scalar_lr=0.5 * scale,
        matrix_lr=0.02 * scale,
        weight_decay=weight_decay,
    )
    batches = _document_loader(job)
    inputs, targets = next(batches)
    clock.begin(model)
    while True:
        loss = compiled(inputs, targets)
        loss.backward()
        inputs, targets = next(batches)  # The loader reuses its buffers, so the backward pass must be complete.
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * _factor(clock.steps, clock.horizon)
            if group["kind"] == "muon":
                group["momentum"] = _momentum(clock.steps, clock.horizon)
                group["weight_decay"] = weight_decay * 0.5 * (1 + math.cos(math.pi * clock.steps / clock.horizon))
        optimizer.step()
        model.zero_grad(set_to_none=True)
        if not clock.tick(loss.item()):
            break
        if clock.steps == 1:  # As in base_train.py, garbage collection is disabled during training.
            gc.collect()
            gc.freeze()
            gc.disable()
    model.eval()

    def logits(input_ids_BT: Tensor) -> Tensor:
        if input_ids_BT.shape[1] > 1:
            scores: Tensor = model(input_ids_BT)
            return scores
        # The model does not accept sequences of one token. A second token does not change the logits of the first
        # token.
        return logits(input_ids_BT.repeat(1, 2))[:, :1]

    return logits


def _meta_model(shape: Shape, n_layers: int, dim: int) -> Any:
    from nanochat.gpt import GPT, GPTConfig  # type: ignore[import-not-found]

    heads = dim * shape.n_heads // shape.dim
    with torch.device("meta"):
        return GPT(
            GPTConfig(
                sequence_len=shape.context,
                vocab_size=shape.vocab_size,
                n_layer=n_layers,
                n_head=heads,
                n_kv_head=heads,
                n_embd=dim,
                window_pattern="L",  # as in runcpu.sh; recommended if FlashAttention 3 is missing
            )
        )


def _document_loader(job: Job) -> Iterator[tuple[Tensor, Tensor]]:
    """Return nanochat's loader with best-fit packing. In this benchmark, the loader reads token shards, not text."""
    from nanochat import dataloader  # type: ignore[import-not-found]

    shards = TokenShards(job.tokens, "train")
    generator = np.random.default_rng(job.seed)

    def document_batches(split: str, resume: None, size: int) -> Iterator[tuple[list[int], tuple[int, int, int]]]:
        epoch = 0
        while True:
            epoch += 1
            order = generator.permutation(shards.n_documents).tolist()
            for start in range(0, len(order), size):
                yield order[start : start + size], (0, 0, epoch)

    class Documents:
        def get_bos_token_id(self) -> int:
            return shards.bos_id

        def encode(self, batch: Sequence[int], *, prepend: int, num_threads: int) -> list[list[int]]:
            return [[prepend, *shards.document(number).tolist()] for number in batch]

    dataloader._document_batches = document_batches  # nanochat's function reads Parquet files
    loader: Iterator[tuple[Tensor, Tensor]] = dataloader.tokenizing_distributed_data_loader_bos_bestfit(
        Documents(), job.shape.rows, job.shape.context, split="train", device=job.device
    )
    return ((inputs, targets) for inputs, targets, *_ in loader)


def _scaling_parameters(model: Any) -> int:
    counts = model.num_scaling_params()
    return int(counts["transformer_matrices"] + counts["lm_head"])


def _factor(step: int, horizon: int) -> float:
    warmup = min(_WARMUP_STEPS, int(_MAX_WARMUP * horizon))
    if step < warmup:
        return (step + 1) / warmup
    part = min(1.0, (horizon - step) / max(1, round(_WARMDOWN * horizon)))
    return part + (1 - part) * _MIN_FACTOR


def _momentum(step: int, horizon: int) -> float:
    down = max(1, round(_WARMDOWN * horizon))
    if step < 400:
        return 0.85 + (0.97 - 0.85) * step / 400
    part = max(0.0, (step - (horizon - down)) / down)
    return 0.97 + (0.90 - 0.97) * part
