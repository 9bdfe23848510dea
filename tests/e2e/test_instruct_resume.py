"""A fine-tuning run that is killed and resumed is bit-identical to an uninterrupted one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from groundup.hub import save_model
from groundup.model import Transformer
from groundup.tokenizer import Tokenizer

PROGRAM = """
import json, sys
from groundup.core.config import load
from groundup.kernels import machine
from groundup.commands.finetune_instruct import FinetuneInstructConfig, run
machine._matmul_flops = lambda device, dtype: 1e10  # a busy machine finds now fp32 the faster, now bf16
run(load(FinetuneInstructConfig, json.loads(sys.argv[1])))
"""


def steps(out: Path) -> list[dict[str, Any]]:
    log = out / "metrics.jsonl"
    lines = log.read_text().splitlines() if log.is_file() else []
    return [
        {k: v for k, v in json.loads(line).items() if k not in ("seconds", "waited", "mfu")}
        for line in lines
        if line.endswith("}")
    ]


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.skipif(os.name == "nt", reason="kills a process as POSIX does")
def test_killed_runs_end_the_same(
    method: str, tmp_path: Path, real_documents: list[str], tokenizer: Tokenizer, tiny_model: Callable[..., Transformer]
) -> None:
    base, data = tmp_path / "base", tmp_path / "pairs.jsonl"
    model = tiny_model(tokenizer.vocab_size, context_length=128)
    save_model(base, model, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id)
    tokenizer.save(base)
    pairs = [text.split()[:40] for text in real_documents if len(text.split()) > 40][:60]
    rows = ({"prompt": " ".join(words[:10]), "response": " ".join(words[10:])} for words in pairs)
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def start(out: Path) -> subprocess.Popen[bytes]:
        keys = {
            "data": str(data),
            "model": str(base),
            "out": str(out),
            "threads": 1,
            "compile": False,
            "dtype": "float32",  # the default is chosen by timing
            "num_epochs": 6.0,
        }
        keys |= {"method": method, "lora": {"dropout": 0.1}}
        command = [sys.executable, "-c", PROGRAM, json.dumps(keys | {"checkpoint_seconds": 0.05, "num_evaluations": 1})]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def finish(out: Path) -> None:
        process = start(out)
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said.decode()

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    finish(whole)
    total = len(steps(whole))
    assert total >= 40
    for share in (0.1, 0.7):  # around the first checkpoint, and late in the run
        process = start(cut)
        while len(steps(cut)) < share * total and process.poll() is None:
            time.sleep(0.01)
        assert process.poll() is None, "it finished before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.communicate()
    kept = max((cut / "checkpoints").glob("step-*"))
    with safe_open(kept / "model.safetensors", "pt") as file:
        names = set(file.keys())
    assert all("lora_" in name for name in names) == (method == "lora"), "of adapters, nothing else is kept"
    finish(cut)
    assert steps(cut) == steps(whole)
    weights = "model.safetensors" if method == "full" else "adapter_model.safetensors"
    for name in (weights, "tokenizer_config.json", "generation_config.json"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes(), name
    facts = [json.loads((out / "artifact.json").read_text())["facts"] for out in (whole, cut)]
    for name in ("held_out", "transcripts", "examples", "tokens_seen"):
        assert facts[0][name] == facts[1][name], name
