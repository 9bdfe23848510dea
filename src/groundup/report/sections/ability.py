"""What it can do: beside compressors, beside its own base, and beside simple classifiers, with intervals."""

from __future__ import annotations

from collections.abc import Sequence

from groundup.core.facts import Estimate, Facts
from groundup.core.files import shell_quoted
from groundup.report.charts import Bar, draw_bar_chart, draw_confusion_matrix, figure
from groundup.report.html import Child, Html, folded, foreign, join, table, tag
from groundup.report.record import CLASSIFY, COMPARE, EVALUATE, INSTRUCT, PRETRAIN, RunRecord, StageOutput
from groundup.report.sections.verdict import comparison
from groundup.report.words import count, interval, number, percent, shares, shortened

_CHARACTERS = 1200
_COLUMNS = ("measure", "before", "after", "difference", "the tuned model is", "without a model")


def uplift(run: RunRecord) -> list[Child]:
    """The parts for all comparisons of a run; none where there is none."""
    return [part for output in run.outputs if output.stage == COMPARE for part in _comparison(output)]


def _comparison(output: StageOutput) -> list[Child]:
    lines = output.facts.rows("lines")
    if not lines:
        return []
    title = f"Before and after ({output.directory.name}/)"
    notes = [tag("li", shortened(note, 300)) for note in output.facts.at("notes") or [] if isinstance(note, str)]
    return [
        tag("h3", "Before and after tuning"),
        tag("p", shortened(output.facts.words("summary"), 400)),
        table(title, _COLUMNS, [_row(line) for line in lines]),
        tag(
            "p", "In brackets, 95 % intervals; those of differences are of the same examples, in pairs.", class_="note"
        ),
        tag("ul", notes, class_="note") if notes else None,
        *(_transcript(item) for item in output.facts.rows("transcripts")[:3]),
    ]


def _row(line: Facts) -> list[Child]:
    digits = 1 if line.words("unit") == "points" else 3
    direction = ", less is better" if line.at("less_is_better") is True else ""
    figures = [interval(line.estimate(key), digits) for key in ("before", "after", "difference")]
    beside = [f"{name}: {number(found.number('value'), digits)}" for name, found in line.items("beside")]
    name = f"{line.words('name')} ({line.words('what')}{direction})"
    return [name, *figures, line.words("verdict"), "; ".join(beside)]


def _transcript(item: Facts) -> Child:
    said = [
        tag(
            "div",
            tag("p", who, class_="who"),
            foreign(shortened(text.words() or "(nothing)", _CHARACTERS)),
            class_="turn",
        )
        for who, text in item.items()
    ]
    return folded(f"Asked: {shortened(item.words('question'), 80)}", *said)


_MOST_LABELS = 60


def ability(run: RunRecord) -> list[Child]:
    """The parts of the section; none where nothing was measured."""
    parts: list[Child] = [*_prediction(run), *_answers(run), *_classes(run), *uplift(run), *_more(run)]
    if not parts and run.stage(PRETRAIN):
        return [
            tag(
                "p",
                "Nothing has been measured yet. ",
                tag("code", f"groundup evaluate {shell_quoted(run.place)}"),
                " does it.",
            )
        ]
    return parts


