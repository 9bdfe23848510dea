"""The models of a workspace, of which at most two are loaded; see `groundup.serve.models.cache`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch

from groundup.core.errors import DataError, GroundupError
from groundup.core.files import read_json
from groundup.evaluation.internals import TextTrace
from groundup.hub import load_newest_state
from groundup.hub.adapted import content_digest
from groundup.hub.loading import OpenedClassifier, OpenedModel, open_classifier
from groundup.hub.resolve import finished
from groundup.inference.runner import make_pool
from groundup.inference.worker import Worker
from groundup.model import Transformer
from groundup.serve import ServedModel
from groundup.serve.models.cache import LoadedModel, ModelCache, ModelSource
from groundup.studio.api_errors import to_api_error
from groundup.studio.workspace import ModelInfo, Workspace
from groundup.tokenizer import Tokenizer
from groundup.tokenizer.chat import ChatTemplate
from groundup.train.planner import Plan


def load_newest_checkpoint(directory: Path) -> OpenedModel:
    """Load the model of the newest checkpoint of a pretraining stage.

    The model is loaded on the CPU, because training uses the GPU.

    Args:
        directory: Directory of the stage. The tokenizer is in `../tokens/tokenizer`.

    Raises:
        DataError: The stage has no checkpoint, or the tokenizer does not exist.
        FormatError: A file is damaged.
    """
    state = load_newest_state(directory / "checkpoints")
    if state is None:
        raise DataError(
            f"{directory}",
            rule="no checkpoint found",
            fix="Wait for the first checkpoint. The setting checkpoint_seconds is the interval between checkpoints.",
        )
    tokenizer = Tokenizer.load(directory.parent / "tokens" / "tokenizer")
    plan = Plan.from_json(read_json(directory / "plan.json")["plan"])
    model = Transformer(plan.model)
    with torch.no_grad():
        weights = state.groups["model"]
        for name, tensor in model.named_parameters():  # Parameters and checkpoints contain tied weights only once.
            tensor.copy_(weights[name])
    return OpenedModel(directory, model.eval().requires_grad_(False), tokenizer, tokenizer.stop_ids)


Opener = Callable[[Path], tuple[OpenedModel, ChatTemplate | None]]

_MAX_LOADED = 2  # The Chat view can compare two models.
_MAX_ACTIVE, _MAX_WAITING = 8, 256


@dataclass(slots=True, eq=False)
class InspectionState:
    """What inspections of a loaded model share.

    Attributes:
        reading: Cached results of the forward pass over the text that was inspected last.
        lock: A lock that an inspection of the model holds.
    """

    reading: TextTrace | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True, slots=True)
class InspectedModel:
    """A loaded model that is inspected.

    Attributes:
        served: The model with its inference engine, as the API uses it.
        step: Training step of the checkpoint, or None if the model is not in training.
        state: State of the model's inspections.
    """

    served: ServedModel
    step: int | None
    state: InspectionState


class WorkspaceSources:
    """The language models of a workspace. This class implements `groundup.serve.models.cache.ModelSources`.

    Args:
        workspace: The workspace that contains the models.
        opener: A function that loads a model directory.
    """

    def __init__(self, workspace: Workspace, opener: Opener) -> None:
        self._workspace = workspace
        self._opener = opener

    def find(self, name: str) -> ModelSource | None:
        """Return the model with this name, or None if it does not exist."""
        return next((source for source in self.all() if source.name == name), None)

    def all(self) -> Sequence[ModelSource]:
        """Return all models except classifiers."""
        return [self._source(model) for model in self._workspace.models() if model.kind != "classifier"]

    def _source(self, info: ModelInfo) -> ModelSource:
        if info.step is not None:  # loaded again when training has saved a newer checkpoint
            return ModelSource(info.name, info.directory, self._open_checkpoint(info.directory), version=info.step)
        digest = partial(content_digest, info.directory)
        return ModelSource(info.name, info.directory, lambda _: self._opener(info.directory), digest)

    def _open_checkpoint(self, directory: Path) -> Callable[[OpenedModel | None], tuple[OpenedModel, None]]:
        return lambda _: (load_newest_checkpoint(directory), None)


class StudioModels:
    """The models of a workspace, which are loaded on demand. This class implements `groundup.serve.Models`.

    Args:
        workspace: The workspace that contains the models.
        opener: A function that loads a model directory.
    """

    def __init__(self, workspace: Workspace, opener: Opener) -> None:
        self._workspace = workspace
        self._cache = ModelCache(
            WorkspaceSources(workspace, opener),
            Worker(_MAX_ACTIVE, _MAX_WAITING),
            make_pool(),
            max_models=_MAX_LOADED,
            explain=lambda _, error: to_api_error(error),
        )
        self._states: WeakKeyDictionary[LoadedModel, InspectionState] = WeakKeyDictionary()
        # The loaded classifier, with its directory and the modification time of the directory.
        self._classifier: tuple[Path, float, OpenedClassifier] | None = None
        self._classifier_lock = threading.Lock()

    def use(self, name: str) -> AbstractAsyncContextManager[ServedModel]:
        """Return a context in which the model with this name stays loaded.

        Raises:
            ApiError: The status is 404 if the name is unknown, 400 or 503 if the model cannot be loaded, and 429 if all
                loaded models are in use.
        """
        return self._cache.use(name)

    @asynccontextmanager
    async def inspect(self, name: str) -> AsyncIterator[InspectedModel]:
        """Return a context in which the model with this name can be inspected. Raises the same errors as `use`."""
        async with self._cache.load(name) as loaded:
            step = loaded.source.version
            assert step is None or isinstance(step, int)
            state = self._states.setdefault(loaded, InspectionState())
            yield InspectedModel(loaded.served, step, state)

    @asynccontextmanager
    async def use_any(self, name: str) -> AsyncIterator[ServedModel | OpenedClassifier]:
        """Return a context of the model or classifier with this name. Raises the same errors as `use`."""
        infos = await asyncio.to_thread(self._workspace.models)
        info = next((model for model in infos if model.name == name), None)
        if info is not None and info.kind == "classifier":
            yield await asyncio.to_thread(self._load_classifier, info.directory)
            return
        async with self._cache.use(name) as served:
            yield served

    def list_models(self) -> list[dict[str, Any]]:
        """Return all models, except classifiers, as model objects of the OpenAI API."""
        return self._cache.list_models()

    def loaded_names(self) -> list[str]:
        """Return the names of the loaded models. The least recently used model is first."""
        return self._cache.loaded_names()

    def close(self) -> None:
        """Unload all models and cancel generations that are in progress."""
        self._cache.close()

    def _load_classifier(self, directory: Path) -> OpenedClassifier:
        with self._classifier_lock:
            modified = finished(directory)
            if self._classifier is None or self._classifier[:2] != (directory, modified):
                try:
                    self._classifier = directory, modified, open_classifier(directory)
                except GroundupError as error:
                    raise to_api_error(error) from error
            return self._classifier[2]
