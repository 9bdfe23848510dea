"""The filter funnel of a corpus: documents and bytes after each step, and the documents that each step dropped."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

from groundup.core.facts import Facts

MIXTURE = "mixture"


@dataclass(frozen=True, slots=True)
class Reason:
    """The number and size of the documents that were dropped for one reason."""

    reason: str
    documents: int
    bytes: int


@dataclass(frozen=True, slots=True)
class FunnelStep:
    """One step of the pipeline, with the counts of all sources.

    Attributes:
        step: Name of the step.
        documents: Number of documents after the step.
        bytes: Bytes of text after the step.
        drops: Counts of dropped documents for each reason, sorted by decreasing number of documents.
        cut: Bytes that the step removed from kept documents; negative if placeholder tokens are longer than the masked
            values.
    """

    step: str
    documents: int
    bytes: int
    drops: tuple[Reason, ...] = ()
    cut: int = 0


@dataclass(frozen=True, slots=True)
class Funnel:
    """The numbers of documents and bytes from the input to the finished corpus.

    Attributes:
        documents: Number of documents that were found, including files and records that contain no text.
        bytes: Bytes of text that were found.
        steps: The steps in order. The counts of the last step are the counts of the corpus, including documents that a
            mixture repeats.
    """

    documents: int
    bytes: int
    steps: tuple[FunnelStep, ...]


def funnel(card: dict[str, Any] | Facts) -> Funnel:
    """Return the counts of a data card after each step."""
    facts = card if isinstance(card, Facts) else Facts(card)
    sources = facts.rows("sources")
    dropped: dict[str, Counter[str]] = defaultdict(Counter)
    sizes: dict[str, Counter[str]] = defaultdict(Counter)
    cut: Counter[str] = Counter()
    for source in sources:
        for reason, drop in source.items("drops"):
            step = drop.words("step")
            dropped[step][reason] += drop.count("documents")
            sizes[step][reason] += drop.count("bytes")
        for step, amount in source.items("cut"):
            cut[step] += amount.count()
    named = [name for step in facts.rows("steps") if (name := step.words())]
    found = remaining = sum(source.count("documents") for source in sources) + sum(map(Counter.total, dropped.values()))
    found_bytes = remaining_bytes = (
        sum(source.count("bytes") for source in sources) + cut.total() + sum(map(Counter.total, sizes.values()))
    )
    steps = []
    for step in named:
        remaining -= dropped[step].total()
        remaining_bytes -= sizes[step].total() + cut[step]
        drops = tuple(Reason(reason, n, sizes[step][reason]) for reason, n in dropped[step].most_common())
        steps.append(FunnelStep(step, remaining, remaining_bytes, drops, cut[step]))
    if any(source.at("mixture") for source in sources):
        steps.append(FunnelStep(MIXTURE, _sum_splits(facts, "documents"), _sum_splits(facts, "bytes")))
    return Funnel(found, found_bytes, tuple(steps))


def _sum_splits(card: Facts, key: str) -> int:
    return sum(card.count(split, key) for split in ("train", "validation"))
