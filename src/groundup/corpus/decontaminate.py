"""Keeps evaluation items out of a corpus: documents that repeat one are dropped, and the report tells which.

The rule is GPT-3's (Brown et al. 2020, arXiv 2005.14165, appendix C): texts are compared as words, without case and
punctuation, by 13-grams; a shorter text of 8 words and more counts when all of it is there. It is amended twice
against false alarms. Words that stand in more than a tenth of the items are a template and no item's own. And of a
long text one 13-gram is not enough, since a phrase of the law or a proverb has that many words: a tenth of the text
must be there, though never more than 26 words of it. GPT-3 cut a window of 200 characters out of the document; here
the whole document goes, which is a piece of `max_document_bytes` at most.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.core.config import Config, setting
from groundup.core.types import Document
from groundup.corpus.steps import Drop
from groundup.corpus.user_files import iter_items

if TYPE_CHECKING:  # it needs NumPy, and recipes are checked without that
    from groundup.corpus.evaluation_index import EvaluationIndex

_SHOWN = 10  # items named in the detail of a drop
_SAMPLES = 3  # documents named in the report for each item
_NAMED = re.compile(r"(.+?) \((\d+) %\)(?:, |$)")


class DecontaminationSettings(Config):
    """The evaluation files whose items must not be in the corpus."""

    files: list[Path] = setting(
        [], help="evaluation files or folders: documents with an item (a record, a paragraph, a line) of theirs go"
    )
    ngram: int = setting(13, help="words in a row that count as a repetition", ge=8, le=50)
    min_overlap: float = setting(
        0.1, help="share of an item's text that must be found, where it is long; 0: any n-gram", ge=0, le=1
    )


def build_index(
    settings: DecontaminationSettings, built_in: Iterable[tuple[str, Sequence[str]]] = ()
) -> EvaluationIndex:
    """Read the evaluation files.

    Args:
        built_in: more items: where each is from, and its texts.

    Raises:
        DataError: a file is missing, cannot be read or holds no text.
    """
    from groundup.corpus.evaluation_index import index_items

    rule = "decontamination needs evaluation items that it can look for"
    found = [(_label(path, origin), texts) for path in settings.files for origin, texts in iter_items(path, rule)]
    return index_items([*found, *built_in], settings.ngram)


def _label(path: Path, origin: str) -> str:
    return origin if path.is_file() else f"{path.resolve().name}/{origin}"


@dataclass(frozen=True, slots=True)
class Decontaminate:
    """The step that drops documents with evaluation items in them.

    Attributes:
        index: the file of an `EvaluationIndex`; each process reads it once.
    """

    index: Path
    min_overlap: float = 0.1

    def __call__(self, document: Document) -> Document | Drop:
        """The document, or which items are in it."""
        hits = _loaded(self.index, self.index.stat().st_mtime_ns).hits(document.text, self.min_overlap)
        if not hits:
            return document
        named = ", ".join(f"{hit.item} ({100 * hit.share:.0f} %)" for hit in hits[:_SHOWN])
        more = f", and {len(hits) - _SHOWN} more" if len(hits) > _SHOWN else ""
        return Drop("evaluation item", named + more)


@lru_cache(maxsize=2)
def _loaded(path: Path, _changed: int) -> EvaluationIndex:
    """Read once, and again when the file has changed."""
    from groundup.corpus.evaluation_index import EvaluationIndex

    return EvaluationIndex.load(path)


def contamination(index: EvaluationIndex, dropped: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """What was found, for the data card: which items were hit, and by which documents.

    Args:
        dropped: origin and detail of each document that the step dropped.
    """
    from groundup.corpus.evaluation_index import file_of

    documents: Counter[str] = Counter()
    samples: dict[str, list[str]] = defaultdict(list)
    total = 0
    for origin, detail in sorted(dropped):
        total += 1
        for item in _items_in(detail):
            documents[item] += 1
            if len(samples[item]) < _SAMPLES:
                samples[item].append(origin)
    hit = Counter(map(file_of, documents))
    return {
        "documents": total,
        "ngram": index.ngram,
        "items": index.facts["items"],
        "items_too_short": index.facts["too_short"],
        "items_only_template": index.facts["only_template"],
        "files": {file: {"items": items, "found": hit[file]} for file, items in index.facts["files"].items()},
        "found": [
            {"item": item, "documents": count, "samples": samples[item]}
            for item, count in sorted(documents.items(), key=lambda pair: (-pair[1], pair[0]))
        ],
    }


def _items_in(detail: str) -> Iterator[str]:
    return (found[1] for found in _NAMED.finditer(detail))
