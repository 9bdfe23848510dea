"""The evaluation section: comparisons with compression programs, with the base model and with simple classifiers."""

from __future__ import annotations

from collections.abc import Sequence

from groundup.core.facts import Estimate, Facts
from groundup.core.files import shell_quoted
from groundup.core.plural import pluralize
from groundup.report.charts import Bar, draw_bar_chart, draw_confusion_matrix, figure
from groundup.report.formatting import interval, number, percent, percent_interval, truncate
from groundup.report.html import Child, Html, details, join, table, tag, untrusted
from groundup.report.record import CLASSIFY, COMPARE, EVALUATE, INSTRUCT, PRETRAIN, RunRecord, StageOutput
from groundup.report.sections.summary import comparison
from groundup.report.sections.tasks import task_results

_MAX_CHARS = 1200
_COLUMNS = ("metric", "base model", "fine-tuned model", "difference", "fine-tuned model is", "baseline")


def comparisons(run: RunRecord) -> list[Child]:
    """Return the comparisons of base and fine-tuned models. The list is empty if `compare` has not run."""
    return [part for output in run.outputs if output.stage == COMPARE for part in _comparison(output)]


def _comparison(output: StageOutput) -> list[Child]:
    lines = output.facts.rows("lines")
    if not lines:
        return []
    title = f"Base model and fine-tuned model ({output.directory.name}/)"
    notes = [tag("li", truncate(note, 300)) for note in output.facts.at("notes") or [] if isinstance(note, str)]
    return [
        tag("h3", "Effect of fine-tuning"),
        tag("p", truncate(output.facts.words("summary"), 400)),
        table(title, _COLUMNS, [_row(line) for line in lines]),
        tag("p", "Parentheses contain 95 % confidence intervals. Differences are paired by example.", class_="note"),
        tag("ul", notes, class_="note") if notes else None,
        *(_transcript(item) for item in output.facts.rows("transcripts")[:3]),
    ]


def _row(line: Facts) -> list[Child]:
    digits = 1 if line.words("unit") == "points" else 3
    direction = ", lower is better" if line.at("less_is_better") is True else ""
    values = [interval(line.estimate(key), digits) for key in ("before", "after", "difference")]
    baselines = [f"{name}: {number(found.number('value'), digits)}" for name, found in line.items("baselines")]
    name = f"{line.words('name')} ({line.words('what')}{direction})"
    return [name, *values, line.words("verdict"), "; ".join(baselines)]


def _transcript(item: Facts) -> Child:
    turns = [
        tag(
            "div",
            tag("p", who.replace("_", "-"), class_="who"),
            untrusted(truncate(text.words() or "(empty)", _MAX_CHARS)),
            class_="turn",
        )
        for who, text in item.items()
    ]
    return details(f"Prompt: {truncate(item.words('question'), 80)}", *turns)


_MAX_LABELS = 60


def evaluation_section(run: RunRecord) -> list[Child]:
    """Return the content of the evaluation section, which is empty if the run has neither evaluations nor a model."""
    parts: list[Child] = [*_prediction(run), *_answers(run), *_classes(run), *comparisons(run)]
    parts += [*task_results(run), *_more(run)]
    if not parts and run.stage(PRETRAIN):
        return [
            tag(
                "p",
                "The model has not been evaluated. Run ",
                tag("code", f"groundup evaluate {shell_quoted(run.display_path)}"),
                ".",
            )
        ]
    return parts


