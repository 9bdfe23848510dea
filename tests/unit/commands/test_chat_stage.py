"""`groundup chat` runs as a process, with its input from a pipe or from a terminal."""

from __future__ import annotations

import io
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from groundup.commands.chat import ChatConfig, run
from groundup.core.config import load
from groundup.core.console import Console
from groundup.core.errors import ConfigError

# The command line runs the chat in the same way.
TALK = """
import json, sys
from groundup.core.config import load
from groundup.commands.chat import ChatConfig, run
settings = json.loads(sys.argv[1])
run(load(ChatConfig, settings), json_lines="--json" in sys.argv)
"""


def command(directory: Path, *options: str, **settings: object) -> list[str]:
    return [sys.executable, "-c", TALK, json.dumps({"model": str(directory), "seed": 1, **settings}), *options]


def test_each_line_of_a_pipe_gets_an_answer(chat_directory: Path) -> None:
    """A line with invalid UTF-8 also gets an answer."""
    done = subprocess.run(
        command(chat_directory, "--json", max_tokens=5), input=b"Hello\ncaf\xe9\nlast line", capture_output=True
    )
    assert done.returncode == 0, done.stderr
    turns = [json.loads(line) for line in done.stdout.splitlines()]
    assert [turn["prompt"] for turn in turns] == ["Hello", "caf�", "last line"]
    assert all(turn["completion_tokens"] == 5 for turn in turns)


def test_a_base_model_prints_a_warning(base_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The warning explains why the model continues the text instead of answering, and what the user can do."""
    monkeypatch.setattr("sys.stdin", io.StringIO("The with statement\n"))
    said, told = io.StringIO(), io.StringIO()
    config = load(ChatConfig, {"model": str(base_directory), "max_tokens": 5})
    run(config, console=Console(quiet=True, stream=told), on_text=said.write)
    assert said.getvalue().strip()
    assert "finetune instruct" in told.getvalue()
    with pytest.raises(ConfigError, match="system message"):
        run(load(ChatConfig, {"model": str(base_directory), "system": "Be brief."}))


EXTERNAL_TEMPLATE = "{% for m in messages %}{{ m.role + ': ' + m.content + eos_token }}{% endfor %}"


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        ("{{ 'another' }}", "does not contain the message"),
        ("{% for %}", "cannot be used"),
        (EXTERNAL_TEMPLATE, ""),
        (None, ""),
    ],
)
def test_an_unusable_template_prints_a_warning(
    chat_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, theirs: str | None, said: str
) -> None:
    """An imported model uses its own chat template. If that template cannot be used, the model has no template."""
    directory = shutil.copytree(chat_directory, tmp_path / "chat")
    path = directory / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | ({"chat_template": theirs} if theirs else {})), encoding="utf-8")
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    told = io.StringIO()
    run(load(ChatConfig, {"model": str(directory)}), console=Console(quiet=True, stream=told), on_text=lambda _: None)
    assert said in told.getvalue() and bool(said) == ("cannot be used" in told.getvalue())


@pytest.mark.skipif(os.name == "nt", reason="requires pseudo-terminals")
def test_ctrl_c_stops_the_answer_and_ctrl_d_the_session(endless_directory: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command(endless_directory, max_tokens=None, temperature=0),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"TERM": "dumb"},
    )
    os.close(theirs)
    screen = ""

    def read_until(done: Callable[[str], bool], seconds: float = 60) -> bool:
        nonlocal screen
        deadline = time.monotonic() + seconds
        while not done(screen) and time.monotonic() < deadline:
            if select.select([ours], [], [], 0.1)[0]:
                screen += os.read(ours, 65_536).decode("utf-8", "replace")
        return done(screen)

    def wait_for(text: str) -> None:
        """Wait until a text appears on the screen."""
        nonlocal screen
        assert read_until(lambda seen: text in seen), screen
        screen = screen.partition(text)[2]

    try:
        wait_for("/help lists the commands")
        wait_for(">>> ")
        while not read_until(lambda seen: "Press Ctrl-D or type /quit" in seen, 0.5):
            # The signal is sent repeatedly. If it arrives between readline's prompt and its wait for input, it has no
            # effect.
            process.send_signal(signal.SIGINT)
        wait_for("to quit")
        wait_for(">>> ")
        os.write(ours, b"Hello\n")
        wait_for("Hello\r\n")
        assert read_until(lambda seen: len(seen) > 50)
        process.send_signal(signal.SIGINT)
        wait_for("(stopped)")
        wait_for(">>> ")
        os.write(ours, b'"""\n')
        wait_for("... ")
        os.write(ours, b'one"""\n')
        wait_for("one")
        assert read_until(lambda seen: len(seen) > 50)
        process.send_signal(signal.SIGINT)
        wait_for(">>> ")
        os.write(ours, b"/max_tokens 3\n")
        wait_for("max_tokens = 3")
        os.write(ours, b"Again\n")
        wait_for("(cut: increase /max_tokens for more)")
        wait_for(">>> ")
        os.write(ours, b"\x04")
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
