"""Text tables of estimates, for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from groundup.core.console import format_count
from groundup.core.markdown import markdown_table
from groundup.model import ModelConfig
from groundup.train.planner.figures import describe_shape

_HOUR, _DAY, _YEAR = 3600.0, 24 * 3600.0, 365.25 * 24 * 3600.0
_SHOWN_HISTORY = 5


def as_table(facts: Mapping[str, Any]) -> str:
    """Return an estimate, estimates for other training times, and earlier predictions, as text.

    Args:
        facts: Result of `groundup plan` as JSON values.
    """
    parts = []
    if "model" in facts:
        rows = list(_rows(facts))
        parts.append("\n".join(f"{name:<12} {value}" for name, value in rows))
    if runs := facts.get("by_minutes"):
        columns = ("minutes", "parameters", "tokens", "epochs", "bits per byte")
        cells = [
            (
                f"{run['seconds'] / 60:,.1f}",
                format_count(run["parameters"]),
                format_count(run["tokens"]),
                f"{run['epochs']:,.1f}",
                _interval(run["bits_per_byte"], run["bits_per_byte_interval"]),
            )
            for run in runs
        ]
        parts.append(markdown_table(columns, cells))
    if history := facts.get("history"):
        columns = ("earlier run", "parameters", "minutes", "memory", "bits per byte")
        parts.append(markdown_table(columns, [_compared(run) for run in history[-_SHOWN_HISTORY:]]))
    return "\n\n".join(part.rstrip() for part in parts)


def _rows(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    shape = ModelConfig.from_json(facts["model"])
    hardware, hours = facts["hardware"], facts["device_hours"]
    yield "model", describe_shape(shape)
    yield "parameters", f"{facts['parameters']:,} ({facts['matmul_parameters']:,} in matmuls)"
    yield "tokens", f"{facts['tokens']:,} ({facts['epochs']:,.2f} epochs), {facts['batch_tokens']:,} per step"
    yield "steps", f"{facts['steps']:,}, weight decay {facts['weight_decay']:g}"
    if facts["num_teachers"]:
        yield "teachers", f"{facts['num_teachers']} models with other seeds, trained first"
    yield "compute", f"{facts['flops']:.3g} FLOPs ({facts['flops_with_attention']:.3g} with attention)"
    low, high = facts["seconds_interval"]
    devices = f"{hardware['count']} x {hardware['name']}" if hardware["count"] > 1 else hardware["name"]
    yield "time", f"{_time(facts['seconds'])} ({_time(low)} to {_time(high)}) on {devices}"
    yield "", hardware["basis"]
    if facts["dollars"] is not None:
        cheap, dear = facts["dollars"]
        spent = f"${cheap:,.0f}" if cheap == dear else f"${cheap:,.0f} to ${dear:,.0f}"
        years = f", {hours * _HOUR / _YEAR:,.0f} GPU-years" if hours * _HOUR > _YEAR else ""
        yield "cost", f"{spent} for {hours:,.0f} GPU-hours{years}"
    yield "memory", f"{format_count(facts['memory_bytes'], 'bytes')} on one device without sharding"
    yield "disk", f"{format_count(facts['disk_bytes'], 'bytes')} for the model and a checkpoint"
    yield "predicted", f"{_interval(facts['bits_per_byte'], facts['bits_per_byte_interval'])} bits per byte"


def _interval(value: float, interval: Sequence[float]) -> str:
    return f"{value:.3f} ({interval[0]:.2f} to {interval[1]:.2f})"


def _time(seconds: float) -> str:
    """Return a duration in the largest suitable unit."""
    for unit, name in ((_YEAR, "years"), (_DAY, "days"), (_HOUR, "hours"), (60.0, "minutes")):
        if seconds >= 1.5 * unit:
            return f"{seconds / unit:,.1f} {name}"
    return f"{seconds:,.0f} seconds"


def _compared(run: Mapping[str, Any]) -> tuple[str, ...]:
    predicted, measured = run["predicted"], run["measured"]

    def both(name: str, scale: float, digits: int) -> str:
        if predicted.get(name) is None or measured.get(name) is None:
            return ""
        error = predicted[name] / measured[name] - 1
        return f"{predicted[name] / scale:,.{digits}f}, measured {measured[name] / scale:,.{digits}f} ({error:+.0%})"

    when = f"{run['at'][:10]} {run['at'][11:16]}"
    parameters = format_count(run["parameters"])
    return when, parameters, both("seconds", 60, 1), both("memory_bytes", 1e9, 2), both("bits_per_byte", 1, 3)
