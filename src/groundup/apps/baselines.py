"""Outputs of an application without a model: the input, its first sentences, or the most similar text by TF-IDF."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from groundup.apps.declaration import App, BaselineName
from groundup.corpus.quality.sentences import split_sentences
from groundup.data.labels.tfidf import Tfidf
from groundup.evaluation.baselines import lead

_NUM_LEAD = 2  # sentences


def baseline_of(app: App, given: Sequence[Mapping[str, Any]]) -> tuple[str, list[str]] | None:
    """Return the name and the outputs of an application's baseline, or None if it has none.

    Args:
        app: Application with a test set.
        given: Validated inputs of each example.
    """
    kind = _kind(app)
    texts = [str(row[app.first.name]) for row in given]
    if kind == "copy":
        return "the text itself", texts
    if kind == "lead":
        return f"the first {_NUM_LEAD} sentences", [lead(text, _NUM_LEAD) for text in texts]
    if kind == "example":
        shots = app.prompt.shots
        shown = [" ".join(map(str, shot.inputs.values())) for shot in shots]
        return "the example of the prompt", [shots[_first(tfidf_choice(text, shown))].output for text in texts]
    if kind == "nearest":
        queries = texts
        if app.output.kind == "label":
            choices = [list(app.output.labels or row[app.output.labels_from]) for row in given]
        else:
            queries = [" ".join(str(row[each.name]) for each in app.inputs[1:]) for row in given]
            choices = [[part for line in text.splitlines() for part in split_sentences(line) if part] for text in texts]
        pairs = zip(queries, choices, strict=True)
        return "TF-IDF", [options[_first(tfidf_choice(text, options))] for text, options in pairs]
    return None


def _kind(app: App) -> BaselineName | None:
    assert app.test is not None
    if app.test.baseline is not None:
        return app.test.baseline
    if app.output.kind == "label":
        return "random"
    if app.test.metric in ("likelihood", "checks", "ranking") or app.output.kind == "json":
        return None
    return "lead" if app.test.metric == "rouge" else "copy"


def tfidf_choice(query: str, choices: Sequence[str]) -> list[float]:
    """Return the probability with which TF-IDF chooses each text. Texts that are equally similar share it.

    Args:
        query: Text to compare with.
        choices: At least one text.
    """
    fitted = Tfidf.fit([query, *choices])
    if fitted is None:
        return [1 / len(choices)] * len(choices)
    rows = fitted[1]
    similarity = np.asarray((rows[1:] @ rows[0].T).todense()).ravel().round(9)
    best = similarity == similarity.max()
    return [float(share) for share in best / best.sum()]


def _first(shares: Sequence[float]) -> int:
    return max(range(len(shares)), key=lambda place: shares[place])
