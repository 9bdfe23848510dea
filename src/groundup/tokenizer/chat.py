"""Chat templates, which encode conversations for training, chat and the API."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from groundup.core.errors import ConfigError
from groundup.core.types import Message, Role
from groundup.tokenizer.external_chat import ExternalChat
from groundup.tokenizer.jinja import JinjaTemplate
from groundup.tokenizer.tokenizer import Tokenizer
from groundup.tokenizer.tool_format import ToolFormat, Tools
from groundup.tokenizer.vocabulary import IM_END, IM_START

ROLES: tuple[Role, ...] = ("system", "user", "assistant")  # roles of messages in training data


class ChatTemplate:
    """The chat template of a model. If a model has no chat template, groundup's ChatML template is used.

    The content of a message is never encoded as a special token. For content without the names of special tokens, the
    token ids are equal to the token ids of `apply_chat_template` in transformers.

    Args:
        tokenizer: The tokenizer of the model.

    Attributes:
        stop_ids: Ids of the tokens that end an answer: the end-of-turn token and the other stop tokens of the model.
        jinja: The Jinja template, as in `chat_template` of `tokenizer_config.json`.
        supports_system: Whether a conversation may start with a system message.
        variable_names: Names of optional variables that the template uses, such as `enable_thinking`.

    Raises:
        ConfigError: The model has no chat template and its vocabulary lacks the ChatML tokens, or its chat template
            does not support a conversation of a question and an answer.
        FormatError: The chat template of the model is invalid or exceeds a limit.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        own = tokenizer.chat_template
        chatml = ChatML(tokenizer) if own is None or ChatML.is_possible(tokenizer) else None
        self._format: ChatML | ExternalChat
        if chatml is not None and tokenizer.byte_level and own in (None, chatml.jinja):
            self._format = chatml
        else:
            self._format = ExternalChat(tokenizer, own or ChatML(tokenizer).jinja)
        self.stop_ids = self._format.stop_ids
        self.jinja = self._format.jinja
        self.supports_system = self._format.supports_system
        self.variable_names = (
            self._format.variable_names if isinstance(self._format, ExternalChat) else frozenset[str]()
        )

    def encode(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = False,
        variables: Mapping[str, Any] | None = None,
        tools: Tools = (),
    ) -> list[int]:
        """Return the token ids of a conversation.

        Args:
            messages: The conversation.
            add_generation_prompt: Whether to append the start of an assistant turn, so that the model generates the
                answer.
            variables: Values of template variables, keyed by a name from `variable_names`.
            tools: Descriptions of the functions that the model may call, in the format of OpenAI's API.

        Raises:
            ConfigError: A role is unknown, the template does not accept the conversation, or the conversation has
                tools and the template does not support them.
        """
        if tools or any(message.role == "tool" or message.tool_calls for message in messages):
            messages = self._with_rendered_calls(messages)
        else:
            _require_known(messages)
        if isinstance(self._format, ExternalChat):
            return self._format.encode(
                messages, add_generation_prompt=add_generation_prompt, variables=variables, tools=tools
            )
        return self._format.encode(messages, add_generation_prompt=add_generation_prompt)

    @cached_property
    def tool_format(self) -> ToolFormat | None:
        """The format in which the model writes tool calls, or None if the template does not support tools."""
        return self._format.tool_format if isinstance(self._format, ExternalChat) else None

    def _with_rendered_calls(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Return the messages, with tool calls as content if the template does not render tool calls."""
        found = self.tool_format
        if found is None:
            raise ConfigError(
                "a conversation with tools",
                rule="the model's chat template does not support tools",
                fix="Omit tools and their calls, or use a model whose chat template supports tools, such as Qwen 2.5.",
            )
        if found.is_rendered:
            return messages
        return [
            Message(m.role, f"{m.content}\n{found.text(m.tool_calls)}".lstrip()) if m.tool_calls else m
            for m in messages
        ]

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
        """Render a conversation as text with the Jinja template.

        The text is for display only and must not be encoded, because message content can contain special tokens.

        Args:
            messages: The conversation.
            add_generation_prompt: Whether to append the start of an assistant turn.
        """
        _require_known(messages)
        return self._format.render(messages, add_generation_prompt=add_generation_prompt)

    def encode_labeled(self, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
        """Return the token ids of a conversation, and for each token whether it contributes to the training loss.

        The tokens of the assistant's answers contribute to the loss, including the end-of-turn tokens after them.

        Args:
            messages: The conversation.

        Raises:
            ConfigError: See `encode`. `ConfigError` is also raised if the positions of the answers in the rendered text
                are ambiguous.
        """
        _require_known(messages)
        return self._format.encode_labeled(messages)

    def token_roles(self, messages: Sequence[Message]) -> list[Role | None]:
        """Return, for each token of `encode`, the role of the message whose content contains the token.

        The role is None for tokens that belong to the template, and for tokens whose message cannot be determined.

        Args:
            messages: The conversation.
        """
        _require_known(messages)
        return self._format.token_roles(messages)


class ChatML:
    r"""The chat template of groundup: ChatML (OpenAI 2023) with a BOS token.

    A conversation starts with BOS, followed by `<|im_start|>ROLE\nCONTENT<|im_end|>\n` for each message. The content of
    a message is never encoded as a special token. `apply_chat_template` of transformers renders the conversation to a
    string first and would then parse special tokens in message content. The template and `encode` therefore insert a
    space into the names of special tokens in content (`<|im_end|>` becomes `<| im_end|>`). As a result, `encode` and
    `apply_chat_template` give the same token ids for any content.

    Args:
        tokenizer: The tokenizer of the model.

    Raises:
        ConfigError: The vocabulary does not contain the tokens for the start and end of a turn.
    """

    supports_system = True

    def __init__(self, tokenizer: Tokenizer) -> None:
        start, end = tokenizer.token_id(IM_START), tokenizer.token_id(IM_END)
        if start is None or end is None:
            missing = " and ".join(name for name, found in ((IM_START, start), (IM_END, end)) if found is None)
            raise ConfigError(
                f"vocabulary without {missing}",
                rule=f"chat models need the special tokens {IM_START} and {IM_END}",
                fix="Fine-tune a model whose tokenizer has these tokens, such as a model pretrained with groundup.",
            )
        self._tokenizer = tokenizer
        self._start, self._end = start, end
        self._line_end = tokenizer.encode("\n")
        self._names = tuple(tokenizer.control_tokens)
        self.stop_ids = tuple(dict.fromkeys((end, tokenizer.eos_id)))
        self.jinja = self._as_jinja()

    @staticmethod
    def is_possible(tokenizer: Tokenizer) -> bool:
        """Return whether the vocabulary contains the tokens for the start and end of a turn."""
        return tokenizer.token_id(IM_START) is not None and tokenizer.token_id(IM_END) is not None

    def encode(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> list[int]:
        """See `ChatTemplate.encode`."""
        ids, _ = self.encode_labeled(messages)
        if add_generation_prompt:
            ids += [self._start, *self._tokenizer.encode("assistant\n")]
        return ids

    def encode_labeled(self, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
        """See `ChatTemplate.encode_labeled`."""
        ids, trained = [self._tokenizer.bos_id], [False]
        for message in messages:
            turn, header = self._turn(message)
            is_answer = message.role == "assistant"
            ids += [self._start, *turn, self._end, *self._line_end]
            trained += [False] * (1 + header) + [is_answer] * (len(turn) - header + 1) + [False] * len(self._line_end)
        return ids, trained

    def token_roles(self, messages: Sequence[Message]) -> list[Role | None]:
        """See `ChatTemplate.token_roles`."""
        speakers: list[Role | None] = [None]
        for message in messages:
            turn, header = self._turn(message)
            speakers += [None] * (1 + header) + [message.role] * (len(turn) - header)
            speakers += [None] * (1 + len(self._line_end))
        return speakers

    def _turn(self, message: Message) -> tuple[list[int], int]:
        """Return the token ids between the start and end of a turn, and the number of tokens in the turn header."""
        # The header and the content are encoded together, as in transformers. If the content starts with a line break,
        # this line break and the line break after the header may form one token.
        turn = self._tokenizer.encode(f"{message.role}\n{self.escape(message.content)}")
        return turn, 1 + next(i for i, token in enumerate(turn) if b"\n" in self._tokenizer.token_bytes(token))

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
        """See `ChatTemplate.render`."""
        conversation = [{"role": message.role, "content": message.content} for message in messages]
        return JinjaTemplate(self.jinja, {}).render(conversation, add_generation_prompt=add_generation_prompt)

    def escape(self, content: str) -> str:
        """Return the content with a space inserted after the first two characters of each special token name."""
        for name in self._names:
            content = content.replace(name, _escaped(name))
        return content

    def _as_jinja(self) -> str:
        escaped = "(message['content'])" + "".join(
            f" | replace({_literal(name)}, {_literal(_escaped(name))})" for name in self._names
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
        if message.role not in ROLES or message.tool_calls:
            raise ConfigError(
                "tool calls" if message.tool_calls else f"role = {message.role!r}",
                rule=f"the supported roles are {', '.join(ROLES)}",
                fix="Change the role of the message.",
            )


def _escaped(name: str) -> str:
    return f"{name[:2]} {name[2:]}"


def _literal(text: str) -> str:
    # Jinja supports all escapes of JSON strings.
    return json.dumps(text, ensure_ascii=False)
