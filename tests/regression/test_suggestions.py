"""Suggested names are similar to the given name.

In an earlier release, the error of `groundup config nope` suggested `compare`.
"""

from __future__ import annotations

import pytest

from groundup.commands import STAGES
from groundup.core.config import nearest


@pytest.mark.parametrize("word", ["nope", "the", "are", "cleared", "redefine", "deletion", "message", "xyz", ""])
def test_a_far_off_word_gets_no_suggestion(word: str) -> None:
    assert nearest(word, STAGES) is None


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("pretrian", "pretrain"),
        ("Pretrain", "pretrain"),
        ("train", "pretrain"),
        ("colect", "collect"),
        ("tokenise", "tokenize"),
        ("finetune", "finetune.instruct"),
        ("finetune-instruct", "finetune.instruct"),
        ("genrate", "generate"),
    ],
)
def test_a_slip_gets_the_word_that_was_meant(word: str, meant: str) -> None:
    assert nearest(word, STAGES) == meant


@pytest.mark.parametrize(("word", "meant"), [("rnu", "run"), ("warmup", "warmup_steps"), ("vocab-size", "vocab_size")])
def test_swapped_letters_beginnings_and_dashes_count_as_slips(word: str, meant: str) -> None:
    assert nearest(word, ["run", "warmup_steps", "vocab_size", "out"]) == meant
