"""Models that were fine-tuned for one application: their training prompt, and how they are found."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from groundup.apps.catalog import Catalog
from groundup.apps.declaration import App, without_number_inputs
from groundup.apps.inputs import check_input, render_template
from groundup.core.artifact import ARTIFACT
from groundup.core.config import unknown_name
from groundup.core.console import Console
from groundup.core.errors import ConfigError, DataError, GroundupError
from groundup.core.types import Example
from groundup.data.conversations.reading import ConversationSplit, InstructionSettings
from groundup.data.held_out import fine_tuning_record
from groundup.evaluation.applications import schema_problem
from groundup.hub.adapted import find_adapter_base, is_adapter, is_adapter_of
from groundup.hub.resolve import classifier_labels, finished, is_classifier, model_identity, resolve_any

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


def read_examples(config: InstructionSettings, console: Console) -> ConversationSplit:
    """Read the examples of instruction tuning, and check that they are outputs of their application.

    Args:
        config: Settings of the data.
        console: Console for a summary.

    Raises:
        DataError: The examples cannot be read, or a response does not match the JSON schema of the application.
    """
    split = config.read(console)
    require_valid_outputs(config.application, split.found.examples)
    return split


def require_valid_outputs(application: str | None, examples: Sequence[Example]) -> None:
    """Raise an error if a training response does not match the JSON schema of the application.

    Args:
        application: Application whose prompt is trained, or None.
        examples: Conversations whose last turn is the response.

    Raises:
        DataError: A response is not JSON, or does not match the schema.
    """
    app = Catalog().named(application).app if application is not None else None
    if app is None or app.output.kind != "json":
        return
    schema = without_number_inputs(app.output.written_schema)
    for example in examples:
        response = example.messages[-1].content
        try:
            problem = schema_problem(json.loads(response), schema)
        except ValueError as error:
            problem = str(error)
        if problem:
            raise DataError(
                f"response {response[:80]!r}: {problem}",
                rule=f"{app.name} writes JSON, so it is trained on JSON of its schema",
                fix=f"Correct the column of the responses. Required: {', '.join(schema.get('required', ()))}.",
            )


def trained_application(directory: Path) -> str:
    """Return the name of the application that a model was fine-tuned for, or "" if it was not.

    Args:
        directory: Model directory or GGUF file.
    """
    made = fine_tuning_record(directory) if directory.is_dir() else None
    return str(made.config.get("application") or "") if made is not None else ""


def find_adapter(
    app: App, model: Path, given: Mapping[str, Any], columns: Collection[str] = ()
) -> tuple[Path | None, list[str]]:
    """Find the newest adapter or classifier of a model that was fine-tuned for an application and for its inputs.

    Adapters are searched next to the model and in the runs in `./runs`. An adapter is skipped if it was trained with
    another value of an input that is `adapter_specific`. A classifier is skipped if it lacks a given label.

    Args:
        app: Application to run.
        model: Model directory, GGUF file or run.
        given: Maps input names to values.
        columns: Names of the inputs that differ between the rows of a table.

    Returns:
        The adapter or None, and a note for each newer adapter that was skipped.
    """
    base = resolve_any(model)
    if trained_application(base) == app.name:
        return None, []  # the model itself
    wanted = {
        each.name: check_input(app, each, given.get(each.name))
        for each in app.inputs
        if each.name not in columns and (each.adapter_specific or (each.type == "labels" and each.name in given))
    }
    while is_adapter(base):
        base = find_adapter_base(base)
    found = []
    for directory in dict.fromkeys(path.resolve() for path in _candidates(base)):
        try:
            if trained_application(directory) == app.name and _is_trained_on(directory, base):
                found.append((finished(directory), directory, _difference(app, directory, wanted, columns)))
        except GroundupError:  # A damaged directory of another run does not affect this model.
            continue
    notes = list[str]()
    for _, directory, difference in sorted(found, reverse=True):
        if not difference:
            return directory, notes
        notes.append(f"Adapter {directory} {difference}; not used.")
    return None, notes


def _difference(app: App, directory: Path, wanted: Mapping[str, Any], columns: Collection[str]) -> str:
    """Return how an adapter or classifier differs from the inputs of a call, or "" if it fits."""
    if is_classifier(directory):
        if app.output.labels_from in columns:
            return "has its own labels, and so have the rows of the table"
        labels = classifier_labels(directory) if app.output.labels_from in wanted else ()
        missing = sorted(set(wanted.get(app.output.labels_from, ())) - set(labels))
        return f"has no label {missing[0]!r}" if missing else ""
    made = fine_tuning_record(directory)
    trained = made.config.get("inputs") or {} if made is not None else {}
    for each in app.inputs:
        value = trained.get(each.name, each.default)
        if not each.adapter_specific or value is None or "{" in str(value):
            continue  # A template over columns: the adapter was trained with several values.
        if each.name in columns:
            return f"was trained with {each.name} = {value}, and rows of the table have their own"
        if str(check_input(app, each, value)).casefold() != str(wanted[each.name]).casefold():
            return f"was trained with {each.name} = {value}"
    return ""


def choose_adapter(
    app: App,
    model: Path,
    chosen: str | None,
    console: Console,
    given: Mapping[str, Any],
    columns: Collection[str] = (),
) -> Path:
    """Return the adapter that runs an application if there is one, otherwise the model. Notes name the adapters.

    Args:
        app: Application to run.
        model: Model directory, GGUF file or run.
        chosen: Adapter that the user chose, "none", or None to search for an adapter; see `find_adapter`.
        console: Console for the notes.
        given: Maps input names to values.
        columns: Names of the inputs that differ between the rows of a table.
    """
    if chosen == NO_ADAPTER:
        return model
    found, notes = (Path(chosen), []) if chosen else find_adapter(app, model, given, columns)
    for note in notes:
        console.note(note)
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
