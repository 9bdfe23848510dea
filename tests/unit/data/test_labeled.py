"""Texts and labels from real tables: unusual column names, missing values, duplicates, scores, rare labels."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from groundup.core.errors import ConfigError, DataError
from groundup.data import Table
from groundup.data.labels.parts import limit_texts, split_labeled, split_validation, without_overlap
from groundup.data.labels.reading import (
    SEPARATOR,
    Labeled,
    LabelOptions,
    case_variants,
    read_labeled,
    summary,
    without_duplicates,
    without_single_labels,
)


def table(rows: list[dict[str, Any]]) -> Table:
    return Table("mails.csv", tuple(dict.fromkeys(column for row in rows for column in row)), rows)


def sentences(documents: list[str], count: int) -> list[str]:
    """Different sentences of real prose."""
    found = dict.fromkeys(s.strip() for text in documents for s in text.split(". ") if 30 < len(s.strip()) < 300)
    return list(found)[:count]


@pytest.fixture(scope="module")
def prose(real_documents: list[str]) -> list[str]:
    return sentences(real_documents, 400)


@pytest.mark.parametrize(
    ("text_name", "label_name"),
    [("text", "label"), ("Sentence", "Class"), ("utterance", "intent_name"), ("mailBody", "isSpamLabel"), ("c1", "c2")],
)
def test_columns_are_found_by_name_or_content(prose: list[str], text_name: str, label_name: str) -> None:
    rows = [
        {"id": f"row-{i}", text_name: text, "split": "train" if i % 3 else "dev", label_name: ("yes", "no")[i % 2]}
        for i, text in enumerate(prose)
    ]
    found = read_labeled(table(rows), LabelOptions())
    assert found.columns == f"{text_name} -> {label_name}"
    assert found.texts == prose
    assert found.counts() == {"no": 200, "yes": 200}


def test_several_possible_label_columns_are_listed(prose: list[str]) -> None:
    """A wrong choice would silently train on another column."""
    rows = [{"text": text, "alpha": str(i % 2), "beta": str(i % 5)} for i, text in enumerate(prose)]
    with pytest.raises(DataError, match=r"'alpha' \(2 values\), 'beta' \(5 values\)"):
        read_labeled(table(rows), LabelOptions())
    assert read_labeled(table(rows), LabelOptions(label="beta")).counts()["4"] == 80


def test_a_table_without_labels_is_an_error(prose: list[str]) -> None:
    with pytest.raises(DataError, match="looks like a label"):
        read_labeled(table([{"text": text} for text in prose]), LabelOptions())
    with pytest.raises(DataError, match="looks like a text"):
        read_labeled(table([{"n": 1.5, "label": str(i % 2)} for i in range(9)]), LabelOptions())


def test_a_mistyped_column_is_corrected(prose: list[str]) -> None:
    rows = [{"body": text, "topic": "a"} for text in prose]
    with pytest.raises(ConfigError, match="topic"):
        read_labeled(table(rows), LabelOptions(label="topics"))
    with pytest.raises(ConfigError, match="no column 'boddy'"):
        read_labeled(table(rows), LabelOptions(text="{boddy}: {topic}", label="topic"))


@pytest.mark.parametrize("line_end", ["\n", "\\n"])
def test_a_template_joins_columns_and_allows_missing_values(line_end: str) -> None:
    """On a command line "\\n" arrives as two characters."""
    rows = [
        {"subject": "Hello", "mail": {"body": "there"}, "label": "ham"},
        {"subject": None, "mail": {"body": "cheap"}, "label": "spam"},
        {"label": "spam"},
    ]
    found = read_labeled(table(rows), LabelOptions(text=f"{{subject}}{line_end}{{mail.body}}"))
    assert found.texts == ["Hello\nthere", "cheap"]
    assert found.dropped == {"empty text": 1}


def test_labels_of_any_type_become_text() -> None:
    """pandas writes 1.0 for integers if values are missing; JSON has booleans; some tables have lists of one label."""
    given = [True, False, 1, 1.0, "  two\n words ", ["only"], None, float("nan"), "", [], ["a", "b"], {"a": 1}, 0]
    found = read_labeled(
        table([{"text": f"t{i}", "label": v} for i, v in enumerate(given)]), LabelOptions(label="label")
    )
    assert found.labels == ["true", "false", "1", "1", "two words", "only", "0"]
    assert found.dropped == {"empty label": 5, "several labels": 1}


def test_scores_need_thresholds(prose: list[str]) -> None:
    """A thousand distinct scores would become a thousand labels."""
    rows = [{"text": text, "rating": f"{i / 100 - 2:.2f}"} for i, text in enumerate(prose)]
    with pytest.raises(DataError, match=r"400 different numbers from -2 to 1.99.*bins = \[-0.005\]"):
        read_labeled(table(rows), LabelOptions(label="rating"))
    rows += [{"text": "unrated", "rating": "n/a"}, {"text": "empty", "rating": None}]
    found = read_labeled(table(rows), LabelOptions(bins=(-0.5, 0.5)))
    assert found.counts() == {"-0.5 to 0.5": 100, "0.5 or more": 150, "below -0.5": 150}
    assert found.dropped == {"score that is not a number": 1, "empty label": 1}
    named = read_labeled(table(rows), LabelOptions(bins=(0,), bin_names=("bad", "good")))
    assert named.counts() == {"bad": 200, "good": 200}


@pytest.mark.parametrize(("bins", "names"), [((1, 1), ()), ((2, 1), ()), ((1,), ("a",)), ((1,), ("a", "a"))])
def test_invalid_thresholds_are_rejected(bins: tuple[float, ...], names: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="bins must increase"):
        read_labeled(table([{"text": "t", "label": 1}]), LabelOptions(label="label", bins=bins, bin_names=names))


def test_ratings_in_half_stars_are_labels(prose: list[str]) -> None:
    rows = [{"review": text, "stars": i % 10 / 2} for i, text in enumerate(prose)]
    found = read_labeled(table(rows), LabelOptions())
    assert set(found.labels) == {"0", "0.5", "1", "1.5", "2", "2.5", "3", "3.5", "4", "4.5"}


def test_duplicates_are_dropped_and_counted() -> None:
    """A duplicate in training and test set would be memorized."""
    found = without_duplicates(Labeled(["Buy now", "buy  NOW", "buy now", "other"], ["spam", "spam", "ham", "ham"]))
    assert (found.texts, found.labels) == (["Buy now", "other"], ["spam", "ham"])
    assert found.dropped == {"duplicate": 1, "duplicate with another label": 1}


def test_a_label_with_one_example_is_dropped_with_a_count() -> None:
    found = without_single_labels(Labeled(list("abcde"), ["x", "x", "y", "y", "z"], "text -> label"))
    assert found.counts() == {"x": 2, "y": 2}
    assert found.dropped == {"only example of its label": 1}
    with pytest.raises(DataError, match=r"'x' \(3\), 'y' \(1\)"):
        without_single_labels(Labeled(list("abcd"), ["x", "x", "x", "y"], "text -> label"))


def test_both_sets_have_every_label(prose: list[str]) -> None:
    """40 labels, the rarest with two examples: a uniform random split loses some of them."""
    labels = [f"label {min(i % 80, 39)}" for i in range(len(prose))]
    labels[:4] = ["rare", "rare", "rarer", "rarer"]
    examples = Labeled(prose, labels)
    learned, tested = split_labeled(examples, 0.2, seed=3)
    assert set(learned.labels) == set(tested.labels) == set(labels)
    assert Counter(learned.texts) + Counter(tested.texts) == Counter(prose)
    for label, count in examples.counts().items():
        assert tested.counts()[label] == max(1, round(0.2 * count))


def test_the_split_depends_on_seed_and_texts_only(prose: list[str]) -> None:
    """If the table is sorted differently, no training text may move to the test set."""
    labels = ["yes" if "the" in text else "no" for text in prose]
    order = random.Random(0).sample(range(len(prose)), len(prose))
    shuffled = Labeled([prose[i] for i in order], [labels[i] for i in order])
    first = split_labeled(Labeled(prose, labels), 0.2, seed=1)[1]
    assert set(split_labeled(shuffled, 0.2, seed=1)[1].texts) == set(first.texts)
    assert set(split_labeled(shuffled, 0.2, seed=2)[1].texts) != set(first.texts)


def test_limit_keeps_every_label(prose: list[str]) -> None:
    """If the limit removed the only training text of a label, its test texts could not be predicted."""
    labels = ["rare", *(f"label {n % 20}" for n in range(len(prose) - 1))]
    some = limit_texts(Labeled(prose, labels), 60, seed=3)
    assert len(some) == 60 and set(some.labels) == set(labels)
    assert set(limit_texts(Labeled(prose[::-1], labels[::-1]), 60, seed=3).texts) == set(some.texts)
    assert len(limit_texts(Labeled(prose, labels), 10_000, seed=3)) == len(prose)
    with pytest.raises(ConfigError, match="number of labels, 21"):
        limit_texts(Labeled(prose, labels), 20, seed=3)


def test_the_validation_set_has_its_fraction_for_any_number_of_labels(prose: list[str]) -> None:
    """With 150 labels of four texts, one text per label would be a quarter of the training set."""
    texts = [f"{text} {n}" for n in range(2) for text in prose[:300]]
    labels = [f"label {n % 150}" for n in range(600)]
    learned, deciding = split_validation(Labeled(texts, labels), 0.1, seed=0)
    assert len(deciding) == 60 and len(learned) == 540
    assert not set(learned.texts) & set(deciding.texts) and set(learned.labels) == set(labels)
    assert not len(split_validation(Labeled(texts, labels), 0.05, seed=0)[1])


def test_no_label_is_only_in_the_test_set(prose: list[str]) -> None:
    names = [f"topic {n}" for n in range(30)]
    sets = [SEPARATOR.join(sorted(random.Random(n).sample(names, 3))) for n in range(60)]
    learned, tested = split_labeled(Labeled(prose[:60], sets, multi_label=True), 0.5, 0)
    assert set(tested.counts()) <= set(learned.counts()) and len(tested) > 10


def test_lists_in_csv_files_of_pandas() -> None:
    """A list column is written as Python syntax; read as text, each combination would be a label."""
    rows = [{"text": f"text {n}", "topics": "['tax', 'law']" if n % 2 else '["tax"]'} for n in range(8)]
    assert read_labeled(table(rows), LabelOptions()).counts() == {"tax": 8, "law": 4}
    rows = [{"text": f"text {n}", "label": "[PAD]" if n % 2 else "[__import__('os')]"} for n in range(8)]
    assert read_labeled(table(rows), LabelOptions()).counts() == {"[PAD]": 4, "[__import__('os')]": 4}


def test_labels_that_differ_in_case_cause_a_warning() -> None:
    examples = Labeled([f"text {n}" for n in range(9)], ["Good", "good", "bad"] * 3)
    assert (
        case_variants(examples)
        == "'Good' and 'good' are different labels. To merge them: --set 'merge={\"good\" = \"Good\"}'."
    )
    assert not case_variants(Labeled(["a", "b"], ["good", "bad"]))


def test_a_file_sorted_by_label_is_read() -> None:
    """As in the IMDB reviews, half of all rows precede the second label."""
    rows = [{"text": f"a film {n}", "label": n // 12_500, "stars": n % 5} for n in range(25_000)]
    assert LabelOptions().found_in(table(rows)).label == "label"
    with pytest.raises(DataError, match="every label in 'label' is '0'"):
        LabelOptions().found_in(table(rows[:12_500]))


def test_overlap_of_two_given_tables_is_removed() -> None:
    train = Labeled(["A b", "c", "d", "e", "f"], ["x", "x", "x", "y", "y"], "text -> label")
    test = Labeled(["a  B", "g", "h"], ["x", "y", "new"])
    learned, tested = without_overlap(train, test)
    assert learned.texts == ["c", "d", "e", "f"]
    assert learned.dropped == {"text of the test data": 1}
    assert tested.labels == ["x", "y"]
    assert tested.dropped == {"label not in the training data": 1}
    with pytest.raises(DataError, match="Use the same label names"):
        without_overlap(train, Labeled(["g"], ["Y"], "text -> label"))


def test_the_summary_is_one_sentence() -> None:
    rows = [{"text": "a", "label": "x"}, {"text": "", "label": "x"}, {"text": "b", "label": "y"}]
    assert summary(table(rows), read_labeled(table(rows), LabelOptions(label="label"))) == (
        "Read 3 rows of mails.csv as text -> label, 2 labels; 1 row dropped: 1 empty text."
    )


@pytest.mark.parametrize("missing", ["N/A", "nan", "NULL", "#N/A", " "])
def test_missing_values_are_not_labels(missing: str) -> None:
    """ "N/A" was once the forty-first of forty kinds of tickets."""
    rows = [{"text": f"text {i}", "label": label} for i, label in enumerate(["a", "b", missing, "none", "NA"])]
    found = read_labeled(Table("t", ("text", "label"), rows), LabelOptions(label="label"))
    assert found.labels == ["a", "b", "none", "NA"]
    assert found.dropped == {"empty label": 1}


def test_labels_are_merged_and_mail_headers_removed() -> None:
    """The SpamAssassin corpus has five groups for two labels, and headers that reveal the group."""
    mail = "Received: from a.example\nSubject: hi\n\n{}\n\nregards"
    rows = [
        {"text": mail.format("buy now"), "group": "spam-1"},
        {"text": mail.format("lunch?"), "group": "easy-ham-2"},
        {"text": "no head at all", "group": "spam-2"},
    ]
    options = LabelOptions(
        "text", "group", merged={"spam-1": "spam", "spam-2": "spam", "easy-ham-2": "ham"}, after="\n\n"
    )
    found = read_labeled(Table("mails", ("text", "group"), rows), options)
    assert found.labels == ["spam", "ham", "spam"]
    assert found.texts == ["buy now\n\nregards", "lunch?\n\nregards", "no head at all"]


def test_several_labels_from_lists_and_cells(prose: list[str]) -> None:
    """A list of one label in a multi-label column is that label, not a new one."""
    sets = [["art", "sport"], ["sport"], ["sport", "art"], ["art", ""], [], ["law", "art"], ["sport"]]
    rows = [{"text": text, "topics": labels} for text, labels in zip(prose, sets, strict=False)]
    listed = read_labeled(table(rows), LabelOptions(label="topics"))
    assert listed.multi_label
    assert listed.sets == [("art", "sport"), ("sport",), ("art", "sport"), ("art",), ("art", "law"), ("sport",)]
    assert listed.counts() == {"art": 4, "sport": 4, "law": 1}
    assert dict(listed.dropped) == {"empty label": 1}
    cells = [{"text": row["text"], "topics": " ; ".join(row["topics"])} for row in rows]
    assert read_labeled(table(cells), LabelOptions(label="topics", separator=";")).sets == listed.sets
    assert not read_labeled(table(cells), LabelOptions(label="topics")).multi_label  # a label may contain ";"
    assert "3 labels" in summary(table(rows), listed)
    kept = without_single_labels(listed)
    assert kept.counts() == {"art": 4, "sport": 4}
    assert len(kept) == 6  # the text about law is about art as well


def test_both_sets_have_every_label_with_several_per_text(prose: list[str]) -> None:
    names = ["a", "b", "c", "d", "rare"]
    draw = random.Random(0)
    rows = [{"text": text, "labels": draw.sample(names[:4], draw.randint(1, 3))} for text in prose]
    for row in rows[::80]:
        row["labels"].append("rare")
    train, test = split_labeled(read_labeled(table(rows), LabelOptions()), 0.2, 0)
    assert train.multi_label and test.multi_label
    assert len(train) + len(test) == len(rows) and not set(train.texts) & set(test.texts)
    assert set(train.counts()) == set(test.counts()) == set(names)
    assert 0.1 < len(test) / len(rows) < 0.3
