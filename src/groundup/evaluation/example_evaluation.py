"""Evaluation of a model on a table of examples.

A classifier is evaluated by its predicted labels, a chat model by its loss on reference answers, and any language model
by its accuracy on multiple-choice questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from groundup.core.console import Console
from groundup.core.errors import ConfigError, DataError, GroundupError
from groundup.core.markdown import markdown_table
from groundup.core.types import Example, InferenceDtype, MetricName
from groundup.data import ConversationSettings, TokenLists, read_conversations, read_table
from groundup.data.choices import has_choices, read_choices
from groundup.data.columns import find_columns
from groundup.data.conversations.reading import FolderExamples
from groundup.data.labels.reading import UNKNOWN_LABEL, LabelOptions, read_labeled, summary, with_labels
from groundup.data.tables import evenly_spaced
from groundup.evaluation.choices import group_accuracies, score_choices
from groundup.evaluation.classifiers.evaluation import label_evaluator
from groundup.evaluation.measure import Measure
from groundup.evaluation.metrics import choose_metric, label_names, measures
from groundup.evaluation.precision import Precision, choose_precision
from groundup.evaluation.prompt_search import FewShotPrompt, PromptedModel, default_max_tokens, generate_answers
from groundup.evaluation.responses import response_tokens, score_responses
from groundup.evaluation.stats import Interval, ratio_interval
from groundup.evaluation.tasks.result import with_scores
from groundup.hub.loading import OpenedModel, open_chat_model, open_classifier, open_model
from groundup.hub.resolve import has_chat_template, is_classifier, resolve_model
from groundup.inference.classification import predict_texts
from groundup.inference.prompting import ChatFormat, fits
from groundup.kernels import ComputeDtype, use_compute_dtype

FORMAT_VERSION = 1
COLUMNS = ("metric", "value", "95 % interval")

Evaluated = Literal["text", "answers", "labels", "choices"]


@dataclass(frozen=True, slots=True)
class ExampleEvaluation:
    """Result of an evaluation on examples.

    Attributes:
        sentence: a sentence that reports the main metric.
        rows: rows of the table of metrics. The columns are `COLUMNS`.
        facts: results as JSON values. The value of `columns` describes the columns that were read.
        groups: for each column that divides the examples into groups, the rows of the table of groups.
        items: results of each example as JSON values, in the order of the data.
    """

    sentence: str
    rows: Sequence[tuple[str, str, str]]
    facts: Mapping[str, Any]
    groups: Mapping[str, Sequence[tuple[str, str, str]]] = field(default_factory=dict)
    items: Sequence[Mapping[str, Any]] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {"format_version": FORMAT_VERSION, "summary": self.sentence, **self.facts}

    def to_markdown(self) -> str:
        """Return the result as a Markdown page."""
        lines = ["# Evaluation", "", self.sentence, "", f"Columns: {self.facts['columns']}.", ""]
        lines.append(markdown_table(COLUMNS, self.rows, "lrr"))
        for column, rows in self.groups.items():
            lines += [f"## By {column}", "", markdown_table((column, *COLUMNS[1:]), rows, "lrr")]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class ExampleOptions:
    """Options of an evaluation on examples.

    Attributes:
        text: name of the text column or prompt column, or a template; default: detected.
        label: name of the label column; default: detected.
        separator: separator between several labels in a cell.
        groups: columns that divide choices into groups; default: columns with common names, such as `category`.
        columns: columns of conversations.
        metric: main metric of generated answers; default: chosen from the data.
        max_examples: maximum number of examples whose answers are generated.
        dtype: data type to compute in; default: the faster one for answers, float32 for choices, because rounding
            errors can change the most likely choice.
        seed: seed of the bootstrap.
        device: device to compute on; default: a GPU if available.
    """

    text: str | None = None
    label: str | None = None
    separator: str | None = None
    groups: Sequence[str] | None = None
    columns: ConversationSettings = ConversationSettings()  # noqa: RUF009
    metric: MetricName | None = None
    max_examples: int = 200
    dtype: ComputeDtype | None = None
    seed: int = 0
    device: str | None = None


def require_table(model: Path, data: Path | None, measure: Evaluated) -> Path:
    """Return the table of examples.

    Raises:
        ConfigError: the user did not give a table.
    """
    if data is None:
        raise ConfigError(
            f"{model}: no examples given",
            rule=f"--measure {measure} needs a table of examples",
            fix="Give a table: --data FILE.csv.",
        )
    return data


def evaluate_examples(
    directory: Path,
    data: Path,
    measure: Literal["answers", "labels", "choices"],
    options: ExampleOptions,
    console: Console,
) -> ExampleEvaluation:
    """Evaluate a model on a table of examples.

    Args:
        directory: directory of the model.
        data: table of examples.
        measure: what to score.
        options: options.
        console: console that prints notes and progress.
    """
    evaluators = {"answers": evaluate_answers, "labels": evaluate_labels, "choices": evaluate_choices}
    return evaluators[measure](directory, data, options, console)


def detect_evaluation(model: Path, data: Path | None, label: str | None, columns: ConversationSettings) -> Evaluated:
    """Return the kind of evaluation that fits the type of the model and the columns of the data.

    Args:
        model: model directory or run directory.
        data: table or text file, or None if the user did not give one.
        label: column with the labels, or None if the user did not give one.
        columns: columns of conversations; the default value if the user did not give any.

    Returns:
        The kind of evaluation.
    """
    if is_classifier(model) or label is not None:
        return "labels"
    if data is None:
        return "text"
    if columns != ConversationSettings():
        return "answers"
    return _task_of(data, chats=has_chat_template(resolve_model(model))) or "text"


def _task_of(data: Path, *, chats: bool) -> Literal["choices", "answers"] | None:
    """Return the kind of evaluation that matches the column names of a table.

    The function returns None if `data` is not a table or if its column names do not match any kind of evaluation.

    Args:
        data: file or folder.
        chats: whether the model has a chat template. Answers can only be scored with a chat template.
    """
    try:
        table = read_table(data)
        if has_choices(table):
            return "choices"
        if not chats:
            return None
        # Detection by content would mistake the two sentences of a minimal pair for a prompt and its response.
        find_columns(table, ConversationSettings(), by_content=False)
    except GroundupError:
        return None
    return "answers"


def evaluate_labels(directory: Path, data: Path, options: ExampleOptions, console: Console) -> ExampleEvaluation:
    """Compute the accuracy and the F1 scores of a classifier on a labeled table.

    Args:
        directory: directory of the classifier.
        data: labeled table.
        options: options.
        console: console that prints notes and progress.

    Returns:
        The scores.

    Raises:
        DataError: no example has a label that the classifier predicts.
    """
    table = read_table(data)
    examples = read_labeled(table, LabelOptions(options.text, options.label, separator=options.separator))
    opened = open_classifier(directory, device=options.device)
    evaluator = label_evaluator(opened.model.multi_label, opened.labels, options.seed)
    if opened.model.multi_label:
        examples = replace(examples, multi_label=True)
    known = with_labels(examples, opened.labels, UNKNOWN_LABEL)
    if not known.texts:
        raise DataError(
            f"{table.name}: the labels {', '.join(list(examples.counts())[:8])}",
            rule=f"this classifier predicts the labels {', '.join(opened.labels[:20])}",
            fix="Give data with these labels, or set the column that has them: --set label=COLUMN.",
        )
    console.note(summary(table, examples))
    if len(known) < len(examples):
        console.warn(f"Skipped {len(examples) - len(known):,} texts whose labels this classifier does not predict.")
    with console.progress("testing", len(known), "texts") as bar:
        probabilities = predict_texts(opened, known.texts, advance=bar.advance).probabilities
    measured = evaluator.scores(known, probabilities)
    facts = {
        "columns": examples.columns,
        "labels": list(opened.labels),
        "dropped": dict(examples.dropped) | {UNKNOWN_LABEL: len(examples) - len(known)},
        "test": measured.facts,
    }
    what = "exactly their labels" if known.multi_label else "their label"
    sentence = f"{next(iter(measured.named.values())).estimate:.1%} of {len(known):,} texts get {what}."
    return ExampleEvaluation(sentence, _percent_rows(measured.named), facts)


def evaluate_answers(directory: Path, data: Path, options: ExampleOptions, console: Console) -> ExampleEvaluation:
    """Compute the loss of a model on the answers of conversations, and the metrics of answers that it generates.

    Conversations are rendered with the chat template of the model. No answers are generated if a correct answer can
    have many forms, or if the metric is "likelihood".

    Raises:
        ConfigError: the model does not have a chat template.
        DataError: no conversation fits into the context length.
    """
    found = read_conversations([FolderExamples(path=data)], options.columns, console=console)
    opened, template = open_chat_model(directory, options.device, console, as_stored=False)
    if template is None:
        raise ConfigError(
            f"{directory}: no chat template",
            rule="answers are scored in the chat template of the model",
            fix="Give a fine-tuned model (groundup finetune instruct), or score the text only: --measure text.",
        )
    model, render = opened.model, ChatFormat(template).render
    context = model.config.context_length
    examples = [example for example in found.examples if fits(render, example, context)]
    if not examples:
        raise DataError(
            f"{data}: none of {len(found.examples):,} examples fits into {context:,} tokens",
            rule="an answer is scored together with its whole conversation",
            fix="Give shorter examples.",
        )
    console.note(f"{found.sentence}.")
    precision = _precision(opened, [render(example).ids for example in examples], options.dtype, console)
    with console.progress("scoring", len(examples), "examples") as bar, use_compute_dtype(model, precision.dtype):
        score = score_responses(model, opened.tokenizer, examples, render, advance=bar.advance)
    tokens = response_tokens(opened.tokenizer, examples)
    loss = ratio_interval(score.nll_E, tokens, seed=options.seed)
    ends, turns = float(score.ends_E.sum() / score.turns_E.sum()), int(score.turns_E.sum())
    rows = [
        ("loss on answers, nats per token", f"{loss.estimate:.3f}", f"{loss.low:.3f} to {loss.high:.3f}"),
        ("loss on end-of-turn tokens, nats", f"{ends:.3f}", ""),
    ]
    facts = {
        "columns": found.columns,
        "dropped": dict(found.dropped) | {"longer than the context": len(found.examples) - len(examples)},
        "responses": turns,
        "tokens": int(tokens.sum()),
        **loss.to_json("loss"),
        "end_of_turn": {"loss": ends},
        **precision.to_json(),
    }
    generation: InferenceDtype = "float32" if options.dtype == "float32" else "auto"
    prompted = PromptedModel(model, opened.tokenizer, template, opened.stop_ids, generation)
    measured, items = _generated(prompted, examples, options, console)
    sentence = f"Loss on {turns:,} answers: {loss.estimate:.3f} nats per token."
    if measured:
        intervals = {each.name: each.interval(seed=options.seed) for each in measured}
        rows += [
            (name, f"{each.estimate:.1f}", f"{each.low:.1f} to {each.high:.1f}") for name, each in intervals.items()
        ]
        facts["generated"] = {name: each.to_json() for name, each in intervals.items()}
        sentence += f" {measured[0].name} of {len(items):,} generated answers: {measured[0].estimate:.1f}."
    return ExampleEvaluation(sentence, rows, facts, items=items)


def _precision(opened: OpenedModel, ids: list[list[int]], dtype: ComputeDtype | None, console: Console) -> Precision:
    documents = TokenLists(ids, np.ones(len(ids), dtype=np.int64))
    precision = choose_precision(opened.model, documents, bos_id=opened.tokenizer.bos_id, chosen=dtype)
    if precision.sentence:
        console.note(precision.sentence)
    return precision


def _generated(
    prompted: PromptedModel, examples: Sequence[Example], options: ExampleOptions, console: Console
) -> tuple[list[Measure], list[dict[str, Any]]]:
    """Generate answers to the last question of conversations, and return their metrics and the results of each one."""
    assert prompted.chat_format is not None
    pairs = [(example.messages[-2].content, example.messages[-1].content) for example in examples]
    names, metric = label_names([answer for _, answer in pairs]), options.metric
    if metric is None:
        metric, why = choose_metric([asked for asked, _ in pairs], [answer for _, answer in pairs], labels=names)
        console.note(f"Metric: {metric} ({why}). To change it: --set metric=NAME.")
    if metric == "likelihood":
        return [], []
    max_tokens = default_max_tokens(prompted.tokenizer, [answer for _, answer in pairs])
    prompt, context = FewShotPrompt(prompted.chat_format), prompted.model.config.context_length
    chosen = [
        each
        for each in evenly_spaced(examples, options.max_examples)
        if fits(prompt.render, each, context - max_tokens)
    ]
    if not chosen:
        console.warn(f"No answers were generated: no example leaves {max_tokens} tokens of the context for the answer.")
        return [], []
    with console.progress("answers", len(chosen), "answers") as bar:
        written = generate_answers(prompted, prompt, chosen, max_tokens, advance=bar.advance)
    references = [example.messages[-1].content for example in chosen]
    items = [
        {"prompt": example.messages[-2].content, "reference": reference, "written": text}
        for example, reference, text in zip(chosen, references, written, strict=True)
    ]
    found = measures(metric, written, references, labels=names)
    return found, with_scores(items, found)


def evaluate_choices(directory: Path, data: Path, options: ExampleOptions, console: Console) -> ExampleEvaluation:
    """Compute the accuracy of a model on multiple-choice questions or minimal pairs.

    The most likely choice counts as the answer of the model.

    Args:
        directory: directory of the model.
        data: table of questions.
        options: options.
        console: console that prints progress.

    Returns:
        The accuracy.
    """
    found, seed = read_choices(read_table(data), options.text, options.groups), options.seed
    opened = open_model(directory, device=options.device)
    dtype, count = options.dtype or "float32", sum(len(item.choices) for item in found.items)
    with console.progress("scoring", count, "choices") as bar, use_compute_dtype(opened.model, dtype):
        score = score_choices(opened.model, opened.tokenizer, found.items, seed=seed, advance=bar.advance)
    rows = _percent_rows({"accuracy": score.accuracy, "accuracy, per byte": score.accuracy_per_byte})
    rows.append(("random guess", f"{score.chance:.1%}", ""))
    accuracies = group_accuracies(score.right_E, found.groups, seed=seed)
    for column, parts in accuracies.items():
        mean = float(np.mean([part.estimate for part in parts.values()]))
        rows.append((f"mean over {column}", f"{mean:.1%}", f"{len(parts)} groups"))
    facts = {"columns": found.columns, "dropped": dict(found.dropped), "items": len(found.items), **score.to_json()}
    accuracy, questions = f"{score.accuracy.estimate:.1%}", f"{len(found.items):,} {found.kind}"
    sentence = f"Accuracy {accuracy} on {questions}; random guessing: {score.chance:.1%}."
    facts["groups"] = {
        column: {name: part.to_json() for name, part in parts.items()} for column, parts in accuracies.items()
    }
    items = [
        {
            "right": float(right),
            "loglikelihoods": nats,
            **{column: names[index] for column, names in found.groups.items()},
        }
        for index, (right, nats) in enumerate(zip(score.right_E, score.loglikelihoods, strict=True))
    ]
    tables = {column: _percent_rows(parts) for column, parts in accuracies.items()}
    return ExampleEvaluation(sentence, rows, facts | {"dtype": dtype}, tables, items)


def _percent_rows(metrics: Mapping[str, Interval]) -> list[tuple[str, str, str]]:
    return [(name, f"{each.estimate:.1%}", f"{each.low:.1%} to {each.high:.1%}") for name, each in metrics.items()]
