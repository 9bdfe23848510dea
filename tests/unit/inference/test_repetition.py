"""Exclusion of repeated n-grams: in free text, in JSON, and compared with transformers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest
import torch

from groundup.inference import Engine, GenerationRequest, Grammar, Sampling
from groundup.inference.repetition import RepeatedNgrams
from groundup.tokenizer import Tokenizer

SIZE = 3
SCENES = {
    "type": "array",
    "minItems": 3,
    "maxItems": 3,
    "items": {
        "type": "object",
        "properties": {"narration": {"type": "string", "minLength": 30, "maxLength": 60}},
        "required": ["narration"],
        "additionalProperties": False,
    },
}


def words(ids: Sequence[int], tokenizer: Tokenizer) -> list[int]:
    return [token for token in ids if any(character.isalnum() for character in tokenizer.decode([token]))]


def num_repeated(texts: list[list[int]]) -> int:
    ngrams = [tuple(ids[start : start + SIZE]) for ids in texts for start in range(len(ids) - SIZE + 1)]
    return len(ngrams) - len(set(ngrams))


def test_no_ngram_occurs_twice_in_a_text(engine: Engine, tokenizer: Tokenizer):
    counts = []
    for size in (0, SIZE):
        sampling = Sampling(temperature=0.0, no_repeat_ngram_size=size)
        request = GenerationRequest(prompt="The", sampling=sampling, max_tokens=200, stop_ids=())
        counts.append(num_repeated([words(engine.complete(request).token_ids, tokenizer)]))
    assert counts[0] > 10 and counts[1] == 0


def test_names_of_properties_can_repeat_and_their_texts_cannot(engine: Engine, tokenizer: Tokenizer):
    grammar, outputs = Grammar.of_schema(SCENES, tokenizer), []
    for size in (0, SIZE):
        sampling = Sampling(temperature=0.0, no_repeat_ngram_size=size)
        request = GenerationRequest(prompt="The", sampling=sampling, max_tokens=400, grammar=grammar)
        outputs.append(json.loads(engine.complete(request).text))
    usual, unrepeated = (
        num_repeated([words(tokenizer.encode(scene["narration"]), tokenizer) for scene in scenes]) for scenes in outputs
    )
    assert usual > 0 and unrepeated == 0


def test_texts_of_examples_are_not_repeated(engine: Engine, tokenizer: Tokenizer):
    sampling = Sampling(temperature=0.0, no_repeat_ngram_size=SIZE)
    request = GenerationRequest(prompt="The", sampling=sampling, max_tokens=40, stop_ids=())
    example = engine.complete(request).token_ids
    other = engine.complete(replace(request, unrepeated=(example,))).token_ids
    assert num_repeated([words(example, tokenizer), words(other, tokenizer)]) == 0


def test_the_excluded_tokens_are_those_of_transformers(tokenizer: Tokenizer):
    transformers = pytest.importorskip("transformers")
    usable = words(range(tokenizer.vocab_size), tokenizer)[:12]
    random, logits_V = Random(0), torch.zeros(tokenizer.vocab_size)
    ngrams, ids, excluded = RepeatedNgrams(SIZE, tokenizer), [], 0
    for _ in range(300):
        mine = ngrams.exclude(logits_V)
        theirs = transformers.NoRepeatNGramLogitsProcessor(SIZE)(torch.tensor([ids], dtype=torch.long), logits_V[None])
        torch.testing.assert_close(mine, theirs[0])
        excluded += int(mine.isinf().sum())
        ids.append(random.choice(usable))
        ngrams.add(ids[-1])
    assert excluded > 50


def test_punctuation_does_not_separate_ngrams(tokenizer: Tokenizer):
    one, two, three = words(range(tokenizer.vocab_size), tokenizer)[:3]
    (comma,) = tokenizer.encode(",")
    ngrams, logits_V = RepeatedNgrams(SIZE, tokenizer), torch.zeros(tokenizer.vocab_size)
    for token in (one, two, three, one, comma, two, comma):
        ngrams.exclude(logits_V)
        ngrams.add(token)
    assert ngrams.exclude(logits_V).isinf().nonzero().flatten().tolist() == [three]


def test_a_token_is_kept_if_no_other_is_possible(tokenizer: Tokenizer):
    *usable, last = words(range(tokenizer.vocab_size), tokenizer)[:130]
    ngrams = RepeatedNgrams(2, tokenizer, [[last, token] for token in usable])
    logits_V = torch.full((tokenizer.vocab_size,), -torch.inf)
    logits_V[usable] = 0.0
    ngrams.exclude(logits_V)
    ngrams.add(last)
    torch.testing.assert_close(ngrams.exclude(logits_V), logits_V)
    logits_V[last] = 0.0
    assert ngrams.exclude(logits_V).isfinite().nonzero().flatten().tolist() == [last]
