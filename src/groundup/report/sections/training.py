"""The training section: the plan and the loss of pretraining, and the loss of each fine-tuning stage."""

from __future__ import annotations

import math
from collections.abc import Callable

from groundup.core.console import format_count
from groundup.core.facts import Facts
from groundup.core.plural import pluralize
from groundup.report.charts import Axis, ChartLine, draw_line_chart, figure
from groundup.report.charts.lines import Point
from groundup.report.curves import Curve, smooth, thin
from groundup.report.formatting import approximate, duration, number, percent, tick
from groundup.report.html import Child, Html, table, tag
from groundup.report.record import CLASSIFY, INSTRUCT, PRETRAIN, TOKENIZE, RunRecord, StageOutput

_MAX_TABLE_ROWS = 16
_COLUMNS = {"accuracy": "accuracy", "grad_norm": "gradient norm", "lr_factor": "learning rate / peak"}


def loss_chart(
    name: str,
    title: str,
    curve: Curve,
    unit: str,
    *,
    counted: str = "tokens",
    bytes_per_token: float | None = None,
    height: int = 300,
) -> Html | None:
    """Draw the loss of each step and the moving average of the loss.

    Args:
        name: Suffix of the element ids, which must be unique in the page.
        title: Title of the chart.
        curve: Training metrics.
        unit: Unit of the loss, such as "nats per token".
        counted: Plural noun for the items that `tokens_seen` counts, such as "tokens" or "texts".
        bytes_per_token: Average number of bytes per token. If given, the chart has a second axis in bits per byte.
        height: Height of the chart in pixels.

    Returns:
        The chart, or None if the log does not contain a loss.
    """
    raw = curve.points("loss")
    if not raw:
        return None
    smoothed = smooth(raw)
    seen, last = smoothed[-1]
    to_bpb = _bits_per_byte(bytes_per_token) if bytes_per_token else None

    def format_loss(loss: float) -> str:
        bits = f", about {number(to_bpb(loss), 2)} bits per byte" if to_bpb else ""
        return f"{number(loss, 2)} {unit}{bits}"

    def hover(point: Point) -> str:
        return f"{format_count(point[0], counted)}: {format_loss(point[1])}"

    note = (
        f"Final value of the moving average: {format_loss(last)}. The thin line is the loss of each step, and the "
        "thick line is the moving average."
    )
    description = (
        f"Training loss, from {format_loss(smoothed[0][1])} to {format_loss(last)} after {tick(seen)} {counted}."
    )
    drawn = draw_line_chart(
        f"loss-{name}",
        title,
        description,
        [ChartLine(thin(raw), accent=False), ChartLine(thin(smoothed))],
        Axis(_plain, (lambda value: number(to_bpb(value), 1)) if to_bpb else None),
        x_label=tick,
        hover=hover,
        height=height,
    )
    units = f"Right axis: {unit}. Left axis: bits per byte." if to_bpb else f"Vertical axis: {unit}."
    axes = tag("p", f"{units} Horizontal axis: {counted} seen.", class_="axis-note")
    return figure(title, tag("div", drawn, axes), note=note, data=_loss_table(curve, unit, counted, to_bpb))


def small_chart(name: str, title: str, note: str, curve: Curve, key: str, *, counted: str = "tokens") -> Html | None:
    """Draw one metric of the log as a small chart. Return None if the log does not contain the metric."""
    points = thin(curve.points(key))
    if not points:
        return None
    drawn = draw_line_chart(
        name,
        title,
        f"{title} over {counted} seen. Final value: {number(points[-1][1])}.",
        [ChartLine(points)],
        Axis(_plain, from_zero=True),
        x_label=tick,
        height=150,
    )
    some = points[:: math.ceil(len(points) / _MAX_TABLE_ROWS)]
    data = table(title, (f"{counted} seen", title), [(f"{x:,.0f}", number(y)) for x, y in some], num_numeric=2)
    return figure(title, drawn, note=note, data=data)


def _bits_per_byte(bytes_per_token: float) -> Callable[[float], float]:
    return lambda nats: nats / (math.log(2) * bytes_per_token)


