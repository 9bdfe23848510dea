"""Groups of examples whose prompts begin with the same tokens, which fine-tuning computes once per group."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundup.core.types import IGNORE_INDEX

Labeled = tuple[NDArray[np.int32], NDArray[np.int32]]
"""Token ids and labels of an example."""

MIN_SHARED_PREFIX = 16  # number of tokens in which prefixes are compared


class SharingExamples(NamedTuple):
    """Examples that share a prefix.

    Attributes:
        prefix: Number of tokens of the prefix. It is 0 for examples that do not share one.
        examples: Indices of the examples.
    """

    prefix: int
    examples: NDArray[np.int64]


def group_by_prefix(examples: Sequence[Labeled]) -> list[SharingExamples]:
    """Divide examples into groups that share a prefix, so that few tokens are computed.

    A prefix ends before the first label of each of its examples. The last group shares no prefix and can be empty.
    """
    groups, rest = _divide(examples, list(range(len(examples))), 0, 0)
    return [*groups, SharingExamples(0, np.array(sorted(rest), dtype=np.int64))]


def _divide(
    examples: Sequence[Labeled], members: list[int], prefix: int, inherited: int
) -> tuple[list[SharingExamples], list[int]]:
    """Divide a group of examples. Return groups with a longer prefix, and the examples that are in none of them.

    Args:
        examples: Token ids and labels of all examples.
        members: Examples to divide, whose first `prefix` tokens are equal.
        prefix: Number of tokens that are known to be equal.
        inherited: Length of the prefix that an example shares if it is in no group with a longer prefix.
    """
    longer: dict[bytes, list[int]] = defaultdict(list)
    end = prefix + MIN_SHARED_PREFIX
    for number in members:
        ids, labels = examples[number]
        if _first_label(labels) >= end:
            longer[ids[prefix:end].tobytes()].append(number)
    found = [each for each in longer.values() if len(each) > 1]
    groups, rest = list[SharingExamples](), set(members).difference(*found)
    for group in found:
        shared = _common_prefix([examples[number] for number in group])
        divided, others = _divide(
            examples, group, shared, shared if _saves(len(group), shared, inherited) else inherited
        )
        groups += divided
        if _saves(len(others), shared, inherited):
            groups.append(SharingExamples(shared, np.array(sorted(others), dtype=np.int64)))
        else:
            rest.update(others)
    return groups, sorted(rest)


def _saves(count: int, shared: int, inherited: int) -> bool:
    """Return whether a group of `count` examples that computes `shared` tokens once saves tokens.

    Without the group, each example saves the `inherited` tokens that a larger group shares.
    """
    return (count - 1) * shared > count * inherited


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
