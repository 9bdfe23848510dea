"""The content of a run report: summary, numbers, omitted sections and provenance."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from page_reader import Element, parse
from synthetic_run import Json, MakeRun, write_stage

from groundup.core import artifact
from groundup.core.checksums import write_checked_json
from groundup.report import read_run, render


def page_of(directory: Path) -> Element:
    return parse(render(read_run(directory)))


def lead(page: Element) -> str:
    return page.all("div", class_="lead")[0].text


def test_the_summary_has_model_results_and_time(make_run: MakeRun) -> None:
    page = page_of(make_run())
    summary = lead(page)
    assert len(page.all("div", class_="lead")[0].all("p")) == 3
    assert "4.1 million parameters" in summary
    compressors = "better than the best compression program with the same training text (PPMd order 8: 1.81)"
    assert f"1.75 bits per byte on held-out text, {compressors}" in summary
    assert "an accuracy of 91.2 % on the test set; the majority class has 68.8 %" in summary
    assert "The run took 8 minutes" in summary or "The run took 9 minutes" in summary


@pytest.mark.parametrize(
    ("better", "words"), [("the compressor", "worse than"), ("too close to call", "not distinguishable from")]
)
def test_the_summary_reports_the_result_against_compressors(make_run: MakeRun, better: str, words: str) -> None:
    def edit(facts: Json) -> None:
        facts["report"]["compressors"][1] |= {"bpb": 1.5, "better": better}

    summary = lead(page_of(make_run(edit=edit)))
    assert words in summary
    assert "better than the best" not in summary


@pytest.mark.parametrize(
    ("interval", "words", "not_words"),
    [
        ([-0.1, -0.02], "is better than the base model", "worse"),
        ([0.02, 0.1], "is worse than the base model", "better than the base model"),
        ([-0.02, 0.1], "do not differ significantly", "better than the base model"),
        ([None, None], "is unknown", "better than the base model"),
    ],
)
def test_a_difference_is_significant_only_if_its_interval_excludes_0(
    make_run: MakeRun, interval: list[float | None], words: str, not_words: str
) -> None:
    def edit(facts: Json) -> None:
        facts["chat"]["held_out"]["difference"]["interval"] = interval

    text = page_of(make_run(edit=edit)).all("section", id="evaluation")[0].text
    assert words in text
    assert not_words not in text.split("Instruction following")[1].split("Classification")[0].replace(
        "lower is better", ""
    )


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ([-0.06, -0.005], "Its accuracy is lower than the accuracy of TF-IDF"),
        ([0.004, 0.07], "Its accuracy is higher than the accuracy of TF-IDF"),
        ([-0.06, 0.001], "does not differ significantly from the accuracy of TF-IDF"),
    ],
)
def test_the_classifier_is_compared_with_tfidf(make_run: MakeRun, bounds: list[float], words: str) -> None:
    """Both are tested on the same examples, so the paired interval of the difference counts."""

    def edit(facts: Json) -> None:
        facts["classifier"]["tfidf"]["difference"]["interval"] = bounds

    section = page_of(make_run(edit=edit)).all("section", id="evaluation")[0].text
    assert words in section
    assert section.count("the accuracy of TF-IDF") == 1


def test_multi_label_metrics_and_calibration(make_run: MakeRun) -> None:
    """Multi-label classification has neither an accuracy nor a confusion matrix."""

    def edit(facts: Json) -> None:
        classifier = facts["classifier"]
        values = {"exact": 0.762, "micro_f1": 0.854, "macro_f1": 0.8}
        measured = {key: {"value": value, "interval": [value - 0.05, value + 0.05]} for key, value in values.items()}
        classifier["test"] = {"examples": 400, **measured}
        classifier["majority"] = {"label": "ham", **{key: value / 2 for key, value in values.items()}}
        classifier["tfidf"] = {**measured, "difference": {"exact": 0.0, "interval": [-0.1, 0.1]}}
        error = {"before": 0.093, "after": 0.021}
        classifier["calibration"] = {"temperature": 1.7, "fitted_on": 160, "expected_calibration_error": error}

    section = page_of(make_run(edit=edit)).all("section", id="evaluation")[0].text
    assert "Exact match" in section and "76.2 %" in section and "85.4 %" in section
    assert "expected calibration error is 2.1 %" in section
    assert "9.3 % before temperature scaling on 160 texts" in section


def bar_widths(page: Element, chart: str) -> dict[str, tuple[float, float]]:
    """Return {label: (start, width)} of a bar chart, in percent."""
    svg = next(e for e in page.all("svg") if e.attributes.get("aria-labelledby", "").startswith(f"{chart}-title"))
    found = {}
    for group in svg.all("g"):
        bar = group.all("rect", class_="bar")[0].attributes
        found[group.all("text", class_="name")[0].text] = tuple(float(bar[key].rstrip("%")) for key in ("x", "width"))
    return found


def test_bars_start_at_0_on_one_scale(make_run: MakeRun) -> None:
    bars = bar_widths(page_of(make_run()), "bpb")
    values = {
        "this model": 1.7467,
        "PPMd order 8 after the training text": 1.8144,
        "xz -9e without training text": 2.7724,
    }
    for label, value in values.items():
        start, width = bars[label]
        assert start == 0
        assert width == pytest.approx(100 * value / 2.7724, abs=0.01)
    assert list(bars) == sorted(bars, key=lambda label: bars[label][1])  # best first


def test_the_funnel_subtracts_the_drops_of_each_step(make_run: MakeRun) -> None:
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
    for (label, (start, width)), (expected, remaining) in zip(
        rows,
        [("found", found), ("readable", found), ("long enough", long_enough), ("accepted by c4", kept)],
        strict=True,
    ):
        assert label == expected
        assert start == 0
        assert width == pytest.approx(100 * remaining / found, abs=0.01)
    (data,) = (e for e in page.all("div") if e.attributes.get("aria-label") == "Documents after each step")
    assert [row.text for row in data.all("tr") if "remaining:" in row.text][-1].startswith("c4remaining: ")


def test_the_tokenized_text_is_a_document(make_run: MakeRun, real_documents: list[str]) -> None:
    shown = page_of(make_run()).all("div", class_="tokens")[0]
    spans = [span.text for span in shown.all("span")]
    joined = re.sub(r"\s+", " ", "".join(spans).replace("↵", " "))
    beginnings = {re.sub(r"\s+", " ", text)[:100] for text in real_documents}
    assert joined[:100] in beginnings
    assert 40 < len(spans) < 280


def test_flops_and_mfu_are_computed_from_the_record(make_run: MakeRun) -> None:
    """16,384 tokens in 0.6 s at 17.8 MFLOP per token are 49 % of 0.99 TFLOP/s."""
    rows = {e.children[0].text: e.children[1].text for e in page_of(make_run()).all("tr") if len(e.children) == 2}
    assert rows["training FLOPs"] == "1.59e+14"
    assert rows["throughput"] == "27,307 tokens/s"
    assert rows["MFU"].startswith("49 % of 990G FLOP/s")


def test_nonfinite_losses_and_incomplete_lines_are_ignored(make_run: MakeRun) -> None:
    """A run that diverged or was killed still has a curve."""
    directory = make_run()
    log = directory / "base" / "metrics.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines()
    lines[3] = '{"step": 4, "tokens_seen": 65536, "loss": NaN}'
    lines[4] = '{"step": 5, "tokens_seen": 81920, "loss": Infinity}'
    log.write_text("\n".join([*lines, "[]", "null", '{"step": 61, "tok']), encoding="utf-8")
    text = render(read_run(directory))
    assert "nan" not in text.lower().replace("nanosecond", "").split("<main>")[1].split("polyline")[1].split("/>")[0]
    assert parse(text).all("polyline", class_="accent")


def test_sections_of_missing_stages_are_omitted(make_run: MakeRun, half_run: Path, tmp_path: Path) -> None:
    half = page_of(half_run)
    assert [e.attributes["id"] for e in half.all("section")] == ["data", "cost"]
    assert "for pretraining" in lead(half)
    directory = make_run()
    for part in ("report", "chat", "classifier"):
        shutil.rmtree(directory / part)
    base = page_of(directory)
    assert [e.attributes["id"] for e in base.all("section")] == ["data", "training", "evaluation", "cost"]
    assert "has not been evaluated" in lead(base)
    assert "groundup evaluate" in base.all("section", id="evaluation")[0].text
    assert not {"Classification", "Instruction following"} & {e.text for e in base.all("h3")}
    alone = tmp_path / "alone"
    shutil.copytree(directory / "base", alone / "base")
    assert [e.attributes["id"] for e in page_of(alone).all("section")] == ["training", "evaluation", "cost"]


def test_an_evaluation_of_another_text_is_not_the_headline(make_run: MakeRun) -> None:
    """`groundup evaluate --data letter.txt` writes a newer report."""
    directory = make_run()
    facts = {"bpb": 0.5, "summary": "0.500 bits per byte", "source": "/data/letter.txt"}
    write_stage(directory / "report-letter", "evaluate", facts, {}, {"report.json": json.dumps({"bpb": 0.5})})
    fine_tuned = {"model": artifact.read(directory / "chat").digest}
    facts = {"bpb": 2.5, "summary": "2.500 bits per byte", "source": "held-out text"}
    write_stage(directory / "report-chat", "evaluate", facts, fine_tuned, {"report.json": json.dumps({"bpb": 2.5})})
    page = page_of(directory)
    assert "1.75 bits per byte" in lead(page)
    rows = [[cell.text for cell in row.children] for row in page.all("div", **{"aria-label": "Other"})[0].all("tr")]
    assert sorted(rows[1:]) == [
        ["report-chat/", "chat/", "2.500 bits per byte"],
        ["report-letter/", "not in this run", "0.500 bits per byte"],
    ]
    assert "/home/user" not in page.text  # the path may be private


def test_provenance_is_verified(make_run: MakeRun) -> None:
    """A corpus that was collected again is not the input of an older model."""
    directory = make_run()
    row = next(e for e in page_of(directory).all("tr") if e.text.startswith("tokens/"))
    assert "✓ corpus/" in row.text
    record = json.loads((directory / "corpus" / "artifact.json").read_text(encoding="utf-8"))
    record["outputs"]["card.json"] = "0" * 32
    write_checked_json(directory / "corpus" / "artifact.json", record)
    row = next(e for e in page_of(directory).all("tr") if e.text.startswith("tokens/"))
    assert "✓" not in row.text
    assert "external or replaced" in row.text


def test_a_wrong_label_is_marked_in_words(make_run: MakeRun) -> None:
    """Color alone is not accessible."""
    marks = [e.text for e in page_of(make_run()).all("span", class_="mark")]
    assert marks == ["✓ correct", "✗ wrong: ham"]


@pytest.mark.parametrize("labels", [2, 12, 30, 120])
def test_confusion_matrices_of_few_and_many_labels(make_run: MakeRun, labels: int) -> None:
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


def test_gains_and_losses_of_fine_tuning_are_in_one_table(make_run: MakeRun) -> None:
    directory = make_run()

    def estimate(value: float, low: float | None, high: float | None) -> Json:
        return {"value": value, "interval": [low, high]}

    gained = {
        "about": "task",
        "name": "ROUGE-L",
        "what": "200 answers",
        "unit": "points",
        "less_is_better": False,
        "before": estimate(18.24, 17.0, 19.5),
        "after": estimate(31.5, 30.1, 32.9),
        "difference": estimate(13.26, 11.9, 14.6),
        "verdict": "better",
        "baselines": {"the first 2 sentences": estimate(20.1, 19.0, 21.2)},
    }
    forgotten = gained | {
        "name": "bits per byte of general text",
        "unit": "bits per byte",
        "less_is_better": True,
        "difference": estimate(0.0412, None, None),
        "verdict": "worse",
        "baselines": {},
    }
    facts = {"summary": "On the task, better.", "lines": [gained, forgotten], "notes": ["The base was <asked> well."]}
    facts["transcripts"] = [{"question": "Why <b>?", "base": "", "fine_tuned": "So.", "the data": "Because."}]
    write_stage(directory / "compare", "compare", facts, {}, {"compare.json": "{}"}, 10.0)
    section = page_of(directory).all("section", id="evaluation")[0]
    (found,) = [each for each in section.all("table") if "Base model and fine-tuned model" in each.text]
    assert "ROUGE-L (200 answers)" in found.text
    assert "31.5 (30.1–32.9)" in found.text
    assert "the first 2 sentences: 20.1" in found.text
    assert "lower is better" in found.text
    assert "0.041" in found.text
    assert "The base was <asked> well." in section.text
    assert "(empty)" in section.text


def test_the_page_has_the_metrics_groups_and_items_of_tasks(make_run: MakeRun) -> None:
    directory = make_run()
    facts = {
        "summary": "blimp: accuracy 60.0 on 2 items; random guess: 50.0.",
        "tasks": {
            "blimp": {
                "items": 2,
                "metrics": {"accuracy": {"value": 60.0, "interval": [55.0, 65.0], "unit": "points"}},
                "baselines": {"random guess": 50.0},
                "groups": {"field": {"syntax": {"value": 71.5, "interval": [60.0, 80.0], "items": 1}}},
            }
        },
    }
    item = {"task": "blimp", "prompt": "Who <b>wrote</b> it?", "written": "Nobody", "reference": "She"}
    write_stage(directory / "report-blimp", "evaluate", facts, {}, {"items.jsonl": json.dumps(item) + "\n"})
    page = page_of(directory)
    text = page.text
    assert "60.0 (55.0–65.0)" in text and "random guess: 50.0" in text
    assert "blimp by field: 1 group" in text and "71.5 (60.0–80.0)" in text
    assert "Who <b>wrote</b> it?" in text and "report-blimp/items.jsonl" in text
