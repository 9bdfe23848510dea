"""Lexical head of a classifier: a linear layer whose inputs are the hidden state and the TF-IDF features of a text.

The hidden states of a frozen base model encode little about the exact words of a text. If there are few training texts,
a classifier on TF-IDF features is at least as good on some data sets. The lexical head uses both inputs. transformers
does not support a lexical head, and uses the standard classification head, whose only input is the hidden state.

Letters in array names: E is the number of texts, D the hidden size, F the number of features, and C the number of
labels.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from groundup.core.errors import FormatError
from groundup.core.files import atomic_file
from groundup.data.labels.tfidf import Tfidf
from groundup.hub.arrays import read_arrays

LEXICAL_FILE = "lexical.safetensors"
_FORMAT_VERSION = 1
_ARRAYS = ("state_weight", "feature_weight", "bias", "idf")

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class LexicalHead:
    """Linear layer whose inputs are the hidden state of a text's last token and the text's TF-IDF features.

    Attributes:
        tfidf: TF-IDF vocabulary.
        state_weight: weights for the hidden state, of shape (C, D).
        feature_weight: weights for the TF-IDF features, of shape (C, F).
        bias: bias of shape (C,).
    """

    tfidf: Tfidf
    state_weight: Floats
    feature_weight: Floats
    bias: Floats

    def probabilities(self, states_ED: npt.NDArray[np.float32], texts: Sequence[str]) -> Floats:
        """Return the probability of each label for each text.

        Args:
            states_ED: hidden state of each text's last token, as returned by
                `groundup.inference.classification.last_hidden_states`.
            texts: texts to classify.

        Returns:
            Probabilities of shape (E, C).
        """
        if not texts:
            return np.zeros((0, len(self.bias)))
        logits_EC = states_ED.astype(np.float64) @ self.state_weight.T + self.bias
        logits_EC += self.tfidf.features(texts) @ self.feature_weight.T
        odds_EC = np.exp(logits_EC - logits_EC.max(1, keepdims=True))
        shares_EC: Floats = odds_EC / odds_EC.sum(1, keepdims=True)
        return shares_EC

    def softened(self, temperature: float) -> LexicalHead:
        """Return a copy of the head whose logits are divided by a temperature."""
        return LexicalHead(
            self.tfidf, self.state_weight / temperature, self.feature_weight / temperature, self.bias / temperature
        )

    def save(self, directory: Path) -> Path:
        """Write `lexical.safetensors` to a directory and return its path."""
        from safetensors.numpy import save

        arrays = {"state_weight": self.state_weight, "feature_weight": self.feature_weight}
        arrays |= {"bias": self.bias, "idf": self.tfidf.idf}
        facts = {"format_version": str(_FORMAT_VERSION), "vocabularies": json.dumps(self.tfidf.vocabularies)}
        path = directory / LEXICAL_FILE
        with atomic_file(path) as temporary:
            temporary.write_bytes(save({name: each.astype(np.float32) for name, each in arrays.items()}, facts))
        return path

    @classmethod
    def load(cls, directory: Path, dim: int, n_labels: int) -> LexicalHead | None:
        """Load the lexical head of a classifier. Return None if the classifier does not have a lexical head.

        Args:
            directory: directory of the classifier.
            dim: hidden size of the classifier.
            n_labels: number of labels.

        Returns:
            The lexical head, or None.

        Raises:
            FormatError: the file is damaged, or it belongs to another classifier.
        """
        from safetensors import SafetensorError

        path = directory / LEXICAL_FILE
        if not path.is_file():
            return None
        try:
            facts, arrays = read_arrays(path, _FORMAT_VERSION, _ARRAYS)
            state, feature, bias, idf = (array.astype(np.float64) for array in arrays.values())
            shapes = (n_labels, dim), (n_labels, len(idf)), (n_labels,)
            if (state.shape, feature.shape, bias.shape) != shapes:
                raise ValueError(f"shapes {state.shape}, {feature.shape} and {bias.shape} instead of {shapes}")
            return cls(Tfidf.stored(json.loads(facts["vocabularies"]), idf), state, feature, bias)
        except (SafetensorError, KeyError, ValueError) as error:
            raise FormatError(
                f"{path}: {str(error)[:200]}",
                rule="the lexical head does not match the classifier in this directory",
                fix="Download the classifier again, or delete this file to use the standard classification head.",
            ) from None
