"""Applications in an HTTP server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Protocol

from groundup.apps.catalog import Catalog
from groundup.apps.classifier_runner import ClassifierRunner
from groundup.apps.declaration import App
from groundup.apps.prompter import Options
from groundup.apps.runner import AppRunner
from groundup.hub.resolve import OpenedClassifier
from groundup.inference import Engine
from groundup.tokenizer import ChatTemplate

Json = dict[str, Any]


class Model(Protocol):
    """A served language model."""

    @property
    def engine(self) -> Engine:
        """Engine of the model."""
        ...

    @property
    def template(self) -> ChatTemplate | None:
        """Chat template, or None for a base model."""
        ...


class Call(Protocol):
    """The body of a request."""

    @property
    def inputs(self) -> Mapping[str, Any]:
        """Inputs of the application."""
        ...

    @property
    def temperature(self) -> float | None:
        """Sampling temperature, or None."""
        ...

    @property
    def max_tokens(self) -> int | None:
        """Maximum number of tokens to generate, or None."""
        ...

    @property
    def seed(self) -> int | None:
        """Random seed, or None."""
        ...


class ServedApps:
    """The applications of a catalog, as `groundup.serve.applications.Applications`.

    Args:
        catalog: The catalog.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def describe(self) -> list[Json]:
        """Return all applications as JSON."""
        return [found.app.describe() for found in self._catalog.values()]

    def task(self, name: str, model: Model | OpenedClassifier, body: Call) -> ServedTask | None:
        """Return the task of a request, or None if the application does not exist."""
        return ServedTask(self._catalog[name].app, model, body) if name in self._catalog else None


class ServedTask:
    """The task of one request.

    Args:
        app: The application.
        model: The model.
        body: Body of the request.
    """

    def __init__(self, app: App, model: Model | OpenedClassifier, body: Call) -> None:
        self._app, self._body = app, body
        self._runner: AppRunner | ClassifierRunner
        if isinstance(model, OpenedClassifier):
            self._runner = ClassifierRunner(model)
        else:
            self._runner = AppRunner(model.engine, model.template, batched=False)

    def run(self, on_event: Callable[[Json], None]) -> Json:
        """Run the application, and return the result as JSON."""
        result = self._runner.run(
            self._app,
            self._body.inputs,
            Options(self._body.temperature, self._body.max_tokens, self._body.seed),
            on_text=lambda text: on_event({"type": "text", "text": text}),
            on_progress=lambda done, total: on_event({"type": "progress", "done": done, "total": total}),
        )
        return asdict(result)

    def cancel(self) -> None:
        """Cancel the task, from another thread."""
        self._runner.cancel()
