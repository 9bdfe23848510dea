"""`groundup chat`: chat with a model in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from groundup.core.config import Config, setting
from groundup.core.console import Console, print_now
from groundup.core.types import InferenceDtype

EXAMPLE = "groundup chat runs/quickstart"


class ChatConfig(Config):
    """Settings of `groundup chat`."""

    model: Path = setting(help="Model directory, or a run (its newest language model)", positional=True)
    system: str | None = setting(None, help="System message", flag=True)
    index: Path | None = setting(None, help="Answer from the documents of this index, with citations", flag=True)
    temperature: float = setting(0.8, help="Sampling temperature; 0 is greedy", flag=True)
    top_p: float = setting(0.95, help="Cumulative probability for nucleus sampling", flag=True)
    max_tokens: int | None = setting(512, help="Maximum number of tokens per answer", flag=True, gt=0)
    seed: int | None = setting(None, help="Random seed", flag=True)
    base: Path | None = setting(None, help="Base model of an adapter, if it was moved", flag=True)
    device: str | None = setting(None, help="Device, such as cpu or cuda; default: a GPU if available", flag=True)
    dtype: InferenceDtype = setting("auto", help="Weight format; auto: bfloat16 if possible", flag=True)
    quality: bool = setting(True, help="Print the quality of int8 and int4 weights, measured once per model")


def run(
    config: ChatConfig,
    *,
    console: Console | None = None,
    on_text: Callable[[str], object] = print_now,
    json_lines: bool = False,
) -> None:
    """Chat with a model until the input ends. If stdin is not a terminal, each line of stdin is a message.

    A base model has no chat template, so it continues the text that the user types.

    Args:
        config: Settings of the command.
        console: Console for messages.
        on_text: Function that is called with each piece of an answer.
        json_lines: Whether to print a JSON object for each turn.

    Raises:
        DataError: The directory does not contain a model.
        ConfigError: A sampling setting is out of range, or a system message is given for a base model.
    """
    from groundup.chat import ChatFormat, PromptFormat, Session, Settings, Terminal, TextFormat
    from groundup.hub.loading import open_chat_model
    from groundup.inference import Engine

    console = console or Console()
    settings = Settings(
        system=config.system,
        temperature=config.temperature,
        top_p=config.top_p,
        max_tokens=config.max_tokens,
        seed=config.seed,
    )
    opened, template = open_chat_model(config.model, config.device, console, base=config.base)
    form: PromptFormat
    if template is None:
        form = TextFormat(opened.tokenizer, opened.stop_ids)
        console.warn(
            f"{opened.directory} has no chat template: it continues your text instead of answering. "
            "To get a chat model, use groundup finetune instruct."
        )
    else:
        form = ChatFormat(template)
    if hasattr(sys.stdin, "reconfigure"):  # invalid UTF-8 in the input must not end the chat
        sys.stdin.reconfigure(errors="replace")
    with Engine.of(opened, config.dtype) as engine:
        if config.quality and config.dtype in ("int8", "int4") and not console.quiet:
            from groundup.evaluation.quantization import quality_note

            console.note(quality_note(opened, engine.runner))
        session = Session(engine, form)
        session.configure(settings)
        if config.index is not None:
            session.open_index(config.index)
        console.note(f"{opened.directory}: context of {session.context_length:,} tokens. /help lists the commands.")
        Terminal(session, console, on_text, json_lines=json_lines).run()
