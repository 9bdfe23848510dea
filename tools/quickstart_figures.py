"""Write the measured values of one quickstart run into README.md and the documentation.

    python tools/quickstart_figures.py record RUN LOG   # write docs/quickstart.json, then update the pages
    python tools/quickstart_figures.py fill             # update the pages from docs/quickstart.json

A page marks the place of a value with `<!-- quickstart NAME -->...<!-- end -->`, where NAME is a key of
docs/quickstart.json. RUN is the directory of a finished run of the recipe `quickstart`. LOG is the output of the
command `/usr/bin/time -v make quickstart` that created this run in this checkout.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FIGURES = ROOT / "docs" / "quickstart.json"
_SLOT = re.compile(r"(<!-- quickstart ([\w.]+) -->)(.*?)(<!-- end -->)", re.DOTALL)
_QUESTIONS = ("who wrote the play hamlet", "when did the second world war end", "Hi! How are you?")
_SHOWN_WIDTH = 110  # Maximum number of characters in a line of the transcript.


def pages() -> Iterator[Path]:
    """Yield the Markdown files that may contain measured values."""
    yield ROOT / "README.md"
    yield from sorted((ROOT / "docs").rglob("*.md"))


def filled(page: str, figures: dict[str, str]) -> str:
    """Replace the marked values in the text of a page, and return the new text.

    Raises:
        KeyError: The page contains the name of a value that does not exist.
    """
    return _SLOT.sub(lambda slot: f"{slot[1]}{figures[slot[2]]}{slot[4]}", page)


def fill() -> None:
    """Replace the marked values in all pages by the values in docs/quickstart.json."""
    figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    for path in pages():
        before = path.read_text(encoding="utf-8")
        if (after := filled(before, figures)) != before:
            path.write_text(after, encoding="utf-8")
            print(path.relative_to(ROOT))


def _artifact(directory: Path) -> Any:
    return json.loads((directory / "artifact.json").read_text(encoding="utf-8"))


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _transcript(log: str) -> str:
    """Return the lines that the console printed at the end of each stage. Progress bars are omitted."""
    lines = [re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line).rstrip() for line in log.splitlines()]
    kept = [line for line in lines if re.match(r"\[\d/\d\] .*: done in|runs/quickstart/\w+: ", line)]
    short = [
        line if len(line) <= _SHOWN_WIDTH else f"{line[: _SHOWN_WIDTH - 4].rsplit(' ', 1)[0]} ..." for line in kept
    ]
    return "\n\n```text\n" + "\n".join(short) + "\n```\n\n"


def _chat(run: Path) -> str:
    """Return the answers of the run's chat model to fixed questions, with greedy decoding."""
    answers = []
    for question in _QUESTIONS:  # each in a conversation of its own
        command = [sys.executable, "-m", "groundup", "chat", str(run), "--quiet", "--json"]
        command += ["--max-tokens", "32", "--set", "temperature=0"]
        done = subprocess.run(command, input=f"{question}\n", capture_output=True, text=True, check=True)
        answers.append(json.loads(done.stdout)["text"].strip() or "(an empty answer)")
    turns = [f"> {question}\n{answer}" for question, answer in zip(_QUESTIONS, answers, strict=True)]
    return "\n\n```text\n" + "\n".join(turns) + "\n```\n\n"


def _machine() -> str:
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = re.search(r"model name\s*:\s*(.+)", cpuinfo)
    name = model[1].strip() if model else platform.processor()
    name += " with AMX" * ("amx_bf16" in cpuinfo)  # Matmuls in bfloat16 make training several times faster.
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return f"{os.cpu_count()} cores of {name}, commit {commit.stdout.strip()}"


def _peak_memory(log: str) -> int:
    """Return the maximum resident set size of the run's processes in bytes."""
    match = re.search(r"Maximum resident set size \(kbytes\): (\d+)", log)
    if match is None:
        raise SystemExit("LOG has no line of /usr/bin/time -v; run `/usr/bin/time -v make quickstart 2> LOG`")
    return 1024 * int(match[1])


def _size(directory: Path) -> int:
    return sum(path.lstat().st_size for path in directory.rglob("*") if not path.is_dir())


def measure(run: Path, log: str) -> dict[str, str]:
    """Return the measured values of a finished quickstart run, formatted for the pages."""
    corpus, base, chat, classifier, report = (
        _artifact(run / name)["facts"] for name in ("corpus", "base", "chat", "classifier", "report")
    )
    tokens = _artifact(run / "tokens")["facts"]
    seconds = sum(
        _artifact(run / name)["seconds"] for name in ("corpus", "tokens", "base", "chat", "classifier", "report")
    )
    low, high = report["bpb_interval"]
    held_out = chat["held_out"]
    return {
        "machine": _machine(),
        "date": _artifact(run)["finished_at"][:10],
        "minutes": f"{seconds / 60:.0f} minutes",
        "memory": f"{_peak_memory(log) / 1e9:.1f} GB",
        "disk": f"{(_size(run) + _size(ROOT / '.venv')) / 1e9:.1f} GB",
        "transcript": _transcript(log),
        "chat": _chat(run),
        "corpus.bytes": f"{(corpus['train']['bytes'] + corpus['validation']['bytes']) / 1e6:.1f} MB",
        "corpus.documents": f"{corpus['train']['documents'] + corpus['validation']['documents']:,}",
        "tokens.train": f"{tokens['train']['tokens'] / 1e6:.2f} million",
        "tokens.vocab_size": f"{tokens['vocab_size']:,}",
        "tokens.bytes_per_token": f"{tokens['bytes_per_token']:.2f}",
        "base.parameters": f"{base['parameters'] / 1e6:.1f} million",
        "base.tokens": f"{base['tokens_seen'] / 1e6:.2f} million",
        "bpb": f"{report['bpb']:.3f}",
        "bpb.interval": f"{low:.3f} to {high:.3f}",
        **{f"compressor.{_key(name)}": f"{bpb:.3f}" for name, bpb in report["compressors"].items()},
        "chat.loss": f"{held_out['fine_tuned']['loss']:.3f}",
        "chat.base_loss": f"{held_out['base']['loss']:.3f}",
        **_classifier_figures(classifier),
    }


def _key(name: str) -> str:
    return re.sub(r"\W+", "_", name.lower()).strip("_")


def _classifier_figures(facts: dict[str, Any]) -> dict[str, str]:
    test, tfidf = facts["test"], facts["tfidf"]
    low, high = test["accuracy"]["interval"]
    return {
        "classifier.accuracy": _percent(test["accuracy"]["value"]),
        "classifier.interval": f"{_percent(low)} to {_percent(high)}",
        "classifier.macro_f1": f"{test['macro_f1']['value']:.3f}",
        "classifier.test_examples": f"{test['examples']:,}",
        "tfidf.accuracy": _percent(tfidf["accuracy"]["value"]),
        "tfidf.macro_f1": f"{tfidf['macro_f1']['value']:.3f}",
        "majority.accuracy": _percent(facts["majority"]["accuracy"]),
    }


def main() -> int:
    """Run the command `record` or `fill`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    record = actions.add_parser("record", help="measure a run, then fill the pages")
    record.add_argument("run", type=Path, help="directory of the run")
    record.add_argument("log", type=Path, help="console output of the run")
    actions.add_parser("fill", help="fill the pages from docs/quickstart.json")
    arguments = parser.parse_args()
    if arguments.action == "record":
        figures = measure(arguments.run, arguments.log.read_text(encoding="utf-8"))
        FIGURES.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    fill()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
