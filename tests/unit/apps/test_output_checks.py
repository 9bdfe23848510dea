"""Checks of outputs: repetition, topic, and the options of questions."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from groundup.apps import Catalog
from groundup.apps.baselines import tfidf_choice
from groundup.apps.output_checks import check_output, decoding_rules
from groundup.data.spans import common_type, spans_of

BUNDLED = Catalog()
TEXT = (
    "The council voted by nine to six to keep the old tram depot in Harwick. A fund of 300,000 euros pays for a new "
    "roof, which Mirela Costa designed. Ben Lund wanted to sell it to a hotel chain for two million euros."
)


def failed(name: str, output: str, value: Any = None, **given: Any) -> set[str]:
    app = BUNDLED[name].app
    assert app.test is not None
    valid = None if value is None else True
    return {
        check
        for check, passed in check_output(app.test.checks, output, value, given, valid=valid).items()
        if not passed
    }


def test_word_salad_and_repetition_are_not_poems() -> None:
    poem = "The lamp turns slowly in the dark,\nThe winter sea is cold and stark.\nA keeper waits, a ship goes by,\n"
    assert not failed("poem", poem + "The lighthouse writes across the sky.", topic="a lighthouse in winter")
    assert failed("poem", "He was the day of the king, and.\n" * 8, topic="a lighthouse in winter") == {
        "words of the topic",
        "no repetition",
    }
    assert failed("poem", "The lighthouse in winter.", topic="a lighthouse in winter") == {"length", "lines"}


def test_topics_are_compared_by_the_beginnings_of_words() -> None:
    """ "trees" and "planted" must count as words of "why cities plant trees"."""
    post = "Every tree that we planted in our city gives shade to somebody this summer."
    assert not failed("post", post, message="why cities plant trees")


@pytest.mark.parametrize(
    ("options", "answer", "said"),
    [
        (["Harwick", "Mirela Costa", "Ben Lund", "Lyon"], "A", set()),
        (["A.", "A", "B.", "D"], "A", {"four different options", "answer in the text"}),
        (["300,000 euros", "Ben Lund", "a roof", "six"], "A", {"options of one type"}),
        (["two million euros", "nine", "six", "40 euros"], "D", {"answer in the text"}),
        (["Harwick", "harwick", "Lyon", "Oslo"], "A", {"four different options"}),
    ],
)
def test_options_of_questions(options: list[str], answer: str, said: set[str]) -> None:
    value = {"questions": [{"question": "Who designed the new roof?", "options": options, "answer": answer}]}
    assert failed("mcq", "", value, text=TEXT) >= said
    if not said:
        assert not failed("mcq", "", value, text=TEXT)


def test_word_salad_is_not_a_question() -> None:
    """A grammar copies the options, so a model that cannot write would otherwise pass."""
    options = ["Harwick", "Mirela Costa", "Ben Lund", "Lyon"]
    for question in ("The first of the of she was in a", "Who was the king of the first century?"):
        value = {"questions": [{"question": question, "options": options, "answer": "A"}]}
        assert failed("mcq", "", value, text=TEXT) == {"questions about the text"}


def test_no_questions_are_not_a_pass() -> None:
    assert failed("mcq", "", {"questions": []}, text=TEXT)


def test_spans_have_a_type() -> None:
    """Answers are copied from these spans, so a span must not be half of a number or end in the middle of a name."""
    spans = spans_of(TEXT)
    assert {"nine", "six", "300,000 euros", "two million euros"} <= set(spans["number"])
    assert {"Harwick", "Mirela Costa"} <= set(spans["name"])
    assert {"old tram depot", "hotel chain", "new roof"} <= set(spans["phrase"])
    for kind, found in spans.items():
        if len(found) > 1:
            assert common_type(found, TEXT) == kind


def test_nearest_shares_ties() -> None:
    assert tfidf_choice("Where is my parcel?", ["track a parcel", "open an account"]) == [1.0, 0.0]
    assert tfidf_choice("xyz", ["track a parcel", "open an account"]) == [0.5, 0.5]


def test_decoding_rules_of_outputs_are_reported() -> None:
    """The rules do not hold for every output, because only a limited number of attempts is made."""
    text = "The pool in Harden opens on 3 May. It has two lanes."
    summarize = partial(decoding_rules, BUNDLED["summarize"].app, given={"text": text})
    assert set(summarize("The pool in Harden opens on 3 May.").values()) == {True}
    assert summarize("It opens on 4 May in Bonn.") == {
        "only numbers and names of the text": False,
        "no repeated sentence": True,
    }
    assert not summarize("It opens in May. It opens in May.")["no repeated sentence"]
    answer = partial(decoding_rules, BUNDLED["answer"].app, given={"text": text})
    assert [answer(each)["copied from the text"] for each in ("3 May", "unknown", "4 May")] == [True, True, False]
    assert decoding_rules(BUNDLED["mcq"].app, "", {"text": text}) == {}