def _prediction(run: RunRecord) -> list[Child]:
    evaluation, output = run.evaluation(), run.stage(EVALUATE)
    bpb = evaluation.number("bpb")
    if bpb is None or output is None:
        return []
    model = Estimate(bpb, evaluation.number("bpb_interval", 0), evaluation.number("bpb_interval", 1))
    rows = [Bar("this model", interval(model), model.value, model.low, model.high, accent=True)]
    cells = [["this model", interval(model), ""]]
    for score in evaluation.rows("compressors"):
        value = score.number("bpb")
        if value is not None:
            primed = "after the training text" if score.at("saw_training") else "without training text"
            label = f"{score.words('name')} {primed}"
            rows.append(Bar(label, number(value), value))
            cells.append([label, number(value), score.words("better")])
    rows.sort(key=lambda row: row.value)
    title = "Bits per byte on held-out text (lower is better)"
    description = f"Bar chart in ascending order: {'; '.join(f'{row.label} {row.shown}' for row in rows)}."
    scored = evaluation.part("scored")
    counts = ", ".join(f"{scored.count(unit):,} {unit}" for unit in ("documents", "bytes", "tokens"))
    explanation = (
        "A language model that predicts a text well can also compress the text well, so compression programs are "
        "baselines. "
        f"At {number(bpb, 2)} bits per byte, the model could compress this text to {percent(bpb / 8, 0)} of its size."
    )
    level = evaluation.number("interval_level") or 0.95
    note = f"The text has {counts}. The whisker is the {percent(level, 0)} confidence interval over documents."
    evaluated = run.evaluated_output(output)
    name = f" Model: {evaluated.directory.name}/." if evaluated else ""
    data = table(title, ("model or program", "bits per byte", "better"), cells)
    drawn = figure(title, draw_bar_chart("bpb", title, description, rows), note=note + name, data=data)
    return [tag("h3", "Language modeling"), tag("p", explanation), drawn]


def _more(run: RunRecord) -> list[Child]:
    """Return the other evaluations, which are evaluations on other texts and evaluations of fine-tuned models."""
    main = run.stage(EVALUATE)
    rows = []
    for output in run.outputs:
        shown = output is main or output.facts.part("tasks")
        if output.stage == EVALUATE and not shown and output.facts.words("summary"):
            model = run.evaluated_output(output)
            name = f"{model.directory.name}/" if model else "not in this run"
            rows.append([f"{output.directory.name}/", name, truncate(output.facts.words("summary"), 300)])
    if not rows:
        return []
    return [tag("h3", "Other evaluations"), table("Other evaluations", ("evaluation", "model", "result"), rows)]


def _answers(run: RunRecord) -> list[Child]:
    fine_tuned = run.stage(INSTRUCT)
    held_out = fine_tuned.facts.part("held_out") if fine_tuned else Facts(None)
    after, before = held_out.estimate("fine_tuned", key="loss"), held_out.estimate("base", key="loss")
    if after is None:
        return []
    rows = [Bar("fine-tuned model", interval(after), after.value, after.low, after.high, accent=True)]
    if before is not None:
        rows.append(Bar("base model", interval(before), before.value, before.low, before.high))
    title = "Loss on held-out answers in nats per token (lower is better)"
    description = f"Bar chart of the loss: {'; '.join(f'{row.label} {row.shown}' for row in rows)}."
    counts = f"{pluralize(held_out.count('responses'), 'answer')}, {pluralize(held_out.count('tokens'), 'token')}."
    best = held_out.words("base", "format")
    note = [
        counts,
        f" Prompt format of the base model: {truncate(best, 120)}." if best else None,
        f" Scored tokens: {truncate(counted, 160)}." if (counted := held_out.words("counted")) else None,
    ]
    data = table(title, ("model", "nats per token"), [[row.label, row.shown] for row in rows], num_numeric=1)
    drawn = figure(title, draw_bar_chart("answers", title, description, rows), note=note, data=data)
    return [tag("h3", "Instruction following"), _difference(held_out), drawn]


def _difference(held_out: Facts) -> Html | None:
    difference = held_out.estimate("difference", key="loss")
    if difference is None:
        return None
    relation = comparison(difference.low, difference.high)
    result = {
        "better": "The fine-tuned model is better than the base model.",
        "worse": "The fine-tuned model is worse than the base model.",
        "not distinguishable": "The models do not differ significantly, because the interval of the difference "
        "contains 0.",
    }.get(relation, "The interval of the difference is unknown.")
    shown = f" Difference in loss, fine-tuned minus base: {interval(difference)} nats per token"
    return tag("p", tag("strong", result), f"{shown} (paired bootstrap over answers, 95 %).")


_CLASSIFICATION_METRICS = (
    ("accuracy", "Accuracy (higher is better)"),
    ("exact", "Exact match of all labels of a text (higher is better)"),
    ("micro_f1", "Micro-averaged F1 (higher is better)"),
    ("macro_f1", "Macro-averaged F1 (higher is better)"),
)


