"""The driver that trains a LoRA adapter with groundup on tokenized examples.

    python -m benchmarks.finetune.drivers.groundup_lora JOB.json

The driver uses the same functions as `finetune instruct --method lora`. The input and the output have
the same formats as in `trl_lora.py`.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from groundup.core.types import IGNORE_INDEX, SHARED_PREFIX

if TYPE_CHECKING:
    from groundup.data import PackedWindows


def main() -> None:
    """Train the adapter with the settings of the job, and print the measurements."""
    job = json.loads(Path(sys.argv[1]).read_text())
    import torch

    from groundup.data import ExampleLoader
    from groundup.hub.loading import open_model
    from groundup.kernels import measure_machine
    from groundup.model.lora import LoRA, add_lora
    from groundup.optim import OptimizerConfig, WarmupStableDecay
    from groundup.train import ParallelConfig, StepReport, Trainer, TrainingSettings, TrainingSteps, training_run
    from groundup.train.objectives import NextToken

    torch.set_num_threads(job["threads"])
    machine = measure_machine(threads=job["threads"], native=job["compile"], compile=job["compile"])
    if not job["autocast"]:
        machine = replace(machine, compute_dtype="float32")
    idle = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    opened = open_model(Path(job["model"]), device="cpu")
    model = opened.model
    add_lora(model, LoRA(rank=job["rank"], alpha=job["alpha"]))
    rates = OptimizerConfig(matrix_lr=job["learning_rate"], matrices="adamw")
    settings = TrainingSettings(parallel=ParallelConfig(activation_checkpointing=job["checkpointing"]))
    rows = [json.loads(line) for line in Path(job["data"]).read_text().splitlines()]
    loader = ExampleLoader(
        rows,
        context_length=job["length"],
        batch_size=job["rows"],
        pad_id=opened.tokenizer.pad_id,
        seed=job["seed"],
    )
    steps, warmup = job["steps"], job["warmup"]
    losses: list[float] = []
    times: list[float] = []

    class StepTimer:
        def after_step(self, report: StepReport) -> None:
            losses.append(report.metrics["loss"])
            times.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as directory, training_run(Path(directory) / "run") as run:
        trainer = Trainer(model, NextToken(), settings, run, machine=machine)
        trainer.train(loader.batch, TrainingSteps(WarmupStableDecay(steps, 1, 1), rates), callbacks=[StepTimer()])
    print(
        json.dumps(
            {
                "tokens": sum(count_tokens(loader.batch(index)) for index in range(warmup, steps)),
                "seconds": times[-1] - times[warmup - 1],
                "losses": losses,
                "idle_bytes": idle,
                "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "compute_dtype": machine.compute_dtype,
                "compile": machine.compile,
                "native": machine.native,
            }
        )
    )


def count_tokens(batch: PackedWindows) -> int:
    """Count the tokens of the examples of a batch. A shared prefix counts for each example.

    If the last document of a row has no labels, this document is padding.
    """
    count = 0
    for labels, documents in zip(batch.labels, batch.document_ids, strict=True):
        last = documents == documents[-1]
        is_padding = bool((labels[last] == IGNORE_INDEX).all())
        examples = int(documents[-1]) + 1 - is_padding
        prefix = int((documents == SHARED_PREFIX).sum())
        count += len(documents) - int(last.sum()) * is_padding + (examples - 1) * prefix
    return count


if __name__ == "__main__":
    main()
