"""The driver of the Hugging Face Trainer, which trains the GPT-2 model of transformers with default settings.

By default, the Trainer uses fp32 and does not compile the model. The bf16 mode sets `bf16=True`.
"""

from __future__ import annotations

import tempfile
from typing import Any

from torch import Tensor
from torch.utils.data import IterableDataset

from benchmarks.pretrain.clock import Clock
from benchmarks.pretrain.job import Job, Logits
from benchmarks.pretrain.tokens import random_windows


def train(job: Job, clock: Clock) -> Logits:
    """Train GPT-2 with the Trainer."""
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments, set_seed

    set_seed(job.seed)
    shape = job.shape
    config = GPT2Config(
        vocab_size=shape.vocab_size,
        n_positions=shape.context,
        n_embd=shape.dim,
        n_layer=shape.n_layers,
        n_head=shape.n_heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
    )
    model: Any = GPT2LMHeadModel(config)

    class ClockCallback(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            if state.global_step == 0:
                clock.begin(model)

        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            # The Trainer does not pass the loss to callbacks, and reading the loss would take time.
            control.should_training_stop = not clock.tick(float("nan"))

    with tempfile.TemporaryDirectory() as directory:
        arguments = TrainingArguments(
            directory,
            per_device_train_batch_size=shape.rows,
            max_steps=1_000_000,
            bf16=job.dtype == "bfloat16",
            use_cpu=job.device == "cpu",
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        )
        Trainer(model, arguments, train_dataset=_Windows(job), callbacks=[ClockCallback()]).train()
    model.eval()

    def logits(input_ids_BT: Tensor) -> Tensor:
        scores: Tensor = model(input_ids_BT).logits
        return scores

    return logits


class _Windows(IterableDataset[dict[str, Tensor]]):
    def __init__(self, job: Job) -> None:
        self._batch = random_windows(job.tokens, job.shape, job.seed, "cpu")

    def __iter__(self) -> Any:
        while True:
            for row in self._batch()[0]:
                yield {"input_ids": row, "labels": row}
