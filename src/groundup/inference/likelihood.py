"""How likely a model finds given texts.

Shape letters: B batch, T sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from groundup.core.types import IGNORE_INDEX
from groundup.model import Transformer

_BATCH_TOKENS = 8_192  # filled-up ones included


@torch.no_grad()
def loglikelihoods(
    model: Transformer,
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
    *,
    advance: Callable[[int], None] = lambda _: None,
) -> list[float]:
    """Natural logarithm of the probability of each continuation.

    Args:
        pairs: ids of what stands before (at least one), and of the continuation; together no longer than the context
            and one more.
        advance: called with the number of pairs after each batch.
    """
    device = model.lm_head.weight.device
    sums = [0.0] * len(pairs)
    order = sorted(range(len(pairs)), key=lambda place: sum(map(len, pairs[place])))
    while order:
        width = sum(map(len, pairs[order[-1]]))
        chosen = order[-max(1, _BATCH_TOKENS // width) :]
        del order[-len(chosen) :]
        texts, scored = [], []
        for before, after in (pairs[place] for place in chosen):
            texts.append(torch.tensor([*before, *after][:-1]))
            scored.append(torch.tensor([IGNORE_INDEX] * (len(before) - 1) + list(after)))
        # On the right, where causal attention never looks back from.
        ids_BT = pad_sequence(texts, batch_first=True, padding_value=0)
        labels_BT = pad_sequence(scored, batch_first=True, padding_value=IGNORE_INDEX)
        nll_BT = model(ids_BT.to(device), labels_BT=labels_BT.to(device), reduction="none")
        for place, nats in zip(chosen, nll_BT.double().sum(-1).tolist(), strict=True):
            sums[place] = -nats
        advance(len(chosen))
    return sums


@torch.no_grad()
def continuations(model: Transformer, prompt: Sequence[int], after: Sequence[Sequence[int]]) -> list[float]:
    """Natural logarithm of the probability of each of several continuations of one prompt, which is read once.

    Args:
        prompt: one id or more.
        after: the ids of each, one or more; together with the prompt they fit into the context.
    """
    device = model.lm_head.weight.device
    cache = model.new_cache(1, len(prompt) + max(map(len, after)))
    h_BTD = model.model(torch.tensor([prompt], device=device), cache=cache)
    first_V = model.logits(h_BTD[0, -1]).double().log_softmax(-1)
    found = []
    for ids in after:
        total = float(first_V[ids[0]])
        if len(ids) > 1:
            logits_TV = model(torch.tensor([ids[:-1]], device=device), cache=cache)[0]
            logarithms_TV = logits_TV.double().log_softmax(-1)
            total += float(logarithms_TV[range(len(ids) - 1), list(ids[1:])].sum())
            cache.truncate(len(prompt))
        found.append(total)
    return found
