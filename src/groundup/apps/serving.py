"""Applications behind an HTTP interface: a call's body becomes a piece of work on a served model."""

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
    """A model that others use, too."""

    @property
    def engine(self) -> Engine: ...

    @property
    def template(self) -> ChatTemplate | None: ...


class Call(Protocol):
    """What somebody sent."""

    @property
    def inputs(self) -> Mapping[str, Any]: ...

    @property
    def temperature(self) -> float | None: ...

    @property
    def max_tokens(self) -> int | None: ...

    @property
    def seed(self) -> int | None: ...


class ServedApps:
    """What `groundup.serve.applications.Applications` wants, made of a catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def describe(self) -> list[Json]:
        return [found.app.describe() for found in self._catalog.values()]

    def task(self, name: str, model: Model | OpenedClassifier, body: Call) -> ServedTask | None:
        return ServedTask(self._catalog[name].app, model, body) if name in self._catalog else None


class ServedTask:
    """One call."""

    def __init__(self, app: App, model: Model | OpenedClassifier, body: Call) -> None:
        self._app, self._body = app, body
        self._runner: AppRunner | ClassifierRunner
        if isinstance(model, OpenedClassifier):
            self._runner = ClassifierRunner(model)
        else:
            self._runner = AppRunner(model.engine, model.template, batched=False)

    def run(self, tell: Callable[[Json], None]) -> Json:
        result = self._runner.run(
            self._app,
            self._body.inputs,
            Options(self._body.temperature, self._body.max_tokens, self._body.seed),
            on_text=lambda text: tell({"type": "text", "text": text}),
            on_progress=lambda done, total: tell({"type": "progress", "done": done, "total": total}),
        )
        return asdict(result)

    def cancel(self) -> None:
        self._runner.cancel()
