"""How a base is asked, and what simple ways answer: a weak rival makes every tuning look good."""

from __future__ import annotations

from dataclasses import replace

import pytest

from groundup.core.types import Example, Message
from groundup.evaluation.asking import Asked, Way, best_way, choose_labels, write_answers
from groundup.evaluation.baselines import baselines, label_baselines, lead, without_shared_words
from groundup.evaluation.rendering import PLAIN_FORMATS, chat_renderer, plain_renderer
from groundup.evaluation.responses import score_responses
from groundup.model import Transformer
from groundup.tokenizer import ChatTemplate, Tokenizer


@pytest.fixture(scope="module")
def asked(tiny_model, tokenizer: Tokenizer) -> Asked:
    model: Transformer = tiny_model(tokenizer.vocab_size, context_length=256)
    template = ChatTemplate(tokenizer)
    return Asked(model, tokenizer, template, template.stop_ids)


@pytest.fixture(scope="module")
def examples(real_documents: list[str]) -> list[Example]:
    texts = [" ".join(text.split()) for text in real_documents if len(text.split()) > 40]
    return [
        Example((Message("user", " ".join(t.split()[:9])), Message("assistant", " ".join(t.split()[9:13]))))
        for t in texts[:24]
    ]


def test_shots_change_what_is_read_and_not_what_is_scored(asked: Asked, examples: list[Example]):
    """The answers in the shots are given: counted, they would make few-shot asking look better than it is."""
    shots, example = tuple(examples[:2]), examples[5]
    for format in (None, PLAIN_FORMATS[0]):
        bare, shown = (Way(format, shots=s).renderer(asked)(example) for s in ((), shots))
        assert len(shown.ids) > len(bare.ids)
        assert sum(shown.scored) == sum(bare.scored)
        assert sum(shown.ends) == sum(bare.ends)
        scored = [token for token, counts in zip(shown.ids, shown.scored, strict=True) if counts]
        assert asked.tokenizer.decode(scored).strip() == example.messages[-1].content


def test_without_shots_a_way_is_the_format_itself(asked: Asked, examples: list[Example]):
    for way, render in (
        (Way(None), chat_renderer(asked.template)),
        (Way(PLAIN_FORMATS[1]), plain_renderer(asked.tokenizer, PLAIN_FORMATS[1])),
    ):
        assert way.renderer(asked)(examples[0]).ids == render(examples[0]).ids


def test_a_hint_stands_first_also_where_there_is_no_system_message():
    example = Example((Message("user", "Which?"), Message("assistant", "this")))
    way = Way(None, hint="One of: this, that.")
    assert [m.role for m in way.around(example).messages] == ["system", "user", "assistant"]
    (question, _) = way.around(example, takes_system=False).messages
    assert question.content == "One of: this, that.\n\nWhich?"


def test_the_best_way_has_the_least_loss(asked: Asked, examples: list[Example]):
    found = best_way(asked, examples)

    def loss(way: Way) -> float:
        others = [e for e in examples if e not in found.shots]
        return float(score_responses(asked.model, asked.tokenizer, others, way.renderer(asked)).nll_E.sum())

    assert all(loss(found) <= loss(Way(format)) + 1e-6 for format in (None, *PLAIN_FORMATS))
    preferred = best_way(asked, examples, quality=lambda way, _: float(not way.shots))
    assert not preferred.shots, "the quality decides, not the loss"


def test_answers_and_labels_come_in_the_order_of_the_questions(asked: Asked, examples: list[Example]):
    way = Way(PLAIN_FORMATS[0])
    together = write_answers(asked, way, examples[:5], 6)
    assert together == [write_answers(asked, way, [example], 6)[0] for example in examples[:5]]
    labels = ["statement", "expression", "module"]
    chosen = choose_labels(asked, way, examples[:4], labels)
    for example, label in zip(examples[:4], chosen, strict=True):
        told = [replace(example, messages=(example.messages[0], Message("assistant", each))) for each in labels]
        nll_E = score_responses(asked.model, asked.tokenizer, told, way.renderer(asked)).nll_E
        assert label == labels[int(nll_E.argmin())]


def test_the_lead_skips_the_words_that_every_prompt_begins_with():
    """A summary that is "Summarize this text:" would be a rival that nobody can lose to."""
    prompts = ["Summarize this text:\nIt rained. They stayed.", "Summarize this text:\nAnn called J. Doe. He ran."]
    assert without_shared_words(prompts) == ["It rained. They stayed.", "Ann called J. Doe. He ran."]
    assert lead("Ann called J. Doe. He ran.", 1) == "Ann called J. Doe."
    assert without_shared_words(["same", "same"]) == ["same", "same"]
    assert without_shared_words(["An apple", "And a pear"]) == ["An apple", "And a pear"]


def test_the_rivals_suit_the_metric():
    learned = [("Say it:\nOne two. Three four.", "One two."), ("Say it:\nFive six. Seven.", "Five six.")] * 3
    found = baselines("rouge", learned, ["Say it:\nEight nine. Ten."])
    assert found == {"the first sentence": ["Eight nine."]}
    assert baselines("chrf", learned, ["Say it:\nAcht neun."]) == {"the text, untranslated": ["Acht neun."]}
    assert baselines("likelihood", learned, ["?"]) == {}


def test_counted_words_tell_labels_apart():
    texts = ["cheap pills now", "meeting at noon", "cheap watches now", "notes of the meeting", "agenda at noon"]
    found = label_baselines(texts, ["spam", "ham", "spam", "ham", "ham"], ["cheap now", "the meeting"])
    assert found == {"always 'ham'": ["ham", "ham"], "TF-IDF + logistic regression": ["spam", "ham"]}
