"""Trained quality filters: a linear classifier that is trained on the user's examples, and a perplexity filter.

The classifier is a logistic regression on hashed word features, as in GPT-3 (Brown et al. 2020, arXiv 2005.14165,
appendix A). The GPT-3 pipeline randomly keeps some documents with a low score. groundup drops all documents whose score
is below the threshold, so each drop can be explained.
"""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.core.config import Config, setting
from groundup.core.errors import DataError, FormatError
from groundup.core.files import atomic_file, system_errors
from groundup.core.types import Document, text_id, well_formed
from groundup.corpus.quality.words import UNSPACED
from groundup.corpus.steps import Drop
from groundup.corpus.text import clean_text, split_text
from groundup.corpus.user_files import iter_texts

if TYPE_CHECKING:  # NumPy is not imported here, so that recipes can be checked quickly.
    import numpy as np
    import numpy.typing as npt

FORMAT_VERSION = 1
_NUM_FEATURES = 1 << 18  # The weights take 1 MiB in each worker process.
_INVERSE_REGULARIZATION = 10.0  # high, because feature vectors have norm 1 and therefore need large weights
_MAX_EXAMPLES = 10_000  # per class, selected by hash; more examples make training slower and hardly improve the scores
_MIN_EXAMPLES = 20  # per class
_NUM_FOLDS = 3
_WORD = rf"[{UNSPACED}]|[^\W{UNSPACED}]+|[^\w\s]"  # includes symbols, because they are frequent in menus and tables


class QualitySettings(Config):
    """Settings of the quality classifier. If no examples are given, the classifier is not used."""

    good: list[Path] = setting([], help="files or folders with positive examples, in any supported format")
    bad: list[Path] = setting([], help="files or folders with negative examples, e.g. raw pages of the same source")
    min_score: float = setting(0.5, help="minimum probability of the positive class", ge=0, le=1)


class QualityClassifier:
    """A linear classifier on hashed words and word pairs, which `train_quality_classifier` trains.

    Attributes:
        weights: The weight of each feature, of shape [features].
        bias: The intercept.
        report: The number of examples of each class, and the cross-validation scores.
    """

    def __init__(self, weights: npt.NDArray[np.float32], bias: float, report: dict[str, Any]) -> None:
        self.weights = weights
        self.bias = bias
        self.report = report
        self._vectorizer = _vectorizer()

    def score(self, text: str) -> float:
        """Return the probability that a text belongs to the positive class, assuming equally frequent classes."""
        row = self._vectorizer.transform([well_formed(text)])
        margin = float(self.weights[row.indices] @ row.data) + self.bias
        return 1 / (1 + math.exp(-max(-700.0, min(margin, 700.0))))

    def save(self, path: Path) -> None:
        """Write the weights and the report to a safetensors file."""
        from safetensors.numpy import save_file

        facts = {"format_version": FORMAT_VERSION, "bias": self.bias, "report": self.report}
        with atomic_file(path) as temporary, system_errors(path):
            save_file({"weights": self.weights}, temporary, metadata={"groundup": json.dumps(facts)})

    @classmethod
    def load(cls, path: Path) -> QualityClassifier:
        """Read a file that `save` wrote.

        Raises:
            FormatError: The file is damaged, or its format version is not supported.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "numpy") as file:
                facts = json.loads((file.metadata() or {}).get("groundup", "{}"))
                if facts.get("format_version") == FORMAT_VERSION:
                    return cls(file.get_tensor("weights"), facts["bias"], facts["report"])
        except (SafetensorError, OSError, ValueError) as error:
            raise _not_a_classifier(path, str(error)) from error
        raise _not_a_classifier(path, f"format_version {facts.get('format_version')}")


def _not_a_classifier(path: Path, problem: str) -> FormatError:
    return FormatError(
        f"{path}: {problem}",
        rule=f"a quality classifier is a safetensors file of format_version {FORMAT_VERSION}",
        fix="Delete the file and run `groundup collect` again, which trains the classifier from the examples.",
    )


def train_from_files(settings: QualitySettings, max_document_bytes: int) -> QualityClassifier:
    """Train a classifier on the example files of a recipe. Long texts are split in the same way as documents.

    Raises:
        DataError: A file is missing or has no text, or there are too few examples.
    """

    def examples(paths: Sequence[Path]) -> Iterator[str]:
        for path in paths:
            for text in iter_texts(path, "a quality classifier is trained on example texts"):
                yield from split_text(clean_text(text), max_document_bytes)

    return train_quality_classifier(examples(settings.good), examples(settings.bad))


def train_quality_classifier(good: Iterable[str], bad: Iterable[str]) -> QualityClassifier:
    """Train a classifier on positive and negative examples. The order of the examples does not affect the classifier.

    Raises:
        DataError: A class has fewer than 20 distinct examples.
    """
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    kinds = [_sample("good", good), _sample("bad", bad)]
    x = _vectorizer().transform(kinds[0] + kinds[1])
    y = np.repeat([1, 0], [len(texts) for texts in kinds])
    # The solver is single-threaded and its random state is fixed, so every run gives the same weights.
    learner = LogisticRegression(C=_INVERSE_REGULARIZATION, class_weight="balanced", solver="liblinear", random_state=0)
    folds = StratifiedKFold(_NUM_FOLDS, shuffle=True, random_state=0)
    held_out = cross_val_predict(learner, x, y, cv=folds, method="decision_function")
    learner.fit(x, y)
    report = {
        "good": len(kinds[0]),
        "bad": len(kinds[1]),
        "auc": round(float(roc_auc_score(y, held_out)), 4),  # ROC AUC from cross-validation
        "good_kept": round(float((held_out[y == 1] > 0).mean()), 4),
        "bad_kept": round(float((held_out[y == 0] > 0).mean()), 4),
    }
    return QualityClassifier(learner.coef_[0].astype(np.float32), float(learner.intercept_[0]), report)


def _sample(kind: str, texts: Iterable[str]) -> list[str]:
    chosen = [text for _, text in heapq.nsmallest(_MAX_EXAMPLES, _different(texts))]
    if len(chosen) < _MIN_EXAMPLES:
        raise DataError(
            f"{kind} examples: {len(chosen)}",
            rule=f"a quality classifier needs at least {_MIN_EXAMPLES} distinct texts per class",
            fix=f"Add files to `{kind}` in [collect.quality]. A few hundred texts work well.",
        )
    return chosen


def _different(texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the hash and the text of each distinct text."""
    seen: set[str] = set()
    for text in map(well_formed, texts):
        digest = text_id(text)
        if text.strip() and digest not in seen:
            seen.add(digest)
            yield digest, text


