"""Measure how often `groundup compare-recipes` is wrong: two sets of seeds of one recipe, and twice the tokens.

    python -m benchmarks.seeds TEXT [--trials 10] [--tokens 500000] [--seeds 3] [--work DIRECTORY]

TEXT is a file or folder. Each trial pretrains three groups of models with different seeds: A, A again, and B with twice
the tokens. A against A should be "not distinguishable" (another verdict is a false alarm), and B against A "better"
(another verdict is a miss). Finished runs are kept in the work directory. With --resume, a command continues an
interrupted set of trials, and --trials may be larger than before. Progress goes to stderr. The last line of stdout is a
JSON object with the error rates, which are null for fewer than 10 trials.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from groundup.evaluation.stats import proportion_interval

_MIN_TRIALS = 10  # number of trials for which error rates are stated


def main() -> None:
    """Run the trials, and print the error rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path, help="file or folder of text")
    parser.add_argument("--trials", type=int, default=10, help="number of trials [10]")
    parser.add_argument("--tokens", type=int, default=500_000, help="training tokens of A [500,000]")
    parser.add_argument("--seeds", type=int, default=3, help="models per group [3]")
    parser.add_argument("--vocab-size", type=int, default=2048, help="size of the vocabulary [2,048]")
    parser.add_argument("--layers", type=int, default=2, help="number of layers [2]")
    parser.add_argument("--dim", type=int, default=128, help="hidden size [128]")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark-seeds"), help="work directory")
    parser.add_argument("--resume", action="store_true", help="continue the trials in the work directory")
    options = parser.parse_args()
    if options.work.exists() and not options.resume:
        parser.error(f"{options.work} exists; continue its trials with --resume, or set another --work")
    began = time.monotonic()
    corpus, shards = options.work / "corpus", options.work / "tokens"
    groundup("collect", "--folder", str(options.text), "--out", str(corpus))
    groundup("tokenize", str(corpus), "--out", str(shards), "--vocab-size", str(options.vocab_size))
    trials = [run_trial(number, shards, corpus, options) for number in range(options.trials)]
    alarms = sum(trial["same"]["verdict"] != "not distinguishable" for trial in trials)
    misses = sum(trial["double"]["verdict"] != "better" for trial in trials)
    summary = {
        "trials": len(trials),
        "seeds": options.seeds,
        "tokens": options.tokens,
        "false_alarms": alarms,
        "false_alarm_rate": alarms / len(trials) if len(trials) >= _MIN_TRIALS else None,
        "false_alarm_interval": proportion_interval(alarms, len(trials)).bounds,
        "misses": misses,
        "miss_rate": misses / len(trials) if len(trials) >= _MIN_TRIALS else None,
        "miss_interval": proportion_interval(misses, len(trials)).bounds,
        "seconds": round(time.monotonic() - began, 1),
        "differences": {key: [trial[key]["difference"] for trial in trials] for key in ("same", "double")},
    }
    print(json.dumps(summary))


def run_trial(number: int, shards: Path, corpus: Path, options: argparse.Namespace) -> dict[str, dict[str, object]]:
    """Train the three groups of a trial, and return the verdicts "same" (A, A) and "double" (A, B)."""
    directory = options.work / f"trial-{number}"
    groups = {"a": options.tokens, "again": options.tokens, "double": 2 * options.tokens}
    for place, (group, tokens) in enumerate(groups.items()):
        for index in range(options.seeds):
            seed = (number * len(groups) + place) * options.seeds + index
            pretrain(shards, directory / group / f"seed-{seed}" / "base", tokens, seed, options)
    verdicts = {}
    for name, group in (("same", "again"), ("double", "double")):
        out = directory / f"compared-{name}"
        sides = ("--before", str(directory / "a"), "--after", str(directory / group))
        groundup("compare-recipes", *sides, "--text", str(corpus), "--out", str(out))
        line = json.loads((out / "compare.json").read_text(encoding="utf-8"))["lines"][0]
        verdicts[name] = {"verdict": line["verdict"], "difference": line["difference"]}
        print(f"trial {number}, {name}: {line['verdict']} {line['difference']}", file=sys.stderr)
    return verdicts


def pretrain(shards: Path, out: Path, tokens: int, seed: int, options: argparse.Namespace) -> None:
    """Pretrain one model, which is skipped if it exists."""
    shape = f"shape={{n_layers = {options.layers}, dim = {options.dim}, context_length = 256}}"
    sets = [f"--set={value}" for value in (shape, "compile=false", "num_evaluations=0")]
    groundup("pretrain", str(shards), "--out", str(out), "--tokens", str(tokens), "--seed", str(seed), *sets)


def groundup(*arguments: str) -> None:
    """Run a command of groundup in a new process."""
    subprocess.run([sys.executable, "-m", "groundup", *arguments, "--quiet"], check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main()
