"""The index of a collection of documents: its files, its version check, and the search for passages."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.core.artifact import ARTIFACT, Artifact, read, read_intact
from groundup.core.errors import ConfigError, DataError, FormatError, GroundupError, ResourceError
from groundup.retrieval.documents import DOCUMENTS, Documents, IndexedDocument
from groundup.retrieval.passages import PASSAGES_VERSION
from groundup.retrieval.terms import TERMS_VERSION, query_terms, stop_words, terms
from groundup.retrieval.vectors import EncoderRecord, Vectors, fused

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

STAGE = "index"
VERSIONS = {"index": 3, "terms": TERMS_VERSION, "passages": PASSAGES_VERSION}
PASSAGES = "passages.npy"
BM25 = "bm25"
FILES = "files.json"
K1, B = 1.2, 0.75  # Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond"
_BACKGROUND_PASSAGES = 50
_MAX_CANDIDATES = 200  # number of passages from which copies are removed
_OPEN_ATTEMPTS = 3
_OPEN_PAUSE = 0.05  # seconds


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage that was found for a question.

    Attributes:
        document: Number of the document in the index.
        origin: File of the document, and place inside it.
        title: Title of the document, or "".
        url: URL of the document, or "".
        page: Page on which the passage starts, or None if the format has no pages.
        start: Offset of the first character in the text of the document.
        end: Offset after the last character.
        text: Text of the passage.
        language: ISO 639 code of the language of the document, or "und".
        score: BM25 score.
        coverage: Fraction of the question's words that the passage or its title contains, weighted by their inverse
            document frequency.
        document_id: `IndexedDocument.id` of the document. Its number may change when the index is updated.
    """

    document: int
    origin: str
    title: str
    url: str
    page: int | None
    start: int
    end: int
    text: str
    language: str
    score: float
    coverage: float
    document_id: str = ""

    @property
    def place(self) -> str:
        """The file and, if it is known, the page."""
        return self.origin if self.page is None else f"{self.origin}, page {self.page}"


@dataclass(frozen=True, slots=True)
class Query:
    """The words of a question with their weights in an index.

    Attributes:
        weights: Inverse document frequency of each word, which is given by its stems in the languages of the index.
    """

    weights: dict[tuple[str, ...], float]

    @property
    def terms(self) -> frozenset[str]:
        """All stems."""
        return frozenset(term for variant in self.weights for term in variant)

    def coverage(self, found: AbstractSet[str], language: str) -> float:
        """Return the fraction of the words that a text contains, weighted by inverse document frequency.

        Args:
            found: Terms of the text.
            language: ISO 639 code of its language.
        """
        stop = stop_words(language)
        # The stop words of a rare language are still in the question.
        content = [variant for variant in self.weights if stop.isdisjoint(variant)] or list(self.weights)
        covered = sum(self.weights[variant] for variant in content if not found.isdisjoint(variant))
        return covered / (sum(self.weights[variant] for variant in content) or 1.0)

    def frequency(self, counts: Mapping[str, int]) -> float:
        """Return the fraction of the words that a text contains, each multiplied by f / (f + k1) for f occurrences.

        Args:
            counts: Number of occurrences of each term of the text.
        """
        found = {variant: max(counts.get(term, 0) for term in variant) for variant in self.weights}
        total = sum(weight * found[variant] / (found[variant] + K1) for variant, weight in self.weights.items())
        return total / sum(self.weights.values())

    def missing(self, found: AbstractSet[str]) -> float:
        """Return the weight of the rarest word that a text lacks, divided by that of the rarest word.

        Args:
            found: Terms of the text.
        """
        lacking = (weight for variant, weight in self.weights.items() if found.isdisjoint(variant))
        return max(lacking, default=0.0) / max(self.weights.values())


