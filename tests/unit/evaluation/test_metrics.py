"""Metrics of texts, compared with the standard implementations, and their intervals."""

from __future__ import annotations

import gzip
import json
from http import HTTPStatus
from pathlib import Path

import numpy as np
import pytest

from groundup.evaluation.baselines import baselines
from groundup.evaluation.metrics import (
    bleu,
    choose_metric,
    chrf,
    exact,
    label_names,
    label_parser,
    label_sets,
    labels,
    mean,
    measures,
    normalized,
    refusals,
    rouge,
    token_f1,
)
from groundup.evaluation.stats import paired_difference

# Paraphrases by people, in place of model output, from CPython's documentation.
WRITTEN = [
    "The with statement is used to wrap the execution of a block, with methods defined by a context manager.",
    "It's 3.14-ish; costs $5 (or 7,50 €)! See https://example.org/a-b?c=1&d=2, e.g. the U.S. edition.",
    "Ein kleiner Junge in einem grünen T-Shirt spielt Fußball auf der Wiese.",
    "yes",
    "",
    "Deleting the the the same name twice is &quot;allowed&quot; <here> -- isn't it?",
]
REFERENCES = [
    "The with statement wraps a block whose execution has methods defined by a context manager.",
    "It is 3.14; it costs $5 or 7.50 €. See https://example.org/a-b?c=1, e.g. the U.K. edition.",
    "Ein Junge im grünen T-Shirt spielt auf einer Wiese Fußball.",
    "Yes.",
    "An answer was due here.",
    'To delete the same name twice isn\'t "allowed" <there>.',
]


def data(name: str) -> list[dict[str, str]]:
    path = Path(__file__).parents[4] / "shared" / "data" / name
    if not path.is_file():
        pytest.skip(f"{path}: not here")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def test_bleu_and_chrf_equal_sacrebleu():
    """With another tokenizer or smoothing, scores could not be compared with published ones."""
    sacrebleu = pytest.importorskip("sacrebleu")
    for some in (slice(None), slice(0, 3), slice(3, 4), slice(4, 5), slice(5, 6)):
        ours, theirs = WRITTEN[some], [REFERENCES[some]]
        assert bleu(ours, theirs[0]).estimate == pytest.approx(sacrebleu.corpus_bleu(ours, theirs).score, abs=1e-6)
        assert chrf(ours, theirs[0]).estimate == pytest.approx(sacrebleu.corpus_chrf(ours, theirs).score, abs=1e-6)


def test_scores_of_real_translations_equal_sacrebleu():
    sacrebleu = pytest.importorskip("sacrebleu")
    rows = data("translation/multi30k_val.jsonl.gz")
    german = [row["de"] for row in rows]
    moved = german[1:] + german[:1]  # Descriptions of other pictures share some words.
    assert bleu(moved, german).estimate == pytest.approx(sacrebleu.corpus_bleu(moved, [german]).score, abs=1e-6)
    assert chrf(moved, german).estimate == pytest.approx(sacrebleu.corpus_chrf(moved, [german]).score, abs=1e-6)


def test_rouge_equals_rouge_score():
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL", "rouge1", "rouge2"])
    plain = [i for i, text in enumerate(WRITTEN) if (text + REFERENCES[i]).replace("€", "").isascii()]
    ours, theirs = [WRITTEN[i] for i in plain], [REFERENCES[i] for i in plain]
    rows = [scorer.score(reference, text) for text, reference in zip(ours, theirs, strict=True)]
    for measure, name in zip(rouge(ours, theirs), ("rougeL", "rouge1", "rouge2"), strict=True):
        assert measure.estimate == pytest.approx(100 * np.mean([row[name].fmeasure for row in rows]), abs=1e-9)


def test_a_word_with_an_accent_is_one_word():
    """rouge-score splits "Fußball" into "fu" and "ball", so that fragments match in German texts."""
    (longest, *_) = rouge(["Fußfall"], ["Fußball"])
    assert longest.estimate == 0


