"""Which figure suits answers, from what the answers look like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median

from groundup.core.types import MetricName
from groundup.corpus.language import UNDETERMINED, identify
from groundup.data.tables import casefolded
from groundup.evaluation.measure import Measure
from groundup.evaluation.metrics.answers import exact, label_reader, normalized, token_f1
from groundup.evaluation.metrics.answers import labels as label_measures
from groundup.evaluation.metrics.overlap import rouge
from groundup.evaluation.metrics.translation import bleu, chrf

_SAMPLE = 200
_FEW_WORDS = 5  # of answers that are facts
_REPEATED = 5  # answers that are labels stand for so many examples each, or more,
# and of the examples at most this share has one that no other has, which is how likely the next answer is a new one
# (Good 1953). Of the 7,473 results of GSM8K's problems, 863 different numbers, it is 5.9 %: they are facts.
_ALONE = 0.03
_SHORTENED = 3  # summaries are so many times shorter than their texts, or more
_LONG = 60  # words of a text that is worth a summary


def measures(
    name: MetricName, written: Sequence[str], references: Sequence[str], *, labels: Sequence[str] = ()
) -> list[Measure]:
    """The figures of a metric, the one that decides first; of the likelihood, which needs no text, none.

    Args:
        written: what a model answered.
        references: what the data say.
        labels: all labels that there are, where answers are labels (`label_names`): they are counted as such by
            "exact". A few references do not tell whether they are any.
    """
    if name == "rouge":
        return rouge(written, references)
    if name in ("chrf", "bleu"):
        both = [chrf(written, references), bleu(written, references)]
        return both if name == "chrf" else both[::-1]
    if name == "f1":
        return [token_f1(written, references), exact(written, references)]
    if name == "exact":
        if labels:
            read = label_reader((*labels, *references))
            return label_measures([read(text) for text in written], [read(text) for text in references])
        return [exact(written, references), token_f1(written, references)]
    return []


def label_names(answers: Sequence[str]) -> tuple[str, ...]:
    """The labels that answers are, where they are a few names that come again and again; else none.

    Args:
        answers: all there are, those that are learned and those that are tested: of 200, each of 77 labels comes too
            seldom to be known as one.
    """
    counts = Counter(map(normalized, answers))
    alone = sum(count == 1 for count in counts.values())
    if len(counts) * _REPEATED > len(answers) or alone > max(1, _ALONE * len(answers)):
        return ()
    return tuple({casefolded(answer): answer for answer in reversed(answers)}.values())[::-1]


def choose_metric(
    prompts: Sequence[str], references: Sequence[str], *, labels: Sequence[str] = ()
) -> tuple[MetricName, str]:
    """The metric that suits these answers, and why, for a person.

    Args:
        prompts: what stands before the answers, without the words that all of them share.
        labels: as for `measures`.
    """
    if labels:
        return "exact", f"{len(labels):,} different answers come again and again, as labels do"
    step = max(1, len(prompts) // _SAMPLE)
    prompts, references = prompts[::step], references[::step]
    asked, said = (median(len(text.split()) for text in texts) for texts in (prompts, references))
    languages = [_language(texts) for texts in (prompts, references)]
    if UNDETERMINED not in languages and languages[0] != languages[1]:
        return "chrf", f"prompts are in {languages[0]}, answers in {languages[1]}, as in translations"
    if said <= _FEW_WORDS:
        return "f1", f"answers have {said:g} words, as facts do"
    if asked >= _LONG and asked >= _SHORTENED * said:
        return "rouge", f"answers have {said:g} words where prompts have {asked:g}, as summaries do"
    return "likelihood", f"answers of {said:g} words can be right in many ways"


def _language(texts: Sequence[str]) -> str:
    """The language of most of the texts that tell it."""
    found = Counter(language for language, _ in map(identify, texts) if language != UNDETERMINED)
    return found.most_common(1)[0][0] if found else UNDETERMINED
