"""Scoring of evaluation tasks: by log-likelihood, or by answers that the inference engine generates.

Shape letters: E: number of items.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from groundup.core.console import Console
from groundup.core.errors import ConfigError, DataError
from groundup.core.types import Example, InferenceDtype, Message
from groundup.data import read_table
from groundup.data.choices import group_columns, grouped, read_choices
from groundup.data.columns import fill, find_columns
from groundup.data.conversations.reading import RejectedError, read_example
from groundup.data.labels.reading import LabelOptions, read_labeled
from groundup.data.tables import evenly_spaced
from groundup.evaluation.baselines import lead
from groundup.evaluation.choices import right_choices, score_choices
from groundup.evaluation.metrics import Measure, label_names, labels, mean, measures
from groundup.evaluation.prompt_search import (
    FewShotPrompt,
    PromptedModel,
    answer_bits_per_byte,
    choose_labels,
    default_max_tokens,
    generate_answers,
    label_instruction,
)
from groundup.evaluation.tasks.checks import passed_checks, require_checks
from groundup.evaluation.tasks.declaration import CHECKS_COLUMN, EvaluationTask, conversation_rules
from groundup.evaluation.tasks.memorization import score_memorization
from groundup.evaluation.tasks.result import TOO_LONG, TaskResult, by_group, with_scores
from groundup.hub.loading import OpenedClassifier, open_chat_model, open_classifier
from groundup.hub.resolve import is_classifier
from groundup.inference.classification import predict_texts
from groundup.inference.prompting import PromptFormat, TextFormat, TextLayout, fits
from groundup.kernels import ComputeDtype, use_compute_dtype

_MAX_GENERATED = 200  # Default maximum number of items whose answers are generated, as in `compare`.
_INSTRUCTION_TOKENS = 256  # Default maximum number of tokens of an answer that has no reference.
_LEAD_SENTENCES = 2


@dataclass(frozen=True, eq=False)
class TaskModel:
    """A model with the settings for scoring tasks.

    Attributes:
        opened: language model or classifier.
        dtype: data type of log-likelihoods. Rounding errors of bfloat16 can change the most likely choice.
        seed: seed of the bootstrap and of the sample of memorization.
    """

    opened: PromptedModel | OpenedClassifier
    dtype: ComputeDtype = "float32"
    seed: int = 0

    @classmethod
    def load(
        cls, path: Path, device: str | None, console: Console, *, dtype: ComputeDtype | None = None, seed: int = 0
    ) -> TaskModel:
        """Load a model.

        Args:
            path: directory of a language model or a classifier.
            device: device to compute on, or None for a GPU if available.
            console: console that prints notes.
            dtype: data type to compute in; default: float32 for log-likelihoods, and the fastest for generation.
            seed: seed of the bootstrap.
        """
        if is_classifier(path):
            return cls(open_classifier(path, device=device), seed=seed)
        opened, template = open_chat_model(path, device, console, as_stored=False)
        generation: InferenceDtype = "float32" if dtype == "float32" else "auto"
        prompted = PromptedModel(opened.model, opened.tokenizer, template, opened.stop_ids, generation)
        return cls(prompted, dtype or "float32", seed)


def score_tasks(model: TaskModel, tasks: Sequence[EvaluationTask], console: Console) -> list[TaskResult]:
    """Score a model on tasks.

    Args:
        model: model to score.
        tasks: tasks, whose names must differ.
        console: console that prints progress.

    Returns:
        One result per task.

    Raises:
        ConfigError: two tasks have the same name, or a classifier cannot perform a task.
        DataError: the data of a task is not valid.
    """
    repeated = [name for name, count in Counter(task.name for task in tasks).items() if count > 1]
    if repeated:
        raise ConfigError(
            f"two tasks have the name {repeated[0]!r}", fix='Give one of them another name: name = "..." in its file.'
        )
    return [_score(model, task, console) for task in tasks]


def _score(model: TaskModel, task: EvaluationTask, console: Console) -> TaskResult:
    assert task.kind is not None
    if isinstance(model.opened, OpenedClassifier):
        if task.kind != "classification":
            raise ConfigError(
                f"task {task.name}: {task.kind} needs a language model",
                fix="Give a language model, or a task of the kind classification.",
            )
        return replace(_classified(model, task, console), seed=model.seed)
    scorers: Mapping[str, Callable[[PromptedModel, EvaluationTask, Console], TaskResult]] = {
        "minimal_pairs": _choices,
        "multiple_choice": _choices,
        "instructions": _instructions,
        "memorization": lambda prompted, task, console: score_memorization(prompted, task, model.seed, console),
    }
    with use_compute_dtype(model.opened.model, model.dtype):
        if task.kind == "classification":
            found = _classified(model, task, console)
        else:
            found = scorers.get(task.kind, _answers)(model.opened, task, console)
    return replace(found, seed=model.seed)


def _choices(prompted: PromptedModel, task: EvaluationTask, console: Console) -> TaskResult:
    found = read_choices(read_table(task.data), task.prompt, task.group)
    chosen = evenly_spaced(range(task.num_fewshot, len(found.items)), task.max_items or len(found.items))
    shown = "".join(f"{each.prompt} {each.choices[each.answer]}\n\n" for each in found.items[: task.num_fewshot])
    items = [replace(found.items[place], prompt=shown + found.items[place].prompt) for place in chosen]
    _require_items(task, items)
    with console.progress(task.name, sum(len(item.choices) for item in items), "choices") as bar:
        score = score_choices(prompted.model, prompted.tokenizer, items, advance=bar.advance)
    accuracy = mean("accuracy", 100 * score.right_E)
    per_byte_E = right_choices(score.per_byte(items), items)
    groups = {column: [names[place] for place in chosen] for column, names in found.groups.items()}
    rows = [
        {"right": float(right), "loglikelihoods": nats, "answer": item.answer}
        for right, nats, item in zip(score.right_E, score.loglikelihoods, items, strict=True)
    ]
    return TaskResult(
        task.name,
        task.kind or "",
        [accuracy, mean("accuracy, per byte", 100 * per_byte_E)],
        _with_groups(rows, groups),
        columns=found.columns,
        groups=by_group(accuracy, groups),
        baselines={"random guess": mean("accuracy", [100 / len(item.choices) for item in items])},
        dropped=found.dropped,
        numbers=list(chosen),
        notes=[f"{task.num_fewshot}-shot"] if task.num_fewshot else [],
    )


def _classified(model: TaskModel, task: EvaluationTask, console: Console) -> TaskResult:
    table = read_table(task.data)
    found = read_labeled(table, LabelOptions(task.prompt, task.label))
    if found.multi_label:
        raise DataError(
            f"task {task.name}: some texts have several labels",
            fix="Evaluate a classifier: --data FILE instead of --task.",
        )
    names = list(dict.fromkeys(found.labels))
    shots, tested = found.texts[: task.num_fewshot], range(task.num_fewshot, len(found.texts))
    chosen = evenly_spaced(tested, task.max_items or (len(tested) if _fast(model) else _MAX_GENERATED))
    texts, true = ([column[place] for place in chosen] for column in (found.texts, found.labels))
    _require_items(task, texts)
    notes, dropped = [], Counter(found.dropped)
    if isinstance(model.opened, OpenedClassifier):
        with console.progress(task.name, len(texts), "texts") as bar:
            probabilities = predict_texts(model.opened, texts, advance=bar.advance).probabilities
        predicted = [model.opened.labels[place] for place in np.asarray(probabilities).argmax(1)]
    else:
        instruction = label_instruction(sorted(names))
        prompt = _prompt(model.opened, task, _conversations(shots, found.labels), instruction)
        notes.append(f"Prompt: {prompt.name}. The most likely label is the answer.")
        examples = _conversations(texts, true)
        kept = [place for place, each in enumerate(examples) if _fits(model.opened, prompt, each, 0)]
        dropped += Counter({TOO_LONG: len(examples) - len(kept)})
        chosen, examples = [chosen[place] for place in kept], [examples[place] for place in kept]
        texts, true = ([column[place] for place in kept] for column in (texts, true))
        _require_items(task, examples)
        predicted = []
        with console.progress(task.name, len(examples), "texts") as bar:
            for example in examples:
                predicted += choose_labels(model.opened, prompt, [example], names)
                bar.advance(1)
    found_measures = labels(predicted, true)
    common = Counter(true).most_common(1)[0][0]
    rows = [
        {"prompt": text, "predicted": said, "label": label, "right": float(said == label)}
        for text, said, label in zip(texts, predicted, true, strict=True)
    ]
    return TaskResult(
        task.name,
        "classification",
        found_measures,
        rows,
        columns=found.columns,
        groups=by_group(found_measures[0], {"label": true}),
        baselines={f"always {common!r}": labels([common] * len(true), true)[0]},
        dropped=dropped,
        numbers=list(chosen),
        notes=notes,
    )


def _answers(prompted: PromptedModel, task: EvaluationTask, console: Console) -> TaskResult:
    examples, kept, columns, dropped = _read_examples(task)
    shots, examples = examples[: task.num_fewshot], examples[task.num_fewshot :]
    prompt = _prompt(prompted, task, shots)
    every_reference = [_pair(example)[1] for example in examples] or [""]
    max_tokens = task.max_tokens or default_max_tokens(prompted.tokenizer, every_reference)
    chosen, long = _scored(prompted, prompt, task, examples, max_tokens)
    examples = [examples[place] for place in chosen]
    _require_items(task, examples)
    questions, references = zip(*map(_pair, examples), strict=True)
    metric, names = task.main_metric(), label_names([*references, *(_pair(shot)[1] for shot in shots)])
    with console.progress(task.name, len(examples), "answers") as bar:
        # Open answers have no correct wording, so only their likelihood counts.
        generates = metric != "likelihood"
        written = generate_answers(prompted, prompt, examples, max_tokens, advance=bar.advance) if generates else []
    found = measures(metric, written, references, labels=names) if generates else []
    found.append(answer_bits_per_byte(prompted, prompt, examples, console))
    rows = [{"prompt": asked, "reference": right} for asked, right in zip(questions, references, strict=True)]
    rows = [{**row, "written": text} for row, text in zip(rows, written, strict=True)] if generates else rows
    groups = _groups(task, kept[task.num_fewshot :], chosen)
    return TaskResult(
        task.name,
        task.kind or "",
        found,
        _with_groups(with_scores(rows, found), groups),
        columns=columns,
        groups=by_group(found[0], groups),
        baselines=_baselines(task, questions, references) if generates else {},
        dropped=dropped + long,
        numbers=chosen,
        notes=[f"Prompt: {prompt.name}.", *([f"Answers have at most {max_tokens} tokens."] if generates else [])],
    )


def _instructions(prompted: PromptedModel, task: EvaluationTask, console: Console) -> TaskResult:
    table = read_table(task.data)
    checks = [require_checks(row.get(CHECKS_COLUMN), f"{table.name}, row {n}") for n, row in enumerate(table.rows, 1)]
    template = task.prompt or next((f"{{{name}}}" for name in ("prompt", "instruction") if name in table.columns), None)
    if template is None:
        raise DataError(
            f"{table.name}: no column prompt", fix='Name the column with the instructions: prompt = "{COLUMN}".'
        )
    template = template if "{" in template else f"{{{template}}}"
    examples = _conversations([fill(template, row, whole=True) for row in table.rows], [""] * len(table.rows))
    default = min(_INSTRUCTION_TOKENS, prompted.model.config.context_length // 2)
    prompt, max_tokens = _prompt(prompted, task, ()), task.max_tokens or default
    chosen, long = _scored(prompted, prompt, task, examples, max_tokens)
    examples, checks = [examples[place] for place in chosen], [checks[place] for place in chosen]
    _require_items(task, examples)
    with console.progress(task.name, len(examples), "answers") as bar:
        written = generate_answers(prompted, prompt, examples, max_tokens, advance=bar.advance)
    passed = [passed_checks(text, of) for text, of in zip(written, checks, strict=True)]
    every = mean("all checks", [100.0 * all(of.values()) for of in passed])
    each = mean("each check", [100.0 * sum(of.values()) for of in passed], [len(of) for of in passed])
    rows = [
        {"prompt": _pair(example)[0], "written": text, "checks": of, "right": float(all(of.values()))}
        for example, text, of in zip(examples, written, passed, strict=True)
    ]
    groups = _groups(task, table.rows, chosen)
    by_check = {
        name: mean(name, [100.0 * of[name] for of in passed if name in of])
        for name in sorted({name for of in passed for name in of})
    }
    return TaskResult(
        task.name,
        "instructions",
        [every, each],
        _with_groups(rows, groups),
        columns=f"{template} -> {CHECKS_COLUMN}",
        groups={"check": by_check, **by_group(every, groups)},
        dropped=long,
        numbers=chosen,
        notes=[f"Prompt: {prompt.name}.", f"Answers have at most {max_tokens} tokens."],
    )


def _read_examples(task: EvaluationTask) -> tuple[list[Example], list[Mapping[str, Any]], str, Counter[str]]:
    """Return the conversations of a task, the row of each one, the columns, and the number of dropped rows."""
    table = read_table(task.data)
    columns = find_columns(table, conversation_rules(task))
    examples, dropped = list[Example](), Counter[str]()
    rows: list[Mapping[str, Any]] = []
    for row in table.rows:
        try:
            examples.append(read_example(row, columns)[0])
        except RejectedError as rejected:
            dropped[str(rejected)] += 1
        else:
            rows.append(row)
    return examples, rows, str(columns), dropped


def _prompt(
    prompted: PromptedModel, task: EvaluationTask, shots: Sequence[Example], instruction: str = ""
) -> FewShotPrompt:
    stop = task.stop or ("\n",)
    form: PromptFormat | None = None
    if task.format == "chat" or (task.format is None and prompted.chat_format):
        form = prompted.chat_format
        if form is None:
            raise ConfigError(
                f'task {task.name}: format = "chat", but the model has no chat template', fix='Set format = "qa".'
            )
    elif task.format == "plain":
        ends = "\n" if "\n\n" not in stop else "\n\n"
        layout = TextLayout(
            "the prompt as it is", {"user": "", "assistant": " "}, {"user": "", "assistant": ends}, stop
        )
        form = TextFormat(prompted.tokenizer, prompted.stop_ids, layout)
    else:
        layout = replace(prompted.plain_formats[0].layout, stop=stop)
        form = TextFormat(prompted.tokenizer, prompted.stop_ids, layout)
    return FewShotPrompt(form, tuple(shots), instruction)


def _scored(
    prompted: PromptedModel, prompt: FewShotPrompt, task: EvaluationTask, examples: Sequence[Example], max_tokens: int
) -> tuple[list[int], Counter[str]]:
    """Return the places of the items to score, evenly spaced, and the number of those too long for the context."""
    places = evenly_spaced(range(len(examples)), task.max_items or _MAX_GENERATED)
    chosen = [place for place in places if _fits(prompted, prompt, examples[place], max_tokens)]
    return chosen, +Counter({TOO_LONG: len(places) - len(chosen)})


def _fits(prompted: PromptedModel, prompt: FewShotPrompt, example: Example, max_tokens: int) -> bool:
    return fits(prompt.render, example, prompted.model.config.context_length - max_tokens)


def _fast(model: TaskModel) -> bool:
    return isinstance(model.opened, OpenedClassifier)


def _conversations(texts: Sequence[str], answers: Sequence[str]) -> list[Example]:
    pairs = zip(texts, answers, strict=False)
    return [Example((Message("user", text), Message("assistant", answer))) for text, answer in pairs]


def _pair(example: Example) -> tuple[str, str]:
    """Return the last question of a conversation and the answer to it."""
    return example.messages[-2].content, example.messages[-1].content


def _groups(task: EvaluationTask, rows: Sequence[Mapping[str, Any]], chosen: Sequence[int]) -> dict[str, list[str]]:
    table = read_table(task.data)
    return grouped([rows[place] for place in chosen], group_columns(table, task.group))


def _baselines(task: EvaluationTask, questions: Sequence[str], references: Sequence[str]) -> dict[str, Measure]:
    """Return the main metric of baselines that do not use a model."""
    metric = task.main_metric()
    if metric == "rouge":
        texts = [lead(question, _LEAD_SENTENCES) for question in questions]
        return {f"the first {_LEAD_SENTENCES} sentences": measures(metric, texts, references)[0]}
    if metric in ("chrf", "bleu"):
        return {"the untranslated input": measures(metric, list(questions), references)[0]}
    return {}


def _with_groups(rows: Sequence[Mapping[str, Any]], groups: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    return [{**row, **{column: names[place] for column, names in groups.items()}} for place, row in enumerate(rows)]


def _require_items(task: EvaluationTask, items: Sequence[Any]) -> None:
    if not items:
        raise DataError(
            f"task {task.name}: no items to score",
            rule="an item must fit into the context of the model together with its answer, after num_fewshot items",
            fix="Give shorter or more items.",
        )
