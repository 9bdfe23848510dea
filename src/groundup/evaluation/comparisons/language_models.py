"""Comparison of two language models on held-out answers, on general text and on multiple-choice questions.

Shape letters: E: number of examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from groundup.core.console import Console
from groundup.core.errors import DataError
from groundup.core.plural import pluralize
from groundup.core.types import Example, MetricName
from groundup.data import read_table
from groundup.data.choices import read_choices
from groundup.data.held_out import HeldOut
from groundup.data.tables import evenly_spaced
from groundup.data.texts import general_texts
from groundup.evaluation.baselines import baselines, without_shared_words
from groundup.evaluation.bpb import BitsPerByte, bits_per_byte, compare_bits_per_byte, encode_texts, model_nll
from groundup.evaluation.choices import right_choices, score_choices
from groundup.evaluation.comparisons.examples import Comparison, ComparisonReport
from groundup.evaluation.metrics import Measure, choose_metric, label_names, mean, measures, refusals
from groundup.evaluation.prompt_search import (
    MAX_QUALITY_EXAMPLES,
    FewShotPrompt,
    PromptedModel,
    answer_bits_per_byte,
    best_prompt,
    default_max_tokens,
    default_prompt,
    generate_answers,
    label_instruction,
    num_trials,
)
from groundup.evaluation.tasks import EvaluationTask, TaskModel, on_shared_items, score_tasks
from groundup.inference.prompting import fits

_NUM_TRANSCRIPTS = 3
TEXT_METRIC = "bits per byte of general text"
_MAX_CONTEXT = 2048  # Maximum window length for general text. Longer windows are slower and barely change the result.


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """Options for generating and scoring answers.

    Attributes:
        metric: metric of the answers; default: the metric is chosen from the data.
        refusal: text with which an answer begins if it is a refusal; empty if the data does not have refusals.
        max_examples: maximum number of test examples.
        max_tokens: maximum number of tokens per answer; default: the number is derived from the data.
    """

    metric: MetricName | None = None
    refusal: str = ""
    max_examples: int = 200
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class AnswerTask:
    """Examples of a comparison, and the settings for scoring answers.

    Attributes:
        metric: metric of the answers.
        train: training examples, which are used in few-shot prompts and to choose the best prompt.
        test: held-out examples.
        refusal: text with which an answer begins if it is a refusal; empty if the data does not have refusals.
        max_tokens: maximum number of tokens per answer; default: the number is derived from the data.
        labels: all labels if the answers are labels, otherwise empty; see `label_names`.
        notes: remarks on how the examples were chosen.
    """

    metric: MetricName
    train: Sequence[Example]
    test: Sequence[Example]
    refusal: str = ""
    max_tokens: int | None = None
    labels: Sequence[str] = ()
    notes: Sequence[str] = ()


def answer_task(held_out: HeldOut[list[Example]], options: AnswerOptions, console: Console) -> AnswerTask:
    """Return the settings for scoring held-out conversations, and print the metric if it is chosen from the data.

    Args:
        held_out: training and test conversations.
        options: options for generating and scoring answers.
        console: console that prints notes.

    Returns:
        The task.
    """
    metric = options.metric
    answers = [example.messages[-1].content for example in held_out.test]
    labels = label_names([*answers, *(example.messages[-1].content for example in held_out.train)])
    if metric is None:
        prompts = without_shared_words([example.messages[-2].content for example in held_out.test])
        metric, why = choose_metric(prompts, answers, labels=labels)
        console.note(f"Metric: {metric} ({why}). To change it: --metric NAME.")
    test = evenly_spaced(held_out.test, options.max_examples)
    return AnswerTask(metric, held_out.train, test, options.refusal, options.max_tokens, labels, held_out.notes)


def compare_answers(
    before: PromptedModel,
    after: PromptedModel,
    task: AnswerTask,
    console: Console,
    *,
    prompt_after: FewShotPrompt | None = None,
    seed: int = 0,
) -> ComparisonReport:
    """Compare the answers of two models to held-out questions.

    Args:
        before: base model, which gets the prompt that performs best on training examples.
        after: fine-tuned model.
        task: examples and metric.
        console: console that prints progress.
        prompt_after: prompt of the fine-tuned model; default: the prompt that performs best on training examples.
        seed: seed of the bootstrap.

    Returns:
        Comparisons by the task's metric, by bits per byte, and by refusals if the data has refusals.

    Raises:
        DataError: no held-out example fits into the context length of both models.
    """
    max_tokens = task.max_tokens or default_max_tokens(after.tokenizer, [_pair(example)[1] for example in task.test])
    models = [
        (before, _best_prompt(before, task, max_tokens, "search for the base model's prompt", console)),
        (
            after,
            prompt_after or _best_prompt(after, task, max_tokens, "search for the fine-tuned model's prompt", console),
        ),
    ]
    test = [each for each in task.test if all(_fits(*model, each, max_tokens) for model in models)]
    if not test:
        raise DataError(
            f"{len(task.test):,} held-out examples: none fits into {before.model.config.context_length:,} tokens",
            rule="an answer is scored together with its whole conversation",
            fix="Give shorter test examples, or models with a longer context.",
        )
    shown = test if task.metric != "likelihood" or task.refusal else test[:_NUM_TRANSCRIPTS]
    written = []
    for (model, prompt), who in zip(models, ("base", "fine-tuned"), strict=True):
        with console.progress(f"answers of the {who} model", len(shown), "answers") as bar:
            written.append(generate_answers(model, prompt, shown, max_tokens, advance=bar.advance))
    what = f"{len(test):,} answers"
    comparisons = _scored_answers(task, test, written, what, seed)
    old, new = (answer_bits_per_byte(model, prompt, test, console) for model, prompt in models)
    comparisons.append(Comparison(old, new, seed, "task", what))
    references = [_pair(example)[1] for example in test]
    if task.refusal:
        both = (refusals(texts, references, task.refusal) for texts in written)
        comparisons += [Comparison(old, new, seed, "task", what) for old, new in zip(*both, strict=True)]
    questions = [_pair(example)[0] for example in test]
    transcripts = [
        dict(zip(("question", "base", "fine_tuned", "reference"), each, strict=True))
        for each in list(zip(questions, *written, references, strict=False))[:_NUM_TRANSCRIPTS]
    ]
    return ComparisonReport(comparisons, _notes(task, models, len(test)), transcripts)


def compare_held_out(
    before: PromptedModel,
    after: PromptedModel,
    held_out: HeldOut[list[Example]],
    options: AnswerOptions,
    console: Console,
    *,
    fine_tuned: bool,
    seed: int = 0,
) -> ComparisonReport:
    """Compare the answers of two models to held-out questions; see `answer_task` and `compare_answers`.

    Args:
        before: base model.
        after: fine-tuned model.
        held_out: training and test conversations.
        options: options for generating and scoring answers.
        console: console that prints notes and progress.
        fine_tuned: whether `after` was fine-tuned with groundup, so that its chat template is its prompt.
        seed: seed of the bootstrap.
    """
    task = answer_task(held_out, options, console)
    prompt = FewShotPrompt(after.chat_format) if after.chat_format and fine_tuned else None
    return compare_answers(before, after, task, console, prompt_after=prompt, seed=seed)


def compare_text(
    before: PromptedModel, after: PromptedModel, path: Path | None, max_bytes: int, console: Console, *, seed: int = 0
) -> ComparisonReport:
    """Compare the bits per byte of two models on general text. The difference measures forgetting.

    Args:
        before: base model.
        after: fine-tuned model.
        path: a corpus, token shards, a file, or a folder (see `general_texts`), or None if there is no text.
        max_bytes: approximate maximum number of bytes to score.
        console: console that prints progress.
        seed: seed of the bootstrap.

    Returns:
        The comparison, or a note if there is no text.
    """
    if path is None:
        return ComparisonReport([], ["Forgetting was not measured. To measure it, use --general FOLDER."])
    texts = general_texts(path, max_bytes)
    context = min(before.model.config.context_length, after.model.config.context_length)
    old, new = (
        text_bits_per_byte(model, texts, f"general text, {who} model", console, context=context)
        for model, who in ((before, "base"), (after, "fine-tuned"))
    )
    what = f"{sum(len(text.encode()) for text in texts):,} bytes"
    return ComparisonReport([compare_bits_per_byte(new, old, name=TEXT_METRIC, seed=seed, about="general", what=what)])


def text_bits_per_byte(
    model: PromptedModel, texts: Sequence[str], label: str, console: Console, *, context: int | None = None
) -> BitsPerByte:
    """Return the bits per byte of texts.

    Args:
        model: model that scores the texts.
        texts: texts to score.
        label: label of the progress bar.
        console: console that prints progress.
        context: maximum number of tokens per window; default: the context length of the model. It is at most 2,048.
    """
    documents = encode_texts(texts, model.tokenizer)
    with console.progress(label, int(documents.lengths.sum()), "tokens") as bar:
        return bits_per_byte(
            model_nll(model.model),
            documents,
            context_length=min(_MAX_CONTEXT, context or model.model.config.context_length),
            bos_id=model.tokenizer.bos_id,
            batch_size=4,
            device=model.model.device,
            advance=bar.advance,
        )


def compare_tasks(
    before: TaskModel, after: TaskModel, tasks: Sequence[EvaluationTask], console: Console
) -> ComparisonReport:
    """Compare two models on tasks, with one comparison per metric.

    Args:
        before: base model.
        after: fine-tuned model.
        tasks: tasks to score.
        console: console that prints progress.

    Raises:
        DataError: no item fits into the context of both models, or the models have different items.
    """
    comparisons, notes = [], list[str]()
    for results in zip(*(score_tasks(model, tasks, console) for model in (before, after)), strict=True):
        (old, new), note = on_shared_items(results)
        notes += [note] if note else []
        what = f"{old.name}, {pluralize(len(old.items), 'item')}"
        comparisons += [
            Comparison(was, now, before.seed, "task", what, {} if place else old.baselines)
            for place, (was, now) in enumerate(zip(old.measures, new.measures, strict=True))
        ]
    return ComparisonReport(comparisons, notes)


def compare_choices(
    before: PromptedModel,
    after: PromptedModel,
    table: Path | None,
    max_examples: int,
    console: Console,
    *,
    seed: int = 0,
) -> ComparisonReport:
    """Compare the accuracy of two models on multiple-choice questions.

    Args:
        before: base model.
        after: fine-tuned model.
        table: path of the table of questions, or None if there is none.
        max_examples: maximum number of questions.
        console: console that prints progress.
        seed: seed of the bootstrap.
    """
    if table is None:
        return ComparisonReport([])
    items = evenly_spaced(read_choices(read_table(table)).items, max_examples)
    name = "multiple-choice accuracy"

    def scored(model: PromptedModel, who: str) -> Measure:
        with console.progress(f"questions, {who} model", sum(len(item.choices) for item in items), "choices") as bar:
            score = score_choices(model.model, model.tokenizer, items, seed=seed, advance=bar.advance)
        return mean(name, 100 * right_choices(score.loglikelihoods, items))

    old, new = scored(before, "base"), scored(after, "fine-tuned")
    guessing = mean(name, [100 / len(item.choices) for item in items])
    what = f"{len(items):,} questions"
    return ComparisonReport([Comparison(old, new, seed, "general", what, {"random guess": guessing})])


def _scored_answers(
    task: AnswerTask, test: Sequence[Example], written: Sequence[Sequence[str]], what: str, seed: int
) -> list[Comparison]:
    """Compare generated answers by the metrics of the task, and compute the same metrics for the baselines."""
    if task.metric == "likelihood":
        return []
    prompts, references = zip(*map(_pair, test), strict=True)
    simple = baselines(task.metric, [_pair(example) for example in task.train], prompts, labels=task.labels)
    scores = {name: measures(task.metric, texts, references, labels=task.labels) for name, texts in simple.items()}
    both = (measures(task.metric, texts, references, labels=task.labels) for texts in written)
    return [
        Comparison(old, new, seed, "task", what, {name: found[place] for name, found in scores.items()})
        for place, (old, new) in enumerate(zip(*both, strict=True))
    ]


def _notes(task: AnswerTask, models: Sequence[tuple[PromptedModel, FewShotPrompt]], tested: int) -> list[str]:
    base, fine_tuned = (prompt.name for _, prompt in models)
    notes = [
        *task.notes,
        f"Prompt of the base model, which performed best on training examples: {base}."
        if task.train
        else f"Prompt of the base model: {base}. No other prompt was tried, because there are no training examples.",
        f"Prompt of the fine-tuned model: {fine_tuned}.",
    ]
    if skipped := len(task.test) - tested:
        notes.append(f"Skipped {pluralize(skipped, 'example')}, too long for one of the models.")
    return notes


def _pair(example: Example) -> tuple[str, str]:
    """Return the last question of a conversation and the answer to it."""
    return example.messages[-2].content, example.messages[-1].content


def _fits(model: PromptedModel, prompt: FewShotPrompt, example: Example, max_tokens: int) -> bool:
    return fits(prompt.render, example, model.model.config.context_length - max_tokens)


def _best_prompt(
    model: PromptedModel, task: AnswerTask, max_tokens: int, label: str, console: Console
) -> FewShotPrompt:
    if not task.train:  # Test examples cannot serve as few-shot examples, because they contain the answers.
        return default_prompt(model)
    instruction = label_instruction(sorted({_pair(example)[1] for example in task.train})) if task.labels else ""

    def quality(prompt: FewShotPrompt, examples: Sequence[Example]) -> float:
        some = [example for example in examples if _fits(model, prompt, example, max_tokens)]
        some = some[:MAX_QUALITY_EXAMPLES]
        if not some:
            return float("-inf")
        written = generate_answers(model, prompt, some, max_tokens)
        references = [_pair(example)[1] for example in some]
        return measures(task.metric, written, references, labels=task.labels)[0].estimate

    with console.progress(label, num_trials(model, instruction), "prompts") as bar:
        return best_prompt(
            model,
            task.train,
            instruction=instruction,
            quality=None if task.metric == "likelihood" else quality,
            advance=bar.advance,
        )
