"""The chat terminal works with scripted input. The tests of the command cover keyboard input."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from groundup.chat import ChatFormat, Session, Settings, Terminal, Turn
from groundup.core.console import Console
from groundup.inference import Engine
from groundup.tokenizer.chat import ChatTemplate

Talk = Callable[..., tuple[str, str, Session]]


@pytest.fixture
def talk(engine: Engine, template: ChatTemplate) -> Talk:
    """Return a function that sends lines to a session and returns stdout, stderr and the session."""

    def run(typed: str, *, quiet: bool = False, **options: Any) -> tuple[str, str, Session]:
        session = Session(engine, ChatFormat(template), Settings(max_tokens=6, seed=1))
        out, err = io.StringIO(), io.StringIO()
        console = Console(quiet=quiet, stream=err)
        Terminal(session, console, out.write, stdin=io.StringIO(typed), **options).run()
        return out.getvalue(), err.getvalue(), session

    return run


def prompts(session: Session) -> list[str]:
    return [turn.prompt for turn in session.turns]


def test_each_line_is_a_turn(talk: Talk) -> None:
    out, err, session = talk("Hello\r\n\n   \nAnd then?")
    assert prompts(session) == ["Hello", "And then?"]
    assert all(turn.text.strip("\x00\ufffd ")[:3] in out for turn in session.turns)
    assert err == ""


def test_json_lines_hold_each_turn_whole(talk: Talk) -> None:
    out, _, session = talk("Hello\n/temperature 0\nAgain\n", json_lines=True)
    first, second = (json.loads(line) for line in out.splitlines())
    assert (first["prompt"], first["text"]) == ("Hello", session.turns[0].text)
    assert (second["prompt"], second["completion_tokens"], second["dropped_turns"]) == ("Again", 6, 0)
    assert out.isascii(), "JSON does not escape C1 control characters"


def test_json_lines_hold_errors_too(talk: Talk) -> None:
    out, err, _ = talk("word " * 600 + "\n/nope\nHello\n", json_lines=True)
    long, unknown, fine = (json.loads(line) for line in out.splitlines())
    assert "512" in long["error"]["rule"] and unknown["error"]["kind"] == "ConfigError"
    assert fine["text"], "the session must continue after an error"
    assert "error: " in err


def test_a_message_of_several_lines(talk: Talk) -> None:
    _, _, session = talk('"""def f():\n\n    return 1"""\n"""\none\n"""\n"""single"""\n')
    assert prompts(session) == ["def f():\n\n    return 1", "one", "single"]


def test_an_unclosed_block_is_sent_with_a_warning(talk: Talk) -> None:
    _, err, session = talk('"""one\ntwo')
    assert prompts(session) == ["one\ntwo"]
    assert "closing" in err


def test_commands(talk: Talk) -> None:
    lines = [
        "/temperature 0",
        "/top_p 0.5",
        "/max_tokens none",
        "/seed none",
        "/max_tokens 3",
        "/system Be brief.",
        "Hello",
        "/temperature",
    ]
    _, err, session = talk("\n".join(lines))
    assert session.settings == Settings(system="Be brief.", temperature=0, top_p=0.5, max_tokens=3, seed=None)
    assert "temperature = 0" in err
    _, err, session = talk("One\nTwo\n/undo\n/retry\n/system none\n/help\n/quit\nNever")
    assert prompts(session) == ["One"]
    for command in ("/help", "/reset", "/system", "/undo", "/retry", "/save FILE", "/quit"):
        assert command in err
    assert prompts(talk("One\n/reset\nTwo")[2]) == ["Two"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/rest", "unknown command '/rest'; did you mean '/reset'?"),
        ("/temperature hot", "a number"),
        ("/temperature -1", "temperature must be 0 or more"),
        ("/temperature nan", "temperature"),
        ("/max_tokens 1.5", "a whole number"),
        ("/seed none none", "a whole number"),
        ("/undo", "conversation is empty"),
        ("/retry", "conversation is empty"),
        ("/save", "file name"),
        ("/save \0", "cannot write"),
        ("/save ~no-such-user-here/talk.jsonl", "in full"),
        ("/save /no/such/\0", "cannot write"),
        ("/save " + "x" * 5000, "cannot write"),
        ("/", "unknown command"),
    ],
)
def test_an_invalid_command_is_an_error_and_the_session_continues(talk: Talk, line: str, said: str) -> None:
    _, err, session = talk(f"{line}\nHello\n")
    assert "error: " in err
    assert said in err
    assert prompts(session) == ["Hello"]


def test_two_slashes_start_a_message_with_a_slash(talk: Talk) -> None:
    assert prompts(talk("//etc/hosts is what?")[2]) == ["/etc/hosts is what?"]


def test_save_writes_an_example_and_overwrites_nothing(talk: Talk, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "talk.jsonl"
    _, err, _ = talk(f"/system Be brief.\nHällo\n/save {path}\n/reset\n/save {path}\n")
    [line] = path.read_text(encoding="utf-8").splitlines()
    messages = json.loads(line)["messages"]
    assert [message["role"] for message in messages] == ["system", "user", "assistant"]
    assert messages[1]["content"] == "Hällo"
    assert "already exists" in err


def test_dropped_turns_are_reported_when_their_number_changes(talk: Talk) -> None:
    _, err, session = talk("".join(f"Question {i}: {'what is this? ' * 12}\n" for i in range(12)))
    steps = [turn.dropped_turns for turn in session.turns]
    assert err.count("Dropped the oldest") == len({n for n in steps if n}) > 0


def test_a_model_cannot_control_the_terminal(engine: Engine, template: ChatTemplate) -> None:
    """The output has escape sequences for the title, colors, the cursor, the clipboard and the writing direction."""
    hostile = ["a\x1b]52;c;ZXZpbA==\x07", "\x9b2J", "b\r", "\nc\rd", "\u202eevil\x00\x7f"]

    class Hostile(Session):
        def ask(self, prompt: str, on_text: Callable[[str], object] | None = None) -> Turn:
            assert on_text is not None
            for piece in hostile:
                on_text(piece)
            return Turn(prompt, "".join(hostile), "stop", 1, 1, 0, 0.0)

    out = io.StringIO()
    session = Hostile(engine, ChatFormat(template))
    Terminal(session, Console(stream=io.StringIO()), out.write, stdin=io.StringIO("Hi\n")).run()
    assert out.getvalue() == "a�]52;c;ZXZpbA==��2Jb\nc�d�evil��\n"
