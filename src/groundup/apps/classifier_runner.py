"""Applications that give labels, on a model that was made to: its own labels, read once, nothing written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import compress
from typing import Any

import numpy as np

from groundup.apps.chunks import split_into_chunks
from groundup.apps.declaration import App
from groundup.apps.inputs import check_inputs
from groundup.apps.prompter import Options
from groundup.apps.steps import AppResult
from groundup.core.errors import ConfigError, GroundupError
from groundup.hub.resolve import OpenedClassifier
from groundup.inference.classification import above_threshold, predict_texts
from groundup.inference.novelty import NO_NOVELTY, UNLIKE, Novelty


class ClassifierRunner:
    """A classifier that applications run on; see `AppRunner`."""

    def __init__(self, opened: OpenedClassifier) -> None:
        self._opened = opened
        self._novelty = Novelty.load(opened.directory)

    def run(
        self,
        app: App,
        given: Mapping[str, Any],
        options: Options | None = None,
        *,
        on_text: Callable[[str], object] = lambda _: None,
        on_progress: Callable[[int, int], object] = lambda *_: None,
    ) -> AppResult:
        """One text. A longer one than the classifier reads at a time is read in parts; the mean counts.

        Raises:
            ConfigError: an application that writes, wrong inputs, or labels that the classifier does not have.
        """
        opened = self._opened
        if app.output.kind != "label":
            raise ConfigError(
                f"{app.name} on {opened.directory}, a classifier",
                rule="a classifier gives labels and writes nothing",
                fix="Take a language model; or sentiment or intent.",
            )
        wanted = app.output.labels_from
        inputs = check_inputs(app, ({wanted: opened.labels} if wanted else {}) | dict(given))
        unknown = sorted(set(inputs[wanted]) - set(opened.labels)) if wanted else []
        if unknown:
            raise ConfigError(
                f"label {unknown[0]!r}",
                rule=f"this classifier's labels are {', '.join(opened.labels)}",
                fix="Choose among them, leave the labels out, or take a language model.",
            )
        parts = split_into_chunks(inputs[app.first.name], self._count, opened.longest)
        predicted = predict_texts(opened, parts)
        # A long part says more than a short one.
        shares_C = np.average(predicted.probabilities, axis=0, weights=predicted.lengths)
        chosen = dict(zip(opened.labels, shares_C.tolist(), strict=True))
        if wanted:
            chosen = {label: chosen[label] for label in inputs[wanted]}
            if not opened.model.multi_label:
                chosen = {label: share / sum(chosen.values()) for label, share in chosen.items()}
        label = max(chosen, key=lambda each: chosen[each])
        notes = [f"Labels of the classifier: {', '.join(opened.labels)}."] if not wanted else []
        if opened.model.multi_label:
            fitting = [*compress(chosen, above_threshold(np.asarray([*chosen.values()])))]
            notes.append(f"Of several labels that a text may have, it gets: {', '.join(fitting) or 'none'}.")
        if len(parts) > 1:
            notes.append(f"Read in {len(parts):,} parts; the probabilities are their means.")
        found = self._novelty.score(inputs[app.first.name]) if self._novelty else None
        if found is None:
            notes.append(NO_NOVELTY)
        elif found.unlike:
            notes.append(f"Novelty {found.novelty:.2f}: {UNLIKE}")
        result = AppResult(app.name, label, label, chosen, tuple(notes), len(parts), sum(predicted.lengths))
        return replace(result, novelty=found.novelty, unlike=found.unlike) if found else result

    def run_many(
        self,
        app: App,
        rows: Sequence[Mapping[str, Any]],
        options: Options | None = None,
        *,
        advance: Callable[[float], object] = lambda _: None,
    ) -> list[AppResult | GroundupError]:
        """Many texts, one after the other: each is a matter of milliseconds."""
        results: list[AppResult | GroundupError] = []
        for given in rows:
            try:
                results.append(self.run(app, given, options))
            except GroundupError as error:
                results.append(error)
            advance(1)
        return results

    def cancel(self) -> None:
        """Nothing to be done: a text is a matter of milliseconds."""

    def _count(self, texts: Sequence[str]) -> list[int]:
        tokenizer = self._opened.tokenizer
        return [len(tokenizer.whole(ids)) for ids in tokenizer.encode_batch(texts)]
