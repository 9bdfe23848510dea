"""The models of one server by their names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from groundup.errors import ConfigError
from groundup.serve.errors import ApiError
from groundup.serve.model import ServedModel


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

    def named(self, name: str) -> ServedModel:
        """The model that is called so.

        Raises:
            ApiError: 404 there is none.
        """
        if name in self._models:
            return self._models[name]
        known = [repr(known) for known in self._models]
        raise ApiError(
            404,
            f"model {name[:80]!r}",
            rule=f"this server has the model {known[0]} only" if len(known) == 1 else f"models: {', '.join(known)}",
            fix="Use that name." if len(known) == 1 else "Use one of these names.",
            param="model",
            code="model_not_found",
        )
