"""`torchrun -m groundup`: several ranks produce the same model as one process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from groundup.commands import STAGES

SHAPE = ["shape.dim=64", "shape.n_layers=2", "shape.context_length=64", "optimizer=adamw", "compile=false"]


def torchrun(ranks: int, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    return subprocess.Popen(
        [*launcher, "-m", "groundup", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        **options,
    )


def groundup(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "groundup", *arguments], capture_output=True, text=True)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory, real_documents: list[str]) -> Path:
    """Token shards of real text."""
    directory = tmp_path_factory.mktemp("torchrun")
    (directory / "notes.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in real_documents))
    collect, tokenize = (STAGES[name] for name in ("collect", "tokenize"))
    source = {"kind": "folder", "path": str(directory / "notes.jsonl")}
    collect.module.run(collect.config(sources=[source], out=directory / "corpus"))
    tokenize.module.run(tokenize.config(corpus=directory / "corpus", vocab_size=512, out=directory / "tokens"))
    return directory / "tokens"


def options(tokens: Path, out: Path, *more: str) -> list[str]:
    given = [*SHAPE, "num_evaluations=2", "ema_fraction=0.2", *more]
    return ["pretrain", str(tokens), "--out", str(out), "--tokens", "50000", *(f"--set={each}" for each in given)]


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_a_killed_rank_ends_all_and_one_process_resumes_the_run(tokens: Path, tmp_path: Path) -> None:
    """A rank must not hang when another one is killed, and any number of ranks must be able to resume the run."""
    expected, shared = tmp_path / "expected", tmp_path / "shared"
    alone = subprocess.run(
        [sys.executable, "-m", "groundup", *options(tokens, expected)], capture_output=True, text=True
    )
    assert alone.returncode == 0, alone.stderr

    process = torchrun(2, *options(tokens, shared, "parallel.mode=fsdp", "checkpoint_seconds=0"))
    deadline = time.monotonic() + 180
    while not list((shared / "checkpoints").glob("step-0000000[3-9]")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True)
    os.kill(int(children.stdout.split()[-1]), signal.SIGKILL)
    said = process.communicate(timeout=90)[0]
    assert process.returncode != 0
    assert "Signal 9 (SIGKILL)" in said
    assert not (shared / "artifact.json").exists()
    kept = max((shared / "checkpoints").glob("step-*"))
    assert (kept / "model-00002-of-00002.safetensors").is_file()
    done = len(losses(shared))

    again = groundup(*options(tokens, shared))
    assert again.returncode == 0, again.stderr
    assert "Resuming at step" in again.stderr
    assert 0 < done < len(losses(shared))
    np.testing.assert_allclose(losses(shared), losses(expected), atol=5e-3)  # bf16, if the CPU supports it
    ours, theirs = (load_file(out / "model.safetensors") for out in (shared, expected))
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert (ours[name] - tensor).abs().mean() < 2e-3, name
    plans = [json.loads((out / "plan.json").read_text())["plan"] for out in (shared, expected)]
    assert plans[0] == plans[1]


def test_only_the_first_rank_prints_and_errors_end_all_ranks(tokens: Path, tmp_path: Path) -> None:
    out = tmp_path / "base"
    process = torchrun(2, *options(tokens, out, "parallel.mode=ddp"), "--json")
    said = process.communicate(timeout=180)[0]
    assert process.returncode == 0, said
    assert said.count("Training plan") == 1
    assert len(losses(out)) == len((out / "metrics.jsonl").read_text().splitlines())
    assert (out / "model.safetensors").is_file()
    three = torchrun(3, *options(tokens, tmp_path / "three"))
    said = three.communicate(timeout=180)[0]
    assert three.returncode != 0
    assert said.count("3 ranks cannot share steps of") == 1


def test_classifier_training_with_sharded_ranks(tokens: Path, tmp_path: Path) -> None:
    """Includes the native kernels, if available: a model that uses them is copied before it is sharded."""
    base, out, table = tmp_path / "base", tmp_path / "classifier", tmp_path / "words.jsonl"
    made = groundup(*options(tokens, base))
    assert made.returncode == 0, made.stderr
    texts = [(f"{number} is what {word} said, {word} and {word}", word) for number in range(100) for word in ("a", "b")]
    table.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in texts))
    settings = ("parallel.mode=fsdp", "validation_fraction=0.3", "baseline=false")
    tuning = torchrun(
        2,
        "finetune",
        "classify",
        str(table),
        "--model",
        str(base),
        "--out",
        str(out),
        *(f"--set={s}" for s in settings),
    )
    said = tuning.communicate(timeout=180)[0]
    assert tuning.returncode == 0, said
    assert said.count("training texts") == 1
    facts = json.loads((out / "artifact.json").read_text())["facts"]
    assert facts["test"]["accuracy"]["value"] > 0.8, said


def test_sharded_ranks_continue_pretraining_and_resume_after_a_kill(tokens: Path, tmp_path: Path) -> None:
    """The base model is scored before step 1: the first forward pass of these ranks."""
    base, out = tmp_path / "base", tmp_path / "further"
    made = groundup(*options(tokens, base))
    assert made.returncode == 0, made.stderr
    settings = ("compile=false", "parallel.mode=fsdp", "checkpoint_seconds=0", "num_evaluations=2")
    further = ["pretrain", str(tokens), "--model", str(base), "--out", str(out), "--tokens", "50000"]
    further += [f"--set={each}" for each in settings]

    begun = torchrun(2, *further)
    deadline = time.monotonic() + 180
    while not list((out / "checkpoints").glob("step-0000000[3-9]")):
        assert begun.poll() is None, begun.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(begun.pid, signal.SIGTERM)
    begun.communicate(timeout=90)
    assert not (out / "artifact.json").exists()

    again = torchrun(2, *further)
    said = again.communicate(timeout=180)[0]
    assert again.returncode == 0, said
    assert "Resuming at step" in said
    held_out = json.loads((out / "artifact.json").read_text())["facts"]["held_out"]
    assert held_out["difference"] < 0, said