def _prediction(run: RunRecord) -> list[Child]:
    found, output = run.evaluation(), run.stage(EVALUATE)
    bpb = found.number("bpb")
    if bpb is None or output is None:
        return []
    ours = Estimate(bpb, found.number("bpb_interval", 0), found.number("bpb_interval", 1))
    rows = [Bar("this model", interval(ours), ours.value, ours.low, ours.high, accent=True)]
    sheet = [["this model", interval(ours), ""]]
    for score in found.rows("compressors"):
        value = score.number("bpb")
        if value is not None:
            seen = "after the training text" if score.at("saw_training") else "alone"
            label = f"{score.words('name')} {seen}"
            rows.append(Bar(label, number(value), value))
            sheet.append([label, number(value), score.words("better")])
    rows.sort(key=lambda row: row.value)
    title = "Bits per byte of text that it has not seen: less is better"
    description = f"Bars, the shortest first: {'; '.join(f'{row.label} {row.shown}' for row in rows)}."
    scored = found.part("scored")
    counts = ", ".join(f"{scored.count(unit):,} {unit}" for unit in ("documents", "bytes", "tokens"))
    told = (
        "A byte of text is 8 bits. Whoever predicts well needs fewer to write it down, and compressors live by "
        f"prediction, so they are fair rivals. At {number(bpb, 2)} bits per byte, the model could shrink this text to "
        f"{percent(bpb / 8, 0)} of its size."
    )
    level = found.number("interval_level") or 0.95
    note = f"Scored: {counts}. The whisker is the {percent(level, 0)} interval over documents."
    measured = run.measured(output)
    which = f" The model: {measured.directory.name}/." if measured else ""
    figures = table(title, ("who", "bits per byte", "better"), sheet)
    drawn = figure(title, draw_bar_chart("bpb", title, description, rows), note=note + which, figures=figures)
    return [tag("h3", "Predicting text"), tag("p", told), drawn]


def _more(run: RunRecord) -> list[Child]:
    """Other evaluations: of texts and examples of the user's, of tuned models."""
    own = run.stage(EVALUATE)
    rows = []
    for output in run.outputs:
        if output.stage == EVALUATE and output is not own and output.facts.words("summary"):
            model = run.measured(output)
            of = f"{model.directory.name}/" if model else "not in this run"
            rows.append([f"{output.directory.name}/", of, shortened(output.facts.words("summary"), 300)])
    if not rows:
        return []
    return [tag("h3", "Measured as well"), table("Measured as well", ("evaluation", "model", "found"), rows)]


def _answers(run: RunRecord) -> list[Child]:
    tuned = run.stage(INSTRUCT)
    held_out = tuned.facts.part("held_out") if tuned else Facts(None)
    after, before = held_out.estimate("tuned", key="loss"), held_out.estimate("base", key="loss")
    if after is None:
        return []
    rows = [Bar("tuned to answer", interval(after), after.value, after.low, after.high, accent=True)]
    if before is not None:
        rows.append(Bar("its base", interval(before), before.value, before.low, before.high))
    title = "Loss on held-out answers, nats a token: less is better"
    description = f"Bars: {'; '.join(f'{row.label} {row.shown}' for row in rows)}."
    counts = f"{count(held_out.count('responses'), 'answer')}, {count(held_out.count('tokens'), 'token')}."
    best = held_out.words("base", "format")
    note = [
        counts,
        f" The base was given its best prompt format: {shortened(best, 120)}." if best else None,
        f" Counted: {shortened(counted, 160)}." if (counted := held_out.words("counted")) else None,
    ]
    figures = table(title, ("who", "nats a token"), [[row.label, row.shown] for row in rows], figures=1)
    drawn = figure(title, draw_bar_chart("answers", title, description, rows), note=note, figures=figures)
    return [tag("h3", "Answering"), _difference(held_out), drawn]


def _difference(held_out: Facts) -> Html | None:
    difference = held_out.estimate("difference", key="loss")
    if difference is None:
        return None
    relation = comparison(difference.low, difference.high)
    said = {
        "better": "The tuned model is better than its base",
        "worse": "The tuned model is worse than its base",
        "not distinguishable": "The tuned model cannot be told from its base: the interval of the difference holds 0",
    }.get(relation, "How sure the difference is, is not known")
    shown = f"tuned minus base {interval(difference)} nats a token"
    return tag("p", tag("strong", said), f"; {shown}, answer by answer (paired bootstrap, 95 %).")


_MEASURES = (
    ("accuracy", "Accuracy: more is better"),
    ("exact", "Texts with exactly their labels: more is better"),
    ("micro_f1", "Micro-F1, all labels of all texts together: more is better"),
    ("macro_f1", "Macro-F1, each label alike: more is better"),
)