def _loss_table(curve: Curve, unit: str, counted: str, to_bpb: Callable[[float], float] | None) -> Html:
    stride = math.ceil(len(curve.steps) / _MAX_TABLE_ROWS)
    chosen = list(curve.steps[stride - 1 :: stride])
    if chosen[-1] is not curve.steps[-1]:
        chosen.append(curve.steps[-1])
    more = {key: name for key, name in _COLUMNS.items() if any(step.number(key) is not None for step in chosen)}
    rows: list[list[Child]] = []
    for step in chosen:
        loss = step.number("loss")
        row: list[Child] = [f"{step.count('step'):,}", f"{step.count('tokens_seen'):,}", number(loss)]
        if to_bpb:
            row.append(number(None if loss is None else to_bpb(loss)))
        rows.append([*row, *(number(step.number(key)) for key in more)])
    bits = ["bits per byte"] if to_bpb else []
    return table(
        "Selected steps",
        ["step", f"{counted} seen", f"loss, {unit}", *bits, *more.values()],
        rows,
        num_numeric=3 + len(bits) + len(more),
    )


def _plain(value: float) -> str:
    return f"{value:g}"


def training_section(run: RunRecord) -> list[Child]:
    """Return the content of the training section, which is empty if no training stage has run."""
    parts: list[Child] = []
    base = run.stage(PRETRAIN)
    if base:
        parts.append(_summary(base))
        if base.curve:
            tokens = run.stage(TOKENIZE)
            bytes_per_token = tokens.facts.number("bytes_per_token") if tokens else None
            title = "Training loss"
            parts.append(loss_chart("pretrain", title, base.curve, "nats per token", bytes_per_token=bytes_per_token))
            rate = small_chart("rate", "Learning rate", "Fraction of the peak learning rate.", base.curve, "lr_factor")
            norm = small_chart("norm", "Gradient norm", "Spikes can indicate instability.", base.curve, "grad_norm")
            parts.append(tag("div", rate, norm, class_="pair"))
        parts += [tag("h3", "Plan and throughput"), _plan(base), *_prediction(base.facts.part("prediction"))]
    parts += _fine_tuning(run.stage(INSTRUCT), "instruct", "nats per token", "trained tokens")
    parts += _fine_tuning(run.stage(CLASSIFY), "classify", "nats per text", "texts")
    return parts


def _fine_tuning(output: StageOutput | None, task: str, unit: str, counted: str) -> list[Child]:
    if output is None:
        return []
    title = "Instruction tuning" if task == "instruct" else "Fine-tuning of the classifier"
    parts: list[Child] = [tag("h3", title), tag("p", _examples(output.facts))]
    if output.curve and len(output.curve.steps) > 1:
        parts.append(loss_chart(task, "Training loss", output.curve, unit, counted=counted, height=220))
        note = "Fraction of correct predictions in each step."
        parts.append(
            small_chart(f"{task}-accuracy", "Training accuracy", note, output.curve, "accuracy", counted=counted)
        )
    return parts


def _summary(base: StageOutput) -> Html:
    seen = base.facts.count("tokens_seen")
    epochs = base.facts.number("plan", "epochs")
    if epochs and (steps := base.facts.count("steps")):  # A time limit can end training early.
        epochs *= steps / base.facts.count("plan", "total_steps")
    epochs_words = "" if epochs is None else f" ({number(epochs, 2)} epochs)"
    return tag(
        "p",
        f"The model was trained on {approximate(seen)} tokens{epochs_words}. "
        "In each step, the model predicts the next tokens of a batch. The loss is the mean negative log-probability of "
        "the actual next tokens. The optimizer minimizes this loss.",
    )