def _classes(run: RunRecord) -> list[Child]:
    fine_tuned = run.stage(CLASSIFY)
    facts = fine_tuned.facts if fine_tuned else Facts(None)
    test = facts.part("test")
    metrics = [(key, title) for key, title in _CLASSIFICATION_METRICS if test.estimate(key) is not None]
    if not metrics:
        return []
    labels = [label.words() for label in facts.rows("labels")]
    majority = truncate(facts.words("majority", "label"), 16)
    parts: list[Child] = [
        tag("h3", "Classification"),
        tag("p", _class_summary(facts, len(labels))),
        _calibration(facts),
    ]
    for key, title in metrics:
        classifiers = [
            ("this model", test.estimate(key)),
            ("TF-IDF + logistic regression", facts.estimate("tfidf", key)),
            (f"majority class “{majority}”", _point(facts.number("majority", key))),
        ]
        rows = [
            Bar(name, percent_interval(found), found.value, found.low, found.high, accent=index == 0)
            for index, (name, found) in enumerate(classifiers)
            if found is not None
        ]
        description = f"Bar chart of classifiers: {'; '.join(f'{row.label} {row.shown}' for row in rows)}."
        data = table(title, ("classifier", "value"), [[row.label, row.shown] for row in rows], num_numeric=1)
        parts.append(figure(title, draw_bar_chart(key, title, description, rows, x_max=1.0), data=data))
    counts = [[cell.count() for cell in row.rows()] for row in test.rows("confusion")]
    if labels and len(counts) == len(labels) and all(len(row) == len(labels) for row in counts):
        parts += [draw_confusion_matrix("confusion", labels, counts), _labels(labels, counts, facts)]
    return parts


def _calibration(facts: Facts) -> Html | None:
    """Describe the calibration error, the novelty score, and the accuracy of the model without its lexical head."""
    calibration = facts.part("calibration")
    after = calibration.number("expected_calibration_error", "after")
    before = calibration.number("expected_calibration_error", "before")
    if after is None or before is None:
        return None
    result = f"The expected calibration error is {percent(after)}"
    fitted = calibration.count("fitted_on")
    if fitted:
        result += f", compared with {percent(before)} before temperature scaling on {pluralize(fitted, 'text')}"
    flagged, held_out = facts.number("novelty", "false_alarms"), facts.count("novelty", "held_out")
    novelty = ""
    if flagged is not None:
        texts = pluralize(held_out, "held-out text")
        novelty = f" The novelty score flags {percent(flagged)} of {texts} as out of distribution."
    alone = facts.number("model_alone", "accuracy", "value")
    lexical = ""
    if alone is not None:
        lexical = (
            f" The accuracy without lexical.safetensors is {percent(alone)}. transformers loads the model without "
            "this file."
        )
    return tag("p", f"{result}.{novelty}{lexical}")


def _point(value: float | None) -> Estimate | None:
    return None if value is None else Estimate(value)


def _class_summary(facts: Facts, labels: int) -> str:
    summary = f"{pluralize(labels, 'label')}. The test set has {pluralize(facts.count('test', 'examples'), 'example')}."
    gain = facts.estimate("tfidf", "difference", key="accuracy")
    if gain is None or gain.low is None or gain.high is None:
        return summary
    relation = "does not differ significantly from"
    if gain.low > 0 or gain.high < 0:
        relation = "is higher than" if gain.low > 0 else "is lower than"
    shown = interval(gain, 1, scale=100)
    return (
        f"{summary} Its accuracy {relation} the accuracy of TF-IDF with logistic regression, a strong baseline on "
        f"short texts (paired difference in percentage points: {shown})."
    )


def _labels(labels: Sequence[str], counts: Sequence[Sequence[int]], facts: Facts) -> Html:
    """Return a table of the recall and precision of each label."""
    rows = []
    for index, label in enumerate(labels[:_MAX_LABELS]):
        correct, true, predicted = counts[index][index], sum(counts[index]), sum(row[index] for row in counts)
        trained = facts.number("counts", "train", label)
        rows.append(
            [
                truncate(label, 60),
                "–" if trained is None else f"{trained:,.0f}",
                f"{true:,}",
                percent(correct / true) if true else "–",
                percent(correct / predicted) if predicted else "–",
            ]
        )
    columns = ("label", "training examples", "test examples", "recall", "precision")
    more = len(labels) - _MAX_LABELS
    note = tag("p", f"{pluralize(more, 'label')} more.", class_="note") if more > 0 else None
    return details("Metrics per label", join(table("Metrics per label", columns, rows, num_numeric=4), note))
