"""Prompts of base models, and baselines: a weak competitor makes any fine-tuning look good."""

from __future__ import annotations

from dataclasses import replace

import pytest

from groundup.core.types import Example, Message
from groundup.evaluation.baselines import baselines, label_baselines, lead, without_shared_words
from groundup.evaluation.prompt_search import FewShotPrompt, PromptedModel, best_prompt, choose_labels, generate_answers
from groundup.evaluation.responses import score_responses
from groundup.model import Transformer
from groundup.tokenizer import ChatTemplate, Tokenizer


@pytest.fixture(scope="module")
def prompted(tiny_model, tokenizer: Tokenizer) -> PromptedModel:
    model: Transformer = tiny_model(tokenizer.vocab_size, context_length=256)
    template = ChatTemplate(tokenizer)
    return PromptedModel(model, tokenizer, template, template.stop_ids)


@pytest.fixture(scope="module")
def examples(real_documents: list[str]) -> list[Example]:
    texts = [" ".join(text.split()) for text in real_documents if len(text.split()) > 40]
    return [
        Example((Message("user", " ".join(t.split()[:9])), Message("assistant", " ".join(t.split()[9:13]))))
        for t in texts[:24]
    ]


def test_answers_of_shots_are_not_scored(prompted: PromptedModel, examples: list[Example]):
    """If the answers of the shots counted, few-shot prompts would look better than they are."""
    shots, example = tuple(examples[:2]), examples[5]
    for format in (prompted.chat_format, prompted.plain_formats[0]):
        bare, shown = (FewShotPrompt(format, shots=s).render(example) for s in ((), shots))
        assert len(shown.ids) > len(bare.ids)
        assert sum(shown.scored) == sum(bare.scored)
        assert sum(shown.ends) == sum(bare.ends)
        scored = [token for token, counts in zip(shown.ids, shown.scored, strict=True) if counts]
        assert prompted.tokenizer.decode(scored).strip() == example.messages[-1].content


def test_without_shots_a_prompt_is_the_format_itself(prompted: PromptedModel, examples: list[Example]):
    for format in (prompted.chat_format, prompted.plain_formats[1]):
        assert FewShotPrompt(format).render(examples[0]).ids == format.render(examples[0]).ids


def test_an_instruction_is_first_also_without_a_system_message(
    prompted: PromptedModel, monkeypatch: pytest.MonkeyPatch
):
    example = Example((Message("user", "Which?"), Message("assistant", "this")))
    prompt = FewShotPrompt(prompted.plain_formats[0], instruction="One of: this, that.")
    assert [m.role for m in prompt.with_prompt(example).messages] == ["system", "user", "assistant"]
    monkeypatch.setattr(prompt.format, "supports_system", False)
    (question, _) = prompt.with_prompt(example).messages
    assert question.content == "One of: this, that.\n\nWhich?"


def test_the_best_prompt_has_the_lowest_loss(prompted: PromptedModel, examples: list[Example]):
    found = best_prompt(prompted, examples)

    def loss(prompt: FewShotPrompt) -> float:
        others = [e for e in examples if e not in found.shots]
        return float(score_responses(prompted.model, prompted.tokenizer, others, prompt.render).nll_E.sum())

    formats = (prompted.chat_format, *prompted.plain_formats)
    assert all(loss(found) <= loss(FewShotPrompt(format)) + 1e-6 for format in formats)
    preferred = best_prompt(prompted, examples, quality=lambda prompt, _: float(not prompt.shots))
    assert not preferred.shots, "the quality decides, not the loss"


def test_answers_and_labels_keep_the_order_of_the_questions(prompted: PromptedModel, examples: list[Example]):
    prompt = FewShotPrompt(prompted.plain_formats[0])
    together = generate_answers(prompted, prompt, examples[:5], 6)
    assert together == [generate_answers(prompted, prompt, [example], 6)[0] for example in examples[:5]]
    labels = ["statement", "expression", "module"]
    chosen = choose_labels(prompted, prompt, examples[:4], labels)
    for example, label in zip(examples[:4], chosen, strict=True):
        told = [replace(example, messages=(example.messages[0], Message("assistant", each))) for each in labels]
        nll_E = score_responses(prompted.model, prompted.tokenizer, told, prompt.render).nll_E
        assert label == labels[int(nll_E.argmin())]


def test_lead_sentences_skip_the_prompt_template():
    """A summary that consists of "Summarize this text:" would be too weak a baseline."""
    prompts = ["Summarize this text:\nIt rained. They stayed.", "Summarize this text:\nAnn called J. Doe. He ran."]
    assert without_shared_words(prompts) == ["It rained. They stayed.", "Ann called J. Doe. He ran."]
    assert lead("Ann called J. Doe. He ran.", 1) == "Ann called J. Doe."
    assert without_shared_words(["same", "same"]) == ["same", "same"]
    assert without_shared_words(["An apple", "And a pear"]) == ["An apple", "And a pear"]


def test_baselines_depend_on_the_metric():
    learned = [("Say it:\nOne two. Three four.", "One two."), ("Say it:\nFive six. Seven.", "Five six.")] * 3
    found = baselines("rouge", learned, ["Say it:\nEight nine. Ten."])
    assert found == {"the first sentence": ["Eight nine."]}
    assert baselines("chrf", learned, ["Say it:\nAcht neun."]) == {"the untranslated input": ["Acht neun."]}
    assert baselines("likelihood", learned, ["?"]) == {}


def test_tfidf_separates_labels():
    texts = ["cheap pills now", "meeting at noon", "cheap watches now", "notes of the meeting", "agenda at noon"]
    found = label_baselines(texts, ["spam", "ham", "spam", "ham", "ham"], ["cheap now", "the meeting"])
    assert found == {"always 'ham'": ["ham", "ham"], "TF-IDF + logistic regression": ["spam", "ham"]}
