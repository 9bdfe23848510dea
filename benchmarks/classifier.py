"""`python -m benchmarks.classifier --model DIR --data TABLE`: a classifier of few texts next to TF-IDF, over splits.

For each split, `groundup finetune classify` with its defaults is trained on ROWS texts of the table and tested on TESTS
others; then `groundup classify` is given gibberish and other languages (foreign_texts.txt). Reported are the gain in
accuracy over TF-IDF of words and characters with logistic regression (paired over splits, with a 95 % t-interval), the
expected calibration error, and how many texts the novelty score flags. Each split appends a line to --log. The last
line is one JSON object.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import shutil
import string
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from groundup.commands import classify, finetune_classify
from groundup.commands.classify import ClassifyConfig
from groundup.commands.finetune_classify import FinetuneClassifyConfig
from groundup.core.console import Console
from groundup.data import read_table
from groundup.data.labeled import LabelRules, read_labeled, without_duplicates

_FOREIGN = Path(__file__).with_name("foreign_texts.txt")
_EACH = 10  # texts of each kind of gibberish, in each split
_KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_SYMBOLS = "!@#$%^&*()_+-=[]{}|;:,.<>?/~"


def main() -> None:
    """Run all splits; print a table, or only the JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="directory of a language model")
    parser.add_argument("--data", type=Path, required=True, help="table of texts with labels")
    parser.add_argument("--text", help="column with the text")
    parser.add_argument("--label", help="column with the label")
    parser.add_argument("--rows", type=int, default=120, help="texts to train on [120]")
    parser.add_argument("--tests", type=int, default=500, help="texts to test on [500]")
    parser.add_argument("--splits", type=int, default=10, help="number of random splits [10]")
    parser.add_argument("--first", type=int, default=0, help="number of the first split [0]")
    parser.add_argument("--work", type=Path, help="directory for the classifiers; default: a temporary one")
    parser.add_argument("--log", type=Path, help="file that gets a line per split")
    parser.add_argument("--json", action="store_true", help="print the JSON object only")
    options = parser.parse_args()
    table = read_table(options.data)
    examples = without_duplicates(read_labeled(table, LabelRules(options.text, options.label)))
    if len(examples) < options.rows + options.tests:
        raise SystemExit(f"{options.data}: {len(examples):,} texts; {options.rows + options.tests:,} are needed")
    rows = list(zip(examples.texts, examples.labels, strict=True))
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        for seed in range(options.first, options.first + options.splits):
            found.append(_split(rows, options, work / f"split-{seed}", seed))
            if options.log is not None:
                with options.log.open("a", encoding="utf-8") as log:
                    log.write(json.dumps(found[-1]) + "\n")
            if not options.json:
                print("  ".join(f"{name} {value:.3f}" for name, value in found[-1].items()), flush=True)
    print(json.dumps(summary(found, options)))


def _split(rows: Sequence[tuple[str, str]], options: argparse.Namespace, work: Path, seed: int) -> dict[str, Any]:
    """Train and test on one random split."""
    drawn = random.Random(seed).sample(rows, options.rows + options.tests)
    train, test = drawn[: options.rows], drawn[options.rows :]
    work.mkdir(parents=True, exist_ok=True)
    paths = [_write(work / f"{name}.csv", part) for name, part in (("train", train), ("test", test))]
    console, out = Console(quiet=options.json), work / "classifier"
    config = FinetuneClassifyConfig(
        data=paths[0], test=paths[1], text="text", label="label", model=options.model, out=out
    )
    facts = finetune_classify.run(config, console=console).facts
    gibberish = [text for texts in gibberish_like([text for text, _ in test], seed).values() for text in texts]
    foreign = _FOREIGN.read_text(encoding="utf-8").splitlines()
    found = classify.run(ClassifyConfig(model=out, texts=(*gibberish, *foreign)), console=console)
    unlike = [each.unlike is True for each in found]
    shutil.rmtree(work)
    accuracy, tfidf = (facts[who]["accuracy"]["value"] for who in ("test", "tfidf"))
    return {
        "split": seed,
        "accuracy": accuracy,
        "tfidf": tfidf,
        "gain": accuracy - tfidf,
        "ece": facts["calibration"]["expected_calibration_error"]["after"],
        "flagged_gibberish": float(np.mean(unlike[: len(gibberish)])),
        "flagged_foreign": float(np.mean(unlike[len(gibberish) :])),
        "false_alarms": facts["novelty"]["false_alarms"],
    }


def gibberish_like(texts: Sequence[str], seed: int) -> dict[str, list[str]]:
    """Gibberish of five kinds, some as long as the texts."""
    draw = random.Random(seed)

    def letters(alphabet: str, count: int) -> str:
        return "".join(draw.choice(alphabet) for _ in range(count))

    chosen = [draw.choice(texts)[:400] for _ in range(_EACH)]
    lengths = [draw.randint(4, 40) for _ in range(_EACH)]
    return {
        "random letters": [" ".join(letters(string.ascii_lowercase, len(w)) for w in t.split()) for t in chosen],
        "keyboard": [letters(draw.choice(_KEYBOARD), length) for length in lengths],
        "shuffled characters": ["".join(draw.sample(text, len(text))) for text in chosen],
        "symbols": [letters(_SYMBOLS, length) for length in lengths],
        "codes": [letters(string.ascii_letters + string.digits, length) for length in lengths],
    }


def summary(found: Sequence[dict[str, Any]], options: argparse.Namespace) -> dict[str, Any]:
    """Means over the splits, and the interval of the gain."""
    from scipy.stats import t

    gains = np.array([each["gain"] for each in found])
    mean, interval = float(gains.mean()), None
    if len(gains) > 1:
        half = float(t.ppf(0.975, len(gains) - 1) * gains.std(ddof=1) / len(gains) ** 0.5)
        interval = [mean - half, mean + half]
    means = {name: float(np.mean([each[name] for each in found])) for name in found[0] if name not in ("split", "gain")}
    return {
        "accuracy_gain": mean,
        "accuracy_gain_interval": interval,
        **means,
        "ece_worst": max(each["ece"] for each in found),
        "data": options.data.name,
        "rows": options.rows,
        "tests": options.tests,
        "splits": len(found),
        "python": sys.version.split()[0],
    }


def _write(path: Path, rows: Sequence[tuple[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    return path


if __name__ == "__main__":
    main()
