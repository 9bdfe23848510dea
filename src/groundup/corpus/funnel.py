"""The funnel of a corpus: how many documents and how much text are left after each step, and what it dropped."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

from groundup.core.facts import Facts

MIXTURE = "mixture"
RULES = "rules"  # where an old card does not tell which step dropped a document


@dataclass(frozen=True, slots=True)
class Reason:
    """What was dropped for one reason."""

    reason: str
    documents: int
    bytes: int


@dataclass(frozen=True, slots=True)
class FunnelStep:
    """One step, all sources together.

    Attributes:
        documents: that are left after it, of `bytes` of text.
        drops: what it dropped, most documents first.
        cut: bytes that it took out of documents that went on; below 0 where a mask is longer than what it hides.
    """

    step: str
    documents: int
    bytes: int
    drops: tuple[Reason, ...] = ()
    cut: int = 0


@dataclass(frozen=True, slots=True)
class Funnel:
    """From what was found to what stays.

    Attributes:
        documents: that were found, files and records that gave no text among them.
        bytes: of their text.
        steps: in their order; the last is what there is to learn from, with the repeats of a mixture.
    """

    documents: int
    bytes: int
    steps: tuple[FunnelStep, ...]


def funnel(card: dict[str, Any] | Facts) -> Funnel:
    """Put the counts of a data card in the order of its steps.

    A card without the list of its steps, of an earlier release, has them in the order in which its drops name them.
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
    found = left = sum(source.count("documents") for source in sources) + sum(map(Counter.total, dropped.values()))
    text = remaining = (
        sum(source.count("bytes") for source in sources) + cut.total() + sum(map(Counter.total, sizes.values()))
    )
    steps = []
    for step in order:
        left -= dropped[step].total()
        remaining -= sizes[step].total() + cut[step]
        drops = tuple(Reason(reason, n, sizes[step][reason]) for reason, n in dropped[step].most_common())
        steps.append(FunnelStep(step, left, remaining, drops, cut[step]))
    if any(source.at("mixture") for source in sources):
        steps.append(FunnelStep(MIXTURE, _in_all(facts, "documents"), _in_all(facts, "bytes")))
    return Funnel(found, text, tuple(steps))


def _in_all(card: Facts, key: str) -> int:
    return sum(card.count(split, key) for split in ("train", "validation"))