def _vectorizer() -> Any:
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(
        n_features=_NUM_FEATURES, ngram_range=(1, 2), token_pattern=_WORD, binary=True, alternate_sign=False
    )


@dataclass(frozen=True, slots=True)
class QualityStep:
    """A pipeline step that drops documents with a low classifier score.

    Attributes:
        classifier: Path of a saved `QualityClassifier`. Each process loads it once.
        min_score: Minimum probability of the positive class.
    """

    classifier: Path
    min_score: float = 0.5

    def __call__(self, document: Document) -> Document | Drop:
        """Return the document, or a `Drop` with its score if the score is too low."""
        score = _loaded(self.classifier, self.classifier.stat().st_mtime_ns).score(document.text)
        return (
            document if score >= self.min_score else Drop("score too low", f"{score:.3f}, at least {self.min_score:g}")
        )


@lru_cache(maxsize=2)
def _loaded(path: Path, _changed: int) -> QualityClassifier:
    """Load a classifier and cache it. If the modification time of the file changes, the file is loaded again."""
    return QualityClassifier.load(path)


@dataclass(frozen=True, slots=True)
class PerplexityFilter:
    """A pipeline step that drops documents whose perplexity is too high or too low (Wenzek et al. 2020, CCNet).

    Attributes:
        bits_per_byte: A picklable function that returns the bits per byte of a text under a language model.
        max_bits_per_byte: Maximum bits per byte, because noise has high bits per byte.
        min_bits_per_byte: Minimum bits per byte, because repetitive text has low bits per byte.
    """

    bits_per_byte: Callable[[str], float]
    max_bits_per_byte: float
    min_bits_per_byte: float = 0.0

    def __call__(self, document: Document) -> Document | Drop:
        """Return the document, or a `Drop` with its bits per byte if the value is outside the limits."""
        bits = self.bits_per_byte(document.text)
        if bits > self.max_bits_per_byte:
            return Drop("too many bits per byte", f"{bits:.3f}, at most {self.max_bits_per_byte:g}")
        if bits < self.min_bits_per_byte:
            return Drop("too few bits per byte", f"{bits:.3f}, at least {self.min_bits_per_byte:g}")
        return document
