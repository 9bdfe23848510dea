"""`python -m benchmarks.finetune.merged --model DIR --data TABLE`: compare a LoRA adapter with the merged model.

The benchmark trains an adapter and merges it into the base model with the groundup commands. Then the base model with
the adapter and the merged model answer the same questions in fp32 with greedy decoding. Both models also compute logits
for the questions followed by the answers. The result has these keys:

    questions                number of questions
    same_answers             number of questions for which both answers are equal (target: all questions)
    largest_difference       maximum difference between the logits of both models (target: at most 1e-4)
    where_answers_come_from  maximum difference over only the logits that predict answer tokens
    of_the_weights           maximum difference between both models in fp64, which is not due to rounding
    of_rounding              maximum difference between fp32 and fp64 for the base model with the adapter

The last line of the output is a JSON object.
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
    """Train and merge an adapter, compare both models, and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="directory of a chat model")
    parser.add_argument(
        "--data", type=Path, required=True, help="table of conversations for `groundup finetune instruct`"
    )
    parser.add_argument("--minutes", type=float, default=1.0, help="minutes of training [1]")
    parser.add_argument("--questions", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=48, help="maximum number of tokens per answer [48]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-merged-") as work:
        adapter, merged = Path(work) / "adapter", Path(work) / "merged"
        groundup = [sys.executable, "-m", "groundup"]
        tuning = ["finetune", "instruct", str(options.data), "--model", str(options.model), "--out", str(adapter)]
        subprocess.run([*groundup, *tuning, "--method", "lora", "--set", f"minutes={options.minutes}"], check=True)
        subprocess.run([*groundup, "merge", str(adapter), "--out", str(merged)], check=True)
        print(json.dumps(_compare(adapter, merged, options)))


def _compare(adapter: Path, merged: Path, options: argparse.Namespace) -> dict[str, Any]:
    import torch

    from groundup.data import read_conversations
    from groundup.data.conversations.reading import FolderExamples
    from groundup.data.tables import evenly_spaced
    from groundup.evaluation.comparisons.base_model import greedy_answers
    from groundup.hub import load_model
    from groundup.hub.adapted import find_adapter_base, with_adapter
    from groundup.hub.loading import open_model
    from groundup.inference.prompting import ChatFormat
    from groundup.tokenizer import load_chat_template

    rows = read_conversations([FolderExamples(kind="folder", path=options.data)])
    questions = [example.messages[:-1] for example in evenly_spaced(rows.examples, options.questions)]
    opened = open_model(merged, device="cpu")
    one, tokenizer = opened.model, opened.tokenizer
    template = load_chat_template(merged, tokenizer)
    # `open_model(adapter)` would merge the adapter, so load the base model and the adapter separately.
    adapted = with_adapter(load_model(find_adapter_base(adapter)), adapter)
    written = [
        greedy_answers(model, tokenizer, questions, ChatFormat(template), max_tokens=options.tokens)
        for model in (adapted, one)
    ]
    answers = list(zip(*written, strict=True))
    same = sum(left == right for left, right in answers)
    print(f"{same} of {len(questions)} answers are equal; computing logits", flush=True)
    prompts = [template.encode(question, add_generation_prompt=True) for question in questions]
    sequences = [
        torch.tensor([ids + tokenizer.encode(text, continues=True)])
        for ids, (_, text) in zip(prompts, answers, strict=True)
    ]
    exact_adapted, exact_one = (copy.deepcopy(model).double() for model in (adapted, one))

    def max_differences(first: Transformer, second: Transformer) -> list[float]:
        """Return the maximum difference between the logits of two models, for all tokens and for answer tokens."""
        maxima = []
        with torch.inference_mode():
            for ids, question in zip(sequences, prompts, strict=True):
                differences_T = (first(ids).double() - second(ids).double())[0].abs().amax(-1)
                maxima.append((float(differences_T.max()), float(differences_T[len(question) - 1 :].max())))
        return [max(each) for each in zip(*maxima, strict=True)]

    largest, of_answers = max_differences(adapted, one)

    return {
        "questions": len(questions),
        "same_answers": same,
        "largest_difference": largest,
        "where_answers_come_from": of_answers,
        "of_the_weights": max_differences(exact_adapted, exact_one)[0],
        "of_rounding": max_differences(adapted, exact_adapted)[0],
    }


if __name__ == "__main__":
    main()
