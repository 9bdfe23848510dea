"""Writing of training examples for a reader: questions to the passages of an index, and refusals to their neighbors."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from groundup.core.console import Console
from groundup.core.errors import ConfigError, DataError
from groundup.core.files import write_text
from groundup.core.plural import pluralize
from groundup.data.tables import evenly_spaced
from groundup.retrieval.answering import UNKNOWN
from groundup.retrieval.examples.verification import VerifiedPair, Verifier
from groundup.retrieval.examples.writers import Answerer, Pair, Writer, WriterInput
from groundup.retrieval.index import Index, Passage
from groundup.retrieval.support import readable
from groundup.retrieval.terms import words

TRAIN, TEST = "train.jsonl", "test.jsonl"
# Pairs and answers that were written so far, so that an interrupted run continues.
_PAIRS, _ANSWERS = "pairs.jsonl", "answers.jsonl"
_MIN_AGREEMENT = 0.5  # minimum F1 of the words of an answer and of the answer that the reader gives to its question
DISAGREES = "the reader gives another answer"
REJECTED = "the server rejects the passage"
_MAX_REJECTED = 16  # number of passages after which the run stops if all of them were rejected
_MIN_CHARACTERS = 80  # a shorter passage, such as a heading, has too little text for a question


@dataclass(frozen=True, slots=True)
class ExampleRow:
    """A row of a table of examples. `text` and `question` are the inputs of the application `answer`.

    Attributes:
        text: Passage in one line, as a reader of `groundup ask` gets it.
        question: The question.
        answer: Answer in the words of the passage, or "unknown" if the passage does not answer the question.
        origin: File of the passage and, if it is known, its page.
        without: If the answer is unknown, digest of the document that answers the question. Without this document, the
            index does not answer the question either.
    """

    text: str
    question: str
    answer: str
    origin: str
    without: str = ""


def write_pairs(
    index: Index, writer: Writer, directory: Path, console: Console, *, count: int, max_passages: int
) -> list[tuple[Passage, list[Pair] | None]]:
    """Write questions to passages of an index. Passages whose pairs an interrupted run stored are skipped.

    Args:
        index: The index.
        writer: The writer.
        directory: Directory in which the pairs are stored.
        console: Console for the progress.
        count: Maximum number of questions to each passage.
        max_passages: Maximum number of passages, evenly spaced over the index.

    Returns:
        The passages with their unverified pairs, or with None if the server rejects the passage.

    Raises:
        ConfigError: The first passages are all rejected.
        DataError: No passage is long enough.
    """
    path = directory / _PAIRS
    chosen = evenly_spaced([n for n in range(len(index)) if index.size(n) >= _MIN_CHARACTERS], max_passages)
    if not chosen:
        raise DataError(
            f"{index.directory}: no passage with at least {_MIN_CHARACTERS} characters", fix="Index longer documents."
        )
    done: dict[int, list[Pair] | None] = {}
    for row in _stored_rows(path):
        done[row["passage"]] = None if row["pairs"] is None else [Pair(**pair) for pair in row["pairs"]]
    error: ConfigError | None = None
    unsaved: list[int] = []  # rejected passages are stored only if the server accepts others
    left = [number for number in chosen if number not in done]
    with (
        console.progress("writing questions", len(chosen), "passages", done=len(chosen) - len(left)) as bar,
        path.open("a", encoding="utf-8") as file,
    ):
        for start in range(0, len(left), writer.batch_size):
            numbers = left[start : start + writer.batch_size]
            passages = [index.passage(number) for number in numbers]
            sources = [WriterInput(readable(passage), passage.language) for passage in passages]
            for number, written in zip(numbers, writer.write(sources, count), strict=True):
                done[number] = None if isinstance(written, ConfigError) else written
                unsaved.append(number)
                error = written if isinstance(written, ConfigError) else error
            if any(pairs is not None for pairs in done.values()):
                for number in unsaved:
                    pairs = done[number]
                    row = {"passage": number, "pairs": pairs and [asdict(pair) for pair in pairs]}
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                unsaved.clear()
            elif error is not None and len(done) >= min(_MAX_REJECTED, len(chosen)):
                raise error
            file.flush()
            bar.advance(len(numbers))
    return [(index.passage(number), done[number]) for number in chosen]


def delete_progress(directory: Path) -> None:
    """Delete the stored pairs and answers, after the examples were written."""
    for name in (_PAIRS, _ANSWERS):
        (directory / name).unlink(missing_ok=True)


def _stored_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file to which an interrupted run appended. A line that was not completed is removed."""
    if not path.is_file():
        return []
    # Bytes, because the last write may end inside a character, and because str.splitlines splits at U+2028.
    *lines, incomplete = path.read_bytes().split(b"\n")
    if incomplete:
        os.truncate(path, path.stat().st_size - len(incomplete))
    return [json.loads(line) for line in lines]


def verify_pairs(
    index: Index, written: Sequence[tuple[Passage, list[Pair] | None]], console: Console
) -> tuple[list[VerifiedPair], Counter[str]]:
    """Verify pairs; see `Verifier`.

    Args:
        index: Index of the passages.
        written: Passages with their pairs, or with None for a rejected passage.
        console: Console for the progress.

    Returns:
        The verified pairs, and the number of dropped pairs for each reason. A rejected passage counts as one pair.
    """
    verifier, kept = Verifier(index), list[VerifiedPair]()
    with console.progress("verifying", len(written), "passages") as bar:
        for passage, pairs in written:
            if pairs is None:
                verifier.dropped[REJECTED] += 1
            kept += [found for pair in pairs or () if (found := verifier.verify(pair, passage)) is not None]
            bar.advance(1)
    return kept, verifier.dropped


