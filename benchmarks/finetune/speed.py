"""`python -m benchmarks.finetune.speed --model DIR --data TABLE`: LoRA's speed beside TRL's; one JSON object last.

The table's conversations are put into the model's template once; both sides read the same ids and learn the same of
them, with the same rank, rows of the same length, rate and dtype, each in a fresh process with its own defaults
otherwise: groundup by the parts of `finetune instruct --method lora`, packed; TRL by `SFTTrainer` and PEFT, packed
and not. What counts is tokens of examples a second, padding left out, over the steps after the first ones. In turns;
a ratio is ours over the better of TRL's two in that round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TRL = ROOT / "benchmarks" / "finetune" / "drivers" / "trl_lora.py"
SIDES: dict[str, dict[str, Any]] = {
    "groundup": {"compile": True},
    "trl packed": {"packing": True},
    "trl padded": {"packing": False},
}


def main() -> None:
    """Train each side in turns; print tokens a second, the ratios of each dtype, and the memory."""
    options = _options()
    work = Path(options.work or tempfile.mkdtemp(prefix="bench-lora-"))
    work.mkdir(parents=True, exist_ok=True)
    job = {
        "model": str(options.model),
        "data": str(_encoded(options.model, options.data, options.length, work / "tokens.jsonl")),
        "out": str(work / "out"),
        "weights": "float32",
        "threads": options.threads,
        "rows": options.rows,
        "length": options.length,
        "steps": options.warmup + options.steps,
        "warmup": options.warmup,
        "rank": options.rank,
        "alpha": 2.0 * options.rank,
        "learning_rate": 2e-4,
        "checkpointing": False,
        "seed": 0,
    }
    figures: dict[str, Any] = {"versions": {name: version(name) for name in ("torch", "trl", "peft", "transformers")}}
    for dtype in options.dtype:
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in SIDES}
        for turn in range(options.rounds):
            for name in sorted(SIDES, reverse=turn % 2 == 1):
                run = _train(name, job | SIDES[name] | {"autocast": dtype == "bf16"}, work)
                runs[name].append(run)
                print(
                    f"{dtype}, round {turn + 1}, {name}: {_speed(run):,.0f} tokens/s, "
                    f"{run['peak_bytes'] / 1e9:.2f} GB, {run['idle_bytes'] / 1e9:.2f} of them idle",
                    flush=True,
                )
        figures[dtype] = _judge(runs)
    first = figures[options.dtype[0]]
    print(json.dumps({"lora_vs_trl": first["speed_ratio"], "rss_vs_trl": first["memory_ratio"]} | figures))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a model directory with a chat template")
    parser.add_argument("--data", type=Path, required=True, help="a table of examples, as `finetune instruct` reads it")
    parser.add_argument("--dtype", choices=["bf16", "fp32"], nargs="+", default=["bf16", "fp32"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", help="directory for the files; default: a temporary one")
    return parser.parse_args()


def _encoded(model: Path, table: Path, length: int, to: Path) -> Path:
    """A JSON line for each example: its ids, and which of them are learned. Those longer than a row are left out."""
    from groundup.data import read_conversations
    from groundup.data.conversations import FolderExamples
    from groundup.tokenizer import ChatTemplate, Tokenizer

    template = ChatTemplate(Tokenizer.load(model))
    examples = read_conversations([FolderExamples(path=table)]).examples
    with to.open("w") as out:
        for example in examples:
            ids, learned = template.encode_labelled(example.messages)
            if len(ids) <= length:
                print(json.dumps([ids, [int(flag) for flag in learned]]), file=out)
    return to


def _train(name: str, job: dict[str, Any], work: Path) -> dict[str, Any]:
    asked = work / "job.json"
    asked.write_text(json.dumps(job))
    ours = name == "groundup"
    command = [sys.executable, *(["-m", "benchmarks.finetune.drivers.groundup_lora"] if ours else [str(TRL)])]
    with (work / f"{name}.log").open("w") as log:
        done = subprocess.run([*command, str(asked)], stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT)
    if done.returncode:
        raise SystemExit(f"{name} failed with {done.returncode}: {work / f'{name}.log'}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _speed(run: dict[str, Any]) -> float:
    return float(run["tokens"] / run["seconds"])


def _judge(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Medians over the rounds; memory is the peak above the idle process, against the leaner of the peer's two."""
    rounds = list(zip(*runs.values(), strict=True))
    taken = {name: max(run["peak_bytes"] - run["idle_bytes"] for run in each) for name, each in runs.items()}
    return {
        "speed_ratio": statistics.median(_speed(ours) / max(map(_speed, theirs)) for ours, *theirs in rounds),
        "speed_ratios": [round(_speed(ours) / max(map(_speed, theirs)), 3) for ours, *theirs in rounds],
        "memory_ratio": taken["groundup"] / min(taken[name] for name in taken if name != "groundup"),
        "tokens_per_second": {name: [round(_speed(run), 1) for run in each] for name, each in runs.items()},
        "bytes_above_idle": taken,
        "losses": {name: each[0]["losses"] for name, each in runs.items()},
    }


if __name__ == "__main__":
    main()
