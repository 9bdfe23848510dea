"""In an earlier release, a rejected setting renamed a finished output to `*.replaced-DATE` before it was rejected."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from groundup.commands import collect, pretrain, replaced, tokenize
from groundup.core.artifact import begin, read, replaced_in, working_directory
from groundup.core.errors import GroundupError, ResourceError
from groundup.core.locks import lock_directory

QUICK = {"compile": False, "checkpoint_seconds": 0, "num_evaluations": 0, "threads": 1, "tokens": 4096}
SMALL = {"dim": 32, "n_layers": 1, "context_length": 32}


@pytest.fixture(scope="module")
def finished(real_documents: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run with a finished corpus, token shards and a base model."""
    run = tmp_path_factory.mktemp("run")
    (run / "notes.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in real_documents))
    collect.run(collect.CollectConfig(folder=run / "notes.jsonl", out=run / "corpus", workers=1))
    tokenize.run(tokenize.TokenizeConfig(corpus=run / "corpus", out=run / "tokens", vocab_size=512))
    pretrain.run(pretrain.PretrainConfig(token_shards=run / "tokens", out=run / "base", shape=SMALL, **QUICK))
    return run


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


REFUSED: dict[str, Callable[[Path], object]] = {
    "a shape beyond the memory": lambda run: pretrain.PretrainConfig(
        token_shards=run / "tokens", out=run / "base", minutes=1, shape={"preset": "gpt3-175b"}, compile=False
    ),
    "a vocabulary that is no multiple of 64": lambda run: tokenize.TokenizeConfig(
        corpus=run / "corpus", out=run / "tokens", vocab_size=333
    ),
    "a vocabulary beyond the corpus": lambda run: tokenize.TokenizeConfig(
        corpus=run / "corpus", out=run / "tokens", vocab_size=1_000_000
    ),
    "a corpus that is too small": lambda run: collect.CollectConfig(
        folder=run / "notes.jsonl", out=run / "corpus", workers=1, min_bytes=1_000_000_000
    ),
}


@pytest.mark.parametrize("why", REFUSED)
def test_the_finished_output_stays(finished: Path, why: str) -> None:
    config = REFUSED[why](finished)
    stage = {"PretrainConfig": pretrain, "TokenizeConfig": tokenize, "CollectConfig": collect}[type(config).__name__]
    before = contents(finished / config.out.name)
    with pytest.raises(GroundupError):
        stage.run(config)
    after = contents(finished / config.out.name)
    after.pop(".lock", None)  # the lock of this test's process, which is still running
    assert after == before
    assert not list(finished.glob("*.replaced-*"))


def test_the_command_line_leaves_the_directory_as_it_was(finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in [*finished.rglob("*")] if path.is_file()}
    command = ["tokenize", "corpus", "--out", "tokens", "--set", "vocab_size=333"]
    done = subprocess.run([sys.executable, "-m", "groundup", *command], cwd=finished, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert {path: path.stat().st_mtime_ns for path in [*finished.rglob("*")] if path.is_file()} == before
    assert not list(finished.glob(".tokens*"))


KILLED = """
import os, signal, sys
from pathlib import Path
from groundup.core.artifact import begin
work = begin(Path(sys.argv[1]), "s", {"key": 2}, {})
(work.directory / "made.txt").write_text("half")
if len(sys.argv) > 2:  # in the instant between the record and the renaming
    Path.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    work.finish({}, [work.directory / "made.txt"])
os.kill(os.getpid(), signal.SIGKILL)
"""


def leave(directory: Path, key: int) -> None:
    work = begin(directory, "s", {"key": key}, {})
    (work.directory / "made.txt").write_text(f"{key}")
    work.finish({}, [work.directory / "made.txt"])


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_kill_leaves_the_earlier_output_and_the_work_resumes(tmp_path: Path) -> None:
    leave(tmp_path / "out", 1)
    assert subprocess.run([sys.executable, "-c", KILLED, tmp_path / "out"]).returncode == -signal.SIGKILL
    assert (tmp_path / "out" / "made.txt").read_text() == "1"
    assert begin(tmp_path / "out", "s", {"key": 1}, {}).state == "done"
    work = begin(tmp_path / "out", "s", {"key": 2}, {})
    assert work.state == "resumed"
    assert (work.directory / "made.txt").read_text() == "half"


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_kill_before_the_renaming_loses_nothing(tmp_path: Path) -> None:
    leave(tmp_path / "out", 1)
    assert subprocess.run([sys.executable, "-c", KILLED, tmp_path / "out", "1"]).returncode == -signal.SIGKILL
    assert begin(tmp_path / "out", "s", {"key": 2}, {}).state == "done"
    assert (tmp_path / "out" / "made.txt").read_text() == "half"
    [aside] = tmp_path.glob("out.replaced-*")
    assert (aside / "made.txt").read_text() == "1"


def test_two_processes_cannot_replace_one_output(tmp_path: Path) -> None:
    leave(tmp_path / "out", 1)
    work = begin(tmp_path / "out", "s", {"key": 2}, {})
    code = (
        "import pathlib, sys; from groundup.core.artifact import begin; begin(pathlib.Path(sys.argv[1]), 's', {}, {})"
    )
    other = subprocess.run([sys.executable, "-c", code, tmp_path / "out"], capture_output=True, text=True)
    assert ResourceError.__name__ in other.stderr
    assert working_directory(tmp_path / "out") == work.directory
    work.abandon()
    lock_directory(tmp_path / "out", fix="").close()
    assert (tmp_path / "out" / "made.txt").read_text() == "1"


def test_replaced_outputs_are_listed_and_removed_and_nothing_else(tmp_path: Path) -> None:
    for key in (1, 2, 3):
        leave(tmp_path / "run" / "out", key)
        time.sleep(0.01)
    (tmp_path / "run" / "mine.replaced-20250101-000000").mkdir()
    (tmp_path / "run" / "mine.replaced-20250101-000000" / "notes.txt").write_text("of the user")
    (tmp_path / "run" / "other.replaced-by-me").mkdir()
    assert [each.stage for each in replaced_in(tmp_path)] == ["s", "s"]
    said: list[str] = []
    replaced.run(replaced.ReplacedConfig(directory=tmp_path), on_text=said.append)
    assert sum("out.replaced-" in line for line in said) == 2
    assert len(replaced_in(tmp_path)) == 2  # listing removes nothing
    replaced.run(replaced.ReplacedConfig(directory=tmp_path, remove=True), on_text=said.append)
    assert replaced_in(tmp_path) == []
    assert read(tmp_path / "run" / "out").config == {"key": 3}
    assert (tmp_path / "run" / "mine.replaced-20250101-000000" / "notes.txt").is_file()
    assert (tmp_path / "run" / "other.replaced-by-me").is_dir()
