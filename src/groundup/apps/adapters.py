"""Models that were fine-tuned for one application: their training prompt, and how they are found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from groundup.apps.catalog import Catalog
from groundup.apps.declaration import App
from groundup.apps.inputs import render_template
from groundup.core.artifact import ARTIFACT
from groundup.core.config import unknown_name
from groundup.core.console import Console
from groundup.core.errors import ConfigError, GroundupError
from groundup.data.conversations import InstructionSettings
from groundup.data.held_out import fine_tuning_record
from groundup.hub.adapted import find_adapter_base, is_adapter, is_adapter_of
from groundup.hub.resolve import finished, model_identity, resolve_any

RUNS = Path("runs")  # default directory of runs
NO_ADAPTER = "none"

SettingsT = TypeVar("SettingsT", bound=InstructionSettings)


def training_prompt(app: App, inputs: Mapping[str, str]) -> str:
    """Return the prompt template over the columns of a table that gives exactly the prompts of an application.

    Args:
        app: Application whose prompt for chat models is trained, without examples.
        inputs: Maps inputs to templates over columns, such as `{en}`, or to constants, such as `English`. An input that
            is not mapped has its default value, or the value of the column with its name if it has no default.

    Raises:
        ConfigError: The application has no such input.
    """
    names = [each.name for each in app.inputs]
    for name in inputs:
        if name not in names:
            raise unknown_name("input", name, names, where=app.name)
    values = {}
    for each in app.inputs:
        default = f"{{{each.name}}}" if each.default is None else str(each.default)
        values[each.name] = inputs.get(each.name, default)
    return render_template(app.prompt.user, values)


def with_application_prompt(config: SettingsT) -> SettingsT:
    """Return settings of instruction tuning with the prompt of their application.

    Args:
        config: Settings of the data and of the training.

    Raises:
        ConfigError: The application or one of its inputs is unknown, or a prompt is set in addition.
    """
    if config.application is None:
        return config
    if config.prompt is not None:
        raise ConfigError(
            f"prompt is set together with application = {config.application!r}",
            rule="the prompt of the application is trained",
            fix='Remove prompt. Set the inputs of the application: inputs = {INPUT = "{COLUMN}"}.',
        )
    app = Catalog().named(config.application).app
    return config.model_copy(update={"prompt": training_prompt(app, config.inputs)})


def trained_application(directory: Path) -> str:
    """Return the name of the application that a model was fine-tuned for, or "" if it was not.

    Args:
        directory: Model directory or GGUF file.
    """
    made = fine_tuning_record(directory) if directory.is_dir() else None
    return str(made.config.get("application") or "") if made is not None else ""


def find_adapter(name: str, model: Path) -> Path | None:
    """Return the newest adapter or classifier of a model that was fine-tuned for an application, or None.

    Adapters are searched next to the model and in the runs in `./runs`.

    Args:
        name: Name of the application.
        model: Model directory, GGUF file or run.
    """
    base = resolve_any(model)
    if trained_application(base) == name:
        return None  # the model itself
    while is_adapter(base):
        base = find_adapter_base(base)
    found = []
    for directory in dict.fromkeys(path.resolve() for path in _candidates(base)):
        try:
            if trained_application(directory) == name and _is_trained_on(directory, base):
                found.append(directory)
        except GroundupError:  # A damaged directory of another run does not affect this model.
            continue
    return max(found, key=finished, default=None)


def choose_adapter(name: str, model: Path, given: str | None, console: Console) -> Path:
    """Return the adapter that runs an application if there is one, otherwise the model. A note names the adapter.

    Args:
        name: Name of the application.
        model: Model directory, GGUF file or run.
        given: Adapter that the user chose, "none", or None to search for an adapter.
        console: Console for the note.
    """
    if given == NO_ADAPTER:
        return model
    found = Path(given) if given else find_adapter(name, model)
    if found is None:
        return model
    license = licenses_of(found)
    console.note(f"Adapter: {found}" + (f" (license of its data: {license})" if license else "") + ".")
    return found


def licenses_of(directory: Path) -> str:
    """Return the licenses of the data that a model was fine-tuned on, as one text, or "" if they are not recorded."""
    made = fine_tuning_record(directory)
    return "; ".join(made.facts.get("data_licenses", ())) if made is not None else ""


def _is_trained_on(directory: Path, base: Path) -> bool:
    if is_adapter(directory):
        return is_adapter_of(directory, base)
    made = fine_tuning_record(directory)  # a model without adapters, such as a classifier
    return made is not None and made.inputs.get("model") == model_identity(base)


def _candidates(base: Path) -> Iterator[Path]:
    for run in (base.resolve().parent, *(RUNS.iterdir() if RUNS.is_dir() else ())):
        if run.is_dir():
            yield from (child for child in run.iterdir() if (child / ARTIFACT).is_file())
