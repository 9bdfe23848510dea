"""A run that is killed and resumed has the same files as an uninterrupted run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_killed_runs_end_the_same(tmp_path: Path, real_documents: list[str]) -> None:
    (tmp_path / "notes.jsonl").write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in real_documents), encoding="utf-8"
    )
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f"""
[collect]
sources = [{{kind = "folder", path = {json.dumps(str(tmp_path / "notes.jsonl"))}}}]
[tokenize]
vocab_size = 512
[pretrain]
tokens = 400_000
compile = false
checkpoint_seconds = 0.5
[pretrain.shape]
dim = 64
n_layers = 2
context_length = 64
[evaluate]
samples = 1
max_bytes = 4000
max_compressor_bytes = 20000
"""
    )
    command = [sys.executable, str(ROOT / "tools" / "crash_recovery.py"), str(recipe), str(tmp_path / "runs")]
    done = subprocess.run([*command, "--kills", "3", "--max-seconds", "8"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for file in ("corpus/train-00000.parquet", "base/metrics.jsonl", "base/model.safetensors", "report/report.json"):
        assert f"equal    recipe/{file}" in done.stdout
