"""The models that a server offers, and the lookup of a model by name."""

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
    """Interface of the models that a server offers."""

    def get_model(self, name: str) -> ServedModel:
        """Return the model with the given name. The model may be loaded first.

        Args:
            name: Name of the model in the API.

        Raises:
            ApiError: The status is 404 if the model does not exist. Other statuses report a failure to load it.
        """

    def list_models(self) -> list[dict[str, Any]]:
        """Return descriptions of all models in the format of the API."""


def model_object(name: str, *, created: int, context_length: int, chats: bool) -> dict[str, Any]:
    """Return the description of a model in the format of the API.

    Args:
        name: Name of the model in the API.
        created: Creation time of the model in seconds since the Unix epoch.
        context_length: Context length of the model in tokens.
        chats: Whether the model has a chat template.
    """
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "groundup",
        "context_length": context_length,
        "has_chat_template": chats,
        "embedding": "mean of the hidden states after the final norm, divided by its L2 norm",
    }


class ServedModels:
    """A fixed list of models that are already loaded.

    Args:
        models: Models to serve.

    Raises:
        ConfigError: Two models have the same name.
    """

    def __init__(self, models: Sequence[ServedModel]) -> None:
        self._models: dict[str, ServedModel] = {}
        for model in models:
            if model.name in self._models:
                raise ConfigError(
                    f"two models have the name {model.name!r}",
                    fix="Choose another name with --adapter NAME=DIR, or with --name for the base model.",
                )
            self._models[model.name] = model

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._models.values())

    def get_model(self, name: str) -> ServedModel:
        """Return the model with the given name.

        Args:
            name: Name of the model in the API.

        Raises:
            ApiError: The status is 404 if the model does not exist.
        """
        if name not in self._models:
            raise unknown_model(name, list(self._models))
        return self._models[name]

    def list_models(self) -> list[dict[str, Any]]:
        """Return descriptions of all models in the format of the API."""
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
    """Return a served model, and served adapters that share the weights of this model.

    Args:
        engine: Inference engine of the model.
        model: Name in the API, opened model and chat template (None for a base model).
        adapters: Name in the API and opened model of each adapter.
        console: Console for warnings.

    Raises:
        ConfigError: Two models have the same name.
    """
    name, opened, template = model
    served = [ServedModel(name, engine, template, int(finished(opened.directory)))]
    for name, each in adapters:
        own = engine.share_worker(each.model, each.tokenizer, stop_ids=each.stop_ids)
        served.append(ServedModel(name, own, usable_template(each, console), int(finished(each.directory))))
    return ServedModels(served)


def named_directory(adapter: str) -> tuple[str, Path]:
    """Parse an argument of the form NAME=DIR. If only a directory is given, its name is used as NAME.

    Args:
        adapter: Argument of the form NAME=DIR or DIR.

    Returns:
        The name and the directory.

    Raises:
        ConfigError: The name or the directory is empty.
    """
    name, given, path = adapter.partition("=")
    if not given or Path(adapter).is_dir():
        return expand_home(Path(adapter)).resolve().name, expand_home(Path(adapter))
    if not (name and path):
        raise ConfigError(
            f"adapter = {adapter}",
            rule="must be NAME=DIR",
            fix="Write --adapter support=runs/support/chat, for example.",
        )
    return name, expand_home(Path(path))
