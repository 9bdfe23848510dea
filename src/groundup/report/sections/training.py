"""How it learned: the plan, the loss as it fell, and the same for what was tuned afterwards."""

from __future__ import annotations

import math
from collections.abc import Callable

from groundup.core.console import format_count
from groundup.core.facts import Facts
from groundup.report.charts import Axis, ChartLine, draw_line_chart, figure
from groundup.report.charts.lines import Point
from groundup.report.curves import Curve, smooth, thin
from groundup.report.html import Child, Html, table, tag
from groundup.report.record import CLASSIFY, INSTRUCT, PRETRAIN, TOKENIZE, RunRecord, StageOutput
from groundup.report.words import count, duration, large, number, percent, tick

_TABLE_ROWS = 16
_COLUMNS = {"accuracy": "accuracy", "grad_norm": "gradient norm", "lr_factor": "learning rate, share"}


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
    """The loss of each step and its running mean; None where no step has a loss.

    Args:
        name: makes ids, unique in the page.
        unit: of the loss: "nats a token".
        counted: what the log's `tokens_seen` counts.
        bytes_per_token: where it is known, the same losses are also labelled in bits per byte.
    """
    raw = curve.points("loss")
    if not raw:
        return None
    soft = smooth(raw)
    seen, last = soft[-1]
    to_bpb = _bits_per_byte(bytes_per_token) if bytes_per_token else None

    def told(loss: float) -> str:
        bits = f", about {number(to_bpb(loss), 2)} bits per byte" if to_bpb else ""
        return f"{number(loss, 2)} {unit}{bits}"

    def hover(point: Point) -> str:
        return f"{format_count(point[0], counted)}: {told(point[1])}"

    note = f"Smoothed, it ends at {told(last)}. The thin line is each step, the thick one a running mean."
    description = (
        f"Training loss, from {told(soft[0][1])} at the beginning to {told(last)} after {tick(seen)} {counted}."
    )
    drawn = draw_line_chart(
        f"loss-{name}",
        title,
        description,
        [ChartLine(thin(raw), accent=False), ChartLine(thin(soft))],
        Axis(_plain, (lambda value: number(to_bpb(value), 1)) if to_bpb else None),
        x_label=tick,
        hover=hover,
        height=height,
    )
    units = f"Right: {unit}; left: bits per byte of the training text." if to_bpb else f"In {unit}."
    under = tag("p", f"{units} Below: {counted} seen.", class_="axis-note")
    return figure(title, tag("div", drawn, under), note=note, figures=_loss_table(curve, unit, counted, to_bpb))


def strip(name: str, title: str, note: str, curve: Curve, key: str, *, counted: str = "tokens") -> Html | None:
    """One value of the log, small, from zero; None where no step has it."""
    points = thin(curve.points(key))
    if not points:
        return None
    drawn = draw_line_chart(
        name,
        title,
        f"{title} over the {counted} seen; it ends at {number(points[-1][1])}.",
        [ChartLine(points)],
        Axis(_plain, from_zero=True),
        x_label=tick,
        height=150,
    )
    some = points[:: math.ceil(len(points) / _TABLE_ROWS)]
    figures = table(title, (f"{counted} seen", title), [(f"{x:,.0f}", number(y)) for x, y in some], figures=2)
    return figure(title, drawn, note=note, figures=figures)


def _bits_per_byte(bytes_per_token: float) -> Callable[[float], float]:
    return lambda nats: nats / (math.log(2) * bytes_per_token)


def _loss_table(curve: Curve, unit: str, counted: str, to_bpb: Callable[[float], float] | None) -> Html:
    stride = math.ceil(len(curve.steps) / _TABLE_ROWS)
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
        "Some of the steps",
        ["step", f"{counted} seen", f"loss, {unit}", *bits, *more.values()],
        rows,
        figures=3 + len(bits) + len(more),
    )


def _plain(value: float) -> str:
    return f"{value:g}"


def training(run: RunRecord) -> list[Child]:
    """The parts of the section; none where nothing was trained."""
    parts: list[Child] = []
    base = run.stage(PRETRAIN)
    if base:
        parts.append(_told(base))
        if base.curve:
            tokens = run.stage(TOKENIZE)
            bytes_per_token = tokens.facts.number("bytes_per_token") if tokens else None
            title = "Loss while it trained"
            parts.append(loss_chart("pretrain", title, base.curve, "nats a token", bytes_per_token=bytes_per_token))
            rate = strip("rate", "Learning rate", "Share of the highest rate.", base.curve, "lr_factor")
            norm = strip("norm", "Gradient norm", "Spikes would be a sign of trouble.", base.curve, "grad_norm")
            parts.append(tag("div", rate, norm, class_="pair"))
        parts += [tag("h3", "The plan, and how it went"), _plan(base)]
    parts += _tuning(run.stage(INSTRUCT), "answer", "nats a token", "trained tokens")
    parts += _tuning(run.stage(CLASSIFY), "classify", "nats a text", "texts")
    return parts


