"""The benchmark of small texts, without training."""

from __future__ import annotations

import subprocess
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from benchmarks.pretrain.processes import ProcessRunner
from benchmarks.small_text import compare, trained
from benchmarks.small_text.texts import Corpus
from benchmarks.small_text.trained import Run, Runs, old_checkout


def _checkout(directory: Path, message: str) -> Path:
    (directory / "src" / "groundup").mkdir(parents=True)
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com"]
    for command in (["init", "-q"], [*identity, "commit", "-q", "--allow-empty", "-m", message]):
        subprocess.run(["git", "-C", str(directory), *command], check=True)
    return directory


def test_the_path_of_the_old_checkout_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training runs in another working directory, so a relative path on PYTHONPATH selected the installed groundup."""
    _checkout(tmp_path / "old", "old")
    monkeypatch.chdir(tmp_path)
    with old_checkout(Path("old")) as found:
        assert found == tmp_path.resolve() / "old"
    with pytest.raises(FileNotFoundError, match="not a checkout"), old_checkout(Path("missing")):
        pass


def test_results_of_another_old_checkout_are_not_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = []

    def cached(*_: object, code: str | None = None) -> dict[str, Any]:
        codes.append(code)
        return {"score": {"bpb": 1.0}, "parameters": 1, "epochs": 1.0, "seconds": 1.0}

    monkeypatch.setattr(trained, "cached", cached)
    runner = ProcessRunner(tmp_path, threads=None)
    for name in ("a", "b"):
        Runs(runner, _checkout(tmp_path / name, name), lambda _: None).result(Run(tmp_path, (), old=True))
    assert len(set(codes)) == 2
    assert None not in codes


def test_corpora_with_the_same_directory_name_have_different_names(tmp_path: Path) -> None:
    names = {Corpus(tmp_path / run / "tokens", tmp_path).name for run in ("a", "b")}
    assert len(names) == 2


def test_predictions_use_the_given_sizes_and_skip_unknown_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = {"seconds": 60.0, "memory_bytes": 10**9, "bits_per_byte": 2.0, "bits_per_byte_interval": [1.9, 2.1]}
    measured = {"seconds": 61.0, "memory_bytes": None}
    monkeypatch.setattr(
        compare, "_planned", lambda *_: (plan, {"prediction": {"measured": measured}, "score": {"bpb": 3.0}})
    )
    sizes = []

    def tokens(_: Corpus, n_bytes: int) -> Path:
        sizes.append(n_bytes)
        return tmp_path

    monkeypatch.setattr(Corpus, "tokens", tokens)
    options = Namespace(sizes=["5mb"], plans=2, plan_seed=0, minutes=None)
    runs = Runs(ProcessRunner(tmp_path, threads=None), None, lambda _: None)
    found = compare._prediction(options, [Corpus(None, tmp_path)], runs)
    assert found == {"time_within_10": 1.0, "loss_within_3": 0.0}
    assert sizes == [5_000_000]
