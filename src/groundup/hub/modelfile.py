"""Ollama's Modelfile for a GGUF file, with the chat template as a Go `text/template`.

Ollama does not run the Jinja chat template of a GGUF file. Ollama recognizes some common templates, and ignores others.
This module therefore converts the Jinja template to a Go template. It renders conversations whose messages are unique
words, and writes the text around these words as a Go template. The Go template is used only if it renders other test
conversations exactly like the Jinja template.
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
from groundup.hub.loading import OpenedModel
from groundup.tokenizer import ChatTemplate

Render = Callable[[Sequence[Message], bool], str]
"""Function that renders (messages, add_generation_prompt) to text.

It raises `GroundupError` if the template does not support the conversation.
"""

Affixes = tuple[str, str]  # Text before and after the content of a message.

# Placeholder contents of messages. No chat template contains these words, so they can be found in the rendered text.
_USER, _ASSISTANT, _NEXT_USER, _SYSTEM = "Qzasked", "Qzsaid", "Qzaskedon", "Qztold"


@dataclass(frozen=True, slots=True)
class Turns:
    """A chat template that adds the same text before and after every message of a role.

    Attributes:
        opening: text at the beginning of a conversation that does not have a system message.
        system_opening: text at the beginning of a conversation that has a system message.
        system: text before and after a system message that is a separate turn; None if the template inserts the system
            message into the first user turn, or does not support it.
        system_inside: text before and after a system message that is inserted into the first user turn; None if the
            template does not insert it there.
        user: text before and after the content of a user message.
        assistant: text before and after the content of an assistant message.
        generation: generation prompt.
    """

    opening: str
    system_opening: str
    system: Affixes | None
    system_inside: Affixes | None
    user: Affixes
    assistant: Affixes
    generation: str

    def text(self, messages: Sequence[Message]) -> str:
        """Render a conversation and the generation prompt in the same way as Ollama."""
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
        """Return the chat template in Go's template language, with the variables that Ollama defines."""
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
            system_block = f"{before}{{{{ $.System }}}}{after}"
            inside = f"{{{{ if and $first $.System }}}}{system_block}{{{{ end }}}}{{{{ $first = false }}}}"
        lines += [
            "{{- range .Messages }}",
            f'{{{{- if eq .Role "user" }}}}{_go(self.user[0])}{inside}{{{{ .Content }}}}{_go(self.user[1])}',
            f'{{{{- else if eq .Role "assistant" }}}}{_content_block(self.assistant)}',
            *([f'{{{{- else if eq .Role "system" }}}}{_content_block(self.system)}'] if self.system else []),
            "{{- end }}",
            "{{- end }}" + _go(self.generation),
        ]
        return "\n".join(line for line in lines if line)


def find_turns(render: Render, *, bos: str = "") -> Turns | None:
    """Find the text that a chat template adds before and after messages.

    Args:
        render: function that renders the model's chat template.
        bos: text of the BOS token, if Ollama adds BOS itself; it is removed from the rendered text.

    Returns:
        The text around messages of each role; None if the template is too complex for `Turns`.
    """

    def text(messages: Sequence[Message], answer: bool = False) -> str:
        return render(messages, answer).removeprefix(bos)

    try:
        turns = _probe(text)
        return turns if turns and all(turns.text(c) == text(c, True) for c in _test_conversations(turns)) else None
    except (GroundupError, ValueError):
        return None


def modelfile(
    gguf_name: str,
    *,
    turns: Turns | None,
    has_template: bool,
    stops: Sequence[str],
    context_length: int,
    written_by: str,
) -> str:
    """Return the content of a Modelfile.

    Args:
        gguf_name: name of the GGUF file, which is in the same directory.
        turns: converted chat template; None if the model does not have a template or it could not be converted.
        has_template: whether the model has a chat template.
        stops: texts of the stop tokens.
        context_length: context length in tokens.
        written_by: comment for the first line of the Modelfile.

    Returns:
        The content of the Modelfile.
    """
    lines = [f"# {written_by}", "# ollama create NAME -f Modelfile", f"FROM ./{gguf_name}"]
    if turns:
        lines += [
            "# Unlike groundup's chat, Ollama does not escape special tokens in user messages.",
            f'TEMPLATE """{turns.go()}"""',
        ]
    elif has_template:
        lines.append("# No TEMPLATE: the chat template cannot be converted. Ollama uses the template in the GGUF file.")
    else:
        lines.append('TEMPLATE """{{ .Prompt }}"""')
    lines += [f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in dict.fromkeys(stops) if stop]
    return "\n".join([*lines, f"PARAMETER num_ctx {context_length}"]) + "\n"