def _classes(run: RunRecord) -> list[Child]:
    tuned = run.stage(CLASSIFY)
    facts = tuned.facts if tuned else Facts(None)
    test = facts.part("test")
    measures = [(key, title) for key, title in _MEASURES if test.estimate(key) is not None]
    if not measures:
        return []
    labels = [label.words() for label in facts.rows("labels")]
    commonest = shortened(facts.words("majority", "label"), 16)
    parts: list[Child] = [tag("h3", "Classifying"), tag("p", _class_words(facts, len(labels))), _meant(facts)]
    for key, title in measures:
        rivals = [
            ("this model", test.estimate(key)),
            ("TF-IDF + logistic regression", facts.estimate("tfidf", key)),
            (f"always “{commonest}”", _point(facts.number("majority", key))),
        ]
        rows = [
            Bar(name, shares(found), found.value, found.low, found.high, accent=index == 0)
            for index, (name, found) in enumerate(rivals)
            if found is not None
        ]
        description = f"Bars: {'; '.join(f'{row.label} {row.shown}' for row in rows)}."
        sheet = table(title, ("who", "value"), [[row.label, row.shown] for row in rows], figures=1)
        parts.append(figure(title, draw_bar_chart(key, title, description, rows, most=1.0), figures=sheet))
    counts = [[cell.count() for cell in row.rows()] for row in test.rows("confusion")]
    if labels and len(counts) == len(labels) and all(len(row) == len(labels) for row in counts):
        parts += [draw_confusion_matrix("confusion", labels, counts), _labels(labels, counts, facts)]
    return parts


def _meant(facts: Facts) -> Html | None:
    """Whether the probabilities are meant."""
    found = facts.part("calibration")
    after = found.number("expected_calibration_error", "after")
    before = found.number("expected_calibration_error", "before")
    if after is None or before is None:
        return None
    said = f"Its probabilities are off by {percent(after)} on average (expected calibration error)"
    fitted = found.count("fitted_on")
    if fitted:
        said += f"; by {percent(before)} before one temperature was fitted on {count(fitted, 'other text')}"
    flagged, held_out = facts.number("novelty", "false_alarms"), facts.count("novelty", "held_out")
    novelty = ""
    if flagged is not None:
        novelty = f" Its novelty score flags {percent(flagged)} of {count(held_out, 'held-out text')} as unlike."
    alone = facts.number("model_alone", "accuracy", "value")
    lexical = ""
    if alone is not None:
        lexical = f" Without lexical.safetensors, as transformers loads it, it labels {percent(alone)} right."
    return tag("p", f"{said}.{novelty}{lexical}")


def _point(value: float | None) -> Estimate | None:
    return None if value is None else Estimate(value)


def _class_words(facts: Facts, labels: int) -> str:
    said = f"{count(labels, 'label')}, {count(facts.count('test', 'examples'), 'example')} that it was not trained on."
    gain = facts.estimate("tfidf", "difference", key="accuracy")
    if gain is None or gain.low is None or gain.high is None:
        return said
    relation = "cannot be told from"
    if gain.low > 0 or gain.high < 0:
        relation = "is more often right than" if gain.low > 0 else "is less often right than"
    shown = interval(gain, 1, scale=100)
    return (
        f"{said} It {relation} TF-IDF with logistic regression, the old way that is hard to beat on short texts "
        f"(difference in accuracy on the same examples, in points of a percent: {shown})."
    )


def _labels(labels: Sequence[str], counts: Sequence[Sequence[int]], facts: Facts) -> Html:
    """Recall and precision of each label."""
    rows = []
    for index, label in enumerate(labels[:_MOST_LABELS]):
        right, true, predicted = counts[index][index], sum(counts[index]), sum(row[index] for row in counts)
        trained = facts.number("counts", "train", label)
        rows.append(
            [
                shortened(label, 60),
                "–" if trained is None else f"{trained:,.0f}",
                f"{true:,}",
                percent(right / true) if true else "–",
                percent(right / predicted) if predicted else "–",
            ]
        )
    columns = ("label", "to train on", "in the test", "recall", "precision")
    more = len(labels) - _MOST_LABELS
    note = tag("p", f"{count(more, 'label')} more.", class_="note") if more > 0 else None
    return folded("Label by label", join(table("Label by label", columns, rows, figures=4), note))
