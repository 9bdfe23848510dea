"""The models that a server offers, and the lookup of a model by name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

from groundup.core.errors import ConfigError
from groundup.serve.models.model import ServedModel
from groundup.serve.openai.errors import unknown_model


class Models(Protocol):
    """Interface of the models that a server offers."""

    def use(self, name: str) -> AbstractAsyncContextManager[ServedModel]:
        """Return a context in which the model with the given name stays loaded. The model may be loaded first.

        Args:
            name: Name of the model in the API.

        Raises:
            ApiError: The status is 404 if the model does not exist. Other statuses report a failure to load it.
        """

    def list_models(self) -> list[dict[str, Any]]:
        """Return descriptions of all models in the format of the API."""


def model_object(name: str, *, created: int, context_length: int, chats: bool, loaded: bool = True) -> dict[str, Any]:
    """Return the description of a model in the format of the API.

    Args:
        name: Name of the model in the API.
        created: Creation time of the model in seconds since the Unix epoch.
        context_length: Context length of the model in tokens.
        chats: Whether the model has a chat template.
        loaded: Whether the model is in memory. Otherwise the first request loads it.
    """
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "groundup",
        "context_length": context_length,
        "has_chat_template": chats,
        "embedding": "mean of the hidden states after the final norm, divided by its L2 norm",
        "loaded": loaded,
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
                    fix="Choose another name.",
                )
            self._models[model.name] = model

    @asynccontextmanager
    async def use(self, name: str) -> AsyncIterator[ServedModel]:
        """Return the model with the given name.

        Args:
            name: Name of the model in the API.

        Raises:
            ApiError: The status is 404 if the model does not exist.
        """
        if name not in self._models:
            raise unknown_model(name, list(self._models))
        yield self._models[name]

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
