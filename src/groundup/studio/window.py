"""The end of a context: which turns of a conversation a model still sees. The same as in `groundup chat`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from groundup.chat import ChatFormat, ConversationFormat, Session, Settings, TextFormat
from groundup.chat.session import Turn
from groundup.serve import ServedModel


@dataclass(frozen=True, slots=True)
class Window:
    """What fits.

    Attributes:
        dropped: number of the oldest turns that are left out.
        context_length: tokens that the conversation and the next answer share.
    """

    dropped: int
    context_length: int


def window_of(
    served: ServedModel,
    turns: Sequence[tuple[str, str]],
    prompt: str,
    *,
    system: str = "",
    max_tokens: int | None = None,
) -> Window:
    """Drop the oldest turns until the rest, the prompt and an answer fit into the context.

    Args:
        turns: (what a person said, the answer), oldest first.
        system: left out for a model without a place for it.
        max_tokens: of the answer, for which up to a quarter of the context is reserved.

    Raises:
        ConfigError: the prompt alone does not fit.
    """
    form: ConversationFormat
    form = ChatFormat(served.template) if served.template else TextFormat(served.tokenizer, ())
    settings = Settings(system=system if system and form.takes_system else None, max_tokens=max_tokens)
    said = [Turn(user, answer, "stop", 0, 0, 0, 0.0) for user, answer in turns]
    session = Session(served.engine, form, settings, said)
    _, dropped = session.fitting(prompt)
    return Window(dropped, session.context_length)
