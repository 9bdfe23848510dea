"""Synthetic records of the stages after tokenization. All numbers are made up; none is a measurement."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from groundup.core import artifact
from groundup.core.checksums import write_checked_json

Json = dict[str, Any]
MakeRun = Callable[..., Path]  # the fixture `make_run`

PRETRAINED: Json = {
    "parameters": 4_105_920,
    "flops_per_token": 17_842_176,
    "tokens_seen": 8_896_512,
    "plan": {
        "model": {
            "family": "qwen3",
            "dim": 192,
            "n_layers": 3,
            "n_heads": 3,
            "n_kv_heads": 3,
            "head_dim": 64,
            "ffn_dim": 512,
            "vocab_size": 1024,
            "context_length": 512,
        },
        "optimizer": {"matrix_lr": 0.02, "embedding_lr": 0.01, "head_lr": 0.003, "vector_lr": 0.003},
        "micro_batch_size": 16,
        "grad_accum_steps": 2,
        "total_steps": 60,
        "epochs": 1.03,
        "tokens_per_second": 27_427.1,
    },
    "machine": {
        "device": "cpu",
        "compute_dtype": "bfloat16",
        "compile": True,
        "threads": 2,
        "matmul_flops": 5e11,
        "peak_flops": 9.9e11,
    },
}
EVALUATED: Json = {
    "format_version": 1,
    "summary": "1.747 bits per byte",
    "bpb": 1.7467,
    "bpb_interval": [1.6948, 1.7952],
    "interval_level": 0.95,
    "scored": {"source": "held-out text", "documents": 417, "tokens": 173_792, "bytes": 623_213},
    "compressors": [
        {"name": "xz -9e", "saw_training": False, "bpb": 2.7724, "better": "the model"},
        {"name": "PPMd order 8", "saw_training": True, "bpb": 1.8144, "better": "the model"},
        {"name": "xz -9e", "saw_training": True, "bpb": 2.1817, "better": "the model"},
    ],
    "samples": [
        {"prompt": "The try statement", "text": " is a block of names.", "finish_reason": "stop", "seed": 0},
        {"prompt": "", "text": "A class is an object\nthat has", "finish_reason": "length", "seed": 2},
    ],
}
INSTRUCTED: Json = {
    "examples": {"train": 8744, "test": 972, "dropped": {"empty response": 3}},
    "columns": "I read 9,719 rows as question -> answer",
    "parameters": 4_105_920,
    "epochs": 2.0,
    "tokens_seen": 1_302_528,
    "held_out": {
        "responses": 972,
        "tokens": 14_210,
        "fine_tuned": {"loss": 3.412, "interval": [3.351, 3.474]},
        "base": {"loss": 4.021, "interval": [3.949, 4.098], "format": "lines that begin with Q: and A:"},
        "difference": {"loss": -0.609, "interval": [-0.661, -0.557]},
        "counted": "the words of the answers",
    },
    "transcripts": [
        {
            "messages": [
                {"role": "user", "content": "Who wrote Hamlet?"},
                {"role": "assistant", "content": "William Shakespeare"},
            ],
            "base": "Who wrote Macbeth?",
            "reference": "Shakespeare",
        }
    ],
}
CLASSIFIED: Json = {
    "columns": "I read 2,000 rows as text -> label",
    "labels": ["ham", "spam"],
    "counts": {"train": {"ham": 1100, "spam": 500}, "test": {"ham": 275, "spam": 125}},
    "dropped": {"empty": 3},
    "parameters": 4_100_000,
    "epochs": 4,
    "test": {
        "examples": 400,
        "accuracy": {"value": 0.9125, "interval": [0.885, 0.9375]},
        "macro_f1": {"value": 0.897, "interval": [0.866, 0.927]},
        "confusion": [[260, 15], [20, 105]],
    },
    "majority": {"label": "ham", "accuracy": 0.6875, "macro_f1": 0.4074},
    "tfidf": {
        "accuracy": {"value": 0.945, "interval": [0.9425, 0.965]},
        "macro_f1": {"value": 0.936, "interval": [0.909, 0.96]},
        "difference": {"accuracy": -0.0325, "interval": [-0.06, -0.005]},
    },
    "samples": [
        {"text": "You have won", "label": "spam", "predicted": "spam", "probability": 0.98},
        {"text": "See you at six", "label": "ham", "predicted": "spam", "probability": 0.55},
    ],
}


def write_stage(
    directory: Path, stage: str, facts: Json, inputs: dict[str, str], files: dict[str, str], seconds: float = 60.0
) -> str:
    """Write the files and the record of a stage, and return its digest."""
    work = artifact.begin(directory, stage, {}, inputs)
    for name, text in files.items():
        (directory / name).write_text(text, encoding="utf-8")
    work.finish(facts, [directory / name for name in files])
    record = json.loads((directory / "artifact.json").read_text(encoding="utf-8")) | {"seconds": seconds}
    write_checked_json(directory / "artifact.json", record)
    return artifact.read(directory).digest


def training_log(steps: int) -> str:
    """Return a `metrics.jsonl` with a decreasing loss."""
    rows = (
        {
            "step": step,
            "tokens_seen": 16_384 * step,
            "loss": 4.0 + 5.0 * math.exp(-step / 20) + 0.1 * math.sin(7 * step),
            "grad_norm": 0.3 + 0.02 * math.sin(step),
            "lr_factor": min(1.0, step / 5),
            "seconds": 0.6,
        }
        for step in range(1, steps + 1)
    )
    return "".join(json.dumps(row) + "\n" for row in rows)


HOSTILE = "</title></desc></svg>\"'><script>alert(1)</script><img src=x onerror=alert(1)>&lt;\x00\u202e\ud800`-->]]>"


DATA_KEYS = {"ham", "spam", "empty", "empty response"}  # keys that come from data: labels and reasons
ENUM_KEYS = {"better", "finish_reason", "role"}  # their values select a sentence of the page


def inject(value: Any) -> Any:
    """Append hostile text to each string, and to keys that come from data."""
    if isinstance(value, str):
        return value + HOSTILE if value else value  # an empty string means absent
    if isinstance(value, list):
        return [inject(item) for item in value]
    if isinstance(value, dict):
        return {
            (key + HOSTILE if key in DATA_KEYS else key): (item if key in ENUM_KEYS else inject(item))
            for key, item in value.items()
        }
    return value


def inject_card(directory: Path) -> None:
    """Append hostile text to names, genres, licenses, reasons and samples of a data card."""
    path = directory / "corpus" / "card.json"
    card = json.loads(path.read_text(encoding="utf-8"))
    for source in card["sources"]:
        for key in ("name", "genre", "license"):
            source[key] += HOSTILE
        source["provenance"] = {key + HOSTILE: value + HOSTILE for key, value in source["provenance"].items()}
        for drop in source["drops"].values():
            drop["samples"] = [[mark, origin + HOSTILE, text + HOSTILE] for mark, origin, text in drop["samples"]]
        source["drops"] = {reason + HOSTILE: drop for reason, drop in source["drops"].items()}
    path.write_text(json.dumps(card), encoding="utf-8")
