"""Which examples two models are compared on: never one that the tuned model has learned from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from groundup.artifact import ARTIFACT, Artifact, read
from groundup.console import Console
from groundup.errors import DataError
from groundup.examples import ConversationRules, table_identity

if TYPE_CHECKING:
    from groundup.examples import ExampleSources
    from groundup.examples.labelled import Labelled, LabelRules
    from groundup.types import Example

KindT = TypeVar("KindT")

TUNED = "tuned"
_SET_ASIDE = 0.2  # of a held-out table, to show the base how, where nothing else can
_MOST_SET_ASIDE = 64


@dataclass(frozen=True, eq=False)
class HeldOut(Generic[KindT]):
    """What may be shown to a model, and what it is tested on."""

    learned: KindT
    tested: KindT
    notes: list[str] = field(default_factory=list)


def tuned_by(directory: Path) -> Artifact | None:
    """The record of the tuning that made a model; None where it was not ours."""
    made = read(directory) if (directory / ARTIFACT).is_file() else None
    if made is not None and made.facts.get(TUNED):  # an adapter that was merged has learned what it had learned
        made = replace(made, **made.facts[TUNED])
    return made if made is not None and made.stage.startswith("finetune") else None


def tuning_of(adapter: Path) -> dict[str, Any]:
    """What a model made of an adapter keeps in its facts, so that `tuned_by` knows of it what it was trained on."""
    made = tuned_by(adapter)
    return {} if made is None else {TUNED: {"stage": made.stage, "config": made.config, "inputs": made.inputs}}


def held_out_answers(
    data: ExampleSources,
    train: ExampleSources,
    columns: ConversationRules,
    made: Artifact | None,
    console: Console,
) -> HeldOut[list[Example]]:
    """Conversations to test on and others to show.

    Where `data` is the table that the model was tuned on, they are the part that was held out then.

    Args:
        train: the training examples; without any, some of the others are set aside to show.
        columns: without any, those of the tuning.
        made: the record of the tuning.

    Raises:
        DataError: no examples, or none but those that were trained on.
    """
    from groundup.examples import read_conversations, split_by_hash, without_prompts_of

    settings = _settings(made)
    if not columns.model_dump(exclude_none=True):
        columns = ConversationRules(**{key: settings.get(key) for key in ConversationRules.model_fields})
    found = read_conversations(data, columns, console=console)
    console.note(f"{found.sentence}.")
    if made is not None and made.inputs.get("data") == table_identity(data):
        _require_own_test(made)
        learned, tested = split_by_hash(
            found.examples,
            fraction=float(settings.get("test_fraction", 0.1)),
            most=int(settings.get("test_examples", 1000)),
        )
        return HeldOut(learned, tested, [_trained_on(len(tested))])
    if train:
        theirs = read_conversations(train, columns, console=console)
        return HeldOut(without_prompts_of(found.examples, theirs), found.examples)
    if len(found.examples) < 2:
        return HeldOut([], found.examples)
    tested, shown = split_by_hash(found.examples, fraction=_SET_ASIDE, most=_MOST_SET_ASIDE)
    return HeldOut(shown, tested, [_set_aside(len(shown))])


def held_out_labels(
    data: ExampleSources,
    train: ExampleSources,
    rules: LabelRules,
    known: Sequence[str],
    made: Artifact | None,
    console: Console,
) -> HeldOut[Labelled]:
    """Labelled texts to test on and others to show; else like `held_out_answers`.

    Args:
        rules: without a column named, those of the tuning.
        known: the labels that the classifier gives; others are left out.
    """
    from groundup.examples import read_table
    from groundup.examples.labelled import (
        LabelRules,
        apart,
        read_labelled,
        split,
        summary,
        without_repeats,
        without_single_labels,
    )

    settings = _settings(made)
    if rules == LabelRules():
        rules = LabelRules(
            settings.get("text"),
            settings.get("label"),
            tuple(settings.get("bins") or ()),
            tuple(settings.get("bin_names") or ()),
            settings.get("merge") or {},
            settings.get("text_after") or "",
        )
    sources = _as_classify_reads(data)
    table = read_table(sources, console=console)
    rules = rules.found_in(table)
    found = read_labelled(table, rules)
    console.note(summary(table, found))
    notes: list[str] = []
    if made is not None and made.inputs.get("data") == table_identity(sources):
        _require_own_test(made)
        fraction, seed = float(settings.get("test_fraction", 0.2)), int(settings.get("seed", 0))
        learned, tested = split(without_single_labels(without_repeats(found)), fraction, seed)
        if (limit := settings.get("limit")) is not None and limit < len(learned):
            learned = split(learned, limit / len(learned), seed)[1]
        notes.append(_trained_on(len(tested)))
    elif train:
        theirs = read_table(_as_classify_reads(train), console=console)
        learned, tested = apart(without_repeats(read_labelled(theirs, rules.found_in(theirs))), found)
    else:
        tested, learned = split(without_single_labels(without_repeats(found)), _SET_ASIDE, 0)
        notes.append(_set_aside(len(learned)))
    kept = tested.only(place for place, label in enumerate(tested.labels) if label in known)
    if not kept.texts:
        raise DataError(
            f"{table.name}: the labels {', '.join(list(tested.counts())[:8])}",
            rule=f"the tuned classifier gives the labels {', '.join(known[:20])}",
            fix="Give data with these labels, or name the column that has them: --set label=COLUMN.",
        )
    shown = learned.only(place for place, label in enumerate(learned.labels) if label in known)
    return HeldOut(shown, kept, notes)


def _settings(made: Artifact | None) -> Mapping[str, Any]:
    return made.config if made is not None else {}


def _require_own_test(made: Artifact) -> None:
    if "test" in made.inputs:
        raise DataError(
            "--data: the table that this model was trained on",
            rule="it was tested on another table; in this one, it has learned every example",
            fix="Give that other table with --data, and this one with --train.",
        )


def _trained_on(count: int) -> str:
    return f"This table was trained on: compared are the {count:,} examples that were held out then."


def _set_aside(count: int) -> str:
    return f"{count:,} examples were set aside to find the base's best way; training data (--train) would spare them."


def _as_classify_reads(data: ExampleSources) -> Any:
    """The sources as `finetune classify` has them, so that the same table has the same identity."""
    from groundup.corpus import FolderSource, PackageSource

    if len(data) == 1 and data[0].model_fields_set <= {"kind", "path"}:
        return Path(str(data[0].path))  # type: ignore[union-attr]
    plain: dict[str, type[FolderSource | PackageSource]] = {"folder": FolderSource, "package": PackageSource}
    return [
        plain[source.kind](**source.model_dump(include=set(plain[source.kind].model_fields), exclude_unset=True))
        for source in data
    ]
