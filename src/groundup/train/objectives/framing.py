"""What a classifier reads: a text alone, or within a sentence that asks what it means.

What a causal model holds at the last token of a text foretells what may follow, and says little of the whole. At the
end of `This sentence : "..." means in one word: "` it has to sum up (Jiang et al. 2023, "Scaling Sentence Embeddings
with Large Language Models", arXiv:2307.16645). SmolLM2-135M-Instruct, a linear head fitted on 600 messages of 77
intents: of 400 others 45.5 % get theirs in the sentence, 35.2 % alone. A small model of one's own may not know such
sentences, so both ways are tried.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, takewhile

import torch

from groundup.model import SequenceClassifier
from groundup.tokenizer import Tokenizer
from groundup.train.objectives.classification import encode
from groundup.train.objectives.probe import HeadFit

BEFORE, BEHIND = 'This sentence : "', '" means in one word: "'
_LEAST_CONTEXTS = 16  # a context must hold the sentence so many times: else it would take the text's place
_TRIED_TOKENS = 8_000  # of texts, each way


def ways_to_read(tokenizer: Tokenizer, context: int) -> list[Tokenizer]:
    """Tokenizers that put nothing around a text, or the sentence where the context has room for it."""
    framed = tokenizer.framed(BEFORE, BEHIND)
    return [tokenizer, framed] if framed.added * _LEAST_CONTEXTS <= context else [tokenizer]


def best_way_to_read(
    model: SequenceClassifier,
    ways: Sequence[Tokenizer],
    texts: Sequence[str],
    labels: Sequence[int] | Sequence[Sequence[float]],
    room: int,
    fit: Callable[..., HeadFit],
) -> tuple[int, list[HeadFit]]:
    """Choose the way to read texts with the lowest loss of a head, fitted on some of them; leaves that head in place.

    Args:
        texts: in any order; the first of them are tried.
        room: maximum number of tokens per text, read in the first of the ways.
        fit: `fit_head`, with all but model, texts, labels, padding and tokens.

    Returns:
        Its index, and the fit of each way; no fits if there is only one way.
    """
    if len(ways) == 1:
        return 0, []
    lengths = accumulate(len(encode(ways[0], [text], room)[0][0]) for text in texts)
    count = min(len(texts), 1 + sum(1 for _ in takewhile(lambda tokens: tokens < _TRIED_TOKENS, lengths)))
    fits, heads = [], []
    for way in ways:
        read, _ = encode(way, texts[:count], room + way.added - ways[0].added)
        most = sum(map(len, read))
        fits.append(fit(model, read, labels[:count], pad_id=way.pad_id, most_tokens=most))
        heads.append(model.score.weight.detach().clone())
    best = min(range(len(ways)), key=lambda place: fits[place].nats)
    with torch.no_grad():
        model.score.weight.copy_(heads[best])
    return best, fits
