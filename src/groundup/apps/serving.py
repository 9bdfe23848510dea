"""Applications that an HTTP server offers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from groundup.apps.catalog import Catalog, CatalogEntry
from groundup.apps.classifier_runner import ClassifierRunner
from groundup.apps.prompter import Options
from groundup.apps.runner import AppRunner
from groundup.apps.scores import stored_score, warning_of
from groundup.hub.loading import OpenedClassifier
from groundup.inference import Engine
from groundup.tokenizer import ChatTemplate

Json = dict[str, Any]


class Model(Protocol):
    """Interface of a language model that the server serves."""

    @property
    def engine(self) -> Engine:
        """Inference engine of the model."""
        ...

    @property
    def template(self) -> ChatTemplate | None:
        """Chat template of the model, or None if it is a base model."""
        ...

    @property
    def directory(self) -> Path | None:
        """Model directory or model file. None for a model that has no files."""
        ...


class Call(Protocol):
    """Interface of the body of a request."""

    @property
    def inputs(self) -> Mapping[str, Any]:
        """Maps the names of the application's inputs to values."""
        ...

    @property
    def temperature(self) -> float | None:
        """Sampling temperature, or None for the application's default."""
        ...

    @property
    def max_tokens(self) -> int | None:
        """Maximum number of tokens to generate, or None for the application's default."""
        ...

    @property
    def seed(self) -> int | None:
        """Random seed, or None for a random one."""
        ...


class ServedApps:
    """The applications of a catalog. This class implements `groundup.serve.applications.Applications`.

    Args:
        catalog: Catalog that contains the applications.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def describe(self) -> list[Json]:
        """Return descriptions of all applications as JSON."""
        return [found.app.describe() for found in self._catalog.values()]

    def task(self, name: str, model: Model | OpenedClassifier, body: Call) -> ServedTask | None:
        """Return the task that answers a request, or None if no application has this name."""
        return ServedTask(self._catalog[name], model, body) if name in self._catalog else None


class ServedTask:
    """A task that runs an application to answer one request.

    Args:
        found: Application to run.
        model: Model to run the application on.
        body: Body of the request.
    """

    def __init__(self, found: CatalogEntry, model: Model | OpenedClassifier, body: Call) -> None:
        self._found, self._body, self._directory = found, body, model.directory
        self._runner: AppRunner | ClassifierRunner
        if isinstance(model, OpenedClassifier):
            self._runner = ClassifierRunner(model)
        else:
            self._runner = AppRunner(model.engine, model.template, batched=False, directory=model.directory)

    def run(self, on_event: Callable[[Json], None]) -> Json:
        """Run the application and return its result as JSON."""
        result = self._runner.run(
            self._found.app,
            self._body.inputs,
            Options(self._body.temperature, self._body.max_tokens, self._body.seed),
            on_text=lambda text: on_event({"type": "text", "text": text}),
            on_progress=lambda done, total: on_event({"type": "progress", "done": done, "total": total}),
        )
        score = stored_score(self._directory, self._found) if self._directory is not None else None
        warning = warning_of(self._found, score) if score is not None else None
        return asdict(result) | {"warning": warning}

    def cancel(self) -> None:
        """Cancel the task. Another thread calls this method."""
        self._runner.cancel()
