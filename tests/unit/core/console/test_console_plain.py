"""If stderr is not a terminal, the console writes only a few lines, which contain no control codes."""

from __future__ import annotations

import io
import time

import pytest

from groundup.core.console import Console, visible
from groundup.core.errors import DataError


def test_markup_and_control_codes_are_not_interpreted() -> None:
    """Text from users and models may look like markup, or may contain control sequences of the terminal."""
    stream = io.StringIO()
    console = Console(stream=stream)
    console.note("[red]a[/red] :smile:")
    console.warn("[b]careful[/b]")
    console.error(DataError("notes: [0] bytes", rule="[some] text", fix="Give [more]."))
    console.sample("step [3]", "one\x1b]0;title\x07\ntwo [/] three\u202e")
    console.table("[t]", ["name", "bpb"], [["[model]", "1.97"]])
    console.rule("[end]")
    said = stream.getvalue()
    for piece in (
        "[red]a[/red] :smile:",
        "[b]careful[/b]",
        "notes: [0] bytes",
        "Give [more].",
        "[model]",
        "two [/]",
    ):
        assert piece in said
    assert "\x1b" not in said
    assert "\u202e" not in said


def test_long_lines_are_not_broken() -> None:
    """A path or command that is broken over two lines cannot be copied or searched."""
    stream = io.StringIO()
    path = "/".join(["directory"] * 50)
    Console(stream=stream).note(path)
    assert stream.getvalue() == path + "\n"


def test_quiet_shows_only_warnings_and_errors() -> None:
    stream = io.StringIO()
    console = Console(quiet=True, stream=stream)
    console.note("note")
    console.sample("title", "text")
    console.table("title", ["column"], [["cell"]])
    with console.stages({"collect": "about"}) as stages, console.progress("reading", 2, "files") as progress:
        stages.mark("collect", "running")
        progress.advance(2)
        stages.mark("collect", "done")
    assert stream.getvalue() == ""
    console.warn("warning text")
    console.error(DataError("value", rule="rule", fix="fix"))
    assert "warning text" in stream.getvalue()
    assert "value" in stream.getvalue()


@pytest.mark.parametrize("quiet", [False, True])
def test_a_command_that_another_command_runs_shows_only_progress(quiet: bool) -> None:
    """`groundup plan` trains models for a minute, whose notes are not of interest."""
    stream = io.StringIO()
    console = Console(quiet=quiet, stream=stream).progress_only()
    console.note("note")
    with console.progress("training", 2, "steps") as progress:
        progress.advance(2)
    assert ("training" in stream.getvalue()) is not quiet
    assert "note" not in stream.getvalue()


def test_progress_is_logged_by_percentage_and_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A log must not contain a line for each step, and must not be silent for an hour."""
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    stream = io.StringIO()
    with Console(stream=stream).progress("training", 1000, "steps") as progress:
        for _ in range(1000):  # with 1000 steps in 100 s, 10 % are reached every 10 s
            now += 0.1
            progress.show(loss="2.50")
            progress.advance()
    lines = stream.getvalue().splitlines()
    assert 9 <= len(lines) <= 12
    assert "training: 50 %, 0:50 left, 10.0 steps/s, 500 of 1.00k steps, loss 2.50" in lines
    assert lines[-1] == "training: 1.00k steps in 1:40 (10.0 steps/s), loss 2.50"


def test_work_of_unknown_length_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    stream = io.StringIO()
    with Console(stream=stream).progress("reading", None, "files") as progress:
        for _ in range(60):
            now += 1
            progress.advance()
    assert 5 <= len(stream.getvalue().splitlines()) <= 8


def test_a_failed_stage_is_not_shown_as_done() -> None:
    stream = io.StringIO()
    console = Console(stream=stream)
    with (
        pytest.raises(DataError),
        console.stages({"collect": "gather text"}) as stages,
        console.progress("reading", 2, "files"),
    ):
        stages.mark("collect", "running")
        raise DataError("value", rule="rule", fix="fix")
    assert stream.getvalue() == "[1/1] collect: gather text\n"


def test_visible_keeps_ordinary_text() -> None:
    assert visible("a\r\nb\tc\nd é 😀 👩‍💻") == "a\nb\tc\nd é 😀 👩‍💻"
    assert visible("\x00\x1b[2J\x9b") == "��[2J�"