class Index:
    """A finished index. Use `Index.open`.

    Attributes:
        directory: Directory of the index.
        artifact: Record of the index.
        documents: Documents of the index.
        languages: ISO 639 codes of the languages of the documents, the most common one first.
        common_languages: Languages of at least 2 % of the documents.
    """

    def __init__(self, directory: Path, artifact: Artifact) -> None:
        import bm25s
        import numpy as np

        self.directory, self.artifact = directory, artifact
        self._left_out = ""
        self.languages: tuple[str, ...] = tuple(artifact.facts["languages"])
        self.common_languages: tuple[str, ...] = tuple(artifact.facts["common_languages"])
        self.documents = Documents(directory / DOCUMENTS)
        self._passages: npt.NDArray[np.int64] = np.load(directory / PASSAGES, mmap_mode="r", allow_pickle=False)
        encoder = artifact.facts.get("encoder")
        self._vectors = Vectors(directory, EncoderRecord(**encoder)) if encoder else None
        self._bm25 = bm25s.BM25.load(directory / BM25, mmap=True, load_corpus=False, allow_pickle=False)

    @classmethod
    def open(cls, directory: Path) -> Index:
        """Open an index.

        Args:
            directory: Output directory of `groundup index`.

        Raises:
            DataError: The directory is not an index.
            FormatError: A file is damaged, another version of groundup wrote the index, or the model of its vectors
                changed.
            ResourceError: The index is updated again and again.
        """
        # An update renames directories, so that the files could belong to two versions.
        for _ in range(_OPEN_ATTEMPTS):
            before = _digest(directory)
            try:
                opened = cls._open_once(directory)
            except (GroundupError, OSError):
                time.sleep(_OPEN_PAUSE)
                if _digest(directory) == before:
                    raise
                continue
            if _digest(directory) == opened.artifact.digest:
                return opened
            time.sleep(_OPEN_PAUSE)
        raise ResourceError(f"{directory}: the index is being updated", fix="Try again when the update has finished.")

    @classmethod
    def _open_once(cls, directory: Path) -> Index:
        if not (directory / ARTIFACT).is_file():
            exists = "not an index" if directory.exists() else "no such directory"
            raise DataError(f"{directory}: {exists}", fix=f"Run: groundup index FOLDER --out {directory}")
        made = read_intact(directory)
        if made.stage != STAGE:
            raise DataError(
                f"{directory}: the output of {made.stage}, not an index",
                fix=f"Run: groundup index {directory} --out INDEX, if it is a corpus.",
            )
        require_version(directory, made)
        return cls(directory, made)

    def __len__(self) -> int:
        return len(self._passages)

    def passage(self, number: int) -> Passage:
        """Return a passage by its number, which is less than the length of the index. Its score and coverage are 0."""
        return self._passage(number, 0.0, Query({}))

    def size(self, number: int) -> int:
        """Return the number of characters of a passage."""
        _, start, end = self._passages[number]
        return int(end - start)

    def without(self, document_id: str) -> Index:
        """Return this index with a search that leaves out a document.

        Args:
            document_id: `IndexedDocument.id` of the document.
        """
        other = copy.copy(self)
        other._left_out = document_id
        return other

    def query(self, question: str) -> Query:
        """Return the words of a question with their weights.

        Args:
            question: The question.

        Raises:
            ConfigError: The question has no words.
        """
        if not (variants := query_terms(question, self.languages, self.common_languages)):
            raise ConfigError(f"question {question[:40]!r}", rule="it has no words", fix="Ask a question with words.")
        frequencies = {variant: max(map(self._frequency, variant)) for variant in variants}
        # With some more passages without it: otherwise the words of a small collection would have almost no weight.
        background = len(self) + _BACKGROUND_PASSAGES
        return Query({variant: _inverse_frequency(count, background) for variant, count in frequencies.items()})

    def _frequency(self, term: str) -> int:
        """Return the number of passages that contain a term."""
        scores, number = self._bm25.scores["indptr"], self._bm25.vocab_dict.get(term)
        return 0 if number is None else int(scores[number + 1] - scores[number])

    def search(self, question: str, limit: int = 5) -> list[Passage]:
        """Return the passages that fit a question best, with the best passage first.

        If the index has vectors, they are used too, and the model that computed them is opened.

        A passage whose text was already found is left out, so that copies of a document do not hide other documents.

        Args:
            question: The question.
            limit: Maximum number of passages.

        Raises:
            ConfigError: The question has no words.
        """
        query = self.query(question)
        scores = self._scores(query)
        ranking = scores if self._vectors is None else fused(scores, self._vectors.scores(question))
        found: list[Passage] = []
        seen: set[str] = set()
        # The passages of a document that is left out could fill a shorter list.
        for number in self._order(ranking, len(self) if self._left_out else _MAX_CANDIDATES):
            if ranking[number] <= 0 or len(found) == limit:
                break
            passage = self._passage(int(number), float(scores[number]), query)
            if passage.document_id == self._left_out:
                continue
            if passage.text not in seen:
                found.append(passage)
            seen.add(passage.text)
        return found

    def _scores(self, query: Query) -> npt.NDArray[np.float32]:
        import numpy as np

        known = self._bm25.vocab_dict
        ids = {known[term] for term in query.terms if term in known}
        if not ids:
            return np.zeros(len(self), np.float32)
        return self._bm25.get_scores_from_ids(sorted(ids))

    @staticmethod
    def _order(scores: npt.NDArray[Any], most: int) -> npt.NDArray[np.int64]:
        """Return the numbers of the passages with the highest scores in descending order. Ties are in index order."""
        import numpy as np

        best = np.argpartition(-scores, most)[:most] if len(scores) > most else np.arange(len(scores))
        return best[np.lexsort((best, -scores[best]))]

    def _passage(self, number: int, score: float, query: Query) -> Passage:
        at, start, end = (int(value) for value in self._passages[number])
        document = self.documents[at]
        text = document.text[start:end]
        return Passage(
            document=at,
            origin=document.origin,
            title=document.title,
            url=document.url,
            page=document.page(start),
            start=start,
            end=end,
            text=text,
            language=document.language,
            score=round(score, 4),
            coverage=round(query.coverage(_terms_of(document, start, end), document.language), 4),
            document_id=document.id,
        )


