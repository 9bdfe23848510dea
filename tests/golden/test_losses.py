"""Losses of the first twenty steps of each model family: changes to the model, loss or optimizer appear here.

The losses are fp32 without compilation. Other CPUs sum in another order, so there is a tolerance. To renew the file on
purpose: PYTHONPATH=tests python tests/golden/test_losses.py FAMILY
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from family_shapes import kv_heads, variants
from groundup.data import PackedWindows
from groundup.model import FAMILIES, ModelConfig, Transformer, init_weights
from groundup.optim import Optimizer, OptimizerConfig, WarmupStableDecay
from groundup.train import Progress, StepReport
from groundup.train.fit import fit
from groundup.train.objectives import NextToken
from python_topics import TOPICS

GOLDEN = Path(__file__).with_name("losses.json")
STEPS = 20
PLAIN = ("gpt2", "llama", "mistral", "qwen2", "qwen3", "gemma3")  # families without golden variants


def twenty_losses(family: str) -> list[float]:
    # Bytes as tokens, so that the losses do not depend on a trained vocabulary.
    text = torch.tensor(list("".join(TOPICS[name] for name in ("assignment", "class", "while", "yield")).encode()))
    windows = text[: len(text) // 65 * 65].view(-1, 65)

    def batch(index: int) -> PackedWindows:
        rows = windows[(4 * index + torch.arange(4)) % len(windows)]
        places = torch.arange(64).expand(4, 64)
        return PackedWindows(rows[:, :-1], rows[:, 1:], places % 24, places // 24)

    tied, heads = FAMILIES[family].tie_embeddings, kv_heads(family, 4, 2)
    more = {} if family in PLAIN else variants(family, 2)
    model = Transformer(ModelConfig(family, 64, 2, 4, heads, 16, 128, 257, 64, tie_embeddings=tied, **more))
    init_weights(model, 0)
    losses: list[float] = []

    class Keep:
        def after_step(self, report: StepReport) -> None:
            losses.append(round(report.metrics["loss"], 4))

    fit(
        model,
        NextToken(),
        batch,
        Optimizer(model, OptimizerConfig()),
        WarmupStableDecay(STEPS, 2, 10),
        progress=Progress(),
        grad_accum_steps=2,
        callbacks=[Keep()],
    )
    return losses


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_match_the_golden_values(family: str) -> None:
    expected = json.loads(GOLDEN.read_text())[family]
    # Muon orthogonalizes in bf16, whose rounding differs between CPUs: a few thousandths after 20 steps.
    np.testing.assert_allclose(twenty_losses(family), expected, rtol=0.01)


if __name__ == "__main__":
    pinned = json.loads(GOLDEN.read_text()) | {family: twenty_losses(family) for family in sys.argv[1:]}
    GOLDEN.write_text(json.dumps(pinned, indent=1) + "\n")
