"""Measure how much competing busy processes slow down a training step and decoding.

    python -m benchmarks.contention --model DIRECTORY [--busy 1] [--steps 8] [--threads N]

Each measurement runs in a new process. `groundup.core.openmp` or environment variables set how long idle OpenMP threads
spin (`GOMP_SPINCOUNT=300000` is about the default of the OpenMP library). Measurements with and without competing
processes alternate. The result is the median over the rounds, which is printed as a line of JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# As in the groundup command, this import precedes torch, because it sets how OpenMP threads wait.
from groundup.core.openmp import DEFAULTS

BUSY = "while True: pass"
TASKS = ("step", "decode")
CLASSES, LENGTH = 8, 48  # The classifier has 8 classes, and each text has 48 tokens.
WARMUP = 3


def main() -> None:
    """Measure each task with and without competing busy processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="model directory")
    parser.add_argument("--busy", type=int, default=1, help="number of busy processes [1]")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds [3]")
    parser.add_argument("--steps", type=int, default=8, help="number of measured training steps [8]")
    parser.add_argument("--tokens", type=int, default=64, help="number of decoded tokens [64]")
    parser.add_argument("--rows", type=int, default=32, help="batch size [32]")
    parser.add_argument("--threads", type=int, help="CPU threads [one per core]")
    parser.add_argument("--task", choices=TASKS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        print(json.dumps(step(options) if options.task == "step" else decode(options)))
        return
    seconds: dict[str, list[float]] = {f"{task}_{how}": [] for task in TASKS for how in ("alone", "contended")}
    for number in range(options.rounds):
        for task in TASKS:
            for how in ("alone", "contended") if number % 2 == 0 else ("contended", "alone"):
                with busy_processes(options.busy if how == "contended" else 0):
                    seconds[f"{task}_{how}"].append(run_task(task))
                print(f"round {number + 1}, {task} {how}: {seconds[f'{task}_{how}'][-1]:.4f} s", file=sys.stderr)
    record: dict[str, object] = {name: round(statistics.median(times), 4) for name, times in seconds.items()}
    for task in TASKS:
        alone, contended = (statistics.median(seconds[f"{task}_{how}"]) for how in ("alone", "contended"))
        record[f"{task}_ratio"] = round(contended / alone, 3)
    names = ("OMP_WAIT_POLICY", "OMP_NUM_THREADS", *DEFAULTS)
    waiting = {name: os.environ[name] for name in names if name in os.environ}
    settings = {"busy": options.busy, "cores": os.cpu_count(), "threads": options.threads, "waiting": waiting}
    print(json.dumps(record | settings | {"rounds": {name: [round(t, 4) for t in seconds[name]] for name in seconds}}))


def run_task(task: str) -> float:
    """Measure a task in a new process that gets the same options. Return the result in seconds."""
    command = [sys.executable, "-m", "benchmarks.contention", *sys.argv[1:], "--task", task]
    seconds: float = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return seconds


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Run `count` busy processes within the context."""
    started = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def step(options: argparse.Namespace) -> float:
    """Return the median duration in seconds of a training step of `finetune classify` with full fine-tuning."""
    import torch

    from groundup.data.labels.batches import LabeledBatches, Padding
    from groundup.hub.loading import open_model
    from groundup.kernels import measure_machine
    from groundup.model import SequenceClassifier
    from groundup.optim import WarmupStableDecay
    from groundup.train import Trainer, TrainingSettings, TrainingSteps, training_run
    from groundup.train.fit import Stopwatch
    from groundup.train.objectives.classification import Classification
    from groundup.train.planner.rates import CLASSIFIER

    machine = measure_machine(threads=options.threads, compile=False)
    language_model = open_model(options.model, device="cpu").model
    model = SequenceClassifier.from_language_model(language_model, CLASSES, seed=0)
    vocabulary, count = language_model.config.vocab_size, 8 * options.rows
    texts = torch.randint(vocabulary, (count, LENGTH), generator=torch.Generator().manual_seed(0)).tolist()
    labels = [number % CLASSES for number in range(count)]
    batches = LabeledBatches(texts, labels, batch_size=options.rows, padding=Padding(0, LENGTH), seed=0)
    watch, steps = Stopwatch(), WARMUP + options.steps
    with tempfile.TemporaryDirectory() as directory, training_run(Path(directory) / "run") as run:
        trainer = Trainer(model, Classification(0.1, None), TrainingSettings(), run, machine=machine)
        trainer.train(batches.batch, TrainingSteps(WarmupStableDecay(steps, 1, 1), CLASSIFIER), callbacks=[watch])
    return statistics.median(watch.seconds[WARMUP:])


def decode(options: argparse.Namespace) -> float:
    """Return the median time in seconds that `groundup generate` takes per token."""
    import torch

    from groundup.hub.loading import open_model
    from groundup.inference import Engine, GenerationRequest

    if options.threads:
        torch.set_num_threads(options.threads)
    opened = open_model(options.model, device="cpu")
    request = GenerationRequest(prompt="Once upon a time", max_tokens=options.tokens, stop_ids=(), seed=0)
    with Engine(opened.model, opened.tokenizer) as engine:
        times = [time.perf_counter() for _ in engine.stream(request)]
    intervals = [after - before for before, after in itertools.pairwise(times)]
    return statistics.median(intervals[WARMUP:])


if __name__ == "__main__":
    main()
