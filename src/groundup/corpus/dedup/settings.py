"""What is looked for in the whole corpus at once: near-copies of documents, repeated paragraphs and lines."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from groundup.core.config import Config, setting

_MIN_PROBABILITY = 0.9


class NearDuplicateSettings(Config):
    """Near-duplicates: documents whose sets of word n-grams (shingles) have at least this Jaccard similarity.

    Candidates are found by MinHash signatures (Broder 1997), banded: two documents are compared if in one of the
    `bands` all `rows` values agree, which for a similarity s happens with probability 1 - (1 - s^rows)^bands (Leskovec,
    Rajaraman, Ullman: Mining of Massive Datasets, 3.4). Then their similarity is computed, so that nothing below the
    threshold is dropped. The default, 18 x 7, meets 98.6 % of the pairs at 0.8 and 99.98 % at 0.87; the customary
    14 x 8 meets 92.4 % and 99.6 %.
    """

    enabled: bool = setting(True, help="drop documents that are nearly the same as an earlier one")
    threshold: float = setting(0.8, help="Jaccard similarity from which on they are", gt=0, le=1)
    ngram: int = setting(5, help="words in a shingle (characters, where a script has no spaces)", ge=1, le=64)
    bands: int = setting(18, help="bands of the MinHash signature: more of them miss fewer pairs", ge=1, le=1024)
    rows: int = setting(7, help="values in a band: more of them compare fewer pairs for nothing", ge=1, le=64)
    existing: list[Path] = setting([], help="corpora made before: what is in them is dropped here")

    def candidate_probability(self, similarity: float) -> float:
        """The probability that two documents of this Jaccard similarity are compared."""
        return 1 - (1 - similarity**self.rows) ** self.bands

    @model_validator(mode="after")
    def _check_bands(self) -> Self:
        candidate_probability = self.candidate_probability(self.threshold)
        if candidate_probability < _MIN_PROBABILITY:
            raise ValueError(
                f"{self.bands} bands of {self.rows} rows find {candidate_probability:.0%} of the pairs at the "
                f"threshold {self.threshold}, less than {_MIN_PROBABILITY:.0%}: use fewer rows or more bands"
            )
        return self


class RepeatedTextSettings(Config):
    """Passages that stand in the corpus more than once: the first stays, the others are cut out.

    Off by default. What is left has holes, and much that is rightly said twice goes (a licence, a refrain, a quoted
    verse); where near-duplicates were gone already, FineWeb (Penedo et al. 2024, arXiv 2406.17557) gained nothing by
    removing repeated lines, or spans of three of them. It serves for navigation bars, disclaimers and signatures that
    an extractor has left in; spans are what a model would learn by heart (Lee et al. 2022, arXiv 2107.06499), at ten
    times the work and 16 bytes of disk for each word.
    """

    unit: Literal["none", "paragraph", "line", "span"] = setting(
        "none", help="cut out repeated paragraphs, lines, any stretches of min_words words, or nothing"
    )
    min_characters: int = setting(60, help="shorter paragraphs or lines stay, however often they are said", ge=1)
    min_words: int = setting(50, help="words in a stretch", ge=5)
