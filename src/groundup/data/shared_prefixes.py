"""Groups of examples whose prompts begin with the same tokens, which fine-tuning computes once per window."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from groundup.core.types import IGNORE_INDEX

Labeled = tuple[NDArray[np.int32], NDArray[np.int32]]
"""Token ids and labels of an example."""

MIN_SHARED_PREFIX = 8  # minimum number of tokens of a prefix that examples share
_MIN_SHARING_WINDOWS = 4  # minimum number of windows with the same prefix, because the last one is only partly filled


def group_by_prefix(examples: Sequence[Labeled], context_length: int) -> Iterator[tuple[int, list[int]]]:
    """Divide examples into groups that share a prefix.

    Args:
        examples: Token ids and labels of each example.
        context_length: Number of tokens per window.

    Yields:
        The number of tokens of a prefix, which is 0 for one group, and the indices of the examples that share it. A
        prefix ends before the first label of each example.
    """
    yield from _groups(examples, list(range(len(examples))), 0, context_length)


def _groups(
    examples: Sequence[Labeled], members: list[int], prefix: int, context_length: int
) -> Iterator[tuple[int, list[int]]]:
    """Divide a group of examples. Yield the length of each prefix, and the examples that share it.

    Examples that have further tokens in common become a group of their own, unless the group is too small.

    Args:
        examples: Token ids and labels of all examples.
        members: Examples to divide, whose first `prefix` tokens are equal.
        prefix: Number of tokens that are known to be shared.
        context_length: Number of tokens per window.
    """
    longer: dict[bytes, list[int]] = defaultdict(list)
    for number in members:
        ids, labels = examples[number]
        end = prefix + MIN_SHARED_PREFIX
        key = ids[prefix:end].tobytes() if _first_label(labels) >= end else b""
        longer[key].append(number)
    rest = longer.pop(b"", [])
    for group in longer.values():
        shared = _common_prefix([examples[number] for number in group])
        tokens = sum(len(examples[number][0]) - shared for number in group)
        if tokens >= _MIN_SHARING_WINDOWS * (context_length - shared):
            yield from _groups(examples, group, shared, context_length)
        else:
            rest += group
    if rest:
        yield prefix, rest


def _common_prefix(examples: Sequence[Labeled]) -> int:
    """Return the number of tokens before the first label that all examples have in common."""
    first = examples[0][0]
    shared = min(_first_label(labels) for _, labels in examples)
    for ids, _ in examples:
        differs = ids[:shared] != first[:shared]
        shared = int(differs.argmax()) if differs.any() else shared
    return shared


def _first_label(labels: NDArray[np.int32]) -> int:
    return int((labels != IGNORE_INDEX).argmax())
