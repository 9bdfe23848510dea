"""Ollama's Modelfile for a GGUF file, with the chat template as a Go `text/template`.

Ollama only compares the Jinja template of a GGUF file with templates that it knows, and ignores others. This module
renders conversations of unique words with the model's template, and writes the text around them as a Go template. The
result is used only if it renders further conversations exactly like the original.
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
"""Maps (messages, add_generation_prompt) to text; raises `GroundupError` for conversations that the template rejects.
"""

Affixes = tuple[str, str]  # Text before and after a message's content.

# Words that no template contains, to find the content in the rendered text.
_USER, _ASSISTANT, _NEXT_USER, _SYSTEM = "Qzasked", "Qzsaid", "Qzaskedon", "Qztold"


@dataclass(frozen=True, slots=True)
class Turns:
    """A chat template with the same text around every turn.

    Attributes:
        opening: beginning without a system message.
        system_opening: beginning with a system message.
        system: text around a system message in its own turn; None: it is part of the first user turn.
        system_inside: text around a system message in the first user turn.
        user: text around user messages.
        assistant: text around assistant messages.
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
        """Return a conversation as Ollama renders it, with the generation prompt."""
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
        """Return the template in Go's template language with Ollama's variables."""
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
    """Return the text that a chat template puts around its turns; None if the template is more complex.

    Args:
        render: the model's template.
        bos: text of BOS, if the engine adds BOS itself.

    Returns:
        The turns, or None.
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
    """Return the text of a Modelfile.

    Args:
        gguf_name: name of the GGUF file, in the same directory.
        turns: chat template, if it could be converted.
        has_template: whether the model has a chat template.
        stops: texts of the stop tokens.
        context_length: context length in tokens.
        written_by: comment for the first line.

    Returns:
        The text.
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
    """Write a Modelfile next to a GGUF file and return its path.

    An existing Modelfile of another tool or for another file is kept; the new file is then named NAME.Modelfile.

    Args:
        gguf: the GGUF file.
        opened: the model.
        template: chat template; None: the model has none.
        adds_bos: whether the engine adds BOS itself.

    Returns:
        The path.
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
        raise ValueError("a turn changes the text before it")
    return whole[len(head) :]


def _before(whole: str, tail: str) -> str:
    if not whole.endswith(tail):
        raise ValueError("a turn depends on its position")
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
    # A Go string literal in an action, in which no brace, quote or line end is special. JSON escapes are valid in Go.
    return f"{{{{ {json.dumps(literal, ensure_ascii=False)} }}}}" if literal else ""
