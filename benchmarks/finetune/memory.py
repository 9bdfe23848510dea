"""`python -m benchmarks.finetune.memory --model DIR`: measure the peak memory of full fine-tuning and of LoRA.

For each method, a new process loads the model and trains it for some steps on one row of the same text, with and
without activation checkpointing. The model is not compiled. Memory is the peak resident set size of the process minus
its resident set size after all imports. The last line of the output is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

METHODS = ("full", "lora")


def main() -> None:
    """Measure each method with and without activation checkpointing, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--text", type=Path, default=Path(__file__), help="training text [this file]")
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--train", choices=METHODS, help=argparse.SUPPRESS)
    parser.add_argument("--checkpointing", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        print(json.dumps(train(options)))
        return
    result: dict[str, Any] = {"tokens": options.tokens, "rank": options.rank, "steps": options.steps}
    for name, more in (("activations_kept", []), ("activations_computed_again", ["--checkpointing"])):
        runs = {method: _child([*sys.argv[1:], "--train", method, *more]) for method in METHODS}
        share = runs["lora"]["bytes"] / runs["full"]["bytes"]
        result[name] = runs | {"share": round(share, 4)}
        line = ", ".join(f"{method} {run['bytes'] / 1e6:,.0f} MB" for method, run in runs.items())
        print(f"{name}: {line}: {share:.1%}", flush=True)
    print(json.dumps(result))


def _child(arguments: list[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.finetune.memory", *arguments]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    record: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return record


def train(options: argparse.Namespace) -> dict[str, Any]:
    """Load the model and train it as `groundup finetune instruct` does."""
    import torch

    from groundup.data import PackedWindows
    from groundup.hub.loading import open_model
    from groundup.kernels import measure_machine
    from groundup.kernels.memory import Peak
    from groundup.model.lora import LoRA, add_lora
    from groundup.optim import OptimizerConfig, WarmupStableDecay
    from groundup.train import ParallelConfig, StepReport, Trainer, TrainingSettings, TrainingSteps, training_run
    from groundup.train.objectives import NextToken
    from groundup.train.planner.fine_tuning import fine_tuning_rates

    torch.ones(64, 64).matmul(torch.ones(64, 64)).sum().item()  # this matmul starts the threads
    peak = Peak("cpu")
    peak.reset()
    idle = peak.now
    opened = open_model(options.model, device="cpu")
    machine = measure_machine(compile=False)
    model, rates = opened.model, fine_tuning_rates(opened.model.config.dim, 0.3)
    if options.train == "lora":
        add_lora(model, LoRA(rank=options.rank))
        rates = OptimizerConfig(matrix_lr=1e-3, matrices="adamw")
    else:
        model.requires_grad_(True)
    settings = TrainingSettings(parallel=ParallelConfig(activation_checkpointing=options.checkpointing))
    ids = opened.tokenizer.encode(options.text.read_text(encoding="utf-8")[: 8 * options.tokens])
    ids = (ids * (2 + options.tokens // len(ids)))[: options.tokens + 1]
    row, positions = torch.tensor([ids]), torch.arange(options.tokens)[None]
    batch = PackedWindows(row[:, :-1], row[:, 1:], positions, torch.zeros_like(positions))
    losses: list[float] = []

    class Losses:
        def after_step(self, report: StepReport) -> None:
            losses.append(round(report.metrics["loss"], 4))

    with tempfile.TemporaryDirectory() as directory, training_run(Path(directory) / "run") as run:
        trainer = Trainer(model, NextToken(), settings, run, machine=machine)
        steps = TrainingSteps(WarmupStableDecay(options.steps, 1, 1), rates)
        trainer.train(lambda _: batch, steps, callbacks=[Losses()])
    return {
        "bytes": peak.bytes - idle,
        "peak_bytes": peak.bytes,
        "idle_bytes": idle,
        "compute_dtype": machine.compute_dtype,
        "native": machine.native,
        "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "losses": losses,
    }


if __name__ == "__main__":
    main()
