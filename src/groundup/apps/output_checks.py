"""Checks of outputs that have no single correct answer, such as poems, scripts and questions.

A passed check is necessary for a useful output, but not sufficient: the checks do not measure style or truth.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from groundup.apps.copying import position_of, unsupported_facts, without_repeated_sentences
from groundup.apps.declaration import App, OutputChecks
from groundup.data.spans import NUM_OPTIONS, common_type, normalized_words, occurs_in

_WORD = re.compile(r"\w+(?:['’]\w+)*")
_MIN_TOPIC_SHARE = 0.5
_MIN_QUESTION_SHARE = 1 / 3
_STEM = 5  # characters; "planting" and "plants" have the same beginning
_FUNCTION_WORDS = (
    "about after again also been before being between could does doing down each every from have having here into "
    "just like more most much must only other over same should some such than that their them then there these they "
    "this those through under until very what when where which while will with would your"
)


def check_output(
    checks: OutputChecks, text: str, value: Any, given: Mapping[str, Any], *, valid: bool | None
) -> dict[str, bool]:
    """Return the result of each check of an output.

    Args:
        checks: Checks that the application declares.
        text: Output as readable text.
        value: Parsed JSON output, or None if the output is text.
        given: Inputs of the application.
        valid: Whether the JSON output matches its schema. None if the output is text.

    Returns:
        A dictionary that maps the name of each check to its result.
    """
    words = _WORD.findall(text)
    passed = {} if valid is None else {"valid JSON": valid}
    if checks.words is not None:
        passed["length"] = checks.words[0] <= len(words) <= checks.words[1]
    if checks.min_lines > 1:
        passed["lines"] = sum(bool(line.strip()) for line in text.splitlines()) >= checks.min_lines
    if checks.topic:
        passed["words of the topic"] = topic_share(text, str(given[checks.topic])) >= _MIN_TOPIC_SHARE
    if checks.answers_from:
        questions, source = list(_questions(value)), str(given[checks.answers_from])
        asked = [question for question, _, _ in questions]
        # The options can be copied by a grammar. The questions show whether the model can write.
        passed["questions about the text"] = (
            bool(questions)
            and len(set(asked)) == len(asked)
            and all(
                question.endswith("?") and topic_share(source, question) >= _MIN_QUESTION_SHARE for question in asked
            )
        )
        passed["four different options"] = bool(questions) and all(
            len({" ".join(normalized_words(option)) for option in options} - {""}) == NUM_OPTIONS
            for _, options, _ in questions
        )
        passed["options of one type"] = bool(questions) and all(
            common_type(options, source) is not None for _, options, _ in questions
        )
        passed["answer in the text"] = bool(questions) and all(occurs_in(answer, source) for _, _, answer in questions)
    else:
        passed["no repetition"] = bool(words) and repeated_ngrams(words) < checks.max_repeated
    return passed


def decoding_rules(app: App, text: str, given: Mapping[str, Any]) -> dict[str, bool]:
    """Return whether a text output satisfies each decoding rule that its application declares.

    Args:
        app: Application.
        text: Output as readable text.
        given: Inputs of the application.
    """
    decoding = app.decoding
    kept: dict[str, bool] = {}
    if app.output.kind != "text":
        return kept
    if decoding.facts_from:
        kept["only numbers and names of the text"] = not unsupported_facts(text, str(given[decoding.facts_from]))
        kept["no repeated sentence"] = without_repeated_sentences(text) == text.strip()
    if decoding.copy_from:
        copied = position_of(text, str(given[decoding.copy_from])) is not None
        kept["copied from the text"] = copied or text.strip() in decoding.copy_or
    return kept


def repeated_ngrams(words: Sequence[str], n: int = 4) -> float:
    """Return the share of the word n-grams of a text that repeat an earlier n-gram."""
    lowered = [word.casefold() for word in words]
    grams = [tuple(lowered[start : start + n]) for start in range(len(lowered) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def topic_share(text: str, topic: str) -> float:
    """Return the share of the content words of a topic that occur in a text. Words are compared by their beginning."""
    wanted = {_stem(word) for word in _content_words(topic)}
    found = {_stem(word) for word in _WORD.findall(text.casefold())}
    return len(wanted & found) / len(wanted) if wanted else 1.0


def _content_words(text: str) -> list[str]:
    words = _WORD.findall(text.casefold())
    return [word for word in words if len(word) > 3 and word not in _FUNCTION_WORDS.split()] or words


def _stem(word: str) -> str:
    return word[:_STEM] if len(word) > _STEM else word.removesuffix("s")


def _questions(value: Any) -> Iterator[tuple[str, list[str], str]]:
    """Yield the text, the options and the correct option of each question in a JSON value."""
    if isinstance(value, Mapping):
        options, answer = value.get("options"), value.get("answer")
        if isinstance(options, list) and isinstance(answer, str):
            place = ord(answer) - ord("A") if len(answer) == 1 else -1
            key = str(options[place]) if 0 <= place < len(options) else answer
            yield str(value.get("question", "")).strip(), [str(option) for option in options], key
            return
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _questions(item)
