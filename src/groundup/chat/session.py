"""Chat sessions: the messages of a conversation, their truncation to the context, and the generation of answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from groundup.core.errors import ConfigError, GroundupError, ResourceError
from groundup.core.types import Message
from groundup.inference import Engine, FinishReason, GenerationRequest, Sampling
from groundup.inference.prompting import PromptFormat
from groundup.retrieval import Index, Reader, answer_question

_NUM_SEEDS = 2**63
# The answer gets at least a quarter of the context. If necessary, old turns are dropped from the prompt.
_ANSWER_FRACTION = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Generation settings of a chat session.

    Attributes:
        system: System message, or None for no system message.
        temperature: Sampling temperature. 0 means greedy decoding.
        top_p: Cumulative probability for nucleus sampling.
        max_tokens: Maximum number of tokens per answer. If it is None, an answer may fill the rest of the context.
        seed: Random seed of the conversation, or None for a random seed.

    Raises:
        ConfigError: A setting is out of range.
    """

    system: str | None = None
    temperature: float = 0.8
    top_p: float = 0.95
    max_tokens: int | None = 512
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.max_tokens == 0:
            raise ConfigError("max_tokens = 0", rule="must be positive", fix="Set e.g. 512, or omit it.")
        self.request((0,), ())  # raises an error if a setting is out of range

    def request(
        self, ids: Sequence[int], stop_ids: tuple[int, ...] | None, draw: int = 0, *, is_reply: bool = True
    ) -> GenerationRequest:
        """Return the generation request for the next answer.

        Args:
            ids: Token IDs of the prompt.
            stop_ids: IDs of the stop tokens.
            draw: Number of answers that were generated since the seed was set.
            is_reply: Whether the answer is a chat reply. The value is false if the model has no chat template.
        """
        return GenerationRequest(
            prompt=tuple(ids),
            is_reply=is_reply,
            sampling=Sampling(temperature=self.temperature, top_p=self.top_p),
            max_tokens=self.max_tokens,
            stop_ids=stop_ids,
            seed=(self.seed + draw) % _NUM_SEEDS if self.seed is not None and draw else self.seed,
        )


