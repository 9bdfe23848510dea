"""Decontamination: drop documents that contain evaluation items.

The method follows GPT-3 (Brown et al. 2020, arXiv 2005.14165, appendix C). Texts are compared by their 13-grams of
words, ignoring case and punctuation. An evaluation text of 8 to 12 words must occur completely. The method differs from
GPT-3 in three ways:

- N-grams that occur in more than a tenth of the items belong to a prompt template and are ignored.
- In a long evaluation text, one matching 13-gram is not enough, because a legal phrase or a proverb can also have 13
  words. At least a tenth of the words, but never more than 26 words, must match.
- GPT-3 removes 200 characters around a match, but groundup drops the whole document, which has at most
  `max_document_bytes`.
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

if TYPE_CHECKING:  # Checking a recipe must not import NumPy.
    from groundup.corpus.evaluation_index import EvaluationIndex

_MAX_NAMED_ITEMS = 10  # maximum number of evaluation items that a drop record names
_NUM_SAMPLES = 3  # maximum number of documents that the report names per item
_NAMED = re.compile(r"(.+?) \((\d+) %\)(?:, |$)")


class DecontaminationSettings(Config):
    """The decontamination settings."""

    files: list[Path] = setting(
        [],
        help="evaluation files or folders; documents with one of their records, paragraphs or lines are dropped",
    )
    ngram: int = setting(13, help="number of words in an n-gram", ge=8, le=50)
    min_overlap: float = setting(
        0.1, help="minimum fraction of a long item's text that must occur in a document (0: one n-gram)", ge=0, le=1
    )


def build_index(
    settings: DecontaminationSettings, built_in: Iterable[tuple[str, Sequence[str]]] = ()
) -> EvaluationIndex:
    """Index the items of the evaluation files.

    Args:
        settings: The files and the length of n-grams.
        built_in: Additional items, each with its origin and texts.

    Raises:
        DataError: A file is missing, cannot be read or contains no text.
    """
    from groundup.corpus.evaluation_index import index_items

    rule = "decontamination needs the text of evaluation items"
    found = [(_label(path, origin), texts) for path in settings.files for origin, texts in iter_items(path, rule)]
    return index_items([*found, *built_in], settings.ngram)


def _label(path: Path, origin: str) -> str:
    return origin if path.is_file() else f"{path.resolve().name}/{origin}"


@dataclass(frozen=True, slots=True)
class Decontaminate:
    """Pipeline step that drops each document that contains an evaluation item.

    Attributes:
        index: Path of a saved `EvaluationIndex`. Each process loads the index once.
        min_overlap: The setting `min_overlap` of `DecontaminationSettings`.
    """

    index: Path
    min_overlap: float = 0.1

    def __call__(self, document: Document) -> Document | Drop:
        """Return the document, or a `Drop` that names the evaluation items in the document."""
        hits = _loaded(self.index, self.index.stat().st_mtime_ns).hits(document.text, self.min_overlap)
        if not hits:
            return document
        named = ", ".join(f"{hit.item} ({100 * hit.share:.0f} %)" for hit in hits[:_MAX_NAMED_ITEMS])
        more = f", and {len(hits) - _MAX_NAMED_ITEMS} more" if len(hits) > _MAX_NAMED_ITEMS else ""
        return Drop("evaluation item", named + more)


@lru_cache(maxsize=2)
def _loaded(path: Path, _changed: int) -> EvaluationIndex:
    """Load an index once, and load it again if the file has changed."""
    from groundup.corpus.evaluation_index import EvaluationIndex

    return EvaluationIndex.load(path)


def contamination(index: EvaluationIndex, dropped: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return the report for the data card: the items that were found, and the documents that contain them.

    Args:
        index: Index of the items that were searched for.
        dropped: Origin and detail of each document that the step dropped.
    """
    from groundup.corpus.evaluation_index import file_of

    documents: Counter[str] = Counter()
    samples: dict[str, list[str]] = defaultdict(list)
    total = 0
    for origin, detail in sorted(dropped):
        total += 1
        for item in _items_in(detail):
            documents[item] += 1
            if len(samples[item]) < _NUM_SAMPLES:
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
