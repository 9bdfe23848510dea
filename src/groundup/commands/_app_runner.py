"""What the stages of applications share: a model that they run on."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from groundup.commands._chat_model import open_chat_model
from groundup.core.console import Console

if TYPE_CHECKING:
    from groundup.apps.classifying import ClassifierRunner
    from groundup.apps.running import Runner


def app_runner(model: Path, device: str | None, console: Console, stack: ExitStack) -> Runner | ClassifierRunner:
    """A classifier as it is; of anything else the language model that `model` means, until the stack closes.

    Raises:
        DataError: no model there.
        FormatError: a damaged one.
    """
    from groundup.apps.classifying import ClassifierRunner
    from groundup.apps.running import Runner
    from groundup.hub.resolve import is_classifier, open_classifier
    from groundup.inference import Engine

    if is_classifier(model):
        return ClassifierRunner(open_classifier(model, device=device))
    opened, template = open_chat_model(model, device, console)
    engine = stack.enter_context(Engine(opened.model, opened.tokenizer, stop_ids=opened.stop_ids))
    return Runner(engine, template, stop_ids=opened.stop_ids)