@dataclass(frozen=True, slots=True)
class Turn:
    """A user message and the answer of the model.

    Attributes:
        prompt: User message.
        text: Text of the answer.
        finish_reason: "stop", "length" or "cancelled". The text of a cancelled answer is kept.
        prompt_tokens: Number of prompt tokens.
        completion_tokens: Number of generated tokens.
        dropped_turns: Number of old turns that were left out of the prompt because the context is too short.
        seconds: Wall time of the answer in seconds.
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
    """A conversation with a model.

    Attributes:
        engine: Inference engine that generates the answers.
        format: Prompt format that the model expects.
        settings: Generation settings for the next answer.
        turns: All turns since the conversation started or was reset, including turns that no longer fit into the
            context.
        index: Index from whose documents questions are answered, or None to chat with the model.
    """

    engine: Engine
    format: PromptFormat
    settings: Settings = field(default_factory=Settings)
    turns: list[Turn] = field(default_factory=list)
    index: Index | None = None
    _draws: int = 0
    # Number of turns that the last prompt left out. The next prompt leaves out at least the same number of turns.
    _dropped: int = 0
    _running: str | None = None
    _stopping: bool = False
    _reader: Reader | None = None

    @property
    def context_length(self) -> int:
        """Context length of the model in tokens."""
        return self.engine.model.config.context_length

    @property
    def messages(self) -> list[Message]:
        """All messages of the conversation."""
        return self._messages(self.turns)

    def configure(self, settings: Settings) -> None:
        """Change the settings for the following answers.

        Args:
            settings: New settings.

        Raises:
            ConfigError: The settings contain a system message, but the chat template does not support system messages.
        """
        if settings.system and not self.format.supports_system:
            raise ConfigError(
                "this model does not support a system message",
                fix="Use a model from groundup finetune instruct, or add the text to your first message.",
            )
        if settings.seed != self.settings.seed:
            self._draws = 0
        self.settings = settings
        self._dropped = 0

    def ask(self, prompt: str, on_text: Callable[[str], object] | None = None) -> Turn:
        """Generate an answer and add the turn to the conversation.

        If the answer is cancelled before its first token, the turn is not added.

        Args:
            prompt: User message.
            on_text: Function that is called with each piece of the answer.

        Returns:
            The turn with the message and the answer.

        Raises:
            ConfigError: The message does not fit into the context, even without earlier turns.
        """
        if self.index is not None:
            return self._ask_documents(self.index, prompt, on_text)
        ids, dropped = self.fit_turns(prompt)
        request = self.settings.request(ids, self.format.stop_ids, self._draws, is_reply=self.format.is_reply)
        started = time.monotonic()

        def forward(piece: str) -> None:
            if self._stopping:  # `cancel` was called before the engine received the request
                self.engine.cancel(request.id)
            if on_text is not None:
                on_text(piece)

        self._running, self._stopping = request.id, False
        try:
            done = self.engine.complete(request, on_text=forward)
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
        if self._is_kept(turn):
            self.turns.append(turn)
        return turn

    def open_index(self, directory: Path | None) -> None:
        """Answer the following questions from the documents of an index. Each question is answered on its own.

        Args:
            directory: Output directory of `groundup index`, or None to chat with the model.

        Raises:
            DataError: The directory is not an index.
            FormatError: A file is damaged, or another version of groundup wrote the index.
        """
        self.index = None if directory is None else Index.open(directory)

    def _ask_documents(self, index: Index, prompt: str, on_text: Callable[[str], object] | None) -> Turn:
        started = time.monotonic()
        self._stopping = False
        self._reader = Reader(self.engine, self.format)
        try:
            found = answer_question(index, prompt, self._reader)
        except ResourceError:
            if not self._stopping:
                raise
            return Turn(prompt, "", "cancelled", 0, 0, 0, round(time.monotonic() - started, 3))
        finally:
            self._reader = None
        places = [f"[{citation.number}] {citation.place}: {citation.quote}" for citation in found.citations]
        text = "\n".join([found.text, *(" ".join(place.split()) for place in places)])
        if on_text is not None:
            on_text(text)
        turn = Turn(prompt, text, "stop", found.prompt_tokens, found.completion_tokens, 0, round(found.seconds, 3))
        self.turns.append(turn)
        return turn

    def retry(self, on_text: Callable[[str], object] | None = None) -> Turn:
        """Generate another answer to the last message. The previous answer is kept if no new answer is generated.

        Args:
            on_text: Function that is called with each piece of the answer.

        Returns:
            The turn with the new answer.

        Raises:
            ConfigError: The conversation is empty.
        """
        old = self.undo()
        try:
            turn = self.ask(old.prompt, on_text)
        except GroundupError:
            self.turns.append(old)
            raise
        if not self._is_kept(turn):
            self.turns.append(old)
        return turn

    def cancel(self) -> None:
        """Stop the generation of the answer, so that `ask` returns the partial answer.

        This method may be called from a signal handler or from another thread.
        """
        self._stopping = True
        if self._running is not None:
            self.engine.cancel(self._running)
        if (reader := self._reader) is not None:
            reader.cancel()

    def undo(self) -> Turn:
        """Remove the last turn from the conversation.

        Returns:
            The turn that was removed.

        Raises:
            ConfigError: The conversation is empty.
        """
        if not self.turns:
            raise ConfigError("the conversation is empty", fix="Type a message first.")
        self._dropped = 0
        return self.turns.pop()

    def reset(self) -> None:
        """Start a new conversation. The settings are kept."""
        self.turns.clear()
        self._dropped = 0

    def fit_turns(self, prompt: str) -> tuple[list[int], int]:
        """Encode a message together with the newest turns that fit into the context.

        Args:
            prompt: User message.

        Returns:
            Token IDs of the prompt, and the number of old turns that were left out.

        Raises:
            ConfigError: The message does not fit into the context, even without earlier turns.
        """
        reserved = self.context_length // _ANSWER_FRACTION
        if self.settings.max_tokens is not None:
            reserved = min(reserved, self.settings.max_tokens)
        ids: list[int] = []
        for dropped in range(min(self._dropped, len(self.turns)), len(self.turns) + 1):
            ids = self.format.encode([*self._messages(self.turns[dropped:]), Message("user", prompt)])
            if len(ids) + reserved <= self.context_length:
                return ids, dropped
        if len(ids) >= self.context_length:
            raise ConfigError(
                f"the message has {len(ids):,} tokens" + (" with the system message" if self.settings.system else ""),
                rule=f"message and answer share the context of {self.context_length:,} tokens",
                fix="Shorten the message.",
            )
        return ids, len(self.turns)

    @staticmethod
    def _is_kept(turn: Turn) -> bool:
        return bool(turn.text) or turn.finish_reason != "cancelled"

    def _messages(self, turns: Sequence[Turn]) -> list[Message]:
        messages = [Message("system", self.settings.system)] if self.settings.system else []
        for turn in turns:
            messages += [Message("user", turn.prompt), Message("assistant", turn.text)]
        return messages
