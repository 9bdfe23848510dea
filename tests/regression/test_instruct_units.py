"""The plan and the progress of `finetune instruct` count the same tokens.

In an earlier release, the plan counted all tokens including padding, and the progress counted the trained tokens.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path

from groundup.commands.finetune_instruct import FinetuneInstructConfig, run
from groundup.core import artifact
from groundup.core.config import load
from groundup.core.console import Console
from groundup.hub import save_model
from groundup.model import Transformer
from groundup.tokenizer import Tokenizer


def test_plan_progress_and_record_count_trained_tokens(
    tiny_model: Callable[..., Transformer], tokenizer: Tokenizer, real_documents: list[str], tmp_path: Path
) -> None:
    base = tmp_path / "base"
    model = tiny_model(tokenizer.vocab_size, context_length=128)
    save_model(base, model, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id)
    tokenizer.save(base)
    table = tmp_path / "pairs.csv"
    words = [text.split() for text in real_documents[:60]]
    with table.open("w", encoding="utf-8", newline="") as file:
        pairs = [[" ".join(each[:8]), " ".join(each[8:16])] for each in words]
        csv.writer(file).writerows([["question", "answer"], *pairs])
    shown = io.StringIO()
    values = {"data": str(table), "model": str(base), "out": str(tmp_path / "chat"), "threads": 1, "compile": False}
    run(load(FinetuneInstructConfig, values | {"num_epochs": 2.0, "num_evaluations": 0}), console=Console(stream=shown))
    said = shown.getvalue()
    planned = re.search(r"trained tokens +([\d,]+) *\n *epochs +2\.\d+", said)
    counted = re.search(r"fine-tuning: ([\d.]+k?) trained tokens in", said)
    assert planned and counted, said
    seen = artifact.read(tmp_path / "chat").facts["tokens_seen"]
    assert int(planned[1].replace(",", "")) == seen
    assert float(counted[1].removesuffix("k")) * (1000 if "k" in counted[1] else 1) == float(f"{seen:.3g}")
