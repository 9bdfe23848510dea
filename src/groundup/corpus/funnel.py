"""The filter funnel of a corpus: documents and bytes after each step, and the drops of each step."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

from groundup.core.facts import Facts

MIXTURE = "mixture"
RULES = "rules"  # step name of drops in old cards, which do not record it


@dataclass(frozen=True, slots=True)
class Reason:
    """The number of drops for one reason."""

    reason: str
    documents: int
    bytes: int


@dataclass(frozen=True, slots=True)
class FunnelStep:
    """One step, over all sources.

    Attributes:
        step: Name of the step.
        documents: Documents after the step.
        bytes: Bytes of text after the step.
        drops: Its drops by reason, most documents first.
        cut: Bytes removed from documents that were kept; negative if placeholder tokens are longer than the values.
    """

    step: str
    documents: int
    bytes: int
    drops: tuple[Reason, ...] = ()
    cut: int = 0


@dataclass(frozen=True, slots=True)
class Funnel:
    """The counts from the input to the finished corpus.

    Attributes:
        documents: Documents found, including files and records without text.
        bytes: Bytes of text found.
        steps: The steps in order. The last one is the corpus, including the repeats of a mixture.
    """

    documents: int
    bytes: int
    steps: tuple[FunnelStep, ...]


def funnel(card: dict[str, Any] | Facts) -> Funnel:
    """Return the counts of a data card by step.

    Old cards do not list their steps. Then the steps are in the order of the first drop of each.
    """
    facts = card if isinstance(card, Facts) else Facts(card)
    sources = facts.rows("sources")
    dropped: dict[str, Counter[str]] = defaultdict(Counter)
    sizes: dict[str, Counter[str]] = defaultdict(Counter)
    cut: Counter[str] = Counter()
    for source in sources:
        for reason, drop in source.items("drops"):
            step = drop.words("step") or RULES
            dropped[step][reason] += drop.count("documents")
            sizes[step][reason] += drop.count("bytes")
        for step, amount in source.items("cut"):
            cut[step] += amount.count()
    named = [name for step in facts.rows("steps") if (name := step.words())]
    order = dict.fromkeys([*(step for step in dropped if step not in named), *named])
    found = remaining = sum(source.count("documents") for source in sources) + sum(map(Counter.total, dropped.values()))
    found_bytes = remaining_bytes = (
        sum(source.count("bytes") for source in sources) + cut.total() + sum(map(Counter.total, sizes.values()))
    )
    steps = []
    for step in order:
        remaining -= dropped[step].total()
        remaining_bytes -= sizes[step].total() + cut[step]
        drops = tuple(Reason(reason, n, sizes[step][reason]) for reason, n in dropped[step].most_common())
        steps.append(FunnelStep(step, remaining, remaining_bytes, drops, cut[step]))
    if any(source.at("mixture") for source in sources):
        steps.append(FunnelStep(MIXTURE, _sum_splits(facts, "documents"), _sum_splits(facts, "bytes")))
    return Funnel(found, found_bytes, tuple(steps))


def _sum_splits(card: Facts, key: str) -> int:
    return sum(card.count(split, key) for split in ("train", "validation"))
