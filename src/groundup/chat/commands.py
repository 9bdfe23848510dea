"""What a person can do besides talking: /help and its like."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from enum import Enum, auto
from pathlib import Path
from typing import Any

from groundup.chat.session import Session
from groundup.core.config import unknown_key
from groundup.core.errors import ConfigError
from groundup.core.files import atomic_file, expand_home


class Action(Enum):
    """What is left to the one who shows the conversation."""

    RETRY = auto()
    QUIT = auto()


@dataclass(frozen=True, slots=True)
class Command:
    """One command.

    Attributes:
        argument: what may follow the name, as help shows it.
        about: what it does, in a few words.
        run: does it; returns what to say, or an action.
    """

    argument: str
    about: str
    run: Callable[[Session, str], str | Action]


def is_command(line: str) -> bool:
    """Whether a line is a command; "//" begins a message that begins with "/"."""
    return line.startswith("/") and not line.startswith("//")


def run_command(line: str, session: Session) -> str | Action:
    """Run the command in a line.

    Raises:
        ConfigError: there is no such command, or its argument is wrong.
    """
    name, _, argument = line.removeprefix("/").partition(" ")
    name = _ALIASES.get(name, name)
    if name not in COMMANDS:
        raise unknown_key(f"/{name}", f"/{name}", [f"/{known}" for known in COMMANDS], kind="command")
    return COMMANDS[name].run(session, argument.strip())


def _help(session: Session, argument: str) -> str:
    rows = [(f"/{name} {command.argument}".rstrip(), command.about) for name, command in COMMANDS.items()]
    rows += [('"""', "begins and ends a message of several lines"), ("//...", "a message that begins with /")]
    width = max(len(usage) for usage, _ in rows)
    return "\n".join(f"{usage:{width}}  {about}" for usage, about in rows)


def _reset(session: Session, argument: str) -> str:
    session.reset()
    return "A new conversation."


def _system(session: Session, argument: str) -> str:
    if not argument:
        return f"system: {session.settings.system or 'none'}"
    system = None if argument == "none" else argument
    session.configure(replace(session.settings, system=system))
    return "No system message." if system is None else "The model is told so before the conversation."


def _number(name: str, kind: type[int] | type[float], *, optional: bool = False) -> Callable[[Session, str], str]:
    """A command that shows a number among the settings, or sets it."""

    def command(session: Session, argument: str) -> str:
        if argument:
            value: Any = None
            if not (optional and argument == "none"):
                try:
                    value = kind(argument)
                except ValueError:
                    wanted = "a whole number" if kind is int else "a number"
                    fix = f"Give {wanted}" + (", or none." if optional else ".")
                    raise ConfigError(f"/{name} {argument[:40]}", rule=f"{name} is {wanted}", fix=fix) from None
            session.configure(replace(session.settings, **{name: value}))
        value = getattr(session.settings, name)
        return f"{name} = {'none' if value is None else value}"

    return command


def _undo(session: Session, argument: str) -> str:
    turn = session.undo()
    line = turn.prompt.splitlines()[0] if turn.prompt.strip() else turn.prompt
    return f"Forgotten: {line[:60]!r} and its answer."


def _retry(session: Session, argument: str) -> Action:
    return Action.RETRY


def _quit(session: Session, argument: str) -> Action:
    return Action.QUIT


def _save(session: Session, argument: str) -> str:
    """One line of JSON that `groundup finetune instruct` reads as an example."""
    if not argument:
        raise ConfigError("/save", rule="it needs a file name", fix="Type, for example, /save talk.jsonl.")
    path = expand_home(Path(argument))
    messages = [asdict(message) for message in session.messages]
    try:
        if path.exists():
            raise ConfigError(f"{path} exists", rule="nothing is overwritten", fix="Give another name.")
        with atomic_file(path) as temporary:
            temporary.write_text(json.dumps({"messages": messages}, ensure_ascii=False) + "\n", encoding="utf-8")
    except (OSError, ValueError) as error:  # ValueError: a name that no system has
        said = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: {said}", rule="the file must be writable", fix="Choose another.") from error
    turns = len(session.turns)
    return f"{turns} turn{'' if turns == 1 else 's'} in {path}"


COMMANDS = {
    "help": Command("", "show this list", _help),
    "reset": Command("", "begin a new conversation", _reset),
    "system": Command("[TEXT|none]", "what the model is told beforehand", _system),
    "temperature": Command(
        "[NUMBER]", "0 takes the likeliest token; 1 is the model's own distribution", _number("temperature", float)
    ),
    "top_p": Command("[NUMBER]", "draw from the likeliest tokens of this mass", _number("top_p", float)),
    "max_tokens": Command("[NUMBER|none]", "tokens of an answer at most", _number("max_tokens", int, optional=True)),
    "seed": Command("[NUMBER|none]", "the same seed, the same conversation", _number("seed", int, optional=True)),
    "undo": Command("", "forget the last turn", _undo),
    "retry": Command("", "answer the last message again", _retry),
    "save": Command("FILE", "write the conversation as a line of JSON", _save),
    "quit": Command("", "end (also Ctrl-D)", _quit),
}
_ALIASES = {"exit": "quit", "q": "quit", "bye": "quit", "?": "help", "clear": "reset"}
