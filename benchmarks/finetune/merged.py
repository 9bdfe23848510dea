"""`python -m benchmarks.finetune.merged --model DIR --data TABLE`: an adapter beside its base, and merged into it.

The adapter is trained and merged as a user does it. Then both models answer the same questions of the table greedily,
in fp32 (`same_answers` of `questions`), and read each question with the answer: `largest_difference` is that between
any two logits, `where_answers_come_from` that between any two from which a token of an answer was chosen. What fp32
itself makes of it is told apart: `of_the_weights` is the difference where both are computed in fp64 from the same fp32
weights, `of_rounding` that of base and adapter in fp32 from themselves in fp64. Bars: all answers, and 1e-4. The last
line is one JSON object.
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from groundup.model import Transformer


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

    from groundup.data import read_conversations
    from groundup.data.conversations import FolderExamples
    from groundup.data.tables import evenly_spaced
    from groundup.evaluation.base_comparison import answer
    from groundup.hub import load_model
    from groundup.hub.adapted import find_adapter_base, with_adapter
    from groundup.hub.resolve import open_model
    from groundup.inference import Engine
    from groundup.inference.prompting import ChatFormat
    from groundup.tokenizer import locked_template

    rows = read_conversations([FolderExamples(kind="folder", path=options.data)])
    questions = [example.messages[:-1] for example in evenly_spaced(rows.examples, options.questions)]
    opened = open_model(merged, device="cpu")
    one, tokenizer = opened.model, opened.tokenizer
    template = locked_template(merged, tokenizer)
    # Not `open_model(adapter)`, which merges on opening.
    beside = with_adapter(load_model(find_adapter_base(adapter)), adapter)
    with Engine(beside, tokenizer) as first, Engine(one, tokenizer) as second:
        answers = [
            [answer(engine, question, ChatFormat(template), max_tokens=options.tokens) for engine in (first, second)]
            for question in questions
        ]
    same = sum(left == right for left, right in answers)
    print(f"{same} of {len(questions)} answers are the same; reading them", flush=True)
    asked = [template.encode(question, add_generation_prompt=True) for question in questions]
    read = [
        torch.tensor([ids + tokenizer.encode(said, continues=True)])
        for ids, (_, said) in zip(asked, answers, strict=True)
    ]
    exact_beside, exact_one = (copy.deepcopy(model).double() for model in (beside, one))

    def farthest(first: Transformer, second: Transformer) -> list[float]:
        """The largest difference between two models' logits: of all texts read, and of the answers in them."""
        apart = []
        with torch.inference_mode():
            for ids, question in zip(read, asked, strict=True):
                differences_T = (first(ids).double() - second(ids).double())[0].abs().amax(-1)
                apart.append((float(differences_T.max()), float(differences_T[len(question) - 1 :].max())))
        return [max(each) for each in zip(*apart, strict=True)]

    largest, of_answers = farthest(beside, one)

    return {
        "questions": len(questions),
        "same_answers": same,
        "largest_difference": largest,
        "where_answers_come_from": of_answers,
        "of_the_weights": farthest(exact_beside, exact_one)[0],
        "of_rounding": farthest(beside, exact_beside)[0],
    }


if __name__ == "__main__":
    main()
