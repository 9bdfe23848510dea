"""Quality as a user sees it: a linear classifier of word pairs, trained on good and bad examples; or a model's opinion.

As in GPT-3 (Brown et al. 2020, arXiv 2005.14165, appendix A) it is a logistic regression on hashed features of the
text; unlike there, a document is kept by its score alone and not by chance, so that one can account for it.
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

if TYPE_CHECKING:  # NumPy is imported where it works: recipes are checked without it
    import numpy as np
    import numpy.typing as npt

FORMAT_VERSION = 1
_NUM_FEATURES = 1 << 18  # 1 MiB of weights; each process that scores holds them
_INVERSE_REGULARIZATION = 10.0  # inverse of the regularization: texts have length 1, so weights must be large to decide
_MAX_EXAMPLES = 10_000  # of each kind, those with the smallest hashes: more learn slowly and change little
_MIN_EXAMPLES = 20
_NUM_FOLDS = 3
_WORD = rf"[{UNSPACED}]|[^\W{UNSPACED}]+|[^\w\s]"  # signs, too: menus and tables show in them


class QualitySettings(Config):
    """Examples of texts that are wanted, and of texts that are not; without examples nothing is judged."""

    good: list[Path] = setting(
        [], help="files or folders of texts like those that you want, in any format that a source has"
    )
    bad: list[Path] = setting([], help="... and like those that you do not want, e.g. raw pages of the same source")
    min_score: float = setting(0.5, help="a document must be good with this probability", ge=0, le=1)


class QualityClassifier:
    """Weights of hashed words and word pairs, made by `train_quality_classifier`.

    Attributes:
        weights: one for each feature.
        bias: what is added to their sum.
        report: numbers of examples, and how well those not learned from were told apart.
    """

    def __init__(self, weights: npt.NDArray[np.float32], bias: float, report: dict[str, Any]) -> None:
        self.weights = weights
        self.bias = bias
        self.report = report
        self._vectorizer = _vectorizer()

    def score(self, text: str) -> float:
        """The probability that a text is one of the good ones, had there been as many of both kinds."""
        row = self._vectorizer.transform([well_formed(text)])
        margin = float(self.weights[row.indices] @ row.data) + self.bias
        return 1 / (1 + math.exp(-max(-700.0, min(margin, 700.0))))

    def save(self, path: Path) -> None:
        """Write weights and report to one safetensors file."""
        from safetensors.numpy import save_file

        facts = {"format_version": FORMAT_VERSION, "bias": self.bias, "report": self.report}
        with atomic_file(path) as temporary, system_errors(path):
            save_file({"weights": self.weights}, temporary, metadata={"groundup": json.dumps(facts)})

    @classmethod
    def load(cls, path: Path) -> QualityClassifier:
        """Read what `save` wrote.

        Raises:
            FormatError: it is no such file, or of a newer release.
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
        fix="Delete it and run `groundup collect` again: it is trained anew from the examples.",
    )


def train_from_files(settings: QualitySettings, max_document_bytes: int) -> QualityClassifier:
    """Train on the files that a recipe names; long texts are cut as documents are.

    Raises:
        DataError: a file is missing or without text, or there are too few examples.
    """

    def examples(paths: Sequence[Path]) -> Iterator[str]:
        for path in paths:
            for text in iter_texts(path, "a quality classifier learns from example texts"):
                yield from split_text(clean_text(text), max_document_bytes)

    return train_quality_classifier(examples(settings.good), examples(settings.bad))


def train_quality_classifier(good: Iterable[str], bad: Iterable[str]) -> QualityClassifier:
    """Train a classifier. The result depends on the texts alone, not on their order.

    Raises:
        DataError: fewer than 20 different examples of a kind.
    """
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    kinds = [_sample("good", good), _sample("bad", bad)]
    x = _vectorizer().transform(kinds[0] + kinds[1])
    y = np.repeat([1, 0], [len(texts) for texts in kinds])
    # Its solver is single-threaded and seeded: the same weights on every run.
    learner = LogisticRegression(C=_INVERSE_REGULARIZATION, class_weight="balanced", solver="liblinear", random_state=0)
    folds = StratifiedKFold(_NUM_FOLDS, shuffle=True, random_state=0)
    unseen = cross_val_predict(learner, x, y, cv=folds, method="decision_function")
    learner.fit(x, y)
    report = {
        "good": len(kinds[0]),
        "bad": len(kinds[1]),
        "auc": round(float(roc_auc_score(y, unseen)), 4),  # of examples not learned from: 0.5 is chance, 1 is perfect
        "good_kept": round(float((unseen[y == 1] > 0).mean()), 4),
        "bad_kept": round(float((unseen[y == 0] > 0).mean()), 4),
    }
    return QualityClassifier(learner.coef_[0].astype(np.float32), float(learner.intercept_[0]), report)


def _sample(kind: str, texts: Iterable[str]) -> list[str]:
    chosen = [text for _, text in heapq.nsmallest(_MAX_EXAMPLES, _different(texts))]
    if len(chosen) < _MIN_EXAMPLES:
        raise DataError(
            f"{kind} examples: {len(chosen)}",
            rule=f"a quality classifier learns from at least {_MIN_EXAMPLES} different texts of each kind",
            fix=f"Add files to `{kind}` of [collect.quality]; a few hundred texts do well.",
        )
    return chosen


def _different(texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Each text with its hash; copies count once."""
    seen: set[str] = set()
    for text in map(well_formed, texts):
        mark = text_id(text)
        if text.strip() and mark not in seen:
            seen.add(mark)
            yield mark, text


def _vectorizer() -> Any:
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(
        n_features=_NUM_FEATURES, ngram_range=(1, 2), token_pattern=_WORD, binary=True, alternate_sign=False
    )


@dataclass(frozen=True, slots=True)
class QualityStep:
    """Drops documents that the classifier in a file finds bad; each process reads the file once."""

    classifier: Path
    min_score: float = 0.5

    def __call__(self, document: Document) -> Document | Drop:
        """The document, or its score."""
        score = _loaded(self.classifier, self.classifier.stat().st_mtime_ns).score(document.text)
        return (
            document if score >= self.min_score else Drop("score too low", f"{score:.3f}, at least {self.min_score:g}")
        )


@lru_cache(maxsize=2)
def _loaded(path: Path, _changed: int) -> QualityClassifier:
    """Read once, and again when the file has changed."""
    return QualityClassifier.load(path)


@dataclass(frozen=True, slots=True)
class PerplexityFilter:
    """Drops documents that surprise a trained model too much, or too little (Wenzek et al. 2020, CCNet).

    Attributes:
        bits_per_byte: a text's bits per byte under the model; must pickle, if processes share the work.
        most: garbage is above it.
        least: what repeats itself is below it.
    """

    bits_per_byte: Callable[[str], float]
    most: float
    least: float = 0.0

    def __call__(self, document: Document) -> Document | Drop:
        """The document, or its bits per byte."""
        bits = self.bits_per_byte(document.text)
        if bits > self.most:
            return Drop("too many bits per byte", f"{bits:.3f}, at most {self.most:g}")
        if bits < self.least:
            return Drop("too few bits per byte", f"{bits:.3f}, at least {self.least:g}")
        return document
