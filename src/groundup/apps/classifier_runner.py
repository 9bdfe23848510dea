"""Running of applications that output labels, on a fine-tuned classifier."""

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
from groundup.hub.loading import OpenedClassifier
from groundup.inference.classification import above_threshold, predict_texts
from groundup.inference.novelty import NO_NOVELTY, UNLIKE, Novelty


class ClassifierRunner:
    """Runs applications on a classifier. It has the same interface as `AppRunner`.

    Args:
        opened: Classifier that predicts the labels.
    """

    def __init__(self, opened: OpenedClassifier) -> None:
        self._opened = opened
        self._novelty = Novelty.load(opened.directory)
        self.directory = opened.directory

    @property
    def num_parameters(self) -> int:
        """Number of parameters of the classifier."""
        return sum(each.numel() for each in self._opened.model.parameters())

    def run(
        self,
        app: App,
        given: Mapping[str, Any],
        options: Options | None = None,
        *,
        on_text: Callable[[str], object] = lambda _: None,
        on_progress: Callable[[int, int], object] = lambda *_: None,
    ) -> AppResult:
        """Classify a text. A long text is split into chunks, and the probabilities of the chunks are averaged.

        Args:
            app: Application to run.
            given: Maps input names to values.
            options: Ignored.
            on_text: Ignored.
            on_progress: Ignored.

        Raises:
            ConfigError: The application generates text, an input is invalid, or the classifier does not have a
                requested label.
        """
        opened = self._opened
        if app.output.kind != "label":
            raise ConfigError(
                f"{app.name} generates text, and {opened.directory} is a classifier",
                fix="Use a language model, or an application with labels, such as sentiment.",
            )
        wanted = app.output.labels_from
        inputs = check_inputs(app, ({wanted: opened.labels} if wanted else {}) | dict(given))
        unknown = sorted(set(inputs[wanted]) - set(opened.labels)) if wanted else []
        if unknown:
            raise ConfigError(
                f"unknown label {unknown[0]!r}",
                rule=f"the labels of this classifier are {', '.join(opened.labels)}",
                fix="Use these labels, give no labels, or use a language model.",
            )
        chunks = split_into_chunks(inputs[app.first.name], self._count, opened.longest)
        predicted = predict_texts(opened, chunks)
        # Weight each chunk by its number of tokens.
        probabilities_C = np.average(predicted.probabilities, axis=0, weights=predicted.lengths)
        chosen = dict(zip(opened.labels, probabilities_C.tolist(), strict=True))
        if wanted:
            chosen = {label: chosen[label] for label in inputs[wanted]}
            if not opened.model.multi_label:
                chosen = {label: value / sum(chosen.values()) for label, value in chosen.items()}
        label = max(chosen, key=lambda each: chosen[each])
        notes = [f"Labels of the classifier: {', '.join(opened.labels)}."] if not wanted else []
        if opened.model.multi_label:
            fitting = [*compress(chosen, above_threshold(np.asarray([*chosen.values()])))]
            notes.append(f"Labels above the threshold: {', '.join(fitting) or 'none'}.")
        if len(chunks) > 1:
            notes.append(f"Split into {len(chunks):,} chunks; the probabilities are means.")
        found = self._novelty.score(inputs[app.first.name]) if self._novelty else None
        if found is None:
            notes.append(NO_NOVELTY)
        elif found.unlike:
            notes.append(f"Novelty {found.novelty:.2f}. {UNLIKE}")
        result = AppResult(app.name, label, label, chosen, tuple(notes), len(chunks), sum(predicted.lengths))
        return replace(result, novelty=found.novelty, unlike=found.unlike) if found else result

    def run_many(
        self,
        app: App,
        rows: Sequence[Mapping[str, Any]],
        options: Options | None = None,
        *,
        advance: Callable[[float], object] = lambda _: None,
    ) -> list[AppResult | GroundupError]:
        """Classify the texts of many rows (see `run`). The result of an invalid row is its error.

        Args:
            app: Application to run.
            rows: Inputs for each row.
            options: Ignored.
            advance: Function that is called with 1 after each row.
        """
        results: list[AppResult | GroundupError] = []
        for given in rows:
            try:
                results.append(self.run(app, given, options))
            except GroundupError as error:
                results.append(error)
            advance(1)
        return results

    def cancel(self) -> None:
        """Do nothing, because the classification of a text takes only milliseconds."""

    def _count(self, texts: Sequence[str]) -> list[int]:
        tokenizer = self._opened.tokenizer
        return [len(tokenizer.build_inputs(ids)) for ids in tokenizer.encode_batch(texts)]
