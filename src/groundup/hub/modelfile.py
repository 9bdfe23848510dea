"""Ollama's Modelfile for a GGUF file. Its chat template is Go's `text/template`, found by trying the model's own.

Ollama reads a GGUF's Jinja template only to look for one of those that it knows; any other it takes for none. So the
model's template is asked to render conversations of marked words; what it puts around them is written down in Go's
language, and used only if it renders further conversations exactly as the model's own does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from groundup import __version__
from groundup.core.errors import GroundupError
from groundup.core.files import atomic_file
from groundup.core.types import Message, Role
from groundup.hub.resolve import OpenedModel
from groundup.tokenizer import ChatTemplate

Render = Callable[[Sequence[Message], bool], str]
"""(messages, whether to open the assistant's turn) -> text; raises `GroundupError` for what the template refuses."""

Around = tuple[str, str]  # what stands before and after a message's content

# Words that no template has: where they come out, there the content stands.
_ASKED, _SAID, _ASKED_ON, _TOLD = "Qzasked", "Qzsaid", "Qzaskedon", "Qztold"


@dataclass(frozen=True, slots=True)
class Turns:
    """A chat template as far as it is the same for every turn.

    Attributes:
        opening: what stands first where there is no system message.
        system_opening: what stands first where there is one.
        system: around a system message in a turn of its own; None: it goes into the first user's turn.
        system_inside: around it there, before the user's words.
        user, assistant: around their messages.
        generation: what opens the answer.
    """

    opening: str
    system_opening: str
    system: Around | None
    system_inside: Around | None
    user: Around
    assistant: Around
    generation: str

    def text(self, messages: Sequence[Message]) -> str:
        """A conversation as Ollama will render it, ready to be answered."""
        system = next((m.content for m in messages if m.role == "system"), None)
        parts = [self.opening if system is None else self.system_opening]
        inside = self.system_inside if system is not None else None
        for message in messages:
            if message.role == "system":
                around = self.system or ("", "")
                parts += [around[0], message.content, around[1]] if self.system else []
                continue
            around = self.user if message.role == "user" else self.assistant
            parts.append(around[0])
            if message.role == "user" and inside:
                parts += [inside[0], system or "", inside[1]]
                inside = None
            parts += [message.content, around[1]]
        return "".join([*parts, self.generation])

    def go(self) -> str:
        """The same in Go's template language, with Ollama's variables."""
        lines = []
        if self.opening == self.system_opening:
            lines.append(_go(self.opening))
        else:
            lines.append(f"{{{{- if .System }}}}{_go(self.system_opening)}")
            lines.append(f"{{{{- else }}}}{_go(self.opening)}")
            lines.append("{{- end }}")
        inside = ""
        if self.system_inside:
            lines.append("{{- $first := true }}")
            before, after = map(_go, self.system_inside)
            told = f"{before}{{{{ $.System }}}}{after}"
            inside = f"{{{{ if and $first $.System }}}}{told}{{{{ end }}}}{{{{ $first = false }}}}"
        lines += [
            "{{- range .Messages }}",
            f'{{{{- if eq .Role "user" }}}}{_go(self.user[0])}{inside}{{{{ .Content }}}}{_go(self.user[1])}',
            f'{{{{- else if eq .Role "assistant" }}}}{_around(self.assistant)}',
            *([f'{{{{- else if eq .Role "system" }}}}{_around(self.system)}'] if self.system else []),
            "{{- end }}",
            "{{- end }}" + _go(self.generation),
        ]
        return "\n".join(line for line in lines if line)


def find_turns(render: Render, *, bos: str = "") -> Turns | None:
    """What a chat template puts around its turns; None where it is more than that.

    Args:
        render: the model's own template.
        bos: the text of BOS, if the engine adds that token by itself: it must not come twice.
    """

    def text(messages: Sequence[Message], answer: bool = False) -> str:
        return render(messages, answer).removeprefix(bos)

    try:
        turns = _probe(text)
        return turns if turns and all(turns.text(c) == text(c, True) for c in _trials(turns)) else None
    except (GroundupError, ValueError):
        return None


def modelfile(
    gguf_name: str, *, turns: Turns | None, chats: bool, stops: Sequence[str], context_length: int, written_by: str
) -> str:
    """The text of a Modelfile.

    Args:
        gguf_name: the file's name, in the same directory.
        turns: of its chat template, if it was understood.
        chats: whether the model has a chat template at all.
        stops: texts of the tokens that end an answer.
        written_by: the first line, a comment.
    """
    lines = [f"# {written_by}", "# ollama create NAME -f Modelfile", f"FROM ./{gguf_name}"]
    if turns:
        lines += [
            "# Names of special tokens that a user types are not taken apart here, as groundup's own chat does.",
            f'TEMPLATE """{turns.go()}"""',
        ]
    elif chats:
        lines.append("# No TEMPLATE: the chat template is more than text around turns. Ollama tries the GGUF's own.")
    else:
        lines.append('TEMPLATE """{{ .Prompt }}"""')
    lines += [f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in dict.fromkeys(stops) if stop]
    return "\n".join([*lines, f"PARAMETER num_ctx {context_length}"]) + "\n"


def write_modelfile(gguf: Path, opened: OpenedModel, template: ChatTemplate | None, *, adds_bos: bool) -> Path:
    """Write a Modelfile next to a GGUF file and return its path.

    A Modelfile that groundup did not write, or wrote for another file, is not overwritten: the new one is then called
    NAME.Modelfile.

    Args:
        template: None: the model has none.
        adds_bos: whether the engine adds BOS by itself.
    """
    tokenizer = opened.tokenizer
    turns = None
    if template is not None:

        def render(messages: Sequence[Message], answer: bool) -> str:
            return template.render(messages, add_generation_prompt=answer)

        bos = tokenizer.token_bytes(tokenizer.bos_id).decode(errors="replace")
        turns = find_turns(render, bos=bos if adds_bos else "")
    text = modelfile(
        gguf.name,
        turns=turns,
        chats=template is not None,
        stops=[tokenizer.decode([token], skip_special_tokens=False) for token in opened.stop_ids],
        context_length=opened.model.config.context_length,
        written_by=f"Written by groundup {__version__} for {gguf.name}",
    )
    target = gguf.with_name("Modelfile")
    ours = re.compile(rf"# Written by groundup \S+ for {re.escape(gguf.name)}\n")
    if target.is_file() and not ours.match(_first_line(target)):
        target = gguf.with_name(f"{gguf.stem}.Modelfile")
    with atomic_file(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return target


def _first_line(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.readline(1000)


def _probe(text: Callable[..., str]) -> Turns | None:
    asked = [Message("user", _ASKED)]
    said = [*asked, Message("assistant", _SAID)]
    first, answered, on = text(asked), text(said), text([*said, Message("user", _ASKED_ON)])
    generation = _after(first, text(asked, True))
    assistant = _split(_after(first, answered), _SAID)
    user = _split(_after(answered, on), _ASKED_ON)
    opening = _before(first, user[0] + _ASKED + user[1])
    system = system_inside = None
    system_opening = opening
    try:
        told = text([Message("system", _TOLD), *asked])
    except GroundupError:  # a template without system messages
        return Turns(opening, opening, None, None, user, assistant, generation)
    if told.endswith(user[0] + _ASKED + user[1]):
        head = _before(told, user[0] + _ASKED + user[1])
        system = _split(head, _TOLD)
        system_opening = ""
    else:
        head, _ = _split(told, _TOLD)
        system_opening = _before(head, user[0]) if head.endswith(user[0]) else _shared(head, opening)
        inside = told.removeprefix(system_opening + user[0])
        system_inside = _split(_before(inside, _ASKED + user[1]), _TOLD)
    return Turns(opening, system_opening, system, system_inside, user, assistant, generation)


def _trials(turns: Turns) -> list[list[Message]]:
    turn: list[Role] = ["user", "assistant"]
    roles: list[list[Role]] = [turn[:1], turn + turn[:1], turn + turn + turn[:1]]
    if turns.system or turns.system_inside:
        told: list[Role] = ["system"]
        roles += [told + each for each in roles]
    words = ("one", "two words", "three\nlines\n\nof it", '"quoted" {{ braces }}', "fünf", "six")
    return [[Message(role, word) for role, word in zip(each, words, strict=False)] for each in roles]


def _after(head: str, whole: str) -> str:
    if not whole.startswith(head):
        raise ValueError("turns change what stood before them")
    return whole[len(head) :]


def _before(whole: str, tail: str) -> str:
    if not whole.endswith(tail):
        raise ValueError("a turn differs by its place")
    return whole[: len(whole) - len(tail)]


def _split(turn: str, content: str) -> Around:
    before, found, after = turn.partition(content)
    if not found or content in after:
        raise ValueError("a message is left out, or told twice")
    return before, after


def _shared(text: str, opening: str) -> str:
    return opening if text.startswith(opening) else ""


def _around(around: Around | None) -> str:
    before, after = around or ("", "")
    return f"{_go(before)}{{{{ .Content }}}}{_go(after)}"


def _go(literal: str) -> str:
    # A string of Go's inside an action: no brace, quote or line end can mean anything else. JSON's escapes are Go's.
    return f"{{{{ {json.dumps(literal, ensure_ascii=False)} }}}}" if literal else ""