def _tuning(tuned: StageOutput | None, task: str, unit: str, counted: str) -> list[Child]:
    if tuned is None:
        return []
    parts: list[Child] = [tag("h3", f"Tuning it to {task}"), tag("p", _examples(tuned.facts))]
    if tuned.curve and len(tuned.curve.steps) > 1:
        parts.append(loss_chart(task, "Loss while it was tuned", tuned.curve, unit, counted=counted, height=220))
        note = "Share of the training examples of each step that were right."
        parts.append(
            strip(f"{task}-accuracy", "Accuracy while it was tuned", note, tuned.curve, "accuracy", counted=counted)
        )
    return parts


def _told(base: StageOutput) -> Html:
    seen = base.facts.count("tokens_seen")
    epochs = base.facts.number("plan", "epochs")
    if epochs and (steps := base.facts.count("steps")):  # as many as there was time for
        epochs *= steps / base.facts.count("plan", "total_steps")
    often = "" if epochs is None else f", {number(epochs, 2)} times through the text"
    return tag(
        "p",
        f"The model read {large(seen)} tokens{often}. At each step it guessed every next token of a batch of text; "
        "the loss says how far off its guesses were, and its weights were moved a little to lower it.",
    )


def _plan(base: StageOutput) -> Html:
    """The shape, and how fast it went."""
    facts, plan, shape = base.facts, base.facts.part("plan"), base.facts.part("plan", "model")
    rate = base.curve.tokens / base.curve.seconds if base.curve and base.curve.seconds else None
    flops = facts.number("flops_per_token")
    peak = facts.number("machine", "peak_flops")
    batch = plan.count("micro_batch_size") * plan.count("grad_accum_steps") * shape.count("context_length")
    heads = f"{shape.count('n_heads')} of {shape.count('head_dim')} features ({shape.count('n_kv_heads')} key-value)"
    layers = (
        f"{count(shape.count('n_layers'), 'layer')}, {shape.count('dim')} wide, feed-forward {shape.count('ffn_dim')}"
    )
    rows: list[tuple[str, str | None]] = [
        ("family", shape.words("family")),
        ("parameters", f"{facts.count('parameters'):,}"),
        ("shape", layers),
        ("attention heads", heads),
        ("context", count(shape.count("context_length"), "token")),
        ("tokens seen", f"{facts.count('tokens_seen'):,}"),
        ("steps", f"{facts.count('steps') or plan.count('total_steps'):,} of {batch:,} tokens" if batch else None),
        ("training FLOPs", f"{flops * facts.count('tokens_seen'):.2e}" if flops else None),
        ("speed", f"{rate:,.0f} tokens/s" if rate else None),
        ("MFU", _mfu(rate, flops, peak)),
        ("time", duration(base.artifact.seconds)),
        ("precision", facts.words("machine", "compute_dtype")),
        ("compiled", "yes" if facts.at("machine", "compile") is True else "no"),
        ("learning rates", _rates(plan.part("optimizer"))),
    ]
    cells = [(name, value) for name, value in rows if value]
    return table("The plan, and how it went", ("", ""), cells, class_="facts")


def _mfu(rate: float | None, flops: float | None, peak: float | None) -> str | None:
    """Model FLOPs utilization (Chowdhery et al. 2022, arXiv:2204.02311), of this machine's own matmul throughput."""
    if not (rate and flops and peak):
        return None
    return f"{percent(rate * flops / peak, 0)} of {format_count(peak, 'FLOP/s')}, this machine's matmul throughput"


def _rates(optimizer: Facts) -> str | None:
    known = [(name, optimizer.number(f"{name}_lr")) for name in ("matrix", "embedding", "head", "vector")]
    return ", ".join(f"{name} {value:g}" for name, value in known if value) or None


def _examples(facts: Facts) -> str:
    """What it was tuned on, in one paragraph."""
    columns = facts.words("columns").replace("->", "→").rstrip(". ")
    said = [f"How its table was read: {columns}."] if columns else []
    counts = facts.part("examples") or Facts(
        {split: sum(n.count() for _, n in facts.items("counts", split)) for split in ("train", "test")}
    )
    if counts.count("train"):
        tuned = f"{count(counts.count('train'), 'example')} to train on, {counts.count('test'):,} held out"
        epochs = facts.number("epochs")
        said.append(f"{tuned}; {number(epochs, 1)} times through." if epochs is not None else f"{tuned}.")
    drops = [
        f"{found.count():,} {reason}"
        for reason, found in [*facts.items("examples", "dropped"), *facts.items("dropped")]
    ]
    if drops:
        said.append(f"Dropped: {'; '.join(drops[:8])}.")
    return " ".join(said) or "Tuned on examples."
