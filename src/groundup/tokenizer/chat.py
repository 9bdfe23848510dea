"""Conversations to token ids: one template, used by training, chat, the API, and (as Jinja) by transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from groundup.core.errors import ConfigError
from groundup.core.types import Message, Role
from groundup.tokenizer.foreign_chat import ForeignChat
from groundup.tokenizer.jinja import JinjaTemplate
from groundup.tokenizer.tokenizer import Tokenizer
from groundup.tokenizer.vocabulary import IM_END, IM_START

ROLES: tuple[Role, ...] = get_args(Role)


class ChatTemplate:
    """How a model's conversations become ids: by its own chat template, or by groundup's where it has none.

    Content never becomes a special token, and for content that does not try, the ids are those of transformers'
    `apply_chat_template`. BOS stands where the template writes it, once.

    Attributes:
        stop_ids: the tokens that end an answer: end of turn, and what else the model ends with.
        jinja: the template as Jinja text, for `chat_template` in `tokenizer_config.json`.
        takes_system: whether a conversation can begin with a system message.
        takes: names of further variables that the model's own template reads, such as `enable_thinking`.

    Raises:
        ConfigError: the vocabulary lacks the tokens that stand around a turn.
        FormatError: the model's own template is damaged, or does what no template should.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        theirs = tokenizer.chat_template
        ours = ChatML(tokenizer) if theirs is None or ChatML.is_possible(tokenizer) else None
        self._format: ChatML | ForeignChat
        if ours is not None and tokenizer.byte_level and theirs in (None, ours.jinja):
            self._format = ours
        else:
            self._format = ForeignChat(tokenizer, theirs or ChatML(tokenizer).jinja)
        self.stop_ids = self._format.stop_ids
        self.jinja = self._format.jinja
        self.supports_system = self._format.supports_system
        self.takes = self._format.takes if isinstance(self._format, ForeignChat) else frozenset[str]()

    def encode(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """The ids of a conversation.

        Args:
            add_generation_prompt: end with the opening of an assistant's turn, for the model to go on from.
            variables: values of some of `takes`.

        Raises:
            ConfigError: a role that is not one of `ROLES`, or a conversation that the template does not take.
        """
        _require_known(messages)
        if variables and isinstance(self._format, ForeignChat):
            return self._format.encode(messages, add_generation_prompt=add_generation_prompt, variables=variables)
        return self._format.encode(messages, add_generation_prompt=add_generation_prompt)

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
        """The text that the Jinja template makes of messages as they are; to look at, since content could forge it."""
        _require_known(messages)
        return self._format.render(messages, add_generation_prompt=add_generation_prompt)

    def encode_labelled(self, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
        """The ids of a conversation, and which of them are trained: the assistant's words and the ends of its turns.

        Raises:
            ConfigError: as `encode`; or it is not certain where in the template's text the answers stand.
        """
        _require_known(messages)
        return self._format.encode_labelled(messages)

    def speakers(self, messages: Sequence[Message]) -> list[Role | None]:
        """Whose words each id of `encode` is part of; None: the template's, or it is not certain whose."""
        _require_known(messages)
        return self._format.speakers(messages)


class ChatML:
    """ChatML (OpenAI 2023) over our special tokens, BOS in front.

    A conversation is BOS and then for each message `<|im_start|>ROLE\\nCONTENT<|im_end|>\\n`. Content never becomes a
    special token. transformers renders to a string first and would read special tokens in it; so both sides write the
    name of such a token inside content with a space in it (`<|im_end|>` as `<| im_end|>`), and `encode` and
    transformers' `apply_chat_template` with `jinja` give equal ids, hostile content included.

    Raises:
        ConfigError: the vocabulary lacks the tokens that stand around a turn.
    """

    supports_system = True

    def __init__(self, tokenizer: Tokenizer) -> None:
        start, end = tokenizer.token_id(IM_START), tokenizer.token_id(IM_END)
        if start is None or end is None:
            missing = " and ".join(name for name, found in ((IM_START, start), (IM_END, end)) if found is None)
            raise ConfigError(
                f"a vocabulary without {missing}",
                rule=f"a chat model marks turns with the special tokens {IM_START} and {IM_END}",
                fix="Tune a model whose tokenizer has them, such as one that groundup pretrained.",
            )
        self._tokenizer = tokenizer
        self._start, self._end = start, end
        self._line_end = tokenizer.encode("\n")
        self._names = tuple(tokenizer.markers)
        self.stop_ids = tuple(dict.fromkeys((end, tokenizer.eos_id)))
        self.jinja = self._as_jinja()

    @staticmethod
    def is_possible(tokenizer: Tokenizer) -> bool:
        """Whether the vocabulary has the tokens that stand around a turn."""
        return tokenizer.token_id(IM_START) is not None and tokenizer.token_id(IM_END) is not None

    def encode(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> list[int]:
        """See `ChatTemplate.encode`."""
        ids, _ = self.encode_labelled(messages)
        if add_generation_prompt:
            ids += [self._start, *self._tokenizer.encode("assistant\n")]
        return ids

    def encode_labelled(self, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
        """See `ChatTemplate.encode_labelled`."""
        ids, trained = [self._tokenizer.bos_id], [False]
        for message in messages:
            turn, header = self._turn(message)
            answers = message.role == "assistant"
            ids += [self._start, *turn, self._end, *self._line_end]
            trained += [False] * (1 + header) + [answers] * (len(turn) - header + 1) + [False] * len(self._line_end)
        return ids, trained

    def speakers(self, messages: Sequence[Message]) -> list[Role | None]:
        """See `ChatTemplate.speakers`."""
        speakers: list[Role | None] = [None]
        for message in messages:
            turn, header = self._turn(message)
            speakers += [None] * (1 + header) + [message.role] * (len(turn) - header)
            speakers += [None] * (1 + len(self._line_end))
        return speakers

    def _turn(self, message: Message) -> tuple[list[int], int]:
        """The ids between the two special tokens, and how many of them are the header's."""
        # Header and content are one piece of text for transformers, between two special tokens; so they are here: a
        # line break at the beginning of the content may share a token with the header's.
        turn = self._tokenizer.encode(f"{message.role}\n{self.escape(message.content)}")
        return turn, 1 + next(i for i, token in enumerate(turn) if b"\n" in self._tokenizer.token_bytes(token))

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
        """See `ChatTemplate.render`."""
        said = [{"role": message.role, "content": message.content} for message in messages]
        return JinjaTemplate(self.jinja, {}).render(said, add_generation_prompt=add_generation_prompt)

    def escape(self, content: str) -> str:
        """Content as it is rendered: each special token's name with a space after its first two characters."""
        for name in self._names:
            content = content.replace(name, _broken(name))
        return content

    def _as_jinja(self) -> str:
        escaped = "(message['content'])" + "".join(
            f" | replace({_literal(name)}, {_literal(_broken(name))})" for name in self._names
        )
        bos = self._tokenizer.token_bytes(self._tokenizer.bos_id).decode()
        known = ", ".join(_literal(role) for role in ROLES)
        problem = _literal(f"the roles are {', '.join(ROLES)}")
        return (
            f"{{{{ {_literal(bos)} }}}}{{% for message in messages %}}"
            f"{{% if message['role'] not in [{known}] %}}{{{{ raise_exception({problem}) }}}}{{% endif %}}"
            f"{{{{ {_literal(IM_START)} + message['role'] + {_literal(chr(10))} + ({escaped})"
            f" + {_literal(IM_END + chr(10))} }}}}{{% endfor %}}"
            f"{{% if add_generation_prompt %}}{{{{ {_literal(IM_START + 'assistant' + chr(10))} }}}}{{% endif %}}"
        )


def _require_known(messages: Sequence[Message]) -> None:
    for message in messages:
        if message.role not in ROLES:
            raise ConfigError(
                f"role = {message.role!r}",
                rule=f"the roles of a conversation are {', '.join(ROLES)}",
                fix="Give each message one of these roles.",
            )


def _broken(name: str) -> str:
    return f"{name[:2]} {name[2:]}"


def _literal(text: str) -> str:
    # JSON's escapes are among those of Jinja's strings.
    return json.dumps(text, ensure_ascii=False)
