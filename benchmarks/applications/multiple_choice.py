"""Check multiple-choice questions, and measure how often a reader picks their answers with and without the text.

    groundup apps mcq --batch texts.jsonl --count 1 --model ADAPTER --out questions.jsonl
    python -m benchmarks.applications.multiple_choice questions.jsonl --reader runs/answer-from-passages/chat

Each line of the table has the `text` and the `output` of `mcq`. The reader is a model that was fine-tuned to answer
from passages; it picks the option that is most likely to be its answer. A question tests the text if the reader picks
its answer with the text more often than without. The last line of the output is a JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from groundup.apps import Catalog
from groundup.apps.declaration import without_number_inputs
from groundup.apps.output_checks import check_output
from groundup.core.console import Console
from groundup.core.types import Example, Message
from groundup.evaluation.applications import matches_schema
from groundup.evaluation.prompt_search import PromptedModel, choose_labels, default_prompt, open_prompted
from groundup.evaluation.stats import ratio_interval
from groundup.retrieval.answering import PROMPT


class Question(NamedTuple):
    """A question with the text that it is about, its options and its answer."""

    text: str
    question: str
    options: Sequence[str]
    answer: str


def main() -> None:
    """Print the shares of questions that pass each check, and how often the reader picks their answers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="texts with the outputs of mcq, a JSONL file")
    parser.add_argument("--reader", type=Path, help="model that was fine-tuned to answer from passages")
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.table.read_text(encoding="utf-8").splitlines()]
    values = [value_of(row) for row in rows]
    app = Catalog()["mcq"].app
    schema = without_number_inputs(app.output.json_schema)  # the number of questions is not in the table
    passed = [
        check_output(app.test.checks, "", value, {"text": row["text"]}, valid=matches_schema(value, schema))
        for row, value in zip(rows, values, strict=True)
    ]
    result: dict[str, Any] = {name: share([each[name] for each in passed]) for name in passed[0]}
    if options.reader:
        questions = [
            Question(row["text"], each["question"], each["options"], each["options"]["ABCD".index(each["answer"])])
            for row, value in zip(rows, values, strict=True)
            for each in (value or {"questions": []})["questions"]
        ]
        reader = open_prompted(options.reader, options.reader, None, "float32", Console(quiet=True))
        with_text, without = (picks(reader, questions, shown=shown) for shown in (True, False))
        result |= {"picked": share(with_text), "picked_without_text": share(without)}
        result["difference"] = share(with_text - without)
    print(json.dumps(result | {"texts": len(rows)}))


def value_of(row: dict[str, Any]) -> Any:
    """Return the JSON value of an output, or None if there is none."""
    output = row.get("output")
    return json.loads(output) if isinstance(output, str) and output.startswith("{") else output or None


def picks(reader: PromptedModel, questions: Sequence[Question], *, shown: bool) -> np.ndarray:
    """Return 1 for each question whose answer is the most likely option, otherwise 0.

    Args:
        reader: Model that reads.
        questions: Questions to answer.
        shown: Whether the reader sees the text.
    """
    prompt = default_prompt(reader)
    found = []
    for each in questions:
        asked = PROMPT.format(passage=each.text if shown else "", question=each.question)
        example = Example((Message("user", asked.strip()), Message("assistant", "")))
        found += choose_labels(reader, prompt, [example], each.options)
    return np.array([float(pick == each.answer) for pick, each in zip(found, questions, strict=True)])


def share(values: Sequence[float] | np.ndarray) -> dict[str, Any]:
    """Return the mean in percent with its 95 % interval."""
    interval = ratio_interval(100 * np.asarray(values, dtype=float), np.ones(len(values)))
    return {"percent": round(interval.estimate, 1), "interval": [round(bound, 1) for bound in interval.bounds]}


if __name__ == "__main__":
    main()
