"""A flipped bit in a temporary file of an interrupted `collect` is detected.

In an earlier release, the temporary files had no checksums.
"""

from __future__ import annotations

import io
import random
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from groundup.core.console import Console
from groundup.corpus import CorpusSettings, FolderSource, build, build_corpus, merging
from groundup.corpus import reading as reading_module
from groundup.corpus.executor import ProcessPool, TaskT


class StopError(Exception):
    pass


@pytest.fixture
def settings(tmp_path: Path, real_documents: list[str], monkeypatch: pytest.MonkeyPatch) -> CorpusSettings:
    """Return settings for two directories that contain near-duplicates of each other.

    The runs of the external sort are so small that they must be consolidated.
    """
    monkeypatch.setattr(reading_module, "RUN_BYTES", 20_000)
    monkeypatch.setattr(reading_module, "UNIT_BYTES", 20_000)
    monkeypatch.setattr(build, "FAN_IN", 2)
    monkeypatch.setattr(merging, "FAN_IN", 2)
    rng = random.Random(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number, text in enumerate(real_documents[:20]):
            words = text[:6000].split(" ")
            words[rng.randrange(len(words))] = name
            (tmp_path / name / f"{number}.txt").write_text(" ".join(words))
    wanted = {
        "sources": [FolderSource(path=tmp_path / name) for name in ("a", "b")],
        "quality": {"good": [tmp_path / "a"], "bad": [tmp_path / "b"], "min_score": 0.0},
        "mix": {"epochs": {"a": 1.0, "b": 2.0}},
        "repeated_text": {"unit": "paragraph"},
        "min_bytes": 0,
    }
    return CorpusSettings.model_validate(wanted)


def collect(settings: CorpusSettings, out: Path, stop_at: str = "") -> tuple[dict[str, bytes], str]:
    """Collect until the first task of the class `stop_at` starts. Return the shards and the printed output."""
    pool, printed = ProcessPool(1), io.StringIO()

    def execute(tasks: Sequence[TaskT], on_done: Callable[[TaskT], None]) -> None:
        if stop_at and type(tasks[0]).__name__ == stop_at:
            raise StopError
        pool(tasks, on_done)

    config: dict[str, Any] = {"executor": execute, "console": Console(stream=printed)}
    if stop_at:
        with pytest.raises(StopError):
            build_corpus(settings, out, **config)
    else:
        build_corpus(settings, out, **config)
    return {path.name: path.read_bytes() for path in sorted(out.glob("*.parquet"))}, printed.getvalue()


@pytest.mark.parametrize("stop_at", ["ConsolidateTask", "CompareTask", "RepeatTask"])
def test_a_flipped_bit_in_any_part_is_repaired_on_resume(
    settings: CorpusSettings, tmp_path: Path, stop_at: str
) -> None:
    expected, _ = collect(settings, tmp_path / "whole")
    interrupted = tmp_path / "interrupted"
    collect(settings, interrupted, stop_at)
    kinds: dict[str, Path] = {}  # maps each kind of file to one file
    for path in sorted(interrupted.rglob("*")):
        if path.is_file() and path.stat().st_size:
            kinds.setdefault(re.sub(r"[0-9a-f]{4,}", "", path.name), path.relative_to(interrupted))
    for number, name in enumerate(kinds.values()):
        out = tmp_path / str(number)
        shutil.copytree(interrupted, out)
        content = bytearray((out / name).read_bytes())
        content[len(content) // 2] ^= 4
        (out / name).write_bytes(content)
        shards, printed = collect(settings, out)
        assert name.name in printed.replace("\n", ""), name
        assert shards == expected, name


def test_no_task_runs_again_without_damage(settings: CorpusSettings, tmp_path: Path) -> None:
    collect(settings, tmp_path / "out", "MergeTask")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()}
    _, printed = collect(settings, tmp_path / "out", "MergeTask")
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert "damaged" not in printed
