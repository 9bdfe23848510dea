"""How likely a model finds given texts.

Shape letters: B batch, T sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from groundup.model import Transformer
from groundup.types import IGNORE_INDEX

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
