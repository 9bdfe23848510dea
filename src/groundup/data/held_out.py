"""Select the examples that evaluate a fine-tuned model: examples that the model was not trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from groundup.core.artifact import ARTIFACT, Artifact, read
from groundup.core.console import Console
from groundup.core.errors import DataError
from groundup.core.plural import pluralize
from groundup.core.types import Example
from groundup.corpus import FolderSource, PackageSource
from groundup.data.columns import ConversationSettings
from groundup.data.conversations.reading import (
    ExampleSources,
    question_of,
    read_conversations,
    split_by_hash,
    without_prompts_of,
)
from groundup.data.labels.parts import UNTRAINED_LABEL, limit_texts, split_labeled, without_overlap
from groundup.data.labels.reading import (
    UNKNOWN_LABEL,
    Labeled,
    LabelOptions,
    read_labeled,
    summary,
    with_labels,
    without_duplicates,
    without_single_labels,
)
from groundup.data.tables import read_table, table_identity
from groundup.data.training_hashes import text_hash, training_hashes

ExamplesT = TypeVar("ExamplesT")

_FINE_TUNED = "fine_tuned"  # Key in the facts of a merged model that contains the fine-tuning record of its adapter.
# If there are no training examples, this fraction of the table is used for few-shot prompts instead of testing.
_SHOWN_FRACTION = 0.2
_MAX_SHOWN = 64


@dataclass(frozen=True, eq=False)
class HeldOut(Generic[ExamplesT]):
    """Training examples for few-shot prompts, and test examples on which the model was not trained.

    Attributes:
        train: Training examples for few-shot prompts, or an empty list.
        test: Test examples, on which the model was not trained.
        notes: Sentences that explain how the examples were selected.
    """

    train: ExamplesT
    test: ExamplesT
    notes: list[str] = field(default_factory=list)


def fine_tuning_record(directory: Path) -> Artifact | None:
    """Return the record of the fine-tuning of a model, or None if the model was not fine-tuned with groundup."""
    made = read(directory) if (directory / ARTIFACT).is_file() else None
    if made is not None and made.facts.get(_FINE_TUNED):  # A merged model was trained on the data of its adapter.
        made = replace(made, **made.facts[_FINE_TUNED])
    return made if made is not None and made.stage.startswith("finetune") else None


def fine_tuning_facts(adapter: Path) -> dict[str, Any]:
    """Return facts to store with a merged model, so that `fine_tuning_record` finds the record of its adapter."""
    made = fine_tuning_record(adapter)
    return {} if made is None else {_FINE_TUNED: {"stage": made.stage, "config": made.config, "inputs": made.inputs}}


def held_out_answers(
    data: ExampleSources, train: ExampleSources, columns: ConversationSettings, fine_tuned: Path, console: Console
) -> HeldOut[list[Example]]:
    """Select conversations for testing a model, and training examples for few-shot prompts.

    If `data` is the table that was used for fine-tuning, the test examples are the examples that fine-tuning held out.
    If `data` is another table, questions on which the model was trained are dropped.

    Args:
        data: Table of test examples.
        train: Training examples for few-shot prompts. If this list is empty, some examples of `data` are used for
            prompts instead of testing.
        columns: Columns that the user set. Columns that are not set are the same as in fine-tuning.
        fine_tuned: Directory of the model.
        console: Console that prints notes.

    Raises:
        DataError: The table does not contain any examples, or the model was trained on all of them.
    """
    made = fine_tuning_record(fine_tuned)
    settings = _settings(made)
    columns = _completed_columns(columns, settings)
    found = read_conversations(data, columns, console=console)
    console.note(f"{found.sentence}.")
    if _is_training_table(made, table_identity(data)):
        learned, tested = split_by_hash(
            found.examples,
            fraction=float(settings.get("test_fraction", 0.1)),
            max_held_out=int(settings.get("max_test_examples", settings.get("test_examples", 1000))),
        )
        return HeldOut(learned, tested, [_trained_on(len(tested))])
    known = training_hashes(fine_tuned)
    new = [example for example in found.examples if text_hash(question_of(example)) not in known]
    notes = _left_out(len(found.examples) - len(new), len(new))
    if train:
        return HeldOut(without_prompts_of(new, read_conversations(train, columns, console=console)), new, notes)
    if len(new) < 2:
        return HeldOut([], new, notes)
    tested, shown = split_by_hash(new, fraction=_SHOWN_FRACTION, max_held_out=_MAX_SHOWN)
    return HeldOut(shown, tested, [*notes, _set_aside(len(shown))])


def held_out_labels(
    data: ExampleSources,
    train: ExampleSources,
    options: LabelOptions,
    labels: Sequence[str],
    fine_tuned: Path,
    console: Console,
) -> HeldOut[Labeled]:
    """Select labeled texts for testing a classifier, and training texts for few-shot prompts.

    The texts are selected as in `held_out_answers`.

    Args:
        data: Table of test texts.
        train: Training texts for few-shot prompts. If this list is empty, some texts of `data` are used for prompts
            instead of testing.
        options: Columns and labels that the user set. Options that are not set are the same as in fine-tuning.
        labels: Labels of the classifier. Texts with other labels are dropped.
        fine_tuned: Directory of the classifier.
        console: Console that prints notes.

    Raises:
        DataError: The table does not contain any texts, the classifier was trained on all of them, or none has a label
            of the classifier.
    """
    made = fine_tuning_record(fine_tuned)
    settings = _settings(made)
    sources = _as_classify_reads(data)
    table = read_table(sources, console=console)
    options = _completed_label_options(options, settings).found_in(table)
    found = read_labeled(table, options)
    console.note(summary(table, found))
    if _is_training_table(made, table_identity(sources)):
        fraction, seed = float(settings.get("test_fraction", 0.2)), int(settings.get("seed", 0))
        learned, tested = split_labeled(without_single_labels(without_duplicates(found)), fraction, seed)
        learned = limit_texts(learned, settings.get("limit") or len(learned), seed)
        notes = [_trained_on(len(tested))]
    else:
        trained = training_hashes(fine_tuned)
        new = found.only(place for place, text in enumerate(found.texts) if text_hash(text) not in trained)
        notes = _left_out(len(found) - len(new), len(new))
        if train:
            given = read_table(_as_classify_reads(train), console=console)
            learned, tested = without_overlap(without_duplicates(read_labeled(given, options.found_in(given))), new)
        else:
            tested, learned = split_labeled(without_single_labels(without_duplicates(new)), _SHOWN_FRACTION, 0)
            notes.append(_set_aside(len(learned)))
    kept = with_labels(tested, labels, UNKNOWN_LABEL)
    if unknown := kept.dropped[UNKNOWN_LABEL] + kept.dropped[UNTRAINED_LABEL]:
        notes.append(f"Dropped {pluralize(unknown, 'text')} whose labels the classifier does not have.")
    if not kept.texts:
        raise DataError(
            f"{table.name} has the labels {', '.join(list(tested.counts())[:8])}, but the classifier has "
            f"{', '.join(labels[:20])}",
            fix="Use data with these labels, or name the column that contains them: --set label=COLUMN.",
        )
    return HeldOut(with_labels(learned, labels, UNKNOWN_LABEL), kept, notes)


def _settings(made: Artifact | None) -> Mapping[str, Any]:
    return made.config if made is not None else {}


def _completed_columns(columns: ConversationSettings, settings: Mapping[str, Any]) -> ConversationSettings:
    """Return the columns that the user set, and for all other options the columns that fine-tuning used."""
    given = columns.model_dump(exclude_none=True)
    before = {key: settings.get(key) for key in ConversationSettings.model_fields}
    for pair, other in ((("prompt", "response"), ("messages",)), (("messages",), ("prompt", "response"))):
        if any(key in given for key in pair):
            before |= dict.fromkeys(other)
    return ConversationSettings(**(before | given))


def _completed_label_options(options: LabelOptions, settings: Mapping[str, Any]) -> LabelOptions:
    """Return the options that the user set, and for all other options the values that fine-tuning used."""
    return LabelOptions(
        options.text or settings.get("text"),
        options.label or settings.get("label"),
        options.bins or tuple(settings.get("bins") or ()),
        options.bin_names or tuple(settings.get("bin_names") or ()),
        options.merged or settings.get("merge") or {},
        options.after or settings.get("text_after") or "",
        options.separator or settings.get("separator"),
    )


def _left_out(count: int, left: int) -> list[str]:
    """Return a note about the number of dropped examples, on which the model was trained.

    Raises:
        DataError: The model was trained on all examples.
    """
    if count and not left:
        raise DataError(f"--data: the model was trained on all {count:,} examples", fix="Use other examples.")
    return [f"Dropped {pluralize(count, 'example')} that the model was trained on."] if count else []


def _is_training_table(made: Artifact | None, identity: str) -> bool:
    """Return whether a model was fine-tuned on a table.

    Raises:
        DataError: The model was trained on every example of the table, because its test set was another table.
    """
    if made is None or made.inputs.get("data") != identity:
        return False
    if "test" in made.inputs:
        raise DataError(
            "--data: the model was trained on every example of this table, and tested on another table",
            fix="Use the other table with --data, and this table with --train.",
        )
    return True


def _trained_on(count: int) -> str:
    return f"The model was trained on this table; comparing on the {pluralize(count, 'held-out example')}."


def _set_aside(count: int) -> str:
    examples = pluralize(count, "example")
    return f"Using {examples} to select the base model's prompt; pass training data (--train) to avoid this."


def _as_classify_reads(data: ExampleSources) -> Any:
    """Convert sources to the form that `finetune classify` uses, so that the same table has the same identity."""
    if len(data) == 1 and data[0].model_fields_set <= {"kind", "path"}:
        return Path(str(data[0].path))  # type: ignore[union-attr]
    plain: dict[str, type[FolderSource | PackageSource]] = {"folder": FolderSource, "package": PackageSource}
    return [
        plain[source.kind](**source.model_dump(include=set(plain[source.kind].model_fields), exclude_unset=True))
        for source in data
    ]