def test_answers_are_normalized_as_squad_does():
    assert normalized("The  Eiffel Tower!") == "eiffel tower"
    assert normalized("A") == "a", "the letter of a choice is no article"
    assert exact(["the Eiffel tower."], ["Eiffel Tower"]).estimate == 100
    assert token_f1(["in Paris, France"], ["Paris"]).estimate == pytest.approx(50)
    assert token_f1([""], ["Paris"]).estimate == 0


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("-5", "-5"),
        ("It is \N{MINUS SIGN}5.", "it is -5"),
        ("-$5.50!", "-5.50"),
        ("3.5", "3.5"),
        ("3,5 kg.", "3,5 kg"),
        (".5", ".5"),
        ("1,000,000.", "1000000"),
        ("C++", "c++"),
        ("(C#)", "c#"),
        ("an A+", "a+"),
        # As in SQuAD's script.
        ("well-known, e.g. 5-3 + 2", "wellknown eg 53 2"),
        ("50 % of U.S. #1's", "50 of us 1s"),
        ("1,000 feet", "1000 feet"),
    ],
)
def test_signs_and_separators_of_numbers_are_kept(text: str, kept: str):
    """Without this, -5 matches 5, and 35 matches 3.5."""
    assert normalized(text) == kept


def test_different_numbers_and_names_are_different_answers():
    asked_for = ["5", "35", "C#", "0.5"]
    assert exact(["-5", "3.5", "C++", "5"], asked_for).estimate == 0
    assert token_f1(["-5", "3.5", "C++", "5"], asked_for).estimate == 0
    assert exact(["5.", "'35'", "c#", "0.5!"], asked_for).estimate == 100


def test_labels_match_exactly_or_uniquely_after_normalization():
    read = label_parser(["-1", "1", "C++", "C#", "A", "A-", "positive"])
    assert [read(text) for text in (" -1", "1.", "c++", "C#!", "a-", "A")] == ["-1", "1", "C++", "C#", "A-", "A"]
    assert read("Positive.") == "positive"
    assert read("A+") == "A+", "no label at all"
    assert read("(A)") == "(A)", "it may be A as well as A-"


def test_labels_are_detected_in_a_small_test_set():
    """Of 3,000 answers with 62 labels, 200 are in the test set, where many labels occur once."""
    phrases = [status.phrase for status in HTTPStatus]
    answers = [phrases[place] for place in np.random.default_rng(0).integers(0, len(phrases), 3000)]
    names = label_names(answers)
    some = answers[:200]
    assert sorted(names) == sorted(set(phrases))
    assert not label_names(some), "what made them facts"
    assert choose_metric(["GET"] * 200, some, labels=names)[0] == "exact"
    found = measures("exact", [f"{text.upper()}." for text in some], some, labels=names)
    assert [(measure.name, measure.estimate) for measure in found] == [("accuracy", 100), ("macro-F1", 100)]
    learned = [(f"reply {answer}", answer) for answer in answers[200:]]
    rivals = baselines("exact", learned, [f"reply {answer}" for answer in some], labels=names)
    assert [name.split()[0] for name in rivals] == ["always", "TF-IDF"]
    assert [measure.name for measure in measures("exact", some, some)] == ["exact match", "token F1"]


def test_recurring_numbers_are_not_labels():
    """Many numbers recur among thousands of results, but the next one is often new, unlike labels."""
    generator = np.random.default_rng(0)
    results = [str(int(number)) for number in generator.lognormal(4, 1.5, 7000)]
    assert len(set(results)) * 5 < len(results)
    assert not label_names(results)
    assert label_names(["yes", "Yes", "no"] * 5 + ["unsure"]) == ("yes", "no", "unsure")
    assert not label_names([])


def test_label_scores_equal_scikit_learn():
    from sklearn.metrics import f1_score

    true = ["a", "b", "a", "c", "b", "a", "c", "c"]
    predicted = ["a", "b", "b", "c", "nonsense", "a", "a", "c"]
    accuracy, macro = labels(predicted, true)
    assert accuracy.estimate == pytest.approx(62.5)
    known = f1_score(true, predicted, labels=["a", "b", "c"], average="macro")
    assert macro.estimate == pytest.approx(100 * known)


