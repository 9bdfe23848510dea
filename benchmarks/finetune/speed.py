"""`python -m benchmarks.finetune.speed --model DIR --data TABLE`: compare the speed and memory of LoRA with TRL.

The conversations are tokenized once. Both programs train on the same token ids and loss masks, with the same rank, row
length, learning rate and dtype. All other settings have the defaults of each program. groundup trains on packed rows,
as `finetune instruct --method lora` does. TRL trains with `SFTTrainer` and PEFT, once on packed rows and once on padded
rows. Speed is the number of non-padding tokens per second after the warm-up steps. The programs run alternately in new
processes. A ratio is the speed of groundup divided by the speed of the faster TRL variant in the same round. The last
line of the output is a JSON object.
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
VARIANTS: dict[str, dict[str, Any]] = {
    "groundup": {"compile": True},
    "trl packed": {"packing": True},
    "trl padded": {"packing": False},
}


def main() -> None:
    """Train all variants alternately. Print the tokens per second, the ratios for each dtype, and the memory."""
    options = _options()
    work = Path(options.work or tempfile.mkdtemp(prefix="bench-lora-"))
    work.mkdir(parents=True, exist_ok=True)
    job = {
        "model": str(options.model),
        "data": str(_tokenize(options.model, options.data, options.length, work / "tokens.jsonl")),
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
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in VARIANTS}
        for turn in range(options.rounds):
            for name in sorted(VARIANTS, reverse=turn % 2 == 1):
                run = _train(name, job | VARIANTS[name] | {"autocast": dtype == "bf16"}, work)
                runs[name].append(run)
                print(
                    f"{dtype}, round {turn + 1}, {name}: {_speed(run):,.0f} tokens/s, "
                    f"{run['peak_bytes'] / 1e9:.2f} GB, {run['idle_bytes'] / 1e9:.2f} of them idle",
                    flush=True,
                )
        figures[dtype] = _summary(runs)
    first = figures[options.dtype[0]]
    print(json.dumps({"lora_vs_trl": first["speed_ratio"], "rss_vs_trl": first["memory_ratio"]} | figures))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="directory of a chat model")
    parser.add_argument("--data", type=Path, required=True, help="table of conversations for `finetune instruct`")
    parser.add_argument("--dtype", choices=["bf16", "fp32"], nargs="+", default=["bf16", "fp32"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", help="directory for the files [a temporary directory]")
    return parser.parse_args()


def _tokenize(model: Path, table: Path, length: int, to: Path) -> Path:
    """Write the token ids and the loss mask of each example as a line of JSON. Skip examples longer than a row."""
    from groundup.data import read_conversations
    from groundup.data.conversations.reading import FolderExamples
    from groundup.tokenizer import ChatTemplate, Tokenizer

    template = ChatTemplate(Tokenizer.load(model))
    examples = read_conversations([FolderExamples(path=table)]).examples
    with to.open("w") as out:
        for example in examples:
            ids, loss_mask = template.encode_labeled(example.messages)
            if len(ids) <= length:
                print(json.dumps([ids, [int(flag) for flag in loss_mask]]), file=out)
    return to


def _train(name: str, job: dict[str, Any], work: Path) -> dict[str, Any]:
    job_file = work / "job.json"
    job_file.write_text(json.dumps(job))
    is_groundup = name == "groundup"
    command = [sys.executable, *(["-m", "benchmarks.finetune.drivers.groundup_lora"] if is_groundup else [str(TRL)])]
    with (work / f"{name}.log").open("w") as log:
        done = subprocess.run([*command, str(job_file)], stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT)
    if done.returncode:
        raise SystemExit(f"{name} failed with exit code {done.returncode}: {work / f'{name}.log'}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _speed(run: dict[str, Any]) -> float:
    return float(run["tokens"] / run["seconds"])


def _summary(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return the medians over the rounds.

    Memory is the peak minus the memory after imports. The memory ratio is relative to the TRL variant that uses less
    memory.
    """
    rounds = list(zip(*runs.values(), strict=True))
    memory = {name: max(run["peak_bytes"] - run["idle_bytes"] for run in each) for name, each in runs.items()}
    return {
        "speed_ratio": statistics.median(_speed(ours) / max(map(_speed, trl)) for ours, *trl in rounds),
        "speed_ratios": [round(_speed(ours) / max(map(_speed, trl)), 3) for ours, *trl in rounds],
        "memory_ratio": memory["groundup"] / min(memory[name] for name in memory if name != "groundup"),
        "tokens_per_second": {name: [round(_speed(run), 1) for run in each] for name, each in runs.items()},
        "bytes_above_idle": memory,
        "losses": {name: each[0]["losses"] for name, each in runs.items()},
    }


if __name__ == "__main__":
    main()
