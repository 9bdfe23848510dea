"""Classification of texts: tokenization, prediction in batches, labels and novelty scores.

Shape suffixes in variable names: B is the batch size, T the sequence length, D the hidden size, E the number of texts
and C the number of labels.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from groundup.core.console import Console, visible
from groundup.core.types import is_blank
from groundup.data.labels.batches import Padding
from groundup.data.labels.reading import Labeled
from groundup.data.token_views import TokenView, view_text
from groundup.hub.loading import OpenedClassifier
from groundup.inference.novelty import NO_NOVELTY, UNLIKE, Novelty
from groundup.model import SequenceClassifier
from groundup.tokenizer import Tokenizer

_BATCH_TOKENS = 16_384  # maximum number of tokens per batch, including padding
_NUM_SHOWN = 40  # maximum number of texts on the HTML page that shows the training data
_THRESHOLD = 0.5  # a multi-label model assigns labels with at least this probability


def encode(tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int) -> tuple[list[list[int]], int]:
    """Tokenize and truncate texts in the same way as `tokenizer(text, truncation=True)` of transformers.

    Args:
        tokenizer: Tokenizer of the model.
        texts: Texts to tokenize.
        max_tokens: Maximum number of tokens per text. Longer texts are truncated.

    Returns:
        The token IDs of each text, and the number of texts that were truncated.
    """
    ids = tokenizer.encode_batch(texts)
    n_truncated = sum(len(tokenizer.build_inputs(text)) > max_tokens for text in ids)
    return [tokenizer.build_inputs(text, max_tokens) for text in ids], n_truncated


def show_texts(
    tokenizer: Tokenizer, examples: Labeled, max_tokens: int, console: Console, *, max_shown: int
) -> tuple[list[TokenView], list[str]]:
    """Print some tokenized texts, and return a larger sample of tokenized texts for an HTML page.

    Args:
        tokenizer: Tokenizer of the model.
        examples: Labeled texts of the training set.
        max_tokens: Maximum number of tokens per text. Longer texts are truncated.
        console: Console on which the texts are printed.
        max_shown: Number of texts to print.

    Returns:
        Tokenized texts at regular intervals in the training set, and their labels.
    """
    indices = range(0, len(examples), max(1, -(-len(examples) // _NUM_SHOWN)))
    texts = [examples.texts[index] for index in indices]
    untruncated, _ = encode(tokenizer, texts, sys.maxsize)
    ids, _ = encode(tokenizer, texts, max_tokens)
    shown = [view_text(tokenizer, each, len(full)) for each, full in zip(ids, untruncated, strict=True)]
    labels = [", ".join(examples.sets[index]) for index in indices]
    for text, label in zip(shown[:max_shown], labels, strict=False):
        cut = f", {text.cut:,} more truncated" if text.cut else ""
        console.sample(f"text of {text.counts().total():,} tokens{cut}; label: {label!r}", text.parts())
    return shown, labels


@torch.no_grad()
def predict(
    model: SequenceClassifier,
    texts: Sequence[Sequence[int]],
    *,
    pad_id: int,
    advance: Callable[[int], None] = lambda _: None,
) -> NDArray[np.float64]:
    """Return label probabilities of shape (E, C), computed with the model's own classification head.

    To use the lexical head if the classifier has one, call `predict_texts`.

    Args:
        model: Classifier to evaluate.
        texts: Token IDs of each text. Each text has at least one token and fits into the context.
        pad_id: ID of the padding token.
        advance: Function that is called with the number of texts in a batch after each batch.
    """
    probabilities_EC = np.zeros((len(texts), len(model.score.weight)))
    for chosen, ids_BT, last_B in _padded(model, texts, pad_id):
        probabilities_EC[chosen] = model.probabilities(model(ids_BT, last_B).double()).cpu().numpy()
        advance(len(chosen))
    return probabilities_EC


@dataclass(frozen=True, slots=True, eq=False)
class Predicted:
    """Predicted label probabilities of texts.

    Attributes:
        probabilities: Array of label probabilities with shape (E, C).
        lengths: Number of tokens of each text after truncation.
        n_truncated: Number of texts that were truncated.
    """

    probabilities: NDArray[np.float64]
    lengths: list[int]
    n_truncated: int


def predict_texts(
    opened: OpenedClassifier, texts: Sequence[str], *, advance: Callable[[int], None] = lambda _: None
) -> Predicted:
    """Predict label probabilities. The lexical head is used if the classifier has one, otherwise the model's own head.

    Args:
        opened: Classifier to use.
        texts: Texts to classify.
        advance: Function that is called with the number of texts in a batch after each batch.
    """
    ids, n_truncated = encode(opened.tokenizer, texts, opened.longest)
    pad_id = opened.tokenizer.pad_id
    if opened.lexical is None:
        probabilities_EC = predict(opened.model, ids, pad_id=pad_id, advance=advance)
    else:
        states_ED = last_hidden_states(opened.model, ids, pad_id=pad_id, advance=advance)
        probabilities_EC = opened.lexical.probabilities(states_ED, texts)
    return Predicted(probabilities_EC, [len(each) for each in ids], n_truncated)


def above_threshold(probabilities: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which labels a multi-label model assigns. The input and the output have the shape (E, C) or (C,)."""
    return probabilities >= _THRESHOLD


