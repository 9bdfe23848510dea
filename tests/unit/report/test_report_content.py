"""What the page says: the verdict, the figures, what is left out, and where everything comes from."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from made_up_run import Json, MakeRun, leave
from page_reader import Element, parse

from groundup.core import artifact
from groundup.core.checksums import write_checked_json
from groundup.report import read_run, render


def page_of(directory: Path) -> Element:
    return parse(render(read_run(directory)))


def lead(page: Element) -> str:
    return page.all("div", class_="lead")[0].text


def test_the_verdict_says_what_how_good_and_how_long(make_run: MakeRun) -> None:
    """Three sentences; the figures are those of the records."""
    page = page_of(make_run())
    said = lead(page)
    assert len(page.all("div", class_="lead")[0].all("p")) == 3
    assert "4.1 million parameters" in said
    assert (
        "1.75 bits per byte, better than the best compressor that had read the same text (PPMd order 8: 1.81)" in said
    )
    assert "right on 91.2 % of new examples, where always giving the commonest label is right on 68.8 %" in said
    assert "All of it took 8 minutes" in said or "All of it took 9 minutes" in said


@pytest.mark.parametrize(
    ("better", "words"), [("the compressor", "not as good as"), ("too close to call", "too close to call")]
)
def test_a_compressor_that_wins_is_said_to_win(make_run: MakeRun, better: str, words: str) -> None:
    def edit(facts: Json) -> None:
        facts["report"]["compressors"][1] |= {"bpb": 1.5, "better": better}

    said = lead(page_of(make_run(edit=edit)))
    assert words in said
    assert "better than the best" not in said


@pytest.mark.parametrize(
    ("interval", "words", "not_words"),
    [
        ([-0.1, -0.02], "is better than its base", "worse"),
        ([0.02, 0.1], "is worse than its base", "better than its base"),
        ([-0.02, 0.1], "cannot be told from its base", "better than its base"),
        ([None, None], "is not known", "better than its base"),
    ],
)
def test_a_difference_is_a_difference_only_outside_of_its_interval(
    make_run: MakeRun, interval: list[float | None], words: str, not_words: str
) -> None:
    def edit(facts: Json) -> None:
        facts["chat"]["held_out"]["difference"]["interval"] = interval

    text = page_of(make_run(edit=edit)).all("section", id="can-do")[0].text
    assert words in text
    assert not_words not in text.split("Answering")[1].split("Classifying")[0].replace("less is better", "")


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ([-0.06, -0.005], "is less often right than TF-IDF"),
        ([0.004, 0.07], "is more often right than TF-IDF"),
        ([-0.06, 0.001], "cannot be told from TF-IDF"),
    ],
)
def test_the_classifier_stands_honestly_beside_the_old_way(make_run: MakeRun, bounds: list[float], words: str) -> None:
    """The two were tested on the same examples: their difference counts, with its own interval."""

    def edit(facts: Json) -> None:
        facts["classifier"]["tfidf"]["difference"]["interval"] = bounds

    found = page_of(make_run(edit=edit)).all("section", id="can-do")[0].text
    assert words in found
    assert found.count(" than TF-IDF") + found.count("told from TF-IDF") == 1


def test_several_labels_a_text_and_what_their_probabilities_are_worth(make_run: MakeRun) -> None:
    """Of texts with several labels there is no accuracy and no matrix; the page must still say how good they are."""

    def edit(facts: Json) -> None:
        classifier = facts["classifier"]
        values = {"exact": 0.762, "micro_f1": 0.854, "macro_f1": 0.8}
        measured = {key: {"value": value, "interval": [value - 0.05, value + 0.05]} for key, value in values.items()}
        classifier["test"] = {"examples": 400, **measured}
        classifier["majority"] = {"label": "ham", **{key: value / 2 for key, value in values.items()}}
        classifier["tfidf"] = {**measured, "difference": {"exact": 0.0, "interval": [-0.1, 0.1]}}
        error = {"before": 0.093, "after": 0.021}
        classifier["calibration"] = {"temperature": 1.7, "fitted_on": 160, "expected_calibration_error": error}

    found = page_of(make_run(edit=edit)).all("section", id="can-do")[0].text
    assert "exactly their labels" in found and "76.2 %" in found and "85.4 %" in found
    assert "off by 2.1 % on average" in found
    assert "by 9.3 % before one temperature was fitted on 160 other texts" in found


def bar_widths(page: Element, chart: str) -> dict[str, tuple[float, float]]:
    """Label -> (start, width) in percent, of a bar chart."""
    svg = next(e for e in page.all("svg") if e.attributes.get("aria-labelledby", "").startswith(f"{chart}-title"))
    found = {}
    for group in svg.all("g"):
        bar = group.all("rect", class_="bar")[0].attributes
        found[group.all("text", class_="name")[0].text] = tuple(float(bar[key].rstrip("%")) for key in ("x", "width"))
    return found


def test_bars_are_as_long_as_their_figures(make_run: MakeRun) -> None:
    """From zero, on one scale: a chart that begins elsewhere would flatter."""
    drawn = bar_widths(page_of(make_run()), "bpb")
    figures = {"this model": 1.7467, "PPMd order 8 after the training text": 1.8144, "xz -9e alone": 2.7724}
    for label, figure in figures.items():
        start, width = drawn[label]
        assert start == 0
        assert width == pytest.approx(100 * figure / 2.7724, abs=0.01)
    assert list(drawn) == sorted(drawn, key=lambda label: drawn[label][1])  # the best first


def test_the_funnel_ends_where_it_should(make_run: MakeRun) -> None:
    """After each step there is what was found less all that the steps so far have dropped."""
    directory = make_run()
    path = directory / "corpus" / "card.json"
    card = json.loads(path.read_text(encoding="utf-8"))
    kept = card["train"]["documents"] + card["validation"]["documents"]
    card["steps"] = ["reading", "length", "c4"]
    card["sources"][0]["drops"] = {
        f"reason {n}": {"step": card["steps"][n % 2 + 1], "documents": 20 - n, "bytes": 9, "samples": []}
        for n in range(20)
    }
    path.write_text(json.dumps(card), encoding="utf-8")
    page = page_of(directory)
    rows = list(bar_widths(page, "funnel").items())
    long_enough = kept + sum(20 - n for n in range(1, 20, 2))
    found = long_enough + sum(20 - n for n in range(0, 20, 2))
    for (label, (start, width)), (expected, left) in zip(
        rows,
        [("found", found), ("could be read", found), ("long enough", long_enough), ("passed c4", kept)],
        strict=True,
    ):
        assert label == expected
        assert start == 0
        assert width == pytest.approx(100 * left / found, abs=0.01)
    (sheet,) = (e for e in page.all("div") if e.attributes.get("aria-label") == "From what was found to what stays")
    assert [row.text for row in sheet.all("tr") if "left:" in row.text][-1].startswith("c4left: ")


def test_a_text_cut_into_tokens_is_still_that_text(make_run: MakeRun, real_documents: list[str]) -> None:
    shown = page_of(make_run()).all("div", class_="tokens")[0]
    spans = [span.text for span in shown.all("span")]
    joined = re.sub(r"\s+", " ", "".join(spans).replace("↵", " "))
    beginnings = {re.sub(r"\s+", " ", text)[:100] for text in real_documents}
    assert joined[:100] in beginnings
    assert 40 < len(spans) < 280


def test_flops_and_utilization_follow_from_the_record(make_run: MakeRun) -> None:
    """16,384 tokens in 0.6 s at 17.8 MFLOP a token are 49 % of a product that reaches 0.99 TFLOP/s."""
    rows = {e.children[0].text: e.children[1].text for e in page_of(make_run()).all("tr") if len(e.children) == 2}
    assert rows["training FLOPs"] == "1.59e+14"
    assert rows["speed"] == "27,307 tokens/s"
    assert rows["MFU"].startswith("49 % of 990G FLOP/s")


def test_losses_that_are_no_numbers_and_half_a_line_are_left_out(make_run: MakeRun) -> None:
    """A run that diverged, or was cut off while it wrote, still has a curve."""
    directory = make_run()
    log = directory / "base" / "metrics.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines()
    lines[3] = '{"step": 4, "tokens_seen": 65536, "loss": NaN}'
    lines[4] = '{"step": 5, "tokens_seen": 81920, "loss": Infinity}'
    log.write_text("\n".join([*lines, "[]", "null", '{"step": 61, "tok']), encoding="utf-8")
    text = render(read_run(directory))
    assert "nan" not in text.lower().replace("nanosecond", "").split("<main>")[1].split("polyline")[1].split("/>")[0]
    assert parse(text).all("polyline", class_="accent")


def test_what_has_not_run_is_not_there(make_run: MakeRun, half_run: Path, tmp_path: Path) -> None:
    """A heading over nothing, or a zero in place of a measurement, would be a lie."""
    half = page_of(half_run)
    assert [e.attributes["id"] for e in half.all("section")] == ["made-of", "cost"]
    assert "ready for a language model to be trained on" in lead(half)
    directory = make_run()
    for part in ("report", "chat", "classifier"):
        shutil.rmtree(directory / part)
    base = page_of(directory)
    assert [e.attributes["id"] for e in base.all("section")] == ["made-of", "learned", "can-do", "cost"]
    assert "has not been measured yet" in lead(base)
    assert "groundup evaluate" in base.all("section", id="can-do")[0].text
    assert not {"Classifying", "Answering"} & {e.text for e in base.all("h3")}
    alone = tmp_path / "alone"
    shutil.copytree(directory / "base", alone / "base")
    assert [e.attributes["id"] for e in page_of(alone).all("section")] == ["learned", "can-do", "cost"]


def test_another_text_is_not_taken_for_the_held_out_one(make_run: MakeRun) -> None:
    """`groundup evaluate --data letter.txt` leaves a newer report; its figure must not become the headline."""
    directory = make_run()
    facts = {"bpb": 0.5, "summary": "0.500 bits per byte", "source": "/home-of-somebody/letter.txt"}
    leave(directory / "report-letter", "evaluate", facts, {}, {"report.json": json.dumps({"bpb": 0.5})})
    tuned = {"model": artifact.read(directory / "chat").digest}
    facts = {"bpb": 2.5, "summary": "2.500 bits per byte", "source": "held-out text"}
    leave(directory / "report-chat", "evaluate", facts, tuned, {"report.json": json.dumps({"bpb": 2.5})})
    page = page_of(directory)
    assert "1.75 bits per byte" in lead(page)
    rows = [[cell.text for cell in row.children] for row in page.all("div", **{"aria-label": "Measured"})[0].all("tr")]
    assert sorted(rows[1:]) == [
        ["report-chat/", "chat/", "2.500 bits per byte"],
        ["report-letter/", "not in this run", "0.500 bits per byte"],
    ]
    assert "home-of-somebody" not in page.text  # the way to a user's file may be private


def test_provenance_is_checked_and_not_believed(make_run: MakeRun) -> None:
    """A model whose corpus was collected anew since must not look as if it came from that."""
    directory = make_run()
    row = next(e for e in page_of(directory).all("tr") if e.text.startswith("tokens/"))
    assert "✓ corpus/" in row.text
    record = json.loads((directory / "corpus" / "artifact.json").read_text(encoding="utf-8"))
    record["outputs"]["card.json"] = "0" * 32
    write_checked_json(directory / "corpus" / "artifact.json", record)
    row = next(e for e in page_of(directory).all("tr") if e.text.startswith("tokens/"))
    assert "✓" not in row.text
    assert "or replaced since" in row.text


def test_a_wrong_label_is_marked_in_words(make_run: MakeRun) -> None:
    """Red and green look alike to one reader in twenty."""
    marks = [e.text for e in page_of(make_run()).all("span", class_="mark")]
    assert marks == ["✓ right", "✗ wrong: it is ham"]


@pytest.mark.parametrize("labels", [2, 12, 30, 120])
def test_confusions_of_few_and_of_many_labels(make_run: MakeRun, labels: int) -> None:
    def edit(facts: Json) -> None:
        facts["classifier"]["labels"] = [f"kind {n}" for n in range(labels)]
        matrix = [[9 if a == b else 0 for b in range(labels)] for a in range(labels)]
        matrix[1][0] = 5
        facts["classifier"]["test"]["confusion"] = matrix

    page = page_of(make_run(edit=edit))
    if labels <= 12:
        cells = page.all("table", class_="matrix")[0].all("td")[1:]
        assert [cell.text.split()[0] for cell in cells[labels : labels + 2]] == ["5", "9"]
    else:
        table = page.all("div", **{"aria-label": "confusions"})[0]
        assert [cell.text for cell in table.all("tbody")[0].all("tr")[0].children] == ["kind 1", "kind 0", "5"]
    assert (len(page.all("rect", class_="cell")) > 0) == (12 < labels <= 80)


def test_gain_and_cost_of_tuning_stand_in_one_table(make_run: MakeRun) -> None:
    """A page that shows what was gained and leaves out what was forgotten is an advertisement."""
    directory = make_run()

    def figure(value: float, low: float | None, high: float | None) -> Json:
        return {"value": value, "interval": [low, high]}

    gained = {
        "about": "task",
        "name": "ROUGE-L",
        "what": "200 answers",
        "unit": "points",
        "less_is_better": False,
        "before": figure(18.24, 17.0, 19.5),
        "after": figure(31.5, 30.1, 32.9),
        "difference": figure(13.26, 11.9, 14.6),
        "verdict": "better",
        "beside": {"the first 2 sentences": figure(20.1, 19.0, 21.2)},
    }
    forgotten = gained | {
        "name": "bits per byte of general text",
        "unit": "bits per byte",
        "less_is_better": True,
        "difference": figure(0.0412, None, None),
        "verdict": "worse",
        "beside": {},
    }
    facts = {"summary": "On the task, better.", "lines": [gained, forgotten], "notes": ["The base was <asked> well."]}
    facts["transcripts"] = [{"question": "Why <b>?", "base": "", "tuned": "So.", "the data": "Because."}]
    leave(directory / "compare", "compare", facts, {}, {"compare.json": "{}"}, 10.0)
    section = page_of(directory).all("section", id="can-do")[0]
    (found,) = [each for each in section.all("table") if "Before and after" in each.text]
    assert "ROUGE-L (200 answers)" in found.text
    assert "31.5 (30.1–32.9)" in found.text
    assert "the first 2 sentences: 20.1" in found.text
    assert "less is better" in found.text
    assert "0.041" in found.text
    assert "The base was <asked> well." in section.text
    assert "(nothing)" in section.text
