"""Packing keeps all examples. This holds for any examples and any context length."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.core.types import IGNORE_INDEX, SHARED_PREFIX
from groundup.data import ExampleLoader

labelled = st.lists(st.tuples(st.integers(2, 63), st.booleans()), min_size=2, max_size=20).filter(
    lambda tokens: any(trained for _, trained in tokens[1:])
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(labelled, min_size=1, max_size=15),
    st.sampled_from([0, 9, 17, 40]),
    st.integers(19, 50),
    st.integers(1, 5),
    st.integers(0, 2**32),
)
def test_every_label_once_an_epoch_with_its_own_past(
    examples: list[list[tuple[int, bool]]], prompt: int, context_length: int, batch_size: int, seed: int
) -> None:
    """Also if the first two thirds of the examples begin with the same prompt."""
    prompts = [list(range(prompt)) if 3 * number < 2 * len(examples) else [] for number in range(len(examples))]
    pairs = [
        ([*start, *(token for token, _ in example)], [False] * len(start) + [trained for _, trained in example])
        for start, example in zip(prompts, examples, strict=True)
    ]
    context_length += prompt
    packed = ExampleLoader(pairs, context_length=context_length, batch_size=batch_size, pad_id=1, seed=seed)
    epoch = packed.n_rows * batch_size  # the number of steps is a whole number of epochs for any batch size
    seen: Counter[tuple[tuple[int, ...], int]] = Counter()
    for batch in (packed.batch(i) for i in range(epoch // batch_size)):
        for row in range(batch_size):
            documents, ids = batch.document_ids[row].tolist(), batch.input_ids[row].tolist()
            prefix: list[int] = []
            for place, label in enumerate(batch.labels[row].tolist()):
                if documents[place] == SHARED_PREFIX:
                    begins = place == 0 or documents[place - 1] != SHARED_PREFIX
                    prefix = [*([] if begins else prefix), ids[place]]
                    assert label == IGNORE_INDEX
                if label != IGNORE_INDEX:
                    start = place - int(batch.positions[row, place]) + len(prefix)
                    assert len(set(documents[start : place + 1])) == 1
                    seen[(*prefix, *ids[start : place + 1]), label] += 1
    expected: Counter[tuple[tuple[int, ...], int]] = Counter()
    for ids, trained in pairs:
        expected.update((tuple(ids[:i]), ids[i]) for i in range(1, len(ids)) if trained[i])
    assert seen == Counter({key: count * batch_size for key, count in expected.items()})