def test_label_set_scores_equal_scikit_learn():
    from sklearn.metrics import accuracy_score, f1_score

    drawn = np.random.default_rng(0).random((2, 60, 3)) < [0.6, 0.3, 0.2]
    true, predicted = ([[name for name, has in zip("abc", row, strict=True) if has] for row in part] for part in drawn)
    exactly, micro, macro = label_sets(predicted, true)
    assert exactly.estimate == pytest.approx(100 * accuracy_score(*drawn))
    for measure, average in ((micro, "micro"), (macro, "macro")):
        assert measure.estimate == pytest.approx(100 * f1_score(*drawn, average=average))
        assert measure.interval().low < measure.estimate < measure.interval().high
    assert label_sets([["a", "a", "nonsense"]], [["a"]])[1].estimate == pytest.approx(100 * 2 / 3)


def test_correct_and_false_refusals_are_counted():
    """A model that always refuses must not be best."""
    when_due, when_not = refusals(
        ["Not in the text."] * 4, ["Not in the text", "Paris", "Rome", "Oslo"], "Not in the text"
    )
    assert (when_due.estimate, when_not.estimate) == (100, 100)
    assert when_not.lower_is_better


def test_refusals_match_whole_words():
    """ "Nothing is there" begins with the letters of "No" but is no refusal."""
    due, not_due = refusals(["Nothing is there", "No, sorry."], ["Nothing is there", "No."], "No")
    assert (due.estimate, not_due.estimate) == (100, 0)


def test_intervals_equal_the_ratio_bootstrap():
    """Two implementations of the same bootstrap give the same interval, except for the random draws."""
    generator = np.random.default_rng(1)
    a, b = generator.normal(1, 1, 300), generator.normal(0.9, 1, 300)
    ours = mean("x", a).minus(mean("x", b), seed=2)
    known = paired_difference(a, b, np.ones(300), seed=3)
    assert ours.estimate == pytest.approx(known.estimate)
    assert ours.low == pytest.approx(known.low, abs=0.02)
    assert ours.high == pytest.approx(known.high, abs=0.02)


def test_pairing_detects_a_difference_that_single_intervals_hide():
    """BLEU is not defined per sentence, so pairing must work on its counts."""
    rows = data("translation/multi30k_val.jsonl.gz")[:200]
    german = [row["de"] for row in rows]
    worse = [" ".join(text.split()[:-1]) for text in german]
    better = [" ".join(text.split()[:-1]) if i % 4 else text for i, text in enumerate(german)]
    difference = bleu(better, german).minus(bleu(worse, german))
    assert difference.low > 0
    assert not mean("x", [1.0]).interval().excludes_zero


def test_the_metric_follows_the_form_of_the_answers():
    summaries = data("summarization/dialogsum_dev.jsonl.gz")[:100]
    pairs = data("translation/multi30k_val.jsonl.gz")[:100]
    problems = (rows := data("instructions/gsm8k_train.jsonl.gz"))[:100]
    assert choose_metric([r["dialogue"] for r in summaries], [r["summary"] for r in summaries])[0] == "rouge"
    assert choose_metric([r["en"] for r in pairs], [r["de"] for r in pairs])[0] == "chrf"
    asked = [str(next(v for k, v in row.items() if k in ("question", "prompt"))) for row in problems]
    answers = [str(next(v for k, v in row.items() if k in ("answer", "response"))) for row in problems]
    assert choose_metric(asked, answers)[0] == "likelihood"
    assert choose_metric(asked, [a.split()[-1] for a in answers])[0] == "f1"
    results = [str(next(v for k, v in row.items() if k in ("answer", "response"))).split()[-1] for row in rows]
    assert not label_names(results), "863 numbers of 7,473 problems"
