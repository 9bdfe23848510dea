"""Settings for the removal of near-duplicate documents and repeated passages."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from groundup.core.config import Config, setting

_MIN_PROBABILITY = 0.9


class NearDuplicateSettings(Config):
    """Settings for near-duplicate removal with MinHash LSH. Documents are compared as sets of word n-grams (shingles).

    Candidate pairs come from banded MinHash signatures (Broder 1997). Two documents are a candidate pair if all `rows`
    values of at least one of the `bands` agree. Documents with Jaccard similarity s become a candidate pair with
    probability 1 - (1 - s^rows)^bands (Leskovec, Rajaraman, Ullman: Mining of Massive Datasets, 3.4). The exact
    similarity is then computed for each candidate pair, so a document is never dropped if its similarity is below the
    threshold.

    The default of 18 bands with 7 rows finds 98.6 % of the pairs with similarity 0.8 and 99.98 % of the pairs with
    similarity 0.87. The common choice of 14 bands with 8 rows finds 92.4 % of the pairs with similarity 0.8 and 99.6 %
    of the pairs with similarity 0.87.
    """

    enabled: bool = setting(True, help="drop documents that are near-duplicates of an earlier document")
    threshold: float = setting(0.8, help="minimum Jaccard similarity of near-duplicates", gt=0, le=1)
    ngram: int = setting(
        5, help="words per shingle (characters in scripts that do not separate words by spaces)", ge=1, le=64
    )
    bands: int = setting(
        18, help="number of bands of the MinHash signature; more bands find more near-duplicates", ge=1, le=1024
    )
    rows: int = setting(7, help="MinHash values per band; more rows give fewer false candidates", ge=1, le=64)
    existing: list[Path] = setting(
        [], help="directories of existing corpora; documents that are in one of them are dropped from the new corpus"
    )

    def candidate_probability(self, similarity: float) -> float:
        """Return the probability that two documents with this Jaccard similarity are a candidate pair."""
        return 1 - (1 - similarity**self.rows) ** self.bands

    @model_validator(mode="after")
    def _check_bands(self) -> Self:
        probability = self.candidate_probability(self.threshold)
        if probability < _MIN_PROBABILITY:
            raise ValueError(
                f"{self.bands} bands of {self.rows} rows find {probability:.0%} of the pairs at the "
                f"threshold {self.threshold}, less than {_MIN_PROBABILITY:.0%}: use fewer rows or more bands"
            )
        return self


class RepeatedTextSettings(Config):
    """Settings for the removal of repeated passages. By default, repeated passages are not removed.

    The first occurrence of a passage is kept. The removal of passages leaves gaps in texts, and it also removes
    legitimate repeats such as a license, a refrain or a quoted verse. The authors of FineWeb (Penedo et al. 2024, arXiv
    2406.17557) measured no gain from the removal of repeated passages after near-duplicate removal. Use this step to
    remove navigation bars, disclaimers and signatures that remain after text extraction. Models memorize repeated spans
    (Lee et al. 2022, arXiv 2107.06499). The removal of spans takes ten times as long as the removal of paragraphs or
    lines, and needs 16 bytes of disk space per word.
    """

    unit: Literal["none", "paragraph", "line", "span"] = setting(
        "none",
        help='repeated passages to remove: paragraphs, lines or spans of min_words words; "none" removes nothing',
    )
    min_characters: int = setting(
        60, help="minimum length in characters of the paragraphs or lines that are removed", ge=1
    )
    min_words: int = setting(50, help="number of words in a span", ge=5)
