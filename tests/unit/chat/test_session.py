"""What the model is shown of a conversation, and what is remembered of it."""

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


def test_the_model_sees_the_whole_conversation(session: Session, engine: Engine, template: ChatTemplate) -> None:
    """With the system message in front, and its own answers as it gave them."""
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
    assert second.text == engine.complete(request).text, "the second answer has the second draws of the seed"
    assert second.prompt_tokens == len(ids)
    assert session.messages == [*talk, Message("assistant", second.text)]


def test_the_text_comes_in_pieces_and_whole(session: Session) -> None:
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
    """The same seed once more would give the same answer for ever."""
    first = session.ask("Hello")
    again = session.retry()
    assert again.text != first.text
    assert [turn.prompt for turn in session.turns] == ["Hello"]


def test_undo_and_reset_forget(session: Session) -> None:
    first = session.ask("Hello")
    session.ask("Forget this")
    assert session.undo().prompt == "Forget this"
    assert session.turns == [first]
    session.reset()
    assert session.messages == []
    for nothing in (session.undo, session.retry):
        with pytest.raises(ConfigError, match="no turn"):
            nothing()


def test_the_oldest_turns_go_first_and_are_counted(session: Session, template: ChatTemplate) -> None:
    """The context holds 512 tokens; a fourth of it, or what an answer may take, stays free for the answer."""
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
    assert len(template.encode(with_one_more, add_generation_prompt=True)) + 8 > 512, "it would have fitted"
    assert len(session.turns) == 20, "what the model no longer sees can still be saved"


def test_what_was_dropped_comes_back_when_there_is_room(session: Session) -> None:
    for i in range(20):
        session.ask(f"Question {i}: " + "what is this? " * 5)
    while len(session.turns) > 2:
        session.undo()
    assert session.ask("Short").dropped_turns == 0


def test_a_message_that_never_fits_is_refused_and_leaves_no_trace(session: Session) -> None:
    session.ask("Hello")
    with pytest.raises(ConfigError, match="context of 512 tokens"):
        session.ask("word " * 600)
    assert [turn.prompt for turn in session.turns] == ["Hello"]
    assert session.ask("Still there?").dropped_turns == 0


def test_a_message_that_takes_nearly_all_is_answered_in_the_rest(session: Session, template: ChatTemplate) -> None:
    session.configure(replace(SHORT, max_tokens=None))
    text = "a"
    while len(template.encode([Message("user", text + " a")], add_generation_prompt=True)) < 508:
        text += " a"
    turn = session.ask(text)
    assert turn.prompt_tokens + turn.completion_tokens <= 512
    assert turn.completion_tokens <= 5


def test_retry_without_an_answer_keeps_the_old_one(session: Session) -> None:
    """The system message has grown in between, and now the question does not fit any more."""
    old = session.ask("Hello")
    session.configure(replace(SHORT, system="word " * 600))
    with pytest.raises(ConfigError):
        session.retry()
    assert session.turns == [old]


def test_what_is_cancelled_in_the_middle_is_kept(session: Session) -> None:
    """The person has seen it, and the next question may be about it."""
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


def test_a_cancellation_that_comes_before_the_engine_knows_is_not_lost(session: Session) -> None:
    """Ctrl-C right after Enter, while the prompt is still being encoded."""
    session.configure(replace(SHORT, max_tokens=None))
    submit = session.engine.complete

    def interrupted(*args: object, **options: object) -> object:
        session.cancel()
        return submit(*args, **options)  # type: ignore[arg-type]

    session.engine.complete = interrupted  # type: ignore[method-assign,assignment]
    turn = session.ask("Hello")
    assert turn.finish_reason == "cancelled"
    assert turn.completion_tokens < 400


def test_cancel_without_an_answer_under_way_does_nothing(session: Session) -> None:
    session.cancel()
    assert session.ask("Hello").finish_reason == "length"


@pytest.mark.parametrize("wrong", [{"temperature": -1.0}, {"top_p": 0.0}, {"max_tokens": 0}, {"seed": -1}])
def test_a_wrong_setting_is_named_when_it_is_given(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Settings(**wrong)  # type: ignore[arg-type]


def test_a_base_model_goes_on_with_the_text(engine: Engine, tokenizer: Tokenizer) -> None:
    """Right after what was typed: a line end in between would ask for another text."""
    session = Session(engine, TextFormat(tokenizer, (tokenizer.eos_id,)), SHORT)
    first = session.ask("The with statement")
    alone = engine.complete(GenerationRequest(prompt="The with statement", max_tokens=8, seed=1, sampling=DEFAULT))
    assert first.text == alone.text
    assert session.ask("It").prompt_tokens == 1 + len(tokenizer.encode(f"The with statement{first.text}\nIt"))
    with pytest.raises(ConfigError, match="chat template"):
        session.configure(replace(SHORT, system="Be brief."))
