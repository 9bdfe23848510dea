"""Models that are open: loaded when they are first asked for, two at a time, the least used one put back."""

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
from groundup.evaluation.inside import Reading
from groundup.hub import load_newest_state, read_config
from groundup.hub.resolve import OpenedClassifier, OpenedModel, finished, open_classifier
from groundup.inference import Engine
from groundup.model import Transformer
from groundup.serve import ServedModel, model_object, unknown_model
from groundup.serve.errors import overloaded
from groundup.studio.home import Home, ModelSeen
from groundup.studio.refusals import refused
from groundup.tokenizer import Tokenizer
from groundup.tokenizer.chat import ChatTemplate
from groundup.train.planner import Plan


def open_live(directory: Path) -> OpenedModel:
    """Read the newest checkpoint of a pretraining run, on the CPU: the machine's GPU is busy with it.

    Args:
        directory: of the stage; its vocabulary lies beside it.

    Raises:
        DataError: no checkpoint yet, or no vocabulary.
        FormatError: they are damaged.
    """
    state = load_newest_state(directory / "checkpoints")
    if state is None:
        raise DataError(
            f"{directory}: no checkpoint yet",
            rule="what is looked into has been saved once",
            fix="Wait a little: checkpoint_seconds of the recipe says how long.",
        )
    tokenizer = Tokenizer.load(directory.parent / "tokens" / "tokenizer")
    plan = Plan.from_json(read_json(directory / "plan.json")["plan"])
    model = Transformer(plan.model)
    with torch.no_grad():
        held = state.groups["model"]
        for name, tensor in model.named_parameters():  # each once: a checkpoint has a tied head as the embeddings
            tensor.copy_(held[name])
    return OpenedModel(directory, model.eval().requires_grad_(False), tokenizer, tokenizer.stop_ids)


Opener = Callable[[Path], tuple[OpenedModel, ChatTemplate | None]]

_OPEN = 2  # side by side
_PAUSE = 0.4  # seconds; loading a model in the place of another takes longer


@dataclass(slots=True, eq=False)
class Volume:
    """An open model.

    Attributes:
        step: of one that is still being trained: the checkpoint that this is.
        reading: the last text that was looked into, with its ids.
    """

    served: ServedModel
    step: int | None
    reading: Reading | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class Shelf:
    """The models of a server that opens them when they are asked for; see `groundup.serve.Models`.

    Args:
        opener: loads a model directory.
    """

    def __init__(self, home: Home, opener: Opener) -> None:
        self._home = home
        self._opener = opener
        self._open: OrderedDict[str, Volume] = OrderedDict()
        self._classifier: tuple[Path, float, OpenedClassifier] | None = None  # the last one, and when it was made
        self._lock = threading.Lock()  # one is loaded at a time: it takes memory and all cores

    def get_model(self, name: str) -> ServedModel:
        """The model that is called so.

        Raises:
            ApiError: 404 there is none, 400 it cannot be loaded, 503 others are in use.
        """
        return self.volume(name).served

    def for_applications(self, name: str) -> ServedModel | OpenedClassifier:
        """As `get_model`, and classifiers, too: they give labels."""
        seen = next((model for model in self._home.models() if model.name == name), None)
        if seen is None or seen.kind != "classifier":
            return self.get_model(name)
        with self._lock:
            made = finished(seen.directory)
            if self._classifier is None or self._classifier[:2] != (seen.directory, made):
                try:
                    self._classifier = seen.directory, made, open_classifier(seen.directory)
                except GroundupError as error:
                    raise refused(error) from error
            return self._classifier[2]

    def volume(self, name: str) -> Volume:
        """As `get_model`, with what is kept beside it. One that has been trained on since is opened again."""
        there = {model.name: model for model in self._models()}
        if name not in there:
            raise unknown_model(name, list(there))
        seen = there[name]
        with self._lock:
            volume = self._open.get(name)
            if volume is not None and volume.step != seen.step and not volume.served.engine.busy:
                self._close(name)
                volume = None
            if volume is None:
                self._make_room()
                volume = self._open[name] = self._load(seen)
            self._open.move_to_end(name)
            return volume

    def list_models(self) -> list[dict[str, Any]]:
        """All of them, as the API describes each."""
        return [
            model_object(
                model.name,
                created=0 if model.step is not None else int(finished(model.directory)),
                context_length=_context_length(model),
                chats=model.chats,
            )
            for model in self._models()
        ]

    def opened(self) -> list[str]:
        """The names of those that are open."""
        return list(self._open)

    def close(self) -> None:
        """Put all of them back; what they are generating is cut off."""
        for name in list(self._open):
            self._close(name)

    def _models(self) -> list[ModelSeen]:
        return [model for model in self._home.models() if model.kind != "classifier"]

    def _load(self, seen: ModelSeen) -> Volume:
        try:
            opened, template = (open_live(seen.directory), None) if seen.step else self._opener(seen.directory)
        except GroundupError as error:
            raise refused(error) from error
        engine = Engine(opened.model, opened.tokenizer, stop_ids=opened.stop_ids)
        created = 0 if seen.step is not None else int(finished(seen.directory))
        return Volume(ServedModel(seen.name, engine, template, created), seen.step)

    def _make_room(self) -> None:
        while len(self._open) >= _OPEN:
            idle = next((name for name, volume in self._open.items() if _idle(volume)), None)
            if idle is None:
                rule = f"{_OPEN} models are open at a time, and these are answering"
                raise overloaded(ResourceError(", ".join(self._open), rule=rule, fix="Try again in a moment."))
            self._close(idle)

    def _close(self, name: str) -> None:
        self._open.pop(name).served.engine.close()


def _idle(volume: Volume) -> bool:
    """Whether nobody uses a model: an application that reads a long text asks again at once, part by part."""
    until = time.monotonic() + _PAUSE
    while not volume.served.engine.busy:
        if time.monotonic() > until:
            return True
        time.sleep(_PAUSE / 20)
    return False


def _context_length(model: ModelSeen) -> int:
    try:
        return 0 if model.step is not None else read_config(model.directory).context_length
    except GroundupError:  # it will be told when it is opened
        return 0
