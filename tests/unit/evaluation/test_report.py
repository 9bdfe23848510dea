"""The report: its verdict, valid JSON, and Markdown that no sample can break."""

from __future__ import annotations

import json
import math
import re

from groundup.evaluation.compressors import CompressorScore
from groundup.evaluation.report import Report, Sample
from groundup.evaluation.stats import Interval


def report(bpb: Interval, *compressors: CompressorScore, samples: tuple[Sample, ...] = ()) -> Report:
    return Report(
        bpb=bpb,
        scored={"source": "held-out text", "documents": 12, "bytes": 34567, "tokens": 8901},
        compressors=compressors,
        compressors_read=1_000_000,
        samples=samples,
        model={"parameters": 1_234_567, "family": "qwen3", "tie_embeddings": True},
        next_commands=("groundup generate runs/x",),
    )


def seen(name: str, bpb: float) -> CompressorScore:
    return CompressorScore(name, True, 1000, bpb)


OURS = Interval(1.90, 1.85, 1.95, 0.95)


def test_a_compressor_inside_the_interval_is_not_significantly_different():
    found = report(OURS, seen("xz -9e", 2.1), seen("PPMd order 5", 1.93), seen("PPMd order 8", 1.76))
    assert [found.verdict(score) for score in found.compressors] == [
        "the model",
        "not distinguishable",
        "the compressor",
    ]
    assert found.summary() == (
        "1.900 bits per byte: better than xz -9e, not better than PPMd order 5 and PPMd order 8 "
        "after the training text."
    )


def test_compressors_without_training_text_are_not_in_the_summary():
    """A compressor without the training text is a weak baseline and must not be in the sentence."""
    assert "beats" not in report(OURS, CompressorScore("xz -9e", False, 1000, 2.5)).summary()


def test_the_table_is_sorted_best_first():
    rows = report(OURS, seen("xz -9e", 2.1), seen("PPMd order 8", 1.76)).rows()
    assert [float(row[1]) for row in rows] == [1.76, 1.9, 2.1]


def test_an_unknown_interval_is_null_in_json():
    """Python writes `Infinity`, which is not JSON: browsers and jq reject the whole file."""
    unknown = Interval(1.9, -math.inf, math.inf, 0.95)
    text = json.dumps(report(unknown, seen("xz -9e", 2.1)).to_json(), allow_nan=False)
    assert json.loads(text)["bpb_interval"] == [None, None]


def test_markdown_in_a_sample_is_shown_literally():
    """Samples contain Markdown and HTML, which must be shown literally."""
    text = "# not a heading\n```\n<b>| no | table |"
    page = report(OURS, samples=(Sample("Once", text, "length", 7),)).to_markdown()
    assert "    Once⟦# not a heading\n    ```\n    <b>| no | table |⟧\n" in page
    assert re.search(r"\| parameters +\| 1,234,567 +\|", page)
    assert re.search(r"\| tie embeddings +\| True +\|", page)
