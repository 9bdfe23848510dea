"""`python -m benchmarks.small_text`: pretrain with given settings, and score the model on all validation documents.

The run has a fixed number of steps or minutes. It is a process of `groundup pretrain`. One JSON object per run is
printed and appended to the results file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from groundup.core.artifact import read
from groundup.data import TokenShards
from groundup.evaluation.bpb import bits_per_byte, model_nll
from groundup.hub import load_model
from groundup.model.flops import layer_parameters
from groundup.tokenizer import Tokenizer
from groundup.train.planning import forecast_for

_LAST_STEPS = 20  # number of steps over which the training loss at the end is averaged


def main() -> None:
    """Train and score one model per seed."""
    options = _options()
    for seed in options.seeds:
        with ExitStack() as stack:
            out = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="small-text-")))
            result = _train(options, seed, out / f"seed-{seed}")
        line = json.dumps(result)
        if options.results:
            with options.results.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        print(line, flush=True)


def _train(options: argparse.Namespace, seed: int, out: Path) -> dict[str, Any]:
    """Train with a seed, and return the settings, the costs and the scores of the run."""
    batch = options.batch_tokens
    size = ["--minutes", str(options.minutes)] if options.minutes else ["--tokens", str(options.steps * batch)]
    settings = [f"max_epochs={options.max_epochs}", "num_evaluations=0", *options.set]
    settings += [] if batch is None else [f"global_batch_tokens={batch}"]
    command = [sys.executable, "-m", "groundup", "pretrain", str(options.tokens), "--out", str(out)]
    command += [*size, "--seed", str(seed), *(part for key in settings for part in ("--set", key))]
    started = time.time()
    subprocess.run(command if options.verbose else [*command, "--quiet"], stdout=sys.stderr, check=True)
    seconds = time.time() - started
    facts = read(out).facts
    plan = facts["plan"]
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    train, validation = (TokenShards(options.tokens, split) for split in ("train", "validation"))
    model = load_model(out)
    score = bits_per_byte(
        model_nll(model), validation, context_length=model.config.context_length, bos_id=validation.bos_id
    )
    return {
        "name": options.name,
        "tokens": str(options.tokens),
        "seed": seed,
        "minutes": options.minutes,
        "set": options.set,
        "bpb": round(score.bpb, 5),
        "validation_bytes": score.bytes,
        "train_loss": round(statistics.fmean(row["loss"] for row in rows[-_LAST_STEPS:]), 4),
        "steps": facts["steps"],
        "tokens_seen": facts["tokens_seen"],
        "epochs": round(facts["tokens_seen"] / (train.n_tokens + train.n_documents), 3),
        "seconds": round(seconds, 1),
        "training_seconds": round(sum(row["seconds"] for row in rows), 1),
        "batch_tokens": facts["tokens_seen"] // facts["steps"],
        "parameters": facts["parameters"],
        "layer_parameters": layer_parameters(model.config),
        "text_bytes": train.n_bytes,
        "ppmd": forecast_for(train, Tokenizer.load(options.tokens / "tokenizer").decode).ppmd,
        "weight_decay": plan["optimizer"]["weight_decay"],
        "dropout": plan.get("dropout"),
        "n_layers": plan["model"]["n_layers"],
        "dim": plan["model"]["dim"],
        "learning_rate": plan["optimizer"]["matrix_lr"],
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.small_text", description=__doc__)
    parser.add_argument("--tokens", type=Path, required=True, help="output directory of groundup tokenize")
    parser.add_argument("--steps", type=int, help="number of steps")
    parser.add_argument("--minutes", type=float, help="training time, instead of --steps")
    parser.add_argument("--batch-tokens", type=int, help="tokens per step [8192 with --steps, planned with --minutes]")
    parser.add_argument("--seed", dest="seeds", type=int, nargs="+", default=[0], help="random seeds [0]")
    parser.add_argument("--max-epochs", type=float, default=1e4, help="maximum number of epochs [10,000]")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="setting of groundup pretrain")
    parser.add_argument("--name", default="", help="name of the variant in the results")
    parser.add_argument("--results", type=Path, help="JSONL file to which the results are appended")
    parser.add_argument("--keep", type=Path, help="directory in which the models are kept")
    parser.add_argument("--verbose", action="store_true", help="print the output of groundup pretrain")
    options = parser.parse_args()
    if (options.steps is None) == (options.minutes is None):
        parser.error("set either --steps or --minutes")
    if options.steps and not options.batch_tokens:
        options.batch_tokens = 8192
    return options


if __name__ == "__main__":
    main()
