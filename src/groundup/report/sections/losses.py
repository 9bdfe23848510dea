"""The charts of a training run: its loss, smoothed, and small strips for what else its log holds."""

from __future__ import annotations

import math
from collections.abc import Callable

from groundup.core.console import format_count
from groundup.report.charts import Axis, ChartLine, draw_line_chart, figure
from groundup.report.charts.lines import Point
from groundup.report.curves import Curve, smooth, thin
from groundup.report.html import Child, Html, table, tag
from groundup.report.words import number, tick

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