def _inverse_frequency(frequency: int, num_passages: int) -> float:
    """Return the inverse document frequency of a word, as in Lucene's BM25."""
    return math.log(1 + (num_passages - frequency + 0.5) / (frequency + 0.5))


def _terms_of(document: IndexedDocument, start: int, end: int) -> frozenset[str]:
    return frozenset(terms(searched_text(document, start, end), document.language))


def _digest(directory: Path) -> str:
    """Return the digest of the output in a directory, or "" if it has none now."""
    try:
        return read(directory).digest
    except (GroundupError, OSError):
        return ""


def searched_text(document: IndexedDocument, start: int, end: int) -> str:
    """Return the text whose terms are indexed for a passage: the title of the document, and the passage.

    The title is part of the first passage, and is not repeated there.

    Args:
        document: Document of the passage.
        start: Offset of the first character of the passage.
        end: Offset after the last character.
    """
    title, passage = document.title, document.text[start:end]
    at = document.text.find(title)
    return passage if not title or start <= at <= end - len(title) else f"{title}\n{passage}"


def require_version(directory: Path, made: Artifact) -> None:
    """Check that this release reads the index.

    Raises:
        FormatError: Another release wrote the index.
    """
    written = made.facts.get("versions")
    if written != VERSIONS:
        raise FormatError(
            f"{directory}: index version {_shown(written)}",
            rule=f"this release reads version {_shown(VERSIONS)}",
            fix=f"Run: groundup index FOLDER --out {directory}",
        )


def _shown(versions: Any) -> str:
    return ".".join(str(value) for value in versions.values()) if isinstance(versions, dict) else "unknown"
