"""Held-out examples for the evaluation of a fine-tuned model: none of them was in its training set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from groundup.core.artifact import ARTIFACT, Artifact, read
from groundup.core.console import Console
from groundup.core.errors import DataError
from groundup.data import ConversationRules, table_identity

if TYPE_CHECKING:
    from groundup.core.types import Example
    from groundup.data import ExampleSources
    from groundup.data.labelled import Labelled, LabelRules

KindT = TypeVar("KindT")

TUNED = "tuned"
_SET_ASIDE = 0.2  # of a held-out table, to show the base how, where nothing else can
_MOST_SET_ASIDE = 64


@dataclass(frozen=True, eq=False)
class HeldOut(Generic[KindT]):
    """Examples that a model may be shown, and those that it is tested on.

    Attributes:
        train: empty if there are none to show.
        test: none of them was in the training set.
        notes: how they were chosen, for a person.
    """

    train: KindT
    test: KindT
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
    tuned: Path,
    console: Console,
) -> HeldOut[list[Example]]:
    """Conversations to test on and others to show.

    Where `data` is the table that the model was tuned on, they are the part that was held out then; and of any table,
    questions that it was trained on are left out.

    Args:
        train: the training examples; without any, some of the others are set aside to show.
        columns: what they leave open is as it was for the tuning.
        tuned: the model's directory.

    Raises:
        DataError: no examples, or none but those that were trained on.
    """
    from groundup.data import question_of, read_conversations, split_by_hash, without_prompts_of
    from groundup.data.learned import learned_by, learned_hash

    made = tuned_by(tuned)
    settings = _settings(made)
    columns = _completed(columns, settings)
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
    known = learned_by(tuned)
    new = [example for example in found.examples if learned_hash(question_of(example)) not in known]
    notes = _left_out(len(found.examples) - len(new), len(new))
    if train:
        theirs = read_conversations(train, columns, console=console)
        return HeldOut(without_prompts_of(new, theirs), new, notes)
    if len(new) < 2:
        return HeldOut([], new, notes)
    tested, shown = split_by_hash(new, fraction=_SET_ASIDE, most=_MOST_SET_ASIDE)
    return HeldOut(shown, tested, [*notes, _set_aside(len(shown))])


def held_out_labels(
    data: ExampleSources,
    train: ExampleSources,
    rules: LabelRules,
    known: Sequence[str],
    tuned: Path,
    console: Console,
) -> HeldOut[Labelled]:
    """Labelled texts to test on and others to show; else like `held_out_answers`.

    Args:
        rules: what they leave open is as it was for the tuning.
        known: the labels that the classifier gives; others are left out.
        tuned: the classifier's directory.
    """
    from groundup.data import read_table
    from groundup.data.label_parts import UNTRAINED, apart, limited, split
    from groundup.data.labelled import (
        NOT_LEARNED,
        LabelRules,
        read_labelled,
        summary,
        with_labels,
        without_repeats,
        without_single_labels,
    )
    from groundup.data.learned import learned_by, learned_hash

    made = tuned_by(tuned)
    settings = _settings(made)
    rules = LabelRules(
        rules.text or settings.get("text"),
        rules.label or settings.get("label"),
        rules.bins or tuple(settings.get("bins") or ()),
        rules.bin_names or tuple(settings.get("bin_names") or ()),
        rules.merged or settings.get("merge") or {},
        rules.after or settings.get("text_after") or "",
        rules.separator or settings.get("separator"),
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
        learned = limited(learned, settings.get("limit") or len(learned), seed)
        notes.append(_trained_on(len(tested)))
    else:
        trained = learned_by(tuned)
        new = found.only(place for place, text in enumerate(found.texts) if learned_hash(text) not in trained)
        notes += _left_out(len(found) - len(new), len(new))
        if train:
            theirs = read_table(_as_classify_reads(train), console=console)
            learned, tested = apart(without_repeats(read_labelled(theirs, rules.found_in(theirs))), new)
        else:
            tested, learned = split(without_single_labels(without_repeats(new)), _SET_ASIDE, 0)
            notes.append(_set_aside(len(learned)))
    kept = with_labels(tested, known, NOT_LEARNED)
    if unknown := kept.dropped[NOT_LEARNED] + kept.dropped[UNTRAINED]:
        notes.append(f"Left out, because the classifier does not give their labels: {unknown:,} texts.")
    if not kept.texts:
        raise DataError(
            f"{table.name}: the labels {', '.join(list(tested.counts())[:8])}",
            rule=f"the tuned classifier gives the labels {', '.join(known[:20])}",
            fix="Give data with these labels, or name the column that has them: --set label=COLUMN.",
        )
    return HeldOut(with_labels(learned, known, NOT_LEARNED), kept, notes)


def _settings(made: Artifact | None) -> Mapping[str, Any]:
    return made.config if made is not None else {}


def _completed(columns: ConversationRules, settings: Mapping[str, Any]) -> ConversationRules:
    """The rules with those of the tuning where they say nothing: of a conversation's column, or of the pair."""
    given = columns.model_dump(exclude_none=True)
    before = {key: settings.get(key) for key in ConversationRules.model_fields}
    for pair, other in ((("prompt", "response"), ("messages",)), (("messages",), ("prompt", "response"))):
        if any(key in given for key in pair):
            before |= dict.fromkeys(other)
    return ConversationRules(**(before | given))


def _left_out(count: int, left: int) -> list[str]:
    """What to say of examples that were trained on.

    Raises:
        DataError: all of them were.
    """
    if count and not left:
        raise DataError(
            f"--data: the tuned model was trained on all {count:,} examples",
            rule="what is compared on was not trained on",
            fix="Give other examples.",
        )
    return [f"{count:,} examples were left out: the tuned model was trained on them."] if count else []


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
