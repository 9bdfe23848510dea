"""Train a small model on the ranks of torchrun (or one process), and write the results of the first rank.

    python train_on_ranks.py OUT.json CASES.json

Each case is a run: {"mode", "matrices", "steps", and, to save or resume it, "checkpoints", "stop"}. With a "rank", LoRA
adapters are trained, with "bits" on quantized layers. With "stops", `Reinforce` samples its batches.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
from reinforce import Reinforce, Rollouts
from safetensors.torch import save_file

from groundup.core.types import IGNORE_INDEX
from groundup.data import PackedWindows
from groundup.distributed import ParallelModel, choose_mode, full_tensor
from groundup.distributed.ranks import Ranks, join_ranks
from groundup.model import ModelConfig, Transformer, init_weights
from groundup.model.lora import LoRA, add_lora
from groundup.model.quantization import quantize_frozen
from groundup.optim import OptimizerConfig, WarmupStableDecay
from groundup.train import Checkpoints, Progress, StepReport
from groundup.train.fit import NoGuard, fit
from groundup.train.objectives import NextToken
from python_topics import TOPICS

ROWS, LENGTH = 8, 32
TEXT = torch.tensor(list("".join(TOPICS[name] for name in ("assignment", "class", "while", "yield")).encode()))
WINDOWS = TEXT[: len(TEXT) // (LENGTH + 1) * (LENGTH + 1)].view(-1, LENGTH + 1)


class StopError(Exception):
    pass


def run(case: dict[str, Any], ranks: Ranks, out: Path) -> dict[str, Any]:
    torch.manual_seed(0)
    shape = ModelConfig("qwen3", 64, 2, 4, 2, 16, 96, 321, LENGTH, tie_embeddings=case.get("tied", False))
    model = Transformer(shape)
    init_weights(model, 0)
    for parameter in model.parameters():  # not the zero initialization, whose gradients are mostly zero
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.05)
    if "rank" in case:
        add_lora(model, LoRA(rank=case["rank"]))
    if "bits" in case:
        quantize_frozen(model, case["bits"])
    spread = ParallelModel(model, choose_mode(case["mode"], ranks, 0, None), ranks)
    optimizer = spread.optimizer(OptimizerConfig(matrix_lr=case.get("matrix_lr", 0.02), matrices=case["matrices"]))
    rows = ROWS // ranks.size // 2

    def batch(index: int) -> PackedWindows:
        numbers = (index * ranks.size + ranks.rank) * rows + torch.arange(rows)
        chosen = WINDOWS[numbers % len(WINDOWS)]
        read.append(int((chosen * (numbers[:, None] + 1)).sum()))
        # Micro-batches and ranks have different numbers of labels.
        labels = chosen[:, 1:].where(torch.arange(LENGTH) >= 5 * (numbers % 6)[:, None], IGNORE_INDEX)
        places = torch.arange(LENGTH).expand(rows, LENGTH)
        return PackedWindows(chosen[:, :-1], labels, places % 24, places // 24)

    on_policy = "stops" in case
    seen: dict[str, list[Any]] = {"losses": [], "tokens": [], "data": [], "rewards": []}
    read: list[int] = []

    class Gradients(NoGuard):
        def should_step(self, progress: Progress, loss: float, grad_norm: float) -> bool:
            gradients = {
                name: full_tensor(p.grad).clone() for name, p in model.named_parameters() if p.grad is not None
            }
            if progress.step == 0 and ranks.first and "gradients" in case:
                save_file(gradients, out.with_name(case["gradients"]))
            return super().should_step(progress, loss, grad_norm)

    checkpoints = Checkpoints(
        Path(case.get("checkpoints", out.with_suffix(".none"))), model, optimizer, plan_digest="p", ranks=ranks
    )
    progress = checkpoints.restore()

    class Keep:
        def after_step(self, report: StepReport) -> None:
            seen["losses"].append(report.metrics["loss"])
            seen["rewards"].append(report.metrics.get("reward"))
            seen["data"].append(int(ranks.sum(torch.tensor(sum(read)))))  # the same on every rank
            read.clear()
            seen["tokens"].append(report.tokens_seen)
            if report.step == case["steps"] // 2:  # as evaluations do during training
                with spread.readable(), torch.inference_mode():
                    seen["looked"] = [
                        float(model.model(WINDOWS[:2, :-1]).norm()),
                        float(model(WINDOWS[:2, :-1]).norm()),
                    ]
            if report.step == case.get("stop"):
                checkpoints.save(progress)
                raise StopError

    with contextlib.suppress(StopError):
        fit(
            spread.forward_module,
            Reinforce(case["stops"]) if on_policy else NextToken(),
            (lambda index: Rollouts.of(batch(index))) if on_policy else batch,
            optimizer,
            WarmupStableDecay(case["steps"], 2, 10),
            progress=progress,
            grad_accum_steps=2,
            callbacks=[Keep()],
            guard=Gradients(),
            ranks=ranks,
        )
    gathered = spread.gathered()
    if ranks.first and "weights" in case:
        save_file({name: t.clone() for name, t in gathered.state_dict().items()}, out.with_name(case["weights"]))
    return seen


def refuse_pickles() -> None:
    import pickle

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a pickle was loaded")

    pickle.load = pickle.loads = torch.load = refuse  # type: ignore[assignment]


def main() -> None:
    out, cases = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())
    refuse_pickles()
    with join_ranks() as ranks:
        results = {name: run(case, ranks, out) for name, case in cases.items()}
        if ranks.first:
            out.write_text(json.dumps(results))


if __name__ == "__main__":
    main()
