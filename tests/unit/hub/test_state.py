"""Checkpoints are complete or absent, and damage is detected."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from groundup.core.checksums import write_checked_json
from groundup.core.errors import FormatError
from groundup.hub import TrainingState, load_newest_state, save_state


def _state(step: int) -> TrainingState:
    tensors = {"w": torch.arange(6.0).view(2, 3) + step}
    return TrainingState(step, {"model": tensors, "optimizer": {"w.step": torch.tensor(float(step))}}, {"x": step})


def test_the_newest_checkpoint_is_loaded_and_old_ones_deleted(tmp_path: Path) -> None:
    for step in (1, 2, 10):
        save_state(tmp_path, _state(step))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000002", "step-00000010"]
    found = load_newest_state(tmp_path)
    assert found is not None
    assert (found.step, found.meta) == (10, {"x": 10})
    assert torch.equal(found.groups["model"]["w"], _state(10).groups["model"]["w"])


def test_a_partly_written_checkpoint_is_ignored(tmp_path: Path) -> None:
    save_state(tmp_path, _state(1))
    half = tmp_path / ".step-00000002.abc.tmp"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"\0" * 100)
    found = load_newest_state(tmp_path)
    assert found is not None
    assert found.step == 1


KILLED_WHILE_IT_DELETES = """
import os, sys
from pathlib import Path
from groundup.hub import TrainingState, save_state

sys.addaudithook(lambda event, _: os._exit(9) if event == "os.rmdir" else None)  # its files have been deleted by then
save_state(Path(sys.argv[1]), TrainingState(int(sys.argv[2]), {}, {"x": "new"}))
"""


@pytest.mark.parametrize("step", [1, 2])  # After a rollback, step 2 is deleted; a repeated step 2 is replaced.
def test_a_process_killed_during_deletion_leaves_a_complete_checkpoint(tmp_path: Path, step: int) -> None:
    """It left a step-00000002 without state.json, which counted as the newest, and the run could not resume."""
    save_state(tmp_path, _state(2))
    done = subprocess.run([sys.executable, "-c", KILLED_WHILE_IT_DELETES, tmp_path, str(step)])
    assert done.returncode == 9
    found = load_newest_state(tmp_path)
    assert found is not None
    assert (found.step, found.meta) == (step, {"x": "new"})


def test_incomplete_checkpoints_of_earlier_releases_are_deleted(tmp_path: Path) -> None:
    save_state(tmp_path, _state(1))
    half = tmp_path / "step-00000009"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"\0" * 100)
    found = load_newest_state(tmp_path)
    assert found is not None
    assert found.step == 1
    save_state(tmp_path, _state(2))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000001", "step-00000002"]


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert load_newest_state(tmp_path / "absent") is None


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = save_state(tmp_path, _state(1)) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(FormatError, match=r"model\.safetensors"):
        load_newest_state(tmp_path)


def test_another_format_is_rejected_by_number(tmp_path: Path) -> None:
    path = save_state(tmp_path, _state(1)) / "state.json"
    write_checked_json(path, json.loads(path.read_text()) | {"format_version": 99})
    with pytest.raises(FormatError, match="99"):
        load_newest_state(tmp_path)
