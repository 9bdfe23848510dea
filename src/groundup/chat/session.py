"""A conversation with a model: what was said, what of it still fits, and the next answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from groundup.core.errors import ConfigError, GroundupError
from groundup.core.types import Message
from groundup.inference import Engine, FinishReason, GenerationRequest, Sampling
from groundup.inference.prompting import PromptFormat

_SEEDS = 2**63
_ANSWER_SHARE = 4  # an answer gets a fourth of the context, if it may be that long, before old turns have to go


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How answers are drawn.

    Attributes:
        system: what the model is told before the conversation; None: nothing.
        max_tokens: tokens of an answer at most; None: to the end of the context.
        seed: makes the whole conversation repeatable; each answer has draws of its own.

    Raises:
        ConfigError: a value out of its range.
    """

    system: str | None = None
    temperature: float = 0.8
    top_p: float = 0.95
    max_tokens: int | None = 512
    seed: int | None = None

    def __post_init__(self) -> None:
        self.request((0,), ())  # a wrong value is best named when it is given

    def request(
        self, ids: Sequence[int], stop_ids: tuple[int, ...] | None, draw: int = 0, *, is_reply: bool = True
    ) -> GenerationRequest:
        """The request for an answer; `draw` counts the answers since the seed was set."""
        return GenerationRequest(
            prompt=tuple(ids),
            is_reply=is_reply,
            sampling=Sampling(temperature=self.temperature, top_p=self.top_p),
            max_tokens=self.max_tokens,
            stop_ids=stop_ids,
            seed=(self.seed + draw) % _SEEDS if self.seed is not None and draw else self.seed,
        )


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and its answer.

    Attributes:
        prompt: what the person typed.
        text: what the model answered.
        finish_reason: "stop", "length" or "cancelled" (the answer so far is kept).
        dropped_turns: how many of the oldest turns the model no longer saw.
    """

    prompt: str
    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    dropped_turns: int
    seconds: float


@dataclass(slots=True, eq=False)
class Session:
    """A running conversation.

    Attributes:
        turns: everything said since the beginning or the last reset, dropped turns included.
    """

    engine: Engine
    format: PromptFormat
    settings: Settings = field(default_factory=Settings)
    turns: list[Turn] = field(default_factory=list)
    _draws: int = 0
    _dropped: int = 0  # where the last window began: it seldom moves back, so the search begins there
    _running: str | None = None
    _stopping: bool = False

    @property
    def context_length(self) -> int:
        """Tokens that the conversation and the next answer share."""
        return self.engine.model.config.context_length

    @property
    def messages(self) -> list[Message]:
        """The whole conversation."""
        return self._messages(self.turns)

    def configure(self, settings: Settings) -> None:
        """Use other settings from the next answer on.

        Raises:
            ConfigError: a system message for a model without chat template.
        """
        if settings.system and not self.format.supports_system:
            raise ConfigError(
                "a system message",
                rule="only a model whose chat template has a place for it can be told something beforehand",
                fix="Use a model that groundup finetune instruct has made, or say it in the first question.",
            )
        if settings.seed != self.settings.seed:
            self._draws = 0
        self.settings = settings
        self._dropped = 0

    def ask(self, prompt: str, on_text: Callable[[str], object] | None = None) -> Turn:
        """Answer, and remember both. What is cancelled before its first word leaves no trace.

        Args:
            on_text: called with each piece of the answer.

        Raises:
            ConfigError: the prompt alone does not fit into the context.
        """
        ids, dropped = self.fit_turns(prompt)
        request = self.settings.request(ids, self.format.stop_ids, self._draws, is_reply=self.format.is_reply)
        started = time.monotonic()

        def hand_on(piece: str) -> None:
            if self._stopping:  # since before the engine knew the request
                self.engine.cancel(request.id)
            if on_text is not None:
                on_text(piece)

        self._running, self._stopping = request.id, False
        try:
            done = self.engine.complete(request, on_text=hand_on)
        finally:
            self._running = None
        self._draws += 1
        self._dropped = dropped
        turn = Turn(
            prompt,
            done.text,
            done.finish_reason,
            done.prompt_tokens,
            len(done.token_ids),
            dropped,
            round(time.monotonic() - started, 3),
        )
        if self._remembers(turn):
            self.turns.append(turn)
        return turn

    def retry(self, on_text: Callable[[str], object] | None = None) -> Turn:
        """Answer the last question again; without a new answer the old one stays. Arguments and errors as `ask`."""
        old = self.undo()
        try:
            turn = self.ask(old.prompt, on_text)
        except GroundupError:
            self.turns.append(old)
            raise
        if not self._remembers(turn):
            self.turns.append(old)
        return turn

    def cancel(self) -> None:
        """End the running answer; `ask` returns what there is of it. For a signal handler or another thread."""
        self._stopping = True
        if self._running is not None:
            self.engine.cancel(self._running)

    def undo(self) -> Turn:
        """Forget the last question and its answer.

        Raises:
            ConfigError: nothing was said yet.
        """
        if not self.turns:
            raise ConfigError("no turn", rule="something must have been said before", fix="Type a message first.")
        self._dropped = 0
        return self.turns.pop()

    def reset(self) -> None:
        """Begin a new conversation with the same settings."""
        self.turns.clear()
        self._dropped = 0

    def fit_turns(self, prompt: str) -> tuple[list[int], int]:
        """Return the ids of the newest turns that fit with the prompt, and how many older ones are left out.

        Raises:
            ConfigError: the prompt alone does not fit into the context.
        """
        reserved = self.context_length // _ANSWER_SHARE
        if self.settings.max_tokens is not None:
            reserved = min(reserved, self.settings.max_tokens)
        ids: list[int] = []
        for dropped in range(min(self._dropped, len(self.turns)), len(self.turns) + 1):
            ids = self.format.encode([*self._messages(self.turns[dropped:]), Message("user", prompt)])
            if len(ids) + reserved <= self.context_length:
                return ids, dropped
        if len(ids) >= self.context_length:
            raise ConfigError(
                f"a message of {len(ids)} tokens" + (", with the system message" if self.settings.system else ""),
                rule=f"message and answer share this model's context of {self.context_length} tokens",
                fix="Say it in fewer words.",
            )
        return ids, len(self.turns)

    @staticmethod
    def _remembers(turn: Turn) -> bool:
        return bool(turn.text) or turn.finish_reason != "cancelled"

    def _messages(self, turns: Sequence[Turn]) -> list[Message]:
        messages = [Message("system", self.settings.system)] if self.settings.system else []
        for turn in turns:
            messages += [Message("user", turn.prompt), Message("assistant", turn.text)]
        return messages
