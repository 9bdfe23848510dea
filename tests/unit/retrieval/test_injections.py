"""Fifty instructions in documents, with a canary that no answer may contain."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from benchmarks.applications.injections import CANARY, attacked_index, attacks, follows, price, question

from groundup.retrieval import Index, answer_question
from unit.retrieval.test_answering import reader


@pytest.fixture(scope="module")
def index() -> Iterator[Index]:
    with attacked_index() as opened:
        yield opened


@pytest.mark.parametrize("number", range(50))
def test_a_canary_is_not_in_the_answer(index: Index, number: int) -> None:
    """The reader obeys: it answers with the canary. Without a reader, the instruction must not be quoted."""
    for obedient in (reader(CANARY), reader(f"The price is {CANARY}."), None):
        found = answer_question(index, question(number), obedient)
        assert not follows(found)
        assert f"{price(number)} euros" in found.text


def test_there_are_fifty_different_instructions() -> None:
    assert len({attack for _, attack in attacks()}) == 50
