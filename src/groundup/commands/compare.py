"""`groundup compare`: a model before and after tuning, on its task and on what it could do before."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from groundup.commands._closing import closing, say_result
from groundup.core.artifact import Artifact, begin, read, read_intact
from groundup.core.config import Config, setting
from groundup.core.console import Console
from groundup.core.errors import ConfigError, DataError
from groundup.core.files import atomic_file, write_json
from groundup.core.types import MetricName
from groundup.data import ConversationRules, ExampleSources, table_identity
from groundup.data.held_out import held_out_answers, held_out_labels, tuned_by

if TYPE_CHECKING:
    from groundup.evaluation.asking import Asked
    from groundup.evaluation.uplift import Line, Uplift
    from groundup.kernels import ComputeDtype

EXAMPLE = "groundup compare runs/notes/base runs/notes/chat --data questions.csv"


class CompareConfig(Config):
    """Two models, and what they are compared on."""

    base: Path = setting(help="the model before: a directory, or a run", positional=True)
    tuned: Path = setting(help="the model after: of a language model, or a classifier", positional=True)
    out: Path | None = setting(None, help="for the report; default: beside TUNED", flag=True)
    data: ExampleSources = setting([], help="held-out examples, or those tuned on", flag=True)
    train: ExampleSources = setting([], help="training examples, to show the base", flag=True)
    metric: MetricName | None = setting(None, help="of answers; default: what suits them", flag=True)
    refusal: str = setting("", help="how an answer begins that says: not there", flag=True)
    examples: int = setting(200, help="compare on at most so many", flag=True, ge=1)
    max_tokens: int | None = setting(None, help="of an answer; default: as the data's own", gt=0)
    general: Path | None = setting(None, help="general text: a file, folder or corpus", flag=True)
    general_bytes: int = setting(60_000, help="of it, about so much", gt=0)
    choices: Path | None = setting(None, help="general questions with choices, a table", flag=True)
    text: str | None = setting(None, help='of labelled data: column with the text, or a template like "{title}"')
    label: str | None = setting(None, help="of labelled data: column with the label")
    separator: str | None = setting(None, help='of labelled data: what stands between labels in a cell, e.g. ";"')
    columns: ConversationRules = setting(ConversationRules(), help="where the conversations of a table are")
    seed: int = setting(0, help="for intervals", flag=True, ge=0)
    device: str | None = setting(None, help="cpu, cuda, ...; by default a GPU where there is one")
    dtype: Literal["float32", "bfloat16"] | None = setting(None, help="of both; default: the faster one here")


def run(config: CompareConfig, *, console: Console | None = None) -> Artifact:
    """Ask both, count, and leave `compare.json` and `compare.md`.

    Raises:
        DataError: no models, or no examples to compare on.
        ConfigError: nothing to compare on.
    """
    import torch

    from groundup.evaluation.uplift import COLUMNS
    from groundup.hub.resolve import (
        is_classifier,
        model_identity,
        resolve_classifier,
        resolve_model,
        usable_device,
    )
    from groundup.kernels import fastest_dtype

    console = console or Console()
    if not (config.data or config.general or config.choices):
        raise ConfigError(
            f"{config.base} and {config.tuned}: nothing to compare on",
            rule="two models are compared on examples, on text, or on questions with choices",
            fix="Give some: --data FILE.csv, --general FOLDER, --choices FILE.jsonl.",
        )
    labels = is_classifier(config.tuned)
    base = resolve_classifier(config.base) if is_classifier(config.base) else resolve_model(config.base)
    tuned = resolve_classifier(config.tuned) if labels else resolve_model(config.tuned)
    inputs = {"base": model_identity(base), "tuned": model_identity(tuned)}
    inputs |= {key: table_identity(data) for key, data in (("data", config.data), ("train", config.train)) if data}
    if config.choices:
        inputs["choices"] = table_identity(config.choices)
    general = _general_text(config, base)
    if general is not None:
        inputs["general"] = _text_identity(general)
    keys = config.model_dump(
        mode="json", exclude={"base", "tuned", "out", "data", "train", "general", "choices", "device"}
    )
    out = config.out or (config.tuned if tuned != config.tuned else tuned.parent) / f"compare-{tuned.name}"
    work = begin(out, "compare", keys, inputs, console=console)
    if work.state == "done":
        return say_result(console, work.directory, read(work.directory))
    dtype = config.dtype or fastest_dtype(torch.device(usable_device(config.device)).type)[0]
    found = (_classifiers if labels else _language_models)(config, base, tuned, general, dtype, console)
    files = [work.directory / "compare.json", work.directory / "compare.md"]
    write_json(files[0], found.to_json())
    with atomic_file(files[1]) as temporary:
        page = found.to_markdown(f"{base.name} before, {tuned.name} after")
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")
    for note in found.notes:
        console.note(note)
    if dtype == "bfloat16" and config.dtype is None:
        console.note("Both were computed in bfloat16, which is faster here; in full precision: --set dtype=float32.")
    told = closing(found.sentence, "Before and after (95 % intervals)", COLUMNS, found.rows())
    made = work.finish(told | found.to_json() | {"dtype": dtype}, files)
    return say_result(console, work.directory, made)


def _language_models(
    config: CompareConfig, base: Path, tuned: Path, general: Path | None, dtype: ComputeDtype, console: Console
) -> Uplift:
    from groundup.commands._chat_model import open_chat_model
    from groundup.data import read_table
    from groundup.data.choices import read_choices
    from groundup.data.tables import spread
    from groundup.data.texts import general_texts
    from groundup.evaluation.asking import Asked, Way
    from groundup.evaluation.baselines import without_shared_words
    from groundup.evaluation.before_after import Task, compare_answers, compare_choices, compare_text
    from groundup.evaluation.metrics import choose_metric, label_names
    from groundup.evaluation.uplift import Uplift
    from groundup.hub.adapted import belongs_to
    from groundup.hub.resolve import OpenedModel
    from groundup.kernels import keep_for_reading

    def opened(directory: Path) -> tuple[OpenedModel, Asked]:
        moved = base if belongs_to(directory, base) else None
        model, template = open_chat_model(directory, config.device, console, base=moved)
        keep_for_reading(model.model, dtype)
        return model, Asked(model.model, model.tokenizer, template, model.stop_ids)

    made = tuned_by(tuned)
    (before, asked_before), (after, asked_after) = opened(base), opened(tuned)
    lines: list[Line] = []
    notes: list[str] = []
    transcripts: Any = ()
    if config.data:
        held = held_out_answers(config.data, config.train, config.columns, tuned, console)
        answers = [example.messages[-1].content for example in held.tested]
        labels = label_names([*answers, *(example.messages[-1].content for example in held.learned)])
        metric = config.metric
        if metric is None:
            prompts = without_shared_words([example.messages[-2].content for example in held.tested])
            metric, why = choose_metric(prompts, answers, labels=labels)
            console.note(f"Metric: {metric} ({why}). Another one: --metric.")
        tested = spread(held.tested, config.examples)
        task = Task(metric, held.learned, tested, config.refusal, config.max_tokens, labels)
        own = Way(None) if made is not None and asked_after.template is not None else None
        answered = compare_answers(asked_before, asked_after, task, own, console, seed=config.seed)
        lines, transcripts = [*answered.lines], answered.transcripts
        notes = [*held.notes, *answered.notes]
    if general is not None:
        texts = general_texts(general, config.general_bytes)
        size = f"{sum(len(text.encode()) for text in texts):,} bytes"
        lines.append(compare_text(before, after, texts, size, console, seed=config.seed))
    else:
        notes.append("What was forgotten of general text was not measured: --general FOLDER does.")
    if config.choices:
        items = spread(read_choices(read_table(config.choices)).items, config.examples)
        lines.append(compare_choices(before, after, items, console, seed=config.seed))
    return Uplift(lines, notes, transcripts)


def _classifiers(
    config: CompareConfig, base: Path, tuned: Path, general: Path | None, dtype: ComputeDtype, console: Console
) -> Uplift:
    from groundup.commands._chat_model import open_chat_model
    from groundup.data.labelled import LabelRules
    from groundup.data.tables import spread
    from groundup.evaluation.asking import Asked
    from groundup.evaluation.before_after_labels import compare_labels
    from groundup.evaluation.uplift import Uplift
    from groundup.hub.adapted import belongs_to
    from groundup.hub.resolve import OpenedClassifier, is_classifier, open_classifier
    from groundup.kernels import keep_for_reading

    if not config.data:
        raise ConfigError(
            f"{config.tuned}: a classifier, and no examples",
            rule="a classifier gives labels, and is compared on a labelled table",
            fix="Give one: --data FILE.csv.",
        )
    after = open_classifier(tuned, device=config.device, base=base if belongs_to(tuned, base) else None)
    keep_for_reading(after.model, dtype)
    rules = LabelRules(config.text, config.label, separator=config.separator)
    held = held_out_labels(config.data, config.train, rules, after.labels, tuned, console)
    if held.tested.multi_label and not after.model.multi_label:
        raise DataError(
            "--data: some texts have several labels",
            rule=f"{config.tuned} gives each text one label",
            fix="Give data with one label of each text, or a classifier that was trained on texts with several.",
        )
    before: Asked | OpenedClassifier
    tested = held.tested
    if is_classifier(base):
        before = open_classifier(base, device=config.device)
        keep_for_reading(before.model, dtype)
    else:
        model, template = open_chat_model(base, config.device, console)
        keep_for_reading(model.model, dtype)
        before = Asked(model.model, model.tokenizer, template, model.stop_ids)
        tested = tested.only(spread(range(len(tested)), config.examples))
    found = compare_labels(before, after, held.learned, tested, console, seed=config.seed)
    notes = [*held.notes, *found.notes]
    if general is not None or config.choices:
        notes.append("A classifier writes no text: what it has forgotten of general text cannot be measured.")
    return Uplift(found.lines, notes, found.transcripts)


def _general_text(config: CompareConfig, base: Path) -> Path | None:
    """What was asked for, or the corpus or tokens that the base comes from, where they lie beside it."""
    from groundup.hub.resolve import stage_output

    found = (stage_output(place, stage) for place in (config.base, base) for stage in ("collect", "tokenize"))
    return config.general or next((path for path in found if path is not None), None)


def _text_identity(path: Path) -> str:
    from groundup.core.artifact import ARTIFACT
    from groundup.data.texts import texts_identity

    return read_intact(path).digest if (path / ARTIFACT).is_file() else texts_identity(path)