def _plan(base: StageOutput) -> Html:
    """Return a table of the architecture, the hyperparameters and the throughput."""
    facts, plan, shape = base.facts, base.facts.part("plan"), base.facts.part("plan", "model")
    rate = base.curve.tokens / base.curve.seconds if base.curve and base.curve.seconds else None
    flops = facts.number("flops_per_token")
    peak = facts.number("machine", "peak_flops")
    batch = plan.count("micro_batch_size") * plan.count("grad_accum_steps") * shape.count("context_length")
    heads = (
        f"{shape.count('n_heads')}, head size {shape.count('head_dim')} ({shape.count('n_kv_heads')} key-value heads)"
    )
    sizes = f"hidden size {shape.count('dim')}, FFN size {shape.count('ffn_dim')}"
    rows: list[tuple[str, str | None]] = [
        ("family", shape.words("family")),
        ("parameters", f"{facts.count('parameters'):,}"),
        ("architecture", f"{pluralize(shape.count('n_layers'), 'layer')}, {sizes}"),
        ("attention heads", heads),
        ("context length", pluralize(shape.count("context_length"), "token")),
        ("tokens seen", f"{facts.count('tokens_seen'):,}"),
        ("steps", f"{facts.count('steps') or plan.count('total_steps'):,} of {batch:,} tokens" if batch else None),
        ("training FLOPs", f"{flops * facts.count('tokens_seen'):.2e}" if flops else None),
        ("throughput", f"{rate:,.0f} tokens/s" if rate else None),
        ("MFU", _mfu(rate, flops, peak)),
        ("time", duration(base.artifact.seconds)),
        ("compute dtype", facts.words("machine", "compute_dtype")),
        ("compiled", "yes" if facts.at("machine", "compile") is True else "no"),
        ("learning rates", _rates(plan.part("optimizer"))),
    ]
    cells = [(name, value) for name, value in rows if value]
    return table("Plan and throughput", ("", ""), cells, class_="facts")


def _prediction(facts: Facts) -> list[Child]:
    """Return a table of the values that were predicted before training and the measured values."""
    rows = []
    for name, key, show in (
        ("training time", "seconds", duration),
        ("peak memory", "memory_bytes", lambda value: format_count(value, "bytes")),
        ("bits per byte", "bits_per_byte", number),
    ):
        predicted, measured = facts.number("predicted", key), facts.number("measured", key)
        if predicted and measured:
            error = f"{100 * (predicted / measured - 1):+.0f} %".replace("-", "−")
            rows.append([name, show(predicted), show(measured), error])
    low, high = (facts.number("predicted", "bits_per_byte_interval", index) for index in (0, 1))
    note = f"90 % interval of the predicted bits per byte: {number(low, 2)} to {number(high, 2)}." if low else ""
    if not rows:
        return []
    columns = ("", "predicted", "measured", "error")
    return [
        tag("h3", "Prediction"),
        table("Prediction before training", columns, rows, num_numeric=3),
        tag("p", note, class_="note") if note else None,
    ]


def _mfu(rate: float | None, flops: float | None, peak: float | None) -> str | None:
    """Format the model FLOPs utilization (Chowdhery et al. 2022, arXiv:2204.02311)."""
    if not (rate and flops and peak):
        return None
    return f"{percent(rate * flops / peak, 0)} of {format_count(peak, 'FLOP/s')}, this machine's matmul throughput"


def _rates(optimizer: Facts) -> str | None:
    known = [(name, optimizer.number(f"{name}_lr")) for name in ("matrix", "embedding", "head", "vector")]
    return ", ".join(f"{name} {value:g}" for name, value in known if value) or None


def _examples(facts: Facts) -> str:
    """Describe the fine-tuning examples in one paragraph."""
    columns = facts.words("columns").replace("->", "→").rstrip(". ")
    sentences = [f"{columns}."] if columns else []
    counts = facts.part("examples") or Facts(
        {split: sum(n.count() for _, n in facts.items("counts", split)) for split in ("train", "test")}
    )
    if counts.count("train"):
        splits = f"{pluralize(counts.count('train'), 'training example')}, {counts.count('test'):,} held out"
        epochs = facts.number("epochs")
        sentences.append(f"{splits}; {number(epochs, 1)} epochs." if epochs is not None else f"{splits}.")
    drops = [
        f"{found.count():,} {reason}"
        for reason, found in [*facts.items("examples", "dropped"), *facts.items("dropped")]
    ]
    if drops:
        sentences.append(f"Dropped: {'; '.join(drops[:8])}.")
    return " ".join(sentences) or "The record does not describe the examples."
