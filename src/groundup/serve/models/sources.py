"""The models that `groundup serve` offers: given paths, adapters, and the models in a folder."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from groundup.core.artifact import REPLACED_INFIX
from groundup.core.console import Console
from groundup.core.errors import ConfigError, DataError, GroundupError
from groundup.core.files import expand_home
from groundup.evaluation.quantization import stored_quality
from groundup.hub.adapted import content_digest, find_adapter_base, is_adapter_of
from groundup.hub.loading import OpenedModel, open_adapter, open_chat_model, usable_template
from groundup.hub.resolve import finished, resolve_model
from groundup.serve.models.cache import ModelCache, ModelSource, ModelSources
from groundup.tokenizer import ChatTemplate

_GGUF = ".gguf"
_KNOWN_SECONDS = 2.0  # time after which a model in the folder is looked up again


@dataclass(frozen=True, slots=True)
class Opening:
    """How models are opened.

    Attributes:
        device: Device of the weights. Default: a GPU if available.
        base: Directory of the base model of adapters, if it was moved.
        console: Console for warnings.
    """

    device: str | None
    base: Path | None
    console: Console

    def model(self, path: Path, _: OpenedModel | None) -> tuple[OpenedModel, ChatTemplate | None]:
        """Open a model, or an adapter merged into its base model."""
        return open_chat_model(path, self.device, self.console, base=self.base)

    def adapter(self, path: Path, base: OpenedModel | None) -> tuple[OpenedModel, ChatTemplate | None]:
        """Open an adapter that shares the weights of an opened model."""
        assert base is not None
        opened = open_adapter(base, path)
        return opened, usable_template(opened, self.console)


class GivenModels:
    """Models and adapters that the user lists.

    Args:
        models: Paths, each as PATH or NAME=PATH.
        adapters: Directories of adapters of these models, each as DIR or NAME=DIR.
        opening: How models are opened.
        name: Name of the only model.

    Raises:
        ConfigError: Two models have the same name, an adapter belongs to none of the models, or `name` is given for
            several models.
        DataError: A path contains no language model.
    """

    def __init__(
        self, models: Sequence[str], adapters: Sequence[str], opening: Opening, *, name: str | None = None
    ) -> None:
        self._sources: dict[str, ModelSource] = {}
        if name is not None and len(models) != 1:
            raise ConfigError(f"name = {name}", rule=f"it names one of {len(models)} models", fix="Write NAME=PATH.")
        for given in models:
            default, path = named_path("model", given)
            directory = resolve_model(path)
            digest = partial(content_digest, directory, opening.base)
            self._add(ModelSource(name or default, directory, partial(opening.model, path), digest))
        full = list(self._sources.values())
        for given in adapters:
            own, path = named_path("adapter", given)
            directory = resolve_model(path)
            base = _base_of(directory, full)
            digest = partial(content_digest, directory, base.directory)
            self._add(ModelSource(own, directory, partial(opening.adapter, path), digest, base.name))

    def _add(self, source: ModelSource) -> None:
        if source.name in self._sources:
            raise ConfigError(
                f"two models have the name {source.name!r}",
                fix="Choose another name with NAME=PATH, with --adapter NAME=DIR, or with --name for a single model.",
            )
        self._sources[source.name] = source

    def find(self, name: str) -> ModelSource | None:
        """Return the model with the given name, or None if it does not exist."""
        return self._sources.get(name)

    def all(self) -> Sequence[ModelSource]:
        """Return all models, in the given order."""
        return list(self._sources.values())


class FolderModels:
    """The models in a folder, and the models of a list, which come first.

    Models, runs and GGUF files can be added, replaced and removed at any time. Their name is the name of the directory,
    or of the file without its suffix. A run offers its newest language model.

    Args:
        given: The models of the list.
        folder: The folder.
        opening: How models are opened.
    """

    def __init__(self, given: GivenModels, folder: Path, opening: Opening) -> None:
        self._given = given
        self._folder = folder
        self._opening = opening
        self._known: dict[str, tuple[float, ModelSource]] = {}

    def find(self, name: str) -> ModelSource | None:
        """Return the model with the given name, or None if it does not exist."""
        if (source := self._given.find(name)) is not None:
            return source
        known = self._known.get(name)
        if known is not None and time.monotonic() - known[0] < _KNOWN_SECONDS:
            return known[1]
        # The name is compared with the names in the folder, so that it cannot point to another place.
        path = next((path for path in self._children() if _name(path) == name), None)
        found = None if path is None else self._source(path)
        if found is not None:
            self._known[name] = time.monotonic(), found
        else:
            self._known.pop(name, None)
        return found

    def all(self) -> Sequence[ModelSource]:
        """Return all models: first the list, then the folder sorted by name."""
        given = self._given.all()
        names = {source.name for source in given}
        found = (self._source(path) for path in sorted(self._children()) if _name(path) not in names)
        return [*given, *(source for source in found if source is not None)]

    def _children(self) -> Iterator[Path]:
        for path in self._folder.iterdir() if self._folder.is_dir() else ():
            if not path.name.startswith(".") and REPLACED_INFIX not in path.name:
                yield path

    def _source(self, path: Path) -> ModelSource | None:
        """Return the model of a directory or file, or None if it contains no language model."""
        if path.is_file() and path.suffix != _GGUF:
            return None
        try:
            directory = resolve_model(path)
            version = directory, finished(directory)
        except (GroundupError, OSError):
            return None
        digest = partial(content_digest, directory, self._opening.base)
        return ModelSource(_name(path), directory, partial(self._opening.model, directory), digest, version=version)


def open_sources(
    models: Sequence[str],
    adapters: Sequence[str],
    folder: Path | None,
    opening: Opening,
    *,
    name: str | None = None,
    optional: bool = False,
) -> tuple[list[str], ModelSources]:
    """Return the models of `groundup serve`.

    Args:
        models: Paths of models, each as PATH or NAME=PATH.
        adapters: Directories of adapters of these models, each as DIR or NAME=DIR.
        folder: Folder of more models, or None.
        opening: How models are opened.
        name: Name of the only model.
        optional: Whether the server may have no model, because it serves indexes.

    Returns:
        The names of `models` and `adapters`, and the sources of all models.

    Raises:
        ConfigError: No model is given; see also `GivenModels`.
        DataError: The folder does not exist, or a path contains no language model.
    """
    if not models and folder is None and not optional:
        fix = "Give a model, such as runs/quickstart, or a folder of models: --models-dir FOLDER."
        raise ConfigError("no model to serve", fix=fix)
    if folder is not None and not folder.is_dir():
        raise DataError(f"{folder}: no such directory", fix="Give a folder that contains models: --models-dir FOLDER.")
    given = GivenModels(models, adapters, opening, name=name)
    names = [source.name for source in given.all()]
    return names, given if folder is None else FolderModels(given, folder, opening)


def summarize(models: ModelCache, url: str, console: Console) -> dict[str, Any]:
    """Print a line per model, and return the names of the models and whether the first one has a chat template.

    Args:
        models: The models of the server.
        url: URL of the server.
        console: Console for the lines.
    """
    listed = models.list_models()
    directories = {source.name: source.directory for source in models.sources.all()}
    for model in listed:
        notes = "" if model["has_chat_template"] else " (completions only)"
        notes += "" if model["loaded"] else " (loaded at its first use)"
        directory = directories.get(model["id"])
        console.note(f"Serving {directory or ''} as {model['id']!r} at {url}/v1{notes}")
        if directory is not None and model["loaded"] and models.dtype in ("int8", "int4"):
            console.note(stored_quality(directory, models.dtype))  # not measured now, because requests may wait
    first = listed[0] if listed else {"id": None, "has_chat_template": False}
    names = [model["id"] for model in listed]
    return {"url": url, "model": first["id"], "models": names, "chat": first["has_chat_template"]}


def named_path(kind: str, given: str) -> tuple[str, Path]:
    """Parse an argument of the form NAME=PATH or PATH. The default is the name of the directory or file.

    Args:
        kind: "model", "adapter" or "index", for the error message.
        given: The argument.

    Returns:
        The name and the path.

    Raises:
        ConfigError: The name or the path is empty.
    """
    name, separator, path = given.partition("=")
    if not separator or Path(given).exists():
        whole = expand_home(Path(given))
        return _name(whole.resolve()), whole
    if not (name and path):
        raise ConfigError(
            f"{kind} = {given}",
            rule="must be NAME=DIR",
            fix=f"Write support=runs/support/chat, for example, to serve the {kind} under the name support.",
        )
    return name, expand_home(Path(path))


def _name(path: Path) -> str:
    return path.stem if path.suffix == _GGUF else path.name


def _base_of(adapter: Path, models: Sequence[ModelSource]) -> ModelSource:
    """Return the model that an adapter was trained on. A single model is returned without a check."""
    if len(models) == 1:
        return models[0]
    for model in models:
        if is_adapter_of(adapter, model.directory):
            return model
    try:
        recorded = find_adapter_base(adapter).resolve()  # PEFT records no digest of the weights
    except GroundupError:
        recorded = None
    for model in models:
        if model.directory.resolve() == recorded:
            return model
    raise ConfigError(
        f"{adapter}: not an adapter of {', '.join(model.name for model in models) or 'any model'}",
        rule="an adapter is served together with the model that it was trained on",
        fix="Add this model, or give the adapter as a model of its own.",
    )