def write_modelfile(gguf: Path, opened: OpenedModel, template: ChatTemplate | None, *, adds_bos: bool) -> Path:
    """Write a Modelfile next to a GGUF file and return the path of the Modelfile.

    If a Modelfile for another GGUF file, or from another tool, already exists, it is kept. The new file is then named
    NAME.Modelfile.

    Args:
        gguf: path of the GGUF file.
        opened: the exported model.
        template: chat template of the model; None if the model does not have a chat template.
        adds_bos: whether Ollama adds the BOS token itself.

    Returns:
        The path of the Modelfile.
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
        has_template=template is not None,
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
    asked = [Message("user", _USER)]
    said = [*asked, Message("assistant", _ASSISTANT)]
    first, answered, on = text(asked), text(said), text([*said, Message("user", _NEXT_USER)])
    generation = _after(first, text(asked, True))
    assistant = _split(_after(first, answered), _ASSISTANT)
    user = _split(_after(answered, on), _NEXT_USER)
    opening = _before(first, user[0] + _USER + user[1])
    system = system_inside = None
    system_opening = opening
    try:
        system_block = text([Message("system", _SYSTEM), *asked])
    except GroundupError:  # The template does not support system messages.
        return Turns(opening, opening, None, None, user, assistant, generation)
    if system_block.endswith(user[0] + _USER + user[1]):
        head = _before(system_block, user[0] + _USER + user[1])
        system = _split(head, _SYSTEM)
        system_opening = ""
    else:
        head, _ = _split(system_block, _SYSTEM)
        system_opening = _before(head, user[0]) if head.endswith(user[0]) else _shared(head, opening)
        inside = system_block.removeprefix(system_opening + user[0])
        system_inside = _split(_before(inside, _USER + user[1]), _SYSTEM)
    return Turns(opening, system_opening, system, system_inside, user, assistant, generation)


def _test_conversations(turns: Turns) -> list[list[Message]]:
    turn: list[Role] = ["user", "assistant"]
    roles: list[list[Role]] = [turn[:1], turn + turn[:1], turn + turn + turn[:1]]
    if turns.system or turns.system_inside:
        system_block: list[Role] = ["system"]
        roles += [system_block + each for each in roles]
    words = ("one", "two words", "three\nlines\n\nof it", '"quoted" {{ braces }}', "fünf", "six")
    return [[Message(role, word) for role, word in zip(each, words, strict=False)] for each in roles]


def _after(head: str, whole: str) -> str:
    if not whole.startswith(head):
        raise ValueError("a new turn changes the text of earlier turns")
    return whole[len(head) :]


def _before(whole: str, tail: str) -> str:
    if not whole.endswith(tail):
        raise ValueError("the text around a turn depends on its position in the conversation")
    return whole[: len(whole) - len(tail)]


def _split(turn: str, content: str) -> Affixes:
    before, found, after = turn.partition(content)
    if not found or content in after:
        raise ValueError("a message is omitted or repeated")
    return before, after


def _shared(text: str, opening: str) -> str:
    return opening if text.startswith(opening) else ""


def _content_block(around: Affixes | None) -> str:
    before, after = around or ("", "")
    return f"{_go(before)}{{{{ .Content }}}}{_go(after)}"


def _go(literal: str) -> str:
    # Braces, quotes and newlines inside a Go string literal cannot end the action. JSON escapes are valid in Go.
    return f"{{{{ {json.dumps(literal, ensure_ascii=False)} }}}}" if literal else ""
