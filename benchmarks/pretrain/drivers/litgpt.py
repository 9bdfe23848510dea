"""litgpt: `litgpt pretrain` on one device, with Fabric, compiled GPT, its cross-entropy, and AdamW (unfused on a CPU).

bf16 is `--precision bf16-true`. The default block is GPT-NeoX's, with the same matmuls as GPT-2. It has rotary position
embeddings instead of learned ones, and does not tie the embeddings.
"""

from __future__ import annotations

import sys

import torch

from benchmarks.pretrain.clock import Clock
from benchmarks.pretrain.job import Job, Logits
from benchmarks.pretrain.tokens import random_windows


def train(job: Job, clock: Clock) -> Logits:
    """Train with the step of pretrain.py: forward, chunked cross-entropy, backward, clipping to 1, AdamW."""
    if job.checkout:
        sys.path.append(str(job.checkout))  # last, so that it does not replace the installed torch
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
