"""`groundup evaluate` on a table of examples: labels of a classifier, answers of a model that chats, choices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from groundup.commands._closing import closing, say_result
from groundup.core.artifact import Artifact, Work
from groundup.core.console import Console
from groundup.core.errors import ConfigError, DataError, GroundupError
from groundup.core.files import atomic_file, write_json

if TYPE_CHECKING:
    from groundup.data import ConversationRules
    from groundup.data.labelled import LabelRules
    from groundup.kernels import ComputeDtype

FORMAT_VERSION = 1


def task_of(data: Path, *, chats: bool) -> Literal["choices", "answers"] | None:
    """What the names of a table's columns say that it is for; None: it is no table, or they do not say it.

    Args:
        chats: the model has a chat template, so that its answers can be measured.
    """
    from groundup.data import read_table
    from groundup.data.choices import choice_columns
    from groundup.data.columns import ConversationRules, find_columns

    try:
        table = read_table(data)
        if choice_columns(table) is not None:
            return "choices"
        if not chats:
            return None
        # By content, the two sentences of a minimal pair would be a prompt and its response.
        find_columns(table, ConversationRules(), by_content=False)
    except GroundupError:
        return None
    return "answers"


def evaluate_labels(
    directory: Path, data: Path, rules: LabelRules, *, seed: int, device: str | None, work: Work, console: Console
) -> Artifact:
    """Accuracy and macro-F1 of a classifier on a labelled table."""
    from groundup.data import read_table
    from groundup.data.labelled import NOT_LEARNED, read_labelled, summary, with_labels
    from groundup.evaluation.labelling import label_evaluator
    from groundup.hub.resolve import open_classifier
    from groundup.inference.classification import encode, predict

    table = read_table(data)
    examples = read_labelled(table, rules)
    opened = open_classifier(directory, device=device)
    evaluator = label_evaluator(opened.model.multi_label, opened.labels, seed)
    if opened.model.multi_label:
        examples = replace(examples, multi_label=True)
    known = with_labels(examples, opened.labels, NOT_LEARNED)
    if not known.texts:
        raise DataError(
            f"{table.name}: the labels {', '.join(list(examples.counts())[:8])}",
            rule=f"this classifier gives the labels {', '.join(opened.labels[:20])}",
            fix="Give data with these labels, or name the column that has them: --set label=COLUMN.",
        )
    console.note(summary(table, examples))
    if len(known) < len(examples):
        console.warn(f"{len(examples) - len(known):,} texts have a label that this classifier never learned: left out.")
    texts, _ = encode(opened.tokenizer, known.texts, opened.longest)
    with console.progress("testing", len(texts), "texts") as bar:
        probabilities = predict(opened.model, texts, pad_id=opened.tokenizer.pad_id, advance=bar.advance)
    measured = evaluator.scores(known, probabilities)
    rows = [
        (name, f"{interval.estimate:.1%}", f"{interval.low:.1%} to {interval.high:.1%}")
        for name, interval in measured.named.items()
    ]
    facts = {
        "columns": examples.columns,
        "labels": list(opened.labels),
        "dropped": dict(examples.dropped) | {NOT_LEARNED: len(examples) - len(known)},
        "test": measured.facts,
    }
    what = "exactly their labels" if known.multi_label else "their label"
    sentence = f"{next(iter(measured.named.values())).estimate:.1%} of {len(known):,} texts get {what}."
    return _report(work, console, sentence, ("measure", "value", "95 % interval"), rows, facts)


def evaluate_answers(
    directory: Path,
    data: Path,
    columns: ConversationRules,
    dtype: ComputeDtype | None,
    *,
    seed: int,
    device: str | None,
    work: Work,
    console: Console,
) -> Artifact:
    """How well a model predicts the answers of conversations, by its chat template."""
    import numpy as np

    from groundup.commands._chat_model import open_chat_model
    from groundup.data import TokenLists, read_conversations
    from groundup.evaluation.precision import choose_precision
    from groundup.evaluation.rendering import chat_renderer, fits
    from groundup.evaluation.responses import response_tokens, score_responses
    from groundup.evaluation.stats import ratio_interval
    from groundup.kernels import computing_in

    found = read_conversations([_source(data)], columns, console=console)
    opened, template = open_chat_model(directory, device, console)
    if template is None:
        raise ConfigError(
            f"{directory}: no chat template",
            rule="answers are scored with the template that the model was tuned with",
            fix="Give a tuned model (groundup finetune instruct), or measure the text alone: --measure text.",
        )
    model, render = opened.model, chat_renderer(template)
    context = model.config.context_length
    examples = [example for example in found.examples if fits(render, example, context)]
    if not examples:
        raise DataError(
            f"{data}: none of {len(found.examples):,} examples fits into {context:,} tokens",
            rule="an answer is scored with all that stands before it",
            fix="Give shorter examples.",
        )
    console.note(f"{found.sentence}.")
    rendered = TokenLists([render(example).ids for example in examples], np.ones(len(examples), dtype=np.int64))
    precision = choose_precision(model, rendered, bos_id=opened.tokenizer.bos_id, chosen=dtype)
    if precision.sentence:
        console.note(precision.sentence)
    with console.progress("scoring", len(examples), "examples") as bar, computing_in(model, precision.dtype):
        score = score_responses(model, opened.tokenizer, examples, render, advance=bar.advance)
    tokens = response_tokens(opened.tokenizer, examples)
    loss = ratio_interval(score.nll_E, tokens, seed=seed)
    ends = float(score.ends_E.sum() / score.turns_E.sum())
    rows = [
        ("words of the answers, nats a token", f"{loss.estimate:.3f}", f"{loss.low:.3f} to {loss.high:.3f}"),
        ("end of a turn, nats", f"{ends:.3f}", ""),
    ]
    facts = {
        "columns": found.columns,
        "dropped": dict(found.dropped) | {"longer than the context": len(found.examples) - len(examples)},
        "responses": int(score.turns_E.sum()),
        "tokens": int(tokens.sum()),
        "loss": loss.estimate,
        "interval": [loss.low, loss.high],
        "end_of_turn": {"loss": ends},
        **precision.to_json(),
    }
    sentence = f"{loss.estimate:.3f} nats a token of {int(score.turns_E.sum()):,} answers."
    return _report(work, console, sentence, ("measure", "value", "95 % interval"), rows, facts)


def evaluate_choices(
    directory: Path,
    data: Path,
    prompt: str | None,
    dtype: ComputeDtype | None,
    *,
    seed: int,
    device: str | None,
    work: Work,
    console: Console,
) -> Artifact:
    """Which of several answers a language model finds likeliest."""
    from groundup.data import read_table
    from groundup.data.choices import read_choices
    from groundup.evaluation.choices import score_choices
    from groundup.hub.resolve import open_model
    from groundup.kernels import computing_in

    found = read_choices(read_table(data), prompt)
    opened = open_model(directory, device=device)
    # By default in full precision: two choices may be so close that rounding decides.
    dtype, count = dtype or "float32", sum(len(item.choices) for item in found.items)
    with console.progress("scoring", count, "choices") as bar, computing_in(opened.model, dtype):
        score = score_choices(opened.model, opened.tokenizer, found.items, seed=seed, advance=bar.advance)
    named = {"accuracy": score.accuracy, "accuracy, per byte": score.accuracy_per_byte}
    rows = [(name, f"{i.estimate:.1%}", f"{i.low:.1%} to {i.high:.1%}") for name, i in named.items()]
    rows.append(("guessing", f"{score.chance:.1%}", ""))
    facts = {"columns": found.columns, "dropped": dict(found.dropped), "items": len(found.items), **score.to_json()}
    facts["dtype"] = dtype
    sentence = f"{score.accuracy.estimate:.1%} of {len(found.items):,} questions; guessing gives {score.chance:.1%}."
    return _report(work, console, sentence, ("measure", "value", "95 % interval"), rows, facts)


def _source(path: Path) -> Any:
    from groundup.data.conversations import FolderExamples

    return FolderExamples(path=path)


def _report(
    work: Work,
    console: Console,
    sentence: str,
    header: tuple[str, str, str],
    rows: list[tuple[str, str, str]],
    facts: dict[str, Any],
) -> Artifact:
    files = [work.directory / "report.json", work.directory / "report.md"]
    write_json(files[0], {"format_version": FORMAT_VERSION, "summary": sentence, **facts})
    lines = ["# Evaluation", "", sentence, "", f"Read as {facts['columns']}.", ""]
    lines += [f"| {' | '.join(row)} |" for row in (header, ("---",) * len(header), *rows)]
    with atomic_file(files[1]) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="backslashreplace")
    told = closing(sentence, "On these examples", header, rows)
    made = work.finish(told | facts, files)
    return say_result(console, work.directory, made)
