"""A stage's output directory has the correct state, and a new output replaces an earlier output."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from groundup.core.artifact import FORMAT_VERSION, accept, begin, read
from groundup.core.checksums import write_checked_json
from groundup.core.errors import ConfigError, FormatError, ResourceError
from groundup.core.files import read_json


def finish_stage(directory: Path, *, stage: str = "collect", key: int = 1) -> Path:
    """Write a finished output with one file, and return its directory."""
    work = begin(directory, stage, {"key": key}, {})
    (directory / "made.txt").write_text(f"{key}")
    work.finish({}, [directory / "made.txt"])
    return directory


def test_equal_work_is_done_and_other_work_replaces_it(tmp_path: Path) -> None:
    out = finish_stage(tmp_path / "out")
    assert begin(out, "collect", {"key": 1}, {}).state == "done"
    work = begin(out, "collect", {"key": 2}, {})
    assert work.state == "fresh"
    assert (out / "made.txt").read_text() == "1"
    (work.directory / "made.txt").write_text("2")
    work.finish({}, [work.directory / "made.txt"])
    assert (out / "made.txt").read_text() == "2"
    [replaced] = tmp_path.glob("out.replaced-*")
    assert (replaced / "made.txt").read_text() == "1"
    assert read(replaced).config == {"key": 1}


def test_the_output_of_another_stage_is_refused(tmp_path: Path) -> None:
    """In an earlier release, `tokenize CORPUS --out CORPUS` renamed its own input."""
    out = finish_stage(tmp_path / "corpus")
    with pytest.raises(ConfigError, match="is the output of collect"):
        begin(out, "tokenize", {}, {})
    assert begin(out, "collect", {"key": 1}, {}).state == "done"


def test_a_finished_stage_with_deleted_files_is_not_done(tmp_path: Path) -> None:
    out = finish_stage(tmp_path / "out")
    (out / "made.txt").unlink()
    assert begin(out, "collect", {"key": 1}, {}).state == "fresh"


def test_failed_attempts_without_files_leave_no_directory(tmp_path: Path) -> None:
    """In an earlier release, each invalid command left an additional directory."""
    for key in range(3):
        begin(tmp_path / "out", "collect", {"key": key}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_one_process_at_a_time(tmp_path: Path) -> None:
    """In an earlier release, two `groundup collect` processes with the same --out deleted each other's files."""
    work = begin(tmp_path / "out", "collect", {}, {})
    code = (
        "import sys, pathlib; from groundup.core.artifact import begin; "
        "begin(pathlib.Path(sys.argv[1]), 'collect', {}, {})"
    )
    other = subprocess.run([sys.executable, "-c", code, tmp_path / "out"], capture_output=True, text=True)
    assert ResourceError.__name__ in other.stderr
    (tmp_path / "out" / "made.txt").touch()
    work.finish({}, [tmp_path / "out" / "made.txt"])
    assert subprocess.run([sys.executable, "-c", code, tmp_path / "out"], capture_output=True).returncode == 0
    assert not (tmp_path / "out" / ".lock").exists()


def test_an_invalid_record_is_an_error(tmp_path: Path) -> None:
    out = finish_stage(tmp_path / "out")
    (out / "artifact.json").write_text("{}")
    with pytest.raises(FormatError, match=r"artifact\.json"):
        read(out)


def test_a_record_of_another_format_is_refused_with_a_fix_that_helps(tmp_path: Path) -> None:
    """The error advised to run the stage again, which raised the same error."""
    out = finish_stage(tmp_path / "out")
    record = out / "artifact.json"
    write_checked_json(record, read_json(record) | {"format_version": FORMAT_VERSION - 1})
    for reading in (read, lambda _: accept(record), lambda _: begin(out, "collect", {"key": 1}, {})):
        with pytest.raises(FormatError, match=f"format_version {FORMAT_VERSION - 1}.* Delete its directory"):
            reading(out)
    shutil.rmtree(out)
    assert read(finish_stage(out)).format_version == FORMAT_VERSION


def test_nested_temporary_files_are_deleted(tmp_path: Path) -> None:
    """If a process is killed while it writes a checkpoint, a temporary file remains in a temporary directory."""
    begin(tmp_path / "out", "pretrain", {}, {})
    half = tmp_path / "out" / "checkpoints" / ".step-00000038.oe2d0q.tmp"
    half.mkdir(parents=True)
    (half / ".state.json.yab2oy4d.tmp").write_text("{")
    assert begin(tmp_path / "out", "pretrain", {}, {}).state == "resumed"
    assert list((tmp_path / "out" / "checkpoints").iterdir()) == []
