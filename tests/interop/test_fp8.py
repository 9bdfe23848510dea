"""Training with fp8 matmuls by torchao, emulated here, so that no such GPU is needed."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

import pytest
import torch
from torch import Tensor

from groundup.core.errors import ResourceError
from groundup.data import PackedWindows
from groundup.distributed import ParallelModel
from groundup.distributed.ranks import Ranks
from groundup.hub import load_model, save_model
from groundup.kernels import Machine, measure_machine, prepare_model
from groundup.model import ModelConfig, Transformer, init_weights
from groundup.optim import OptimizerConfig, WarmupStableDecay
from groundup.train import Progress, StepReport
from groundup.train.fit import fit
from groundup.train.objectives import NextToken

pytestmark = pytest.mark.interop
TEXT = torch.tensor(list((Path(__file__).parents[2] / "README.md").read_bytes()))


def batch(index: int) -> PackedWindows:
    rows = TEXT[: len(TEXT) // 65 * 65].view(-1, 65)[(4 * index + torch.arange(4)) % 100]
    places = torch.arange(64).expand(4, 64)
    return PackedWindows(rows[:, :-1], rows[:, 1:], places, torch.zeros_like(places))


def trained(*, fp8: bool, steps: int = 60) -> tuple[Transformer, list[float]]:
    model = Transformer(ModelConfig("qwen3", 64, 2, 4, 2, 16, 128, 256, 64))
    init_weights(model, 0)
    prepare_model(model, Machine("cpu", "bfloat16", False, 1, 1e12, fp8=fp8))
    losses = []

    class Keep:
        def after_step(self, report: StepReport) -> None:
            losses.append(report.metrics["loss"])

    optimizer = ParallelModel(model, "single", Ranks()).optimizer(OptimizerConfig())
    fit(model, NextToken(), batch, optimizer, WarmupStableDecay(steps, 5, 20), progress=Progress(), callbacks=[Keep()])
    return model, losses


def test_fp8_training_converges_like_bf16(tmp_path: Path) -> None:
    usual, expected = trained(fp8=False)
    rounded, losses = trained(fp8=True)
    assert expected[-1] < expected[0] - 1
    assert losses != expected
    # With a 3-bit mantissa, single steps may differ by half a nat, but both runs must converge equally.
    assert mean(losses[-20:]) == pytest.approx(mean(expected[-20:]), abs=0.1)
    assert rounded.state_dict().keys() == usual.state_dict().keys()

    def logits(model: Transformer) -> Tensor:
        return model(TEXT[None, :64]).detach()

    save_model(tmp_path, rounded, bos_id=0, eos_id=0, pad_id=0)
    saved = load_model(tmp_path)  # The saved model does not depend on fp8.
    assert type(saved.model.layers[0].mlp.down_proj) is type(saved.lm_head)
    assert (logits(saved) - logits(rounded)).abs().mean() < 0.1


def test_embeddings_and_head_are_not_converted() -> None:
    model, _ = trained(fp8=True, steps=1)
    kinds = {name: type(module).__name__ for name, module in model.named_modules()}
    assert kinds["lm_head"] == "Linear"
    assert {kinds[f"model.layers.0.{name}"] for name in ("self_attn.q_proj", "mlp.up_proj")} == {"Float8Linear"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_machine_without_fp8_reports_it() -> None:
    with pytest.raises(ResourceError, match=r"no CUDA GPU.*Hopper"):
        measure_machine(fp8=True)
