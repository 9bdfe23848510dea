"""`python -m benchmarks.finetune.merged --model DIR --data TABLE`: an adapter beside its base, and merged into it.

The adapter is trained and merged as a user does it. Then both models answer the same questions of the table greedily,
in fp32, and both read each question with the answer: `same_answers` of `questions`, and `largest_difference` between
any two logits. Bars: all of them, and 1e-4. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def main() -> None:
    """Train, merge, ask, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="model directory with a chat template")
    parser.add_argument("--data", type=Path, required=True, help="table, as `groundup finetune instruct` reads it")
    parser.add_argument("--minutes", type=float, default=1.0, help="of training")
    parser.add_argument("--questions", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=48, help="of an answer, at most")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-merged-") as work:
        adapter, merged = Path(work) / "adapter", Path(work) / "merged"
        groundup = [sys.executable, "-m", "groundup"]
        tuning = ["finetune", "instruct", str(options.data), "--model", str(options.model), "--out", str(adapter)]
        subprocess.run([*groundup, *tuning, "--method", "lora", "--set", f"minutes={options.minutes}"], check=True)
        subprocess.run([*groundup, "merge", str(adapter), "--out", str(merged)], check=True)
        print(json.dumps(_compared(adapter, merged, options)))


def _compared(adapter: Path, merged: Path, options: argparse.Namespace) -> dict[str, Any]:
    import torch

    from groundup.checkpoint.resolve import open_model
    from groundup.evals.responses import answer, spread
    from groundup.examples import read_conversations
    from groundup.examples.conversations import FolderExamples
    from groundup.generate import Engine
    from groundup.tokenizer import locked_template

    rows = read_conversations([FolderExamples(kind="folder", path=options.data)])
    questions = [example.messages[:-1] for example in spread(rows.examples, options.questions)]
    beside, one = open_model(adapter, device="cpu"), open_model(merged, device="cpu")
    template = locked_template(one.directory, one.tokenizer)
    with Engine(beside.model, beside.tokenizer) as first, Engine(one.model, one.tokenizer) as second:
        answers = [
            [answer(engine, question, template, max_tokens=options.tokens) for engine in (first, second)]
            for question in questions
        ]
    farthest = 0.0
    for question, (_, said) in zip(questions, answers, strict=True):
        ids = template.encode(question, add_generation_prompt=True) + one.tokenizer.encode(said, continues=True)
        row = torch.tensor([ids])
        with torch.inference_mode():
            farthest = max(farthest, float((beside.model(row) - one.model(row)).abs().max()))
    same = sum(one == other for one, other in answers)
    return {"questions": len(questions), "same_answers": same, "largest_difference": farthest}


if __name__ == "__main__":
    main()
