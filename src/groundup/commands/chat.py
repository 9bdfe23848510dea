"""`groundup chat`: a conversation with a model in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from groundup.core.config import Config, setting
from groundup.core.console import Console, print_now

EXAMPLE = "groundup chat runs/quickstart"


class ChatConfig(Config):
    """Whom to talk to, and how it answers."""

    model: Path = setting(help="model directory, or a run (its newest language model)", positional=True)
    system: str | None = setting(None, help="what the model is told before the conversation", flag=True)
    temperature: float = setting(0.8, help="0 takes the likeliest token; 1 is as random as the text", flag=True)
    top_p: float = setting(0.95, help="draw from the likeliest tokens that make up this mass", flag=True)
    max_tokens: int | None = setting(512, help="tokens of an answer at most", flag=True)
    seed: int | None = setting(None, help="the same seed gives the same conversation", flag=True)
    base: Path | None = setting(None, help="where an adapter's base lies now", flag=True)
    device: str | None = setting(None, help="cpu, cuda, ...; by default a GPU where there is one", flag=True)


def run(
    config: ChatConfig,
    *,
    console: Console | None = None,
    on_text: Callable[[str], object] = print_now,
    json_lines: bool = False,
) -> None:
    """Talk until the input ends. Without a terminal each line of stdin is a turn.

    A base model, which has no chat template, goes on with what is typed as with any text: that is what it can do,
    and shows what tuning would change.

    Args:
        on_text: takes what the model says, piece by piece.
        json_lines: give it one JSON object for each turn.

    Raises:
        DataError: no model there.
        ConfigError: a sampling option out of range, or a system message for a base model.
    """
    from groundup.chat import ChatFormat, PromptFormat, Session, Settings, Terminal, TextFormat
    from groundup.hub.resolve import open_chat_model
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
            f"{opened.directory} has no chat template: it goes on with what you type instead of answering. "
            "groundup finetune instruct makes a model that answers."
        )
    else:
        form = ChatFormat(template)
    if hasattr(sys.stdin, "reconfigure"):  # a byte that is no text must not end the conversation
        sys.stdin.reconfigure(errors="replace")
    with Engine(opened.model, opened.tokenizer) as engine:
        session = Session(engine, form)
        session.configure(settings)
        console.note(f"{opened.directory}: a context of {session.context_length} tokens. /help lists the commands.")
        Terminal(session, console, on_text, json_lines=json_lines).run()
