"""`python -m benchmarks.inference`: inference speed, quality and reproducibility; one JSON object last.

Each part runs in its own process and can also be run alone, such as `python -m benchmarks.inference.quality`. The last
line has the results that have a target first. A result that was not measured is null.
"""

from __future__ import annotations

from benchmarks.parts import Parts, run_parts

PARTS: Parts = {
    "speed": (
        "benchmarks.inference.speed",
        ("decode_int8_vs_q8", "decode_int4_vs_q4", "batch8_vs_q8", "prefill_vs_llama"),
    ),
    "quality": ("benchmarks.inference.quality", ("agreement_int8", "agreement_q8", "bpb_int8", "bpb_q8")),
    "server": ("benchmarks.server_load", ("server8_vs_offline", "server64_vs_offline", "lost_answers")),
    "same_tokens": ("benchmarks.inference.same_tokens", ("same_tokens",)),
    "large": ("benchmarks.inference.large", ("int4_1p5b_vs_q4",)),
}


if __name__ == "__main__":
    run_parts(PARTS, __doc__)
