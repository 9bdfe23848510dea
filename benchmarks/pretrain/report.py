"""The tables that a person reads, and the figures against the bars."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.pretrain.shapes import Shape
from benchmarks.pretrain.speed import Timed
from benchmarks.pretrain.verdicts import Figure, over_rounds

_BARS = {
    "shape_a_vs_default": 4.5,
    "shape_a_vs_bf16": 1.8,
    "shape_a_vs_bf16_malloc": 1.4,
    "shape_b_vs_default": 3.5,
    "shape_b_vs_bf16": 1.5,
    "mfu_a": 0.45,
    "mfu_b": 0.45,
    "rss_ratio_b": 1.0,
    "bpb_margin": 0.10,
}
KEYS = tuple(_BARS)
_GROUPS = {"default": "default", "bf16": "bf16", "bf16_malloc": "malloc"}


def figures(shape: Shape, timed: Sequence[Timed]) -> dict[str, Figure]:
    """What the rounds at a CPU shape say about its bars; a bar whose peers are missing is left out.

    Each figure is given for ours with AdamW, and, its name ending in `_muon`, with Muon.
    """
    found: dict[str, Figure] = {}
    for own, suffix in _ours(timed):
        for versus, group in _GROUPS.items():
            key = f"shape_{shape.name}_vs_{versus}"
            rivals = [entry for entry in timed if entry.contender.group == group and _whole(entry, own)]
            if shape.name == "b":  # its bars name nanoGPT
                rivals = [entry for entry in rivals if entry.contender.driver == "nanogpt"]
            if rivals:
                # In each round against whoever was fastest in it: noise helps the peers.
                fastest = [max(rates) for rates in zip(*(entry.tokens_per_second for entry in rivals), strict=True)]
                ratios = [rate / best for rate, best in zip(own.tokens_per_second, fastest, strict=True)]
                found[key + suffix] = over_rounds(ratios, _BARS.get(key, 1.0))
        key = f"mfu_{shape.name}"
        found[key + suffix] = over_rounds(own.mfu, _BARS.get(key, 0.45))
        nanogpt = [entry for entry in timed if entry.contender.driver == "nanogpt" and _whole(entry, own)]
        if nanogpt:
            least = [min(peaks) for peaks in zip(*(entry.peak_bytes for entry in nanogpt), strict=True)]
            ratios = [peak / other for peak, other in zip(own.peak_bytes, least, strict=True)]
            found[f"rss_ratio_{shape.name}{suffix}"] = over_rounds(ratios, 1.0, at_least=False)
    return found


def gpu_figures(timed: Sequence[Timed]) -> dict[str, Figure]:
    """The same for a GPU: never slower than the peers, and half of the products' speed."""
    found: dict[str, Figure] = {}
    for own, suffix in _ours(timed):
        found[f"mfu{suffix}"] = over_rounds(own.mfu, 0.5)
        for entry in timed:
            if entry.contender.group == "default" and _whole(entry, own):
                ratios = [a / b for a, b in zip(own.tokens_per_second, entry.tokens_per_second, strict=True)]
                found[f"vs_{entry.contender.name}{suffix}"] = over_rounds(ratios, 1.0)
    return found


def speed_table(shape: Shape, timed: Sequence[Timed], products: Sequence[float]) -> str:
    """Everyone's medians at one shape."""
    rows = [("", "params", "MFLOP/token", "tokens/s", "MFU", "peak GB", "cold s", "warm s")]
    for entry in sorted(timed, key=lambda entry: -statistics.median(entry.tokens_per_second or [0.0])):
        if not entry.tokens_per_second:
            continue
        rows.append(
            (
                entry.contender.name,
                f"{entry.parameters / 1e6:.1f} M",
                f"{shape.flops_per_token(entry.product_parameters) / 1e6:.1f}",
                f"{statistics.median(entry.tokens_per_second):,.0f}",
                f"{statistics.median(entry.mfu):.1%}",
                f"{statistics.median(entry.peak_bytes) / 1e9:.2f}",
                "-" if entry.cold_seconds is None else f"{entry.cold_seconds:.0f}",
                f"{statistics.median(entry.warm_seconds):.0f}",
            )
        )
    head = (
        f"Shape {shape.name}: {shape.n_layers} layers x {shape.dim}, {shape.n_heads} heads, vocabulary "
        f"{shape.vocab_size:,}, {shape.rows} x {shape.context} tokens a step. Medians of {len(products)} rounds; "
    )
    if products:
        head += f"bf16 product {statistics.median(products) / 1e12:.2f} TFLOP/s."
    dropped = [f"  {entry.contender.name}: left out, {entry.failure}" for entry in timed if entry.failure]
    return "\n".join([head, _table(rows), *dropped])


def quality_table(result: dict[str, Any]) -> str:
    """Everyone's bits per byte after equal time."""
    rows = [("", "bits/byte", "seconds", "to step 1", "steps", "tokens", "params")]
    for name, run in sorted(result["runs"].items(), key=lambda item: item[1].get("bpb") or 99):
        if run.get("bpb") is not None:
            rows.append(
                (
                    name,
                    f"{run['bpb']:.4f}",
                    f"{run['seconds']:.0f}",
                    f"{run['to_first_step_seconds']:.0f}",
                    f"{run['steps']:,}",
                    f"{run['tokens']:,}",
                    f"{run['parameters'] / 1e6:.1f} M",
                )
            )
    dropped = [f"  {name}: left out, {run['failure']}" for name, run in result["runs"].items() if "failure" in run]
    return "\n".join([f"Quality after {result['minutes']:g} minutes", _table(rows), *dropped])


def figure_line(name: str, figure: Figure) -> str:
    """One figure beside its bar."""
    bound = "at least" if figure.at_least else "at most"
    return (
        f"{name}: {figure.estimate:.3f} ({figure.low:.3f} to {figure.high:.3f}), "
        f"bar {bound} {figure.bar:g}: {figure.verdict}"
    )


def details(shape: Shape, timed: Sequence[Timed], products: Sequence[float]) -> dict[str, Any]:
    """Every round's raw figures."""
    return {
        "shape": shape.to_json() | {"product_parameters": shape.product_parameters},
        "product_tflops": [product / 1e12 for product in products],
        "contenders": {
            entry.contender.name: {
                "group": entry.contender.group,
                "dtype": entry.contender.dtype if entry.contender.driver != "ours" else "as the machine decides",
                "parameters": entry.parameters,
                "product_parameters": entry.product_parameters,
                "flops_per_token": shape.flops_per_token(entry.product_parameters),
                "tokens_per_second": entry.tokens_per_second,
                "mfu": entry.mfu,
                "peak_bytes": entry.peak_bytes,
                "cold_seconds_to_step_1": entry.cold_seconds,
                "warm_seconds_to_step_1": entry.warm_seconds,
                "failure": entry.failure,
            }
            for entry in timed
        },
    }


def _ours(timed: Sequence[Timed]) -> list[tuple[Timed, str]]:
    suffixes = {"ours": "", "muon": "_muon", "fp8": "_fp8"}
    return [
        (entry, suffixes[entry.contender.group])
        for entry in timed
        if entry.contender.group in suffixes and entry.tokens_per_second and entry.failure is None
    ]


def _whole(entry: Timed, own: Timed) -> bool:
    return len(entry.tokens_per_second) == len(own.tokens_per_second)


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in enumerate(cells))
        for cells in (list(zip(row, widths, strict=True)) for row in rows)
    ]
    return "\n".join(f"  {line}" for line in lines)