@torch.no_grad()
def last_hidden_states(
    model: SequenceClassifier,
    texts: Sequence[Sequence[int]],
    *,
    pad_id: int,
    advance: Callable[[int], None] = lambda _: None,
) -> NDArray[np.float32]:
    """Return the last-layer hidden state of each text's last token, with shape (E, D): the input of the head.

    `predict` documents the arguments.
    """
    states_ED = np.zeros((len(texts), model.config.dim), dtype=np.float32)
    for chosen, ids_BT, last_B in _padded(model, texts, pad_id):
        states_ED[chosen] = model.last_hidden_state(ids_BT, last_B).float().cpu().numpy()
        advance(len(chosen))
    return states_ED


@torch.no_grad()
def predict_from_states(model: SequenceClassifier, states_ED: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return label probabilities (E, C) that the model's own head computes from `last_hidden_states`."""
    weight_CD = model.score.weight
    logits_EC = torch.from_numpy(states_ED).to(weight_CD) @ weight_CD.T
    probabilities_EC: NDArray[np.float64] = model.probabilities(logits_EC.double()).cpu().numpy()
    return probabilities_EC


def _padded(
    model: SequenceClassifier, texts: Sequence[Sequence[int]], pad_id: int
) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Yield batches of texts of similar length: the texts' indices, the padded token IDs and the last positions."""
    device, padding = model.score.weight.device, Padding(pad_id, model.config.context_length)
    for chosen in _batches_by_length([len(text) for text in texts]):
        ids_BT, last_B = padding.pad([texts[i] for i in chosen])
        yield chosen, ids_BT.to(device), last_B.to(device)


def _batches_by_length(lengths: Sequence[int]) -> Iterator[list[int]]:
    batch: list[int] = []
    for index in np.argsort(lengths, kind="stable").tolist():
        if batch and (len(batch) + 1) * lengths[index] > _BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


@dataclass(frozen=True, slots=True)
class Classified:
    """A text and its predicted labels.

    Attributes:
        text: The classified text.
        label: The most likely label. For a multi-label model, it contains all labels with a probability of at least 50
            %, joined by ", ".
        probabilities: Maps each label to its probability, in the order of the model's labels.
        labels: Assigned labels. Only a multi-label model can assign no label or several labels.
        multi_label: Whether the model can assign any number of labels to a text.
        novelty: Novelty score (see `groundup.inference.novelty`), or None if the classifier does not have one.
        unlike: Whether the text is flagged as different from the training texts.
    """

    text: str
    label: str
    probabilities: dict[str, float]
    labels: tuple[str, ...] = ()
    multi_label: bool = False
    novelty: float | None = None
    unlike: bool | None = None

    @property
    def probability(self) -> float | None:
        """Probability of the assigned label, the lowest probability of several labels, or None if there is no label."""
        labels = self.labels if self.multi_label else (self.label,)
        return min((self.probabilities[label] for label in labels), default=None)

    def to_line(self, *, as_json: bool = False) -> str:
        """Return the result as one line: label, probability, novelty and text separated by tabs, or a JSON object."""
        if as_json:
            found = {"labels": self.labels} if self.multi_label else {"label": self.label}
            novel = {"novelty": self.novelty, "unlike": self.unlike}
            row = {"text": self.text, **found, "probabilities": self.probabilities, **novel}
            return json.dumps(row, ensure_ascii=False) + "\n"
        probability = "" if self.probability is None else f"{self.probability:.3f}"
        novelty = "" if self.novelty is None else f"{self.novelty:.2f}{' unlike' if self.unlike else ''}"
        return visible(f"{self.label}\t{probability}\t{novelty}\t{' '.join(self.text.split())}") + "\n"

    def to_cells(self, *, nested: bool) -> dict[str, Any]:
        """Return the cells that the result adds to a table row.

        Args:
            nested: Whether cells may contain lists and mappings.
        """
        label = list(self.labels) if self.multi_label and nested else self.label
        cells = {"label": label, "probability": self.probability, "novelty": self.novelty, "unlike": self.unlike}
        return cells | ({"probabilities": self.probabilities} if nested else {})


class Classifier:
    """A classifier that also counts truncated texts and texts that are different from the training texts."""

    def __init__(self, opened: OpenedClassifier) -> None:
        self._opened = opened
        self._novelty = Novelty.load(opened.directory)
        self._texts = self._truncated = self._unlike = 0

    def classify(self, texts: Sequence[str]) -> list[Classified]:
        """Classify texts. None of the texts may be blank."""
        predicted = predict_texts(self._opened, texts)
        found = [
            self._classified(text, dict(zip(self._opened.labels, probabilities_C.tolist(), strict=True)))
            for text, probabilities_C in zip(texts, predicted.probabilities, strict=True)
        ]
        self._texts += len(texts)
        self._truncated += predicted.n_truncated
        self._unlike += sum(each.unlike is True for each in found)
        return found

    def classify_rows(self, texts: Sequence[str], batch_size: int, console: Console) -> list[Classified | None]:
        """Classify the texts of table rows. The result of a row without text is None."""
        found: list[Classified | None] = [None] * len(texts)
        filled = [index for index, text in enumerate(texts) if not is_blank(text)]
        with console.progress("classifying", len(texts), "rows") as bar:
            bar.advance(len(texts) - len(filled))
            for start in range(0, len(filled), batch_size):
                rows = filled[start : start + batch_size]
                for row, each in zip(rows, self.classify([texts[row] for row in rows]), strict=True):
                    found[row] = each
                bar.advance(len(rows))
        if len(filled) < len(texts):
            console.warn(f"{len(texts) - len(filled):,} of {len(texts):,} rows have no text and get no label.")
        return found

    def _classified(self, text: str, probabilities: dict[str, float]) -> Classified:
        multi_label = self._opened.model.multi_label
        best = max(probabilities, key=lambda label: probabilities[label])
        chosen = above_threshold(np.array([*probabilities.values()]))
        labels = tuple(itertools.compress(probabilities, chosen)) if multi_label else (best,)
        novel = self._novelty.score(text) if self._novelty else None
        novelty, unlike = (novel.novelty, novel.unlike) if novel else (None, None)
        return Classified(text, ", ".join(labels), probabilities, labels, multi_label, novelty, unlike)

    def report(self, console: Console) -> None:
        """Print how many texts were truncated, and how many texts are different from the training texts."""
        if self._truncated:
            which = "1 text is" if self._truncated == 1 else f"{self._truncated:,} texts are"
            longest = self._opened.longest
            console.warn(f"{which} longer than this classifier's limit of {longest} tokens and were truncated.")
        if self._novelty is None:
            console.note(NO_NOVELTY)
        elif self._unlike:
            console.warn(f"{self._unlike:,} of {self._texts:,} texts have a novelty score above 1. {UNLIKE}")
