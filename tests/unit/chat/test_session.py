"""Prompts and turns of a chat session are correct."""

from __future__ import annotations

from dataclasses import replace

import pytest

from groundup.chat import ChatFormat, Session, Settings, TextFormat
from groundup.core.errors import ConfigError
from groundup.core.types import Message
from groundup.inference import Engine, GenerationRequest, Sampling
from groundup.tokenizer import Tokenizer
from groundup.tokenizer.chat import ChatTemplate

SHORT = Settings(max_tokens=8, seed=1)
DEFAULT = Sampling(temperature=0.8, top_p=0.95)


@pytest.fixture
def session(engine: Engine, template: ChatTemplate) -> Session:
    return Session(engine, ChatFormat(template), SHORT)


def test_the_prompt_has_the_complete_conversation(session: Session, engine: Engine, template: ChatTemplate) -> None:
    """The prompt also contains the system message and the earlier answers."""
    session.configure(replace(SHORT, system="Be brief."))
    first, second = session.ask("Hello"), session.ask("And then?")
    talk = [
        Message("system", "Be brief."),
        Message("user", "Hello"),
        Message("assistant", first.text),
        Message("user", "And then?"),
    ]
    ids = tuple(template.encode(talk, add_generation_prompt=True))
    request = GenerationRequest(prompt=ids, sampling=DEFAULT, max_tokens=8, seed=2, stop_ids=template.stop_ids)
    assert second.text == engine.complete(request).text, (
        "the second answer must use the second random state of the seed"
    )
    assert second.prompt_tokens == len(ids)
    assert session.messages == [*talk, Message("assistant", second.text)]


def test_streamed_pieces_are_the_answer(session: Session) -> None:
    pieces: list[str] = []
    assert session.ask("Hello", pieces.append).text == "".join(pieces)
    assert len(pieces) > 1


def test_the_same_seed_gives_the_same_conversation(session: Session) -> None:
    said = [session.ask(text).text for text in ("a", "b")]
    session.reset()
    session.configure(replace(SHORT, seed=None))
    session.configure(SHORT)
    assert [session.ask(text).text for text in ("a", "b")] == said


def test_retry_draws_again(session: Session) -> None:
    """If retry used the same seed, the answer would not change."""
    first = session.ask("Hello")
    again = session.retry()
    assert again.text != first.text
    assert [turn.prompt for turn in session.turns] == ["Hello"]


def test_undo_and_reset_remove_turns(session: Session) -> None:
    first = session.ask("Hello")
    session.ask("Forget this")
    assert session.undo().prompt == "Forget this"
    assert session.turns == [first]
    session.reset()
    assert session.messages == []
    for nothing in (session.undo, session.retry):
        with pytest.raises(ConfigError, match="conversation is empty"):
            nothing()


def test_the_oldest_turns_are_dropped_first(session: Session, template: ChatTemplate) -> None:
    """The context has 512 tokens. A quarter of the context, or max_tokens, is reserved for the answer."""
    session.configure(replace(SHORT, system="Be brief."))
    turns = [session.ask(f"Question {i}: " + "what is this? " * 5) for i in range(20)]
    dropped = [turn.dropped_turns for turn in turns]
    assert dropped[0] == 0
    assert dropped == sorted(dropped) and dropped[-1] > 0
    assert all(turn.prompt_tokens + 8 <= 512 for turn in turns)
    kept = session.messages[1 + 2 * dropped[-1] : -2]
    shown = [Message("system", "Be brief."), *kept, Message("user", turns[-1].prompt)]
    assert turns[-1].prompt_tokens == len(template.encode(shown, add_generation_prompt=True))
    oldest = session.messages[1 + 2 * (dropped[-1] - 1) : -2]
    with_one_more = [Message("system", "Be brief."), *oldest, Message("user", turns[-1].prompt)]
    assert len(template.encode(with_one_more, add_generation_prompt=True)) + 8 > 512, (
        "one more turn would have fitted into the context"
    )
    assert len(session.turns) == 20, "turns that were dropped from the prompt must be kept for /save"


def test_dropped_turns_return_if_they_fit(session: Session) -> None:
    for i in range(20):
        session.ask(f"Question {i}: " + "what is this? " * 5)
    while len(session.turns) > 2:
        session.undo()
    assert session.ask("Short").dropped_turns == 0


def test_a_message_that_does_not_fit_is_an_error(session: Session) -> None:
    session.ask("Hello")
    with pytest.raises(ConfigError, match="context of 512 tokens"):
        session.ask("word " * 600)
    assert [turn.prompt for turn in session.turns] == ["Hello"]
    assert session.ask("Still there?").dropped_turns == 0


def test_a_long_message_gets_a_short_answer(session: Session, template: ChatTemplate) -> None:
    session.configure(replace(SHORT, max_tokens=None))
    text = "a"
    while len(template.encode([Message("user", text + " a")], add_generation_prompt=True)) < 508:
        text += " a"
    turn = session.ask(text)
    assert turn.prompt_tokens + turn.completion_tokens <= 512
    assert turn.completion_tokens <= 5


def test_retry_without_an_answer_keeps_the_old_one(session: Session) -> None:
    """The question no longer fits into the context because the system message is longer."""
    old = session.ask("Hello")
    session.configure(replace(SHORT, system="word " * 600))
    with pytest.raises(ConfigError):
        session.retry()
    assert session.turns == [old]


def test_a_partial_answer_is_kept(session: Session) -> None:
    """The user has already read the partial answer, so the next question may refer to it."""
    session.configure(replace(SHORT, max_tokens=None))
    pieces: list[str] = []

    def stop_soon(piece: str) -> None:
        pieces.append(piece)
        if len(pieces) == 3:
            session.cancel()

    turn = session.ask("Hello", stop_soon)
    assert turn.finish_reason == "cancelled"
    assert session.turns == [turn]
    assert turn.text == "".join(pieces)
    assert turn.completion_tokens < 400


def test_an_early_cancellation_is_not_lost(session: Session) -> None:
    """The user presses Ctrl-C while the prompt is still being tokenized."""
    session.configure(replace(SHORT, max_tokens=None))
    submit = session.engine.complete

    def interrupted(*args: object, **options: object) -> object:
        session.cancel()
        return submit(*args, **options)  # type: ignore[arg-type]

    session.engine.complete = interrupted  # type: ignore[method-assign,assignment]
    turn = session.ask("Hello")
    assert turn.finish_reason == "cancelled"
    assert turn.completion_tokens < 400


def test_cancel_without_a_running_answer_does_nothing(session: Session) -> None:
    session.cancel()
    assert session.ask("Hello").finish_reason == "length"


@pytest.mark.parametrize("wrong", [{"temperature": -1.0}, {"top_p": 0.0}, {"max_tokens": 0}, {"seed": -1}])
def test_invalid_settings_are_errors(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Settings(**wrong)  # type: ignore[arg-type]


def test_a_base_model_continues_the_text(engine: Engine, tokenizer: Tokenizer) -> None:
    """The model continues directly after the message, without a newline in between."""
    session = Session(engine, TextFormat(tokenizer, (tokenizer.eos_id,)), SHORT)
    first = session.ask("The with statement")
    alone = engine.complete(GenerationRequest(prompt="The with statement", max_tokens=8, seed=1, sampling=DEFAULT))
    assert first.text == alone.text
    assert session.ask("It").prompt_tokens == 1 + len(tokenizer.encode(f"The with statement{first.text}\nIt"))
    with pytest.raises(ConfigError, match="system message"):
        session.configure(replace(SHORT, system="Be brief."))
