"""The driver of litgpt, which repeats `litgpt pretrain` on one device.

The driver uses Fabric, the compiled GPT class, litgpt's cross-entropy, and AdamW, which is not fused on a CPU. The bf16
mode is `--precision bf16-true`. litgpt's default block is the block of GPT-NeoX, which has the same matmuls as GPT-2.
The model has rotary instead of learned position embeddings, and does not tie the token embeddings to the output
projection.
"""

from __future__ import annotations

import sys

import torch

from benchmarks.pretrain.clock import Clock
from benchmarks.pretrain.job import Job, Logits
from benchmarks.pretrain.tokens import random_windows


def train(job: Job, clock: Clock) -> Logits:
    """Train with the steps of litgpt's pretrain.py.

    A step consists of the forward pass, chunked cross-entropy, the backward pass, clipping to norm 1, and AdamW.
    """
    if job.checkout:
        sys.path.append(str(job.checkout))  # at the end, so that its packages do not replace the installed torch
    import lightning  # type: ignore[import-not-found]
    from litgpt.config import Config  # type: ignore[import-not-found]
    from litgpt.model import GPT  # type: ignore[import-not-found]
    from litgpt.pretrain import initialize_weights  # type: ignore[import-not-found]
    from litgpt.utils import chunked_cross_entropy, instantiate_torch_optimizer  # type: ignore[import-not-found]

    precision = "bf16-true" if job.dtype == "bfloat16" else "32-true"
    fabric = lightning.Fabric(accelerator=job.device, devices=1, precision=precision)
    fabric.launch()
    fabric.seed_everything(42 + job.seed)
    shape = job.shape
    config = Config(
        name="benchmark",
        block_size=shape.context,
        n_layer=shape.n_layers,
        n_head=shape.n_heads,
        n_embd=shape.dim,
        padded_vocab_size=shape.vocab_size,
        vocab_size=shape.vocab_size,
        bias=False,
        parallel_residual=False,
        rotary_percentage=1.0,
    )
    with fabric.init_module(empty_init=True):
        plain = GPT(config)
    initialize_weights(fabric, plain, n_layer=config.n_layer, n_embd=config.n_embd)
    model = fabric.setup(torch.compile(plain))
    optimizer = instantiate_torch_optimizer("AdamW", model.parameters(), fused=job.device == "cuda")
    optimizer = fabric.setup_optimizers(optimizer)
    batch = random_windows(job.tokens, shape, job.seed, job.device)
    clock.begin(plain)
    while True:
        inputs, targets = batch()
        loss = chunked_cross_entropy(model(inputs), targets)
        fabric.backward(loss)
        fabric.clip_gradients(model, optimizer, max_norm=1.0)
        optimizer.step()
        optimizer.zero_grad()
        if not clock.tick(loss.item()):
            break
    plain.eval()
    return plain  # type: ignore[no-any-return]
