"""Comparison of two readers of `groundup ask`, and of retrieval alone, on questions to an index."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from groundup.core.console import Console
from groundup.core.errors import ConfigError
from groundup.core.plural import pluralize
from groundup.data.conversations.reading import ExampleSources
from groundup.data.tables import cell_text, evenly_spaced, read_table
from groundup.evaluation.comparisons.examples import Comparison, ComparisonReport
from groundup.evaluation.measure import Measure, mean
from groundup.evaluation.metrics.answers import exact, normalized, token_f1
from groundup.evaluation.prompt_search import PromptedModel
from groundup.inference import Engine
from groundup.inference.prompting import format_for
from groundup.inference.runner import make_runner
from groundup.retrieval import CitedAnswer, Index, Reader, answer_question
from groundup.retrieval.answering import UNKNOWN

RETRIEVAL = "retrieval alone"
_REQUIRED = ("question", "answer")
_NUM_TRANSCRIPTS = 3


@dataclass(frozen=True, slots=True)
class IndexQuestion:
    """A question to an index.

    Attributes:
        question: The question.
        answer: The reference answer, or "" if the index does not answer the question.
        without: Digest of a document that is left out of the search, or "" for none.
    """

    question: str
    answer: str
    without: str = ""


def read_questions(data: ExampleSources, max_questions: int, console: Console) -> list[IndexQuestion]:
    """Read questions from a table with the columns `question` and `answer`, such as test.jsonl of `examples write`.

    The answer "unknown" means that the index does not answer the question without the document in the column `without`,
    or, if there is no such column, at all.

    Args:
        data: Sources of the table.
        max_questions: Maximum number of questions, evenly spaced over the table.
        console: Console for progress and warnings.

    Raises:
        ConfigError: A column is missing, or there are no questions.
        DataError: The table cannot be read.
    """
    if not data:
        raise ConfigError(
            "--index without questions", fix="Give a table with the columns question and answer: --data FILE."
        )
    table = read_table(data, console=console)
    if missing := [name for name in _REQUIRED if name not in table.columns]:
        raise ConfigError(
            f"{table.name} has no column {missing[0]!r}, only {', '.join(table.columns[:12])}",
            fix="Give a table with the columns question and answer; the answer of an unanswerable question is unknown.",
        )
    found: dict[IndexQuestion, None] = {}
    for row in table.rows:
        question, answer = (cell_text(row.get(name)) for name in _REQUIRED)
        if question and answer:
            is_unknown = normalized(answer) == UNKNOWN
            found[IndexQuestion(question, "" if is_unknown else answer, cell_text(row.get("without")))] = None
    if not found:
        raise ConfigError(f"{table.name}: no row has a question and an answer", fix="Fill in both columns.")
    return list(evenly_spaced(list(found), max_questions))


def compare_readers(
    before: PromptedModel,
    after: PromptedModel,
    index: Index,
    questions: Sequence[IndexQuestion],
    console: Console,
    *,
    seed: int = 0,
) -> ComparisonReport:
    """Ask questions to an index with both models as readers, and without a reader.

    Args:
        before: Base model.
        after: Fine-tuned model.
        index: The index.
        questions: The questions.
        console: Console for the progress.
        seed: Seed of the bootstrap.

    Returns:
        Comparisons by F1, exact match, answers, support by the cited passage, and refusals. Retrieval alone, which
        quotes a sentence, is their baseline.
    """
    alone = [answer_question(_searched(index, each), each.question) for each in questions]
    old, new = (
        _read(model, index, questions, f"answers of the {who} reader", console)
        for model, who in ((before, "base"), (after, "fine-tuned"))
    )
    scores = (_measures(given, questions) for given in (old, new, alone))
    comparisons = [
        Comparison(was, now, seed, "task", _what(now, questions), {RETRIEVAL: simple})
        for was, now, simple in zip(*scores, strict=True)
        if now.sums_EK[:, 1].any() or was.sums_EK[:, 1].any()
    ]
    shown = [
        {"question": asked.question, RETRIEVAL: simple.text, "base": was.text, "fine_tuned": now.text}
        | {"reference": asked.answer or UNKNOWN}
        for asked, simple, was, now in zip(questions, alone, old, new, strict=True)
    ]
    note = f"Each reader reads up to 5 passages of {index.directory.name} for each question, as groundup ask does."
    return ComparisonReport(comparisons, [note], shown[:_NUM_TRANSCRIPTS])


def _searched(index: Index, question: IndexQuestion) -> Index:
    return index.without(question.without) if question.without else index


def _read(
    model: PromptedModel, index: Index, questions: Sequence[IndexQuestion], label: str, console: Console
) -> list[CitedAnswer]:
    given = []
    with ExitStack() as stack:
        runner = make_runner(model.model, model.dtype)
        engine = stack.enter_context(Engine(model.model, model.tokenizer, runner=runner, stop_ids=model.stop_ids))
        form = format_for(model.tokenizer, model.template, model.stop_ids)
        bar = stack.enter_context(console.progress(label, len(questions), "questions"))
        for each in questions:
            given.append(answer_question(_searched(index, each), each.question, Reader(engine, form)))
            bar.advance(1)
    return given


def _measures(given: Sequence[CitedAnswer], questions: Sequence[IndexQuestion]) -> list[Measure]:
    """Return the metrics of answers. Those of answers count a refusal as a wrong answer."""
    answerable = np.array([bool(each.answer) for each in questions])
    refused = np.array([answer.kind == "refusal" for answer in given])
    texts = ["" if answer.kind == "refusal" else answer.text.removesuffix(" [1]") for answer in given]
    references = [each.answer for each in questions]
    supported = np.array([_is_supported(*each) for each in zip(given, references, strict=True)])
    answered = answerable & ~refused
    return [
        mean("token F1", answerable * token_f1(texts, references).per_example(), answerable),
        mean("exact match", answerable * exact(texts, references).per_example(), answerable),
        mean("answered", 100.0 * answered, answerable),
        mean("answers whose cited passage has the reference", 100.0 * (answered & supported), answered),
        mean("correct refusals", 100.0 * (refused & ~answerable), ~answerable),
    ]


def _is_supported(given: CitedAnswer, reference: str) -> bool:
    """Return whether a cited passage contains the reference answer."""
    return any(
        f" {normalized(reference)} " in f" {normalized(passage.text)} "
        for citation in given.citations
        for passage in given.passages
        if passage.document == citation.document and passage.start <= citation.start < passage.end
    )


def _what(measure: Measure, questions: Sequence[IndexQuestion]) -> str:
    answerable = sum(bool(each.answer) for each in questions)
    is_refusal = measure.name == "correct refusals"
    count = len(questions) - answerable if is_refusal else answerable
    return pluralize(count, "unanswerable question" if is_refusal else "answerable question")
