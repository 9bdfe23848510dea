"""Automatic choice of a metric from the length, language and repetition of prompts and answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median

from groundup.core.types import MetricName
from groundup.corpus.language import UNDETERMINED, identify
from groundup.data.tables import casefolded
from groundup.evaluation.measure import Measure
from groundup.evaluation.metrics.answers import exact, label_parser, normalized, same_number, token_f1
from groundup.evaluation.metrics.answers import labels as label_measures
from groundup.evaluation.metrics.overlap import rouge
from groundup.evaluation.metrics.translation import bleu, chrf

_NUM_SAMPLED = 200  # Approximate number of examples from which the metric is chosen.
_MAX_FACT_WORDS = 5  # Maximum median length of factual answers.
_MIN_REPEATS = 5  # Minimum mean number of examples per distinct answer if the answers are labels.
# Maximum share of answers that occur only once if the answers are labels. This share estimates the probability that the
# next answer is a new one (Good 1953). The 7,473 final answers of GSM8K are 863 distinct numbers, and the share is
# 5.9 %, so these answers are not treated as labels.
_MAX_UNIQUE = 0.03
_MIN_COMPRESSION = 3  # Minimum ratio of prompt length to answer length if the answers are summaries.
_MIN_SUMMARIZED_WORDS = 60  # Minimum median length of the prompts if the answers are summaries.


def measures(
    name: MetricName, written: Sequence[str], references: Sequence[str], *, labels: Sequence[str] = ()
) -> list[Measure]:
    """Compute a metric of generated answers, together with related metrics.

    Args:
        name: name of the primary metric.
        written: generated answers.
        references: reference answers.
        labels: all labels if the answers are labels, otherwise empty; see `label_names`. If labels are given, the
            metric "exact" is their accuracy and macro-F1.

    Returns:
        The metrics, starting with the primary metric. The list is empty for "likelihood", which does not score
        generated answers.
    """
    if name == "rouge":
        return rouge(written, references)
    if name in ("chrf", "bleu"):
        both = [chrf(written, references), bleu(written, references)]
        return both if name == "chrf" else both[::-1]
    if name == "f1":
        return [token_f1(written, references), exact(written, references)]
    if name == "number":
        return [same_number(written, references)]
    if name == "exact":
        if labels:
            read = label_parser((*labels, *references))
            return label_measures([read(text) for text in written], [read(text) for text in references])
        return [exact(written, references), token_f1(written, references)]
    return []


def label_names(answers: Sequence[str]) -> tuple[str, ...]:
    """Detect whether the answers are labels. Answers are labels if few distinct answers recur often.

    Args:
        answers: answers of both the training set and the test set. More answers make detection more reliable: 200
            answers are too few to detect 77 labels.

    Returns:
        The distinct labels, or an empty tuple if the answers are not labels.
    """
    counts = Counter(map(normalized, answers))
    unique = sum(count == 1 for count in counts.values())
    if len(counts) * _MIN_REPEATS > len(answers) or unique > max(1, _MAX_UNIQUE * len(answers)):
        return ()
    return tuple({casefolded(answer): answer for answer in reversed(answers)}.values())[::-1]


def choose_metric(
    prompts: Sequence[str], references: Sequence[str], *, labels: Sequence[str] = ()
) -> tuple[MetricName, str]:
    """Choose the metric that suits these prompts and answers.

    Args:
        prompts: prompts, from which the words of the prompt template were removed; see `without_shared_words`.
        references: reference answers.
        labels: all labels if the answers are labels, otherwise empty; see `label_names`.

    Returns:
        The name of the metric, and the reason for the choice as a clause.
    """
    if labels:
        return "exact", f"{len(labels):,} distinct answers occur repeatedly, which suggests labels"
    step = max(1, len(prompts) // _NUM_SAMPLED)
    prompts, references = prompts[::step], references[::step]
    asked, said = (median(len(text.split()) for text in texts) for texts in (prompts, references))
    languages = [_language(texts) for texts in (prompts, references)]
    if UNDETERMINED not in languages and languages[0] != languages[1]:
        return "chrf", f"prompts are in {languages[0]} and answers in {languages[1]}, which suggests translation"
    if said <= _MAX_FACT_WORDS:
        return "f1", f"answers have a median of {said:g} words, which suggests facts"
    if asked >= _MIN_SUMMARIZED_WORDS and asked >= _MIN_COMPRESSION * said:
        return "rouge", f"prompts have {asked:g} words and answers have {said:g}, which suggests summaries"
    return "likelihood", f"answers have {said:g} words, so a correct answer can have many forms"


def _language(texts: Sequence[str]) -> str:
    """Return the language that occurs most often among the texts."""
    found = Counter(language for language, _ in map(identify, texts) if language != UNDETERMINED)
    return found.most_common(1)[0][0] if found else UNDETERMINED
