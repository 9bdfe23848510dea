"""The models of one server by their names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from groundup.core.console import Console
from groundup.core.errors import ConfigError
from groundup.core.files import expand_home
from groundup.hub.resolve import OpenedModel, finished, usable_template
from groundup.inference import Engine
from groundup.serve.errors import unknown_model
from groundup.serve.model import ServedModel
from groundup.tokenizer import ChatTemplate


class Models(Protocol):
    """What a server answers with."""

    def get_model(self, name: str) -> ServedModel:
        """The model that is called so; it may have to be loaded first.

        Raises:
            ApiError: 404 there is none; or it cannot be loaded.
        """

    def list_models(self) -> list[dict[str, Any]]:
        """All of them, as the API describes each."""


def model_object(name: str, *, created: int, context_length: int, chats: bool) -> dict[str, Any]:
    """A model as the API's list of them shows it."""
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "groundup",
        "context_length": context_length,
        "has_chat_template": chats,
    }


class ServedModels:
    """The models that a server has, in their order; each answers under its own name.

    Raises:
        ConfigError: two of one name.
    """

    def __init__(self, models: Sequence[ServedModel]) -> None:
        self._models: dict[str, ServedModel] = {}
        for model in models:
            if model.name in self._models:
                raise ConfigError(
                    f"two models called {model.name!r}",
                    rule="clients choose a model by its name, so each has one of its own",
                    fix="Give another one: --adapter NAME=DIR, or --name for the model itself.",
                )
            self._models[model.name] = model

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._models.values())

    def get_model(self, name: str) -> ServedModel:
        """The model that is called so.

        Raises:
            ApiError: 404 there is none.
        """
        if name not in self._models:
            raise unknown_model(name, list(self._models))
        return self._models[name]

    def list_models(self) -> list[dict[str, Any]]:
        """All of them, as the API describes each."""
        return [
            model_object(
                model.name,
                created=model.created,
                context_length=model.context_length,
                chats=model.template is not None,
            )
            for model in self._models.values()
        ]


def serve_opened(
    engine: Engine,
    model: tuple[str, OpenedModel, ChatTemplate | None],
    adapters: Sequence[tuple[str, OpenedModel]],
    console: Console,
) -> ServedModels:
    """Return a model of an engine and adapters that share its weights, each under its name.

    Raises:
        ConfigError: two models of one name.
    """
    name, opened, template = model
    served = [ServedModel(name, engine, template, int(finished(opened.directory)))]
    for name, each in adapters:
        own = engine.share_worker(each.model, each.tokenizer, stop_ids=each.stop_ids)
        served.append(ServedModel(name, own, usable_template(each, console), int(finished(each.directory))))
    return ServedModels(served)


def named_directory(adapter: str) -> tuple[str, Path]:
    """Return the name and the directory that NAME=DIR gives; a directory alone has its own name.

    Raises:
        ConfigError: one of the two is empty.
    """
    name, given, path = adapter.partition("=")
    if not given or Path(adapter).is_dir():
        return expand_home(Path(adapter)).resolve().name, expand_home(Path(adapter))
    if not (name and path):
        raise ConfigError(
            f"adapter = {adapter}",
            rule="an adapter is given as its name in the API, an equals sign, and its directory",
            fix="For example: --adapter support=runs/support/chat.",
        )
    return name, expand_home(Path(path))
