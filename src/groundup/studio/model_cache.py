"""A cache of at most two loaded models.

A model is loaded when a request first uses it. If the cache is full, the least recently used model is evicted.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from groundup.core.errors import DataError, GroundupError, ResourceError
from groundup.core.files import read_json
from groundup.evaluation.internals import TextTrace
from groundup.hub import load_newest_state, read_config
from groundup.hub.resolve import OpenedClassifier, OpenedModel, finished, open_classifier
from groundup.inference import Engine, make_runner
from groundup.model import Transformer
from groundup.serve import ServedModel, model_object, unknown_model
from groundup.serve.errors import overloaded
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

_MAX_OPEN = 2  # The Chat view can compare two models.
_IDLE_SECONDS = 0.4


@dataclass(slots=True, eq=False)
class LoadedModel:
    """A model in memory.

    Attributes:
        served: The model with its inference engine, as the API uses it.
        step: Training step of the checkpoint, or None if the model is not in training.
        reading: Cached results of the forward pass over the text that was inspected last.
        lock: A lock that an inspection of the model holds.
    """

    served: ServedModel
    step: int | None
    reading: TextTrace | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class ModelCache:
    """The models of a workspace, which are loaded on demand. This class implements `groundup.serve.Models`.

    Args:
        workspace: The workspace that contains the models.
        opener: A function that loads a model directory.
    """

    def __init__(self, workspace: Workspace, opener: Opener) -> None:
        self._workspace = workspace
        self._opener = opener
        self._open: OrderedDict[str, LoadedModel] = OrderedDict()
        # The loaded classifier, with its directory and the modification time of the directory.
        self._classifier: tuple[Path, float, OpenedClassifier] | None = None
        # Loading takes memory and uses all cores, so the lock makes threads load models one at a time.
        self._lock = threading.Lock()

    def get_model(self, name: str) -> ServedModel:
        """Return the model with this name.

        Raises:
            ApiError: The status is 404 if the name is unknown, 400 if the model cannot be loaded, and 503 if all loaded
                models are in use.
        """
        return self.load(name).served

    def for_applications(self, name: str) -> ServedModel | OpenedClassifier:
        """Return the model or classifier with this name. This method raises the same errors as `get_model`."""
        info = next((model for model in self._workspace.models() if model.name == name), None)
        if info is None or info.kind != "classifier":
            return self.get_model(name)
        with self._lock:
            modified = finished(info.directory)
            if self._classifier is None or self._classifier[:2] != (info.directory, modified):
                try:
                    self._classifier = info.directory, modified, open_classifier(info.directory)
                except GroundupError as error:
                    raise to_api_error(error) from error
            return self._classifier[2]

    def load(self, name: str) -> LoadedModel:
        """Return the model with this name. The model is reloaded if training has saved a newer checkpoint.

        Raises:
            ApiError: The status is 404 if the name is unknown, 400 if the model cannot be loaded, and 503 if all loaded
                models are in use.
        """
        models = {model.name: model for model in self._models()}
        if name not in models:
            raise unknown_model(name, list(models))
        info = models[name]
        with self._lock:
            model = self._open.get(name)
            if model is not None and model.step != info.step and not model.served.engine.busy:
                self._close(name)
                model = None
            if model is None:
                self._evict()
                model = self._open[name] = self._load(info)
            self._open.move_to_end(name)
            return model

    def list_models(self) -> list[dict[str, Any]]:
        """Return all models, except classifiers, as model objects of the OpenAI API."""
        return [
            model_object(
                model.name,
                created=0 if model.step is not None else int(finished(model.directory)),
                context_length=_context_length(model),
                chats=model.has_chat_template,
            )
            for model in self._models()
        ]

    def loaded_names(self) -> list[str]:
        """Return the names of the loaded models. The least recently used model is first."""
        return list(self._open)

    def close(self) -> None:
        """Unload all models and cancel generations that are in progress."""
        for name in list(self._open):
            self._close(name)

    def _models(self) -> list[ModelInfo]:
        return [model for model in self._workspace.models() if model.kind != "classifier"]

    def _load(self, info: ModelInfo) -> LoadedModel:
        try:
            opened, template = (
                (load_newest_checkpoint(info.directory), None) if info.step else self._opener(info.directory)
            )
        except GroundupError as error:
            raise to_api_error(error) from error
        runner = make_runner(opened.model)
        engine = Engine(opened.model, opened.tokenizer, runner=runner, stop_ids=opened.stop_ids)
        created = 0 if info.step is not None else int(finished(info.directory))
        return LoadedModel(ServedModel(info.name, engine, template, created), info.step)

    def _evict(self) -> None:
        while len(self._open) >= _MAX_OPEN:
            idle = next((name for name, model in self._open.items() if _is_idle(model)), None)
            if idle is None:
                rule = "all loaded models are processing requests"
                raise overloaded(ResourceError(", ".join(self._open), rule=rule, fix="Try again in a moment."))
            self._close(idle)

    def _close(self, name: str) -> None:
        self._open.pop(name).served.engine.close()


def _is_idle(model: LoadedModel) -> bool:
    """Return whether a model does not process any request for 0.4 s.

    The wait is necessary because an application sends a separate request for each chunk of a long text.
    """
    deadline = time.monotonic() + _IDLE_SECONDS
    while not model.served.engine.busy:
        if time.monotonic() > deadline:
            return True
        time.sleep(_IDLE_SECONDS / 20)
    return False


def _context_length(model: ModelInfo) -> int:
    try:
        return 0 if model.step is not None else read_config(model.directory).context_length
    except GroundupError:  # The error is reported when a request loads the model.
        return 0
