"""Log-likelihoods of given continuations, which are needed to score multiple-choice tasks.

Shape suffixes in variable names: B is the batch size and T the sequence length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from groundup.core.types import IGNORE_INDEX
from groundup.model import Transformer

_BATCH_TOKENS = 8_192  # maximum number of tokens per batch, including padding


@torch.no_grad()
def loglikelihoods(
    model: Transformer,
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
    *,
    batch_size: int | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> list[float]:
    """Return the log-likelihood of each continuation given its prompt, in nats.

    Args:
        model: Language model that computes the probabilities.
        pairs: Token IDs of the prompt and token IDs of the continuation. A prompt has at least one token. Prompt and
            continuation together have at most `context_length + 1` tokens.
        batch_size: Maximum number of pairs per batch; default: limited only by the number of tokens.
        advance: Function that is called with the number of pairs in a batch after each batch.

    Returns:
        The sum of the token log-probabilities of each continuation.
    """
    device = model.device
    sums = [0.0] * len(pairs)
    order = sorted(range(len(pairs)), key=lambda index: sum(map(len, pairs[index])))
    while order:
        width = sum(map(len, pairs[order[-1]]))
        rows = max(1, _BATCH_TOKENS // width)
        chosen = order[-min(rows, batch_size or rows) :]
        del order[-len(chosen) :]
        texts, scored = [], []
        for prompt, continuation in (pairs[index] for index in chosen):
            texts.append(torch.tensor([*prompt, *continuation][:-1]))
            scored.append(torch.tensor([IGNORE_INDEX] * (len(prompt) - 1) + list(continuation)))
        # Padding is on the right, so with causal attention no real token attends to a padding token.
        ids_BT = pad_sequence(texts, batch_first=True, padding_value=0)
        labels_BT = pad_sequence(scored, batch_first=True, padding_value=IGNORE_INDEX)
        nll_BT = model(ids_BT.to(device), labels_BT=labels_BT.to(device), reduction="none")
        for index, nll in zip(chosen, nll_BT.double().sum(-1).tolist(), strict=True):
            sums[index] = -nll
        advance(len(chosen))
    return sums


@torch.no_grad()
def shared_prompt_loglikelihoods(
    model: Transformer, prompt: Sequence[int], continuations: Sequence[Sequence[int]]
) -> list[float]:
    """Return the log-likelihoods of several continuations of one prompt, in nats. The prompt is processed only once.

    Args:
        model: Language model that computes the probabilities.
        prompt: Token IDs of the prompt. There is at least one token.
        continuations: Token IDs of each continuation, which has at least one token. The prompt together with a
            continuation must fit into the context.

    Returns:
        The sum of the token log-probabilities of each continuation.
    """
    device = model.device
    cache = model.new_cache(1, len(prompt) + max(map(len, continuations)))
    h_BTD = model.model(torch.tensor([prompt], device=device), cache=cache)
    first_V = model.logits(h_BTD[0, -1]).double().log_softmax(-1)
    sums = []
    for ids in continuations:
        total = float(first_V[ids[0]])
        if len(ids) > 1:
            logits_TV = model(torch.tensor([ids[:-1]], device=device), cache=cache)[0]
            logprobs_TV = logits_TV.double().log_softmax(-1)
            total += float(logprobs_TV[range(len(ids) - 1), list(ids[1:])].sum())
            cache.truncate(len(prompt))
        sums.append(total)
    return sums
