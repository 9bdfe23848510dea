"""Functions that compare the results with the targets and print them as tables."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.pretrain.shapes import Shape
from benchmarks.pretrain.speed import Ceilings, Timing
from benchmarks.pretrain.targets import TargetResult, median_over_rounds

_TARGETS = {
    "shape_a_vs_default": 5.0,
    "shape_a_vs_bf16": 2.0,
    "shape_a_vs_bf16_muon": 1.85,
    "shape_a_vs_bf16_malloc": 1.75,
    "shape_a_vs_bf16_malloc_muon": 1.6,
    "shape_a_vs_optimized": 1.75,
    "shape_a_vs_optimized_muon": 1.6,
    "shape_b_vs_default": 3.5,
    "shape_b_vs_bf16": 1.9,
    "shape_b_vs_bf16_muon": 1.5,
    "shape_b_vs_bf16_malloc": 1.6,
    "shape_b_vs_bf16_malloc_muon": 1.3,
    "shape_b_vs_optimized": 1.6,
    "shape_b_vs_optimized_muon": 1.3,
    "mfu_a": 0.45,
    "mfu_b": 0.45,
    "peak_share_a": 0.30,
    "peak_share_quickstart": 0.18,
    "rss_ratio_b": 1.0,
    "bpb_margin": 0.10,
    "encode_mb_s": 30.0,
}
KEYS = (*_TARGETS, "tflops_a", "tflops_quickstart")
_GROUPS = {"default": ("default",), "bf16": ("bf16",), "bf16_malloc": ("malloc",), "optimized": ("malloc", "optimized")}
_MASK_NOTE = (
    "groundup attends only within documents, which makes it about 5 % faster than attention over the whole window. "
    "The other programs attend over the whole window, like the mode 'groundup, no document masks'."
)


def figures(shape: Shape, timings: Sequence[Timing]) -> dict[str, TargetResult]:
    """Return a dict of the results for a shape on a CPU. If a compared program is missing, its result is omitted.

    The names of results of groundup with Muon end in `_muon`, and without document masks in `_unmasked`.
    """
    results: dict[str, TargetResult] = {}
    for own, suffix in _groundup_timings(timings):
        for versus, groups in _GROUPS.items():
            key = f"shape_{shape.name}_vs_{versus}"
            others = [entry for entry in timings if entry.contender.group in groups and _complete(entry, own)]
            # The targets of shape b and of the optimized mode compare groundup only with nanoGPT.
            if shape.name == "b" or versus == "optimized":
                others = [entry for entry in others if entry.contender.driver == "nanogpt"]
            if others:
                # In each round, groundup is compared with the fastest program, so that noise does not favor groundup.
                fastest = [max(rates) for rates in zip(*(entry.tokens_per_second for entry in others), strict=True)]
                ratios = [rate / best for rate, best in zip(own.tokens_per_second, fastest, strict=True)]
                results[key + suffix] = median_over_rounds(ratios, _target(key + suffix, key, 1.0))
        for name, values, default in (("mfu", own.mfu, 0.45), ("peak_share", own.peak_share, 0.3)):
            key = f"{name}_{shape.name}"
            if values:
                results[key + suffix] = median_over_rounds(values, _target(key + suffix, key, default))
        nanogpt = [entry for entry in timings if entry.contender.driver == "nanogpt" and _complete(entry, own)]
        if nanogpt:
            smallest = [min(peaks) for peaks in zip(*(entry.peak_bytes for entry in nanogpt), strict=True)]
            ratios = [peak / other for peak, other in zip(own.peak_bytes, smallest, strict=True)]
            results[f"rss_ratio_{shape.name}{suffix}"] = median_over_rounds(ratios, 1.0, at_least=False)
    return results


def tflops(shape: Shape, timings: Sequence[Timing]) -> dict[str, float]:
    """Return the median model TFLOPs per second of each mode of groundup. They have no target."""
    return {
        f"tflops_{shape.name}{suffix}": statistics.median(own.flops) / 1e12
        for own, suffix in _groundup_timings(timings)
    }


def gpu_figures(timings: Sequence[Timing]) -> dict[str, TargetResult]:
    """Return the results for a shape on a GPU. The targets are an MFU of 0.5 and the speed of the other programs."""
    results: dict[str, TargetResult] = {}
    for own, suffix in _groundup_timings(timings):
        results[f"mfu{suffix}"] = median_over_rounds(own.mfu, 0.5)
        for entry in timings:
            if entry.contender.group == "default" and _complete(entry, own):
                ratios = [a / b for a, b in zip(own.tokens_per_second, entry.tokens_per_second, strict=True)]
                results[f"vs_{entry.contender.name}{suffix}"] = median_over_rounds(ratios, 1.0)
    return results


def _target(name: str, without_suffix: str, default: float) -> float:
    return _TARGETS.get(name, _TARGETS.get(without_suffix, default))


def speed_table(shape: Shape, timings: Sequence[Timing], ceilings: Ceilings) -> str:
    """Return a table of the medians of all programs for one shape."""
    rows = [("", "params", "MFLOP/token", "tokens/s", "TFLOP/s", "MFU", "of peak", "peak GB", "cold s", "warm s")]
    for entry in sorted(timings, key=lambda entry: -statistics.median(entry.tokens_per_second or [0.0])):
        if not entry.tokens_per_second:
            continue
        rows.append(
            (
                entry.contender.name,
                f"{entry.parameters / 1e6:.1f} M",
                f"{shape.flops_per_token(entry.matmul_parameters) / 1e6:.1f}",
                f"{statistics.median(entry.tokens_per_second):,.0f}",
                f"{statistics.median(entry.flops) / 1e12:.3f}",
                f"{statistics.median(entry.mfu):.1%}",
                f"{statistics.median(entry.peak_share):.1%}" if entry.peak_share else "-",
                f"{statistics.median(entry.peak_bytes) / 1e9:.2f}",
                "-" if entry.cold_seconds is None else f"{entry.cold_seconds:.0f}",
                f"{statistics.median(entry.warm_seconds):.0f}",
            )
        )
    head = (
        f"Shape {shape.name}: {shape.n_layers} layers x {shape.dim}, {shape.n_heads} heads, vocabulary "
        f"{shape.vocab_size:,}, {shape.rows} x {shape.context} tokens per step. "
        f"Medians of {len(ceilings.matmul)} rounds; "
    )
    if ceilings.matmul:
        head += f"matmul {statistics.median(ceilings.matmul) / 1e12:.2f} TFLOP/s."
    if ceilings.peak:
        registers = statistics.median(peak.registers for peak in ceilings.peak) / 1e12
        l1 = statistics.median(peak.l1 for peak in ceilings.peak) / 1e12
        instructions = ceilings.peak[0].instructions
        head += f" Peak of {instructions}: {registers:.2f} TFLOP/s from registers, {l1:.2f} with loads from L1."
    skipped = [f"  {entry.contender.name}: skipped, {entry.failure}" for entry in timings if entry.failure]
    return "\n".join([head, _table(rows), _MASK_NOTE, *skipped])


def quality_table(result: dict[str, Any]) -> str:
    """Return a table of the bits per byte that all programs reach after the same time."""
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
    skipped = [f"  {name}: skipped, {run['failure']}" for name, run in result["runs"].items() if "failure" in run]
    return "\n".join([f"Quality after {result['minutes']:g} minutes", _table(rows), *skipped])


def figure_line(name: str, figure: TargetResult) -> str:
    """Return a line that shows a result and its target."""
    bound = "at least" if figure.at_least else "at most"
    return (
        f"{name}: {figure.estimate:.3f} ({figure.low:.3f} to {figure.high:.3f}), "
        f"target {bound} {figure.target:g}: {figure.verdict}"
    )


def details(shape: Shape, timings: Sequence[Timing], ceilings: Ceilings) -> dict[str, Any]:
    """Return the raw measurements of all rounds."""
    return {
        "shape": shape.to_json() | {"matmul_parameters": shape.matmul_parameters},
        "matmul_tflops": [flops / 1e12 for flops in ceilings.matmul],
        "peak": [asdict(peak) for peak in ceilings.peak],
        "note": _MASK_NOTE,
        "contenders": {
            entry.contender.name: {
                "group": entry.contender.group,
                "dtype": entry.contender.dtype
                if entry.contender.driver != "groundup_trainer"
                else "chosen by the machine",
                "parameters": entry.parameters,
                "matmul_parameters": entry.matmul_parameters,
                "flops_per_token": shape.flops_per_token(entry.matmul_parameters),
                "tokens_per_second": entry.tokens_per_second,
                "mfu": entry.mfu,
                "peak_share": entry.peak_share,
                "peak_bytes": entry.peak_bytes,
                "cold_seconds_to_step_1": entry.cold_seconds,
                "warm_seconds_to_step_1": entry.warm_seconds,
                "failure": entry.failure,
            }
            for entry in timings
        },
    }


def _groundup_timings(timings: Sequence[Timing]) -> list[tuple[Timing, str]]:
    suffixes = {"adamw": "", "muon": "_muon", "unmasked": "_unmasked", "fp8": "_fp8"}
    return [
        (entry, suffixes[entry.contender.group])
        for entry in timings
        if entry.contender.group in suffixes and entry.tokens_per_second and entry.failure is None
    ]


def _complete(entry: Timing, own: Timing) -> bool:
    return len(entry.tokens_per_second) == len(own.tokens_per_second)


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in enumerate(cells))
        for cells in (list(zip(row, widths, strict=True)) for row in rows)
    ]
    return "\n".join(f"  {line}" for line in lines)