def check_answers(
    reader: Answerer, pairs: Sequence[VerifiedPair], directory: Path, console: Console
) -> list[VerifiedPair]:
    """Return the pairs whose question a reader answers in the same way (round-trip consistency, Alberti et al. 2019).

    Args:
        reader: The reader.
        pairs: Verified pairs.
        directory: Directory in which the answers are stored.
        console: Console for the progress.
    """
    path = directory / _ANSWERS
    given: dict[str, str] = {row["question"]: row["answer"] for row in _stored_rows(path)}
    left = [pair for pair in pairs if pair.question not in given]
    with (
        console.progress("checking answers", len(pairs), "questions", done=len(pairs) - len(left)) as bar,
        path.open("a", encoding="utf-8") as file,
    ):
        for start in range(0, len(left), reader.batch_size):
            batch = left[start : start + reader.batch_size]
            answers = reader.answer([(readable(pair.passage), pair.question) for pair in batch])
            for pair, answer in zip(batch, answers, strict=True):
                given[pair.question] = answer
                file.write(json.dumps({"question": pair.question, "answer": answer}, ensure_ascii=False) + "\n")
            file.flush()
            bar.advance(len(batch))
    return [pair for pair in pairs if _agreement(pair.answer, given[pair.question]) >= _MIN_AGREEMENT]


def _agreement(one: str, other: str) -> float:
    first, second = Counter(words(one)), Counter(words(other))
    return 2 * (first & second).total() / max(first.total() + second.total(), 1)


def require_pairs(pairs: Sequence[VerifiedPair], dropped: Mapping[str, int]) -> None:
    """Raise an error if there are fewer than two pairs.

    Args:
        pairs: Pairs that were kept.
        dropped: Number of dropped pairs for each reason.

    Raises:
        DataError: There are fewer than two pairs.
    """
    if len(pairs) < 2:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in dropped.items()) or "the writer wrote none"
        raise DataError(
            f"{pluralize(len(pairs), 'usable question')} ({reasons})",
            fix="Use a better writer: --server URL, or --model with the model of groundup run write-questions. "
            "Give --reader the model of groundup run answer-from-passages.",
        )


def split_pairs(pairs: Sequence[VerifiedPair], test_fraction: float) -> tuple[list[VerifiedPair], list[VerifiedPair]]:
    """Split pairs into a training set and a test set of other documents, or of other passages of a single document.

    If every document has more pairs than the test set should have, the document with the fewest pairs becomes the test
    set.

    Args:
        pairs: Verified pairs.
        test_fraction: Approximate fraction of the pairs in the test set.

    Raises:
        DataError: All pairs have the same passage.
    """
    group_of = _grouping(pairs)
    groups: dict[tuple[str, int], list[VerifiedPair]] = {}
    for pair in pairs:
        groups.setdefault(group_of(pair.passage), []).append(pair)
    if len(groups) < 2:
        raise DataError(
            f"all {len(pairs)} usable questions are about one passage, so none is left for the test set",
            fix="Index more documents, or increase --max-passages.",
        )
    limit = max(1, min(round(test_fraction * len(pairs)), len(pairs) - 1))  # at least one group is left for training
    test: list[VerifiedPair] = []
    for key in sorted(groups):  # digests are in random order
        if len(test) + len(groups[key]) <= limit:
            test += groups[key]
    test = test or min(groups.values(), key=len)
    held = {id(pair) for pair in test}
    return [pair for pair in pairs if id(pair) not in held], test


def _grouping(pairs: Sequence[VerifiedPair]) -> Callable[[Passage], tuple[str, int]]:
    """Return a function from a passage to its group: its document, or the passage itself in a single document."""
    single = len({pair.passage.document_id for pair in pairs}) == 1
    return lambda passage: (passage.document_id, passage.start if single else 0)


def example_rows(
    part: Sequence[VerifiedPair], pairs: Sequence[VerifiedPair], max_refusals: int
) -> Iterator[ExampleRow]:
    """Yield an example for each pair, and refusals to the question with its distractors.

    Distractors are passages of the documents of these pairs, or exactly the passages of these pairs if there is a
    single document, so that training never shows a passage of the test set.

    Args:
        part: Pairs of the training set, or of the test set.
        pairs: Pairs of both sets.
        max_refusals: Maximum number of refusals for each question.
    """
    group_of = _grouping(pairs)
    own = {group_of(pair.passage) for pair in part}
    for pair in part:
        yield ExampleRow(readable(pair.passage), pair.question, pair.answer, pair.passage.place)
        near = [each for each in pair.distractors if group_of(each) in own]
        for each in near[:max_refusals]:
            yield ExampleRow(readable(each), pair.question, UNKNOWN, each.place, pair.passage.document_id)


def write_rows(path: Path, rows: Sequence[ExampleRow]) -> dict[str, Any]:
    """Write a table of examples, and return its numbers of examples.

    Args:
        path: JSONL file to write.
        rows: The examples.
    """
    write_text(path, "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows))
    refusals = sum(row.answer == UNKNOWN for row in rows)
    return {"answers": len(rows) - refusals, "refusals": refusals}
