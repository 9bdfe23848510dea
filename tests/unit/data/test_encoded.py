"""Memory of tokenized conversations."""

from __future__ import annotations

import numpy as np

from groundup.core.errors import DataError
from groundup.core.types import Message
from groundup.data.conversations.checks import require_trainable
from groundup.data.conversations.encoded import to_arrays, trained_tokens
from groundup.tokenizer import ChatTemplate, Tokenizer


def test_arrays_have_five_bytes_per_token(tokenizer: Tokenizer) -> None:
    template = ChatTemplate(tokenizer)
    lists = template.encode_labeled([Message("user", "Name a colour."), Message("assistant", "Green. " * 50)])
    ids, trained = arrays = to_arrays(*lists)
    assert isinstance(ids, np.ndarray) and isinstance(trained, np.ndarray)
    assert (ids.tolist(), trained.tolist()) == lists
    assert ids.nbytes + trained.nbytes == 5 * len(lists[0])
    assert trained_tokens([lists, arrays]) == 2 * sum(lists[1])


def test_arrays_pass_the_same_checks_as_lists(tokenizer: Tokenizer) -> None:
    template = ChatTemplate(tokenizer)
    ids, trained = template.encode_labeled([Message("user", "Name a colour."), Message("assistant", "Green.")])
    masked = [now and place != max(n for n, t in enumerate(trained) if t) for place, now in enumerate(trained)]
    for labels in (trained, [False] * len(ids), masked):
        refusals: list[str | None] = []
        for pair in ((ids, labels), to_arrays(ids, labels)):
            try:
                require_trainable([pair], template, tokenizer, 100)
                refusals.append(None)
            except DataError as error:
                refusals.append(str(error))
        assert refusals[0] == refusals[1]
