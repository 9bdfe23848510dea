"""`python -m benchmarks.classifier --model DIR --data TABLE`: compare few-shot text classifiers with TF-IDF.

For each random split of the table, `groundup finetune classify` trains a classifier on ROWS texts and tests it on TESTS
other texts. Then `groundup classify` classifies gibberish and texts in other languages (other_languages.txt). The
results are the gain in accuracy over logistic regression on TF-IDF features of words and characters, the expected
calibration error, and the fraction of texts that the novelty score flags. The gain has a 95 % t-interval over splits.
The benchmark appends a line per split to --log. The last line of the output is a JSON object.
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
from groundup.data.labels.reading import LabelOptions, read_labeled, without_duplicates

_OTHER_LANGUAGES = Path(__file__).with_name("other_languages.txt")
_NUM_GIBBERISH = 10  # Number of texts per kind of gibberish in each split.
_KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_SYMBOLS = "!@#$%^&*()_+-=[]{}|;:,.<>?/~"


def main() -> None:
    """Run all splits. Print the results of each split and a JSON object, or only the JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="directory of a language model")
    parser.add_argument("--data", type=Path, required=True, help="table of texts with labels")
    parser.add_argument("--text", help="column with the text")
    parser.add_argument("--label", help="column with the label")
    parser.add_argument("--rows", type=int, default=120, help="number of training texts [120]")
    parser.add_argument("--tests", type=int, default=500, help="number of test texts [500]")
    parser.add_argument("--splits", type=int, default=10, help="number of random splits [10]")
    parser.add_argument("--first", type=int, default=0, help="number of the first split [0]")
    parser.add_argument("--work", type=Path, help="directory for the classifiers [a temporary directory]")
    parser.add_argument("--log", type=Path, help="file to which a line per split is appended")
    parser.add_argument("--json", action="store_true", help="print the JSON object only")
    options = parser.parse_args()
    table = read_table(options.data)
    examples = without_duplicates(read_labeled(table, LabelOptions(options.text, options.label)))
    if len(examples) < options.rows + options.tests:
        raise SystemExit(
            f"{options.data}: {len(examples):,} texts; at least {options.rows + options.tests:,} are required"
        )
    rows = list(zip(examples.texts, examples.labels, strict=True))
    splits = []
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        for seed in range(options.first, options.first + options.splits):
            splits.append(_split(rows, options, work / f"split-{seed}", seed))
            if options.log is not None:
                with options.log.open("a", encoding="utf-8") as log:
                    log.write(json.dumps(splits[-1]) + "\n")
            if not options.json:
                print("  ".join(f"{name} {value:.3f}" for name, value in splits[-1].items()), flush=True)
    print(json.dumps(summary(splits, options)))


def _split(rows: Sequence[tuple[str, str]], options: argparse.Namespace, work: Path, seed: int) -> dict[str, Any]:
    """Train and test a classifier on one random split."""
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
    other_languages = _OTHER_LANGUAGES.read_text(encoding="utf-8").splitlines()
    found = classify.run(ClassifyConfig(model=out, texts=(*gibberish, *other_languages)), console=console)
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
    """Return five kinds of gibberish. Texts of two kinds are as long as the given texts."""
    draw = random.Random(seed)

    def letters(alphabet: str, count: int) -> str:
        return "".join(draw.choice(alphabet) for _ in range(count))

    chosen = [draw.choice(texts)[:400] for _ in range(_NUM_GIBBERISH)]
    lengths = [draw.randint(4, 40) for _ in range(_NUM_GIBBERISH)]
    return {
        "random letters": [" ".join(letters(string.ascii_lowercase, len(w)) for w in t.split()) for t in chosen],
        "keyboard": [letters(draw.choice(_KEYBOARD), length) for length in lengths],
        "shuffled characters": ["".join(draw.sample(text, len(text))) for text in chosen],
        "symbols": [letters(_SYMBOLS, length) for length in lengths],
        "codes": [letters(string.ascii_letters + string.digits, length) for length in lengths],
    }


def summary(splits: Sequence[dict[str, Any]], options: argparse.Namespace) -> dict[str, Any]:
    """Return the mean of each result over the splits, and the confidence interval of the gain in accuracy."""
    from scipy.stats import t

    gains = np.array([each["gain"] for each in splits])
    mean, interval = float(gains.mean()), None
    if len(gains) > 1:
        half = float(t.ppf(0.975, len(gains) - 1) * gains.std(ddof=1) / len(gains) ** 0.5)
        interval = [mean - half, mean + half]
    means = {
        name: float(np.mean([each[name] for each in splits])) for name in splits[0] if name not in ("split", "gain")
    }
    return {
        "accuracy_gain": mean,
        "accuracy_gain_interval": interval,
        **means,
        "ece_worst": max(each["ece"] for each in splits),
        "data": options.data.name,
        "rows": options.rows,
        "tests": options.tests,
        "splits": len(splits),
        "python": sys.version.split()[0],
    }


def _write(path: Path, rows: Sequence[tuple[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    return path


if __name__ == "__main__":
    main()
