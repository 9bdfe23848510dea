"""Chunked log-probabilities: values and gradients equal log_softmax, and the memory is limited to one chunk."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from groundup.core.types import IGNORE_INDEX
from groundup.kernels import eager_mode, prepare_model
from groundup.kernels.machine import Machine
from groundup.kernels.native_library import native_library
from groundup.kernels.native_operations import NativeOperations
from groundup.model import Operations, Transformer
from groundup.model.lora import LoRA, add_lora
from groundup.model.loss import MAX_FROZEN_LOGITS, token_logprobs
from groundup.model.operations import CHUNK_ROWS
from groundup.optim import Optimizer, OptimizerConfig, WarmupStableDecay
from groundup.train import Progress, StepReport
from groundup.train.fit import fit
from groundup.train.objectives import Metrics


def inputs(rows: int, dim: int, vocab: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(rows, dim, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(vocab, dim, generator=generator).to(dtype).requires_grad_()
    labels = torch.randint(0, vocab, (rows,), generator=generator)
    labels[::7] = IGNORE_INDEX
    return h, weight, labels


def reference(h: Tensor, weight: Tensor, labels: Tensor, softcap: float | None) -> Tensor:
    logits = (h @ weight.to(h.dtype).T).float()
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    picked = logits.log_softmax(-1).gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return picked.where(labels != IGNORE_INDEX, 0.0)


def native() -> NativeOperations:
    library = native_library()
    if library is None:
        pytest.skip("no C++ kernels on this machine")
    return NativeOperations(library)


@pytest.mark.parametrize("softcap", [None, 1.5])
def test_values_and_gradients_equal_log_softmax(softcap: float | None) -> None:
    # More rows than a chunk, ignored labels, and a different upstream gradient per row.
    h, weight, labels = inputs(CHUNK_ROWS + 300, 16, 50)
    ours, plain = token_logprobs(h, weight, labels, softcap=softcap), reference(h, weight, labels, softcap)
    torch.testing.assert_close(ours, plain)
    assert not ours[::7].any()
    upstream = torch.randn(len(h), generator=torch.Generator().manual_seed(1))
    for got, expected in zip(
        torch.autograd.grad(ours, (h, weight), upstream), torch.autograd.grad(plain, (h, weight), upstream), strict=True
    ):
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_gradcheck(softcap: float | None) -> None:
    h, weight, labels = inputs(9, 4, 6, torch.float64)
    assert torch.autograd.gradcheck(lambda h, w: token_logprobs(h, w, labels, softcap=softcap), (h, weight))
    assert token_logprobs(h, weight, labels).dtype == torch.float64


def test_a_frozen_head_does_not_change_other_gradients() -> None:
    h, weight, labels = inputs(MAX_FROZEN_LOGITS // 20_000 + 5, 8, 20_000)
    (expected,) = torch.autograd.grad(token_logprobs(h, weight, labels).sum(), h)
    frozen = weight.detach()
    ours = token_logprobs(h, frozen, labels)
    torch.testing.assert_close(ours, reference(h, frozen, labels, None))
    ours.sum().backward()
    assert h.grad is not None
    assert frozen.grad is None
    torch.testing.assert_close(h.grad, expected)
    (of_weight,) = torch.autograd.grad(token_logprobs(h.detach(), weight, labels).sum(), weight)
    torch.testing.assert_close(of_weight, torch.autograd.grad(token_logprobs(h, weight, labels).sum(), weight)[0])


@pytest.mark.parametrize("of", [Operations, native])
@pytest.mark.parametrize("softcap", [None, 3.0])
def test_bf16_values_are_fp32_and_gradients_have_bf16_precision(
    of: Callable[[], Operations], softcap: float | None
) -> None:
    h, weight, labels = inputs(700, 32, 96, torch.bfloat16)
    weight = weight.detach().float().requires_grad_()  # fp32 master weights of a bf16 model
    ours, plain = token_logprobs(h, weight, labels, of(), softcap=softcap), reference(h, weight, labels, softcap)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, plain, atol=0.05, rtol=0.01)
    upstream = torch.randn(len(h), generator=torch.Generator().manual_seed(1))
    grads = torch.autograd.grad(ours, (h, weight), upstream), torch.autograd.grad(plain, (h, weight), upstream)
    for got, expected in zip(*grads, strict=True):
        assert got.dtype == expected.dtype
        assert (got - expected).float().norm() <= 0.02 * expected.float().norm()


class LargestTensor(TorchDispatchMode):
    """A dispatch mode that records the number of elements of the largest tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        for each in found if isinstance(found, tuple | list) else (found,):
            if isinstance(each, Tensor):
                self.elements = max(self.elements, each.numel())
        return found


@pytest.mark.parametrize("frozen", [False, True])
def test_no_tensor_is_larger_than_a_chunk_of_logits(frozen: bool) -> None:
    h, weight, labels = inputs(4 * CHUNK_ROWS, 8, 8_000)
    weight = weight.detach() if frozen else weight
    with LargestTensor() as seen:
        token_logprobs(h, weight, labels).sum().backward()
    assert seen.elements <= (MAX_FROZEN_LOGITS if frozen else CHUNK_ROWS * len(weight)) < h.shape[0] * len(weight)
    with LargestTensor() as unchunked:
        reference(h, weight, labels, None).sum().backward()
    assert unchunked.elements == h.shape[0] * len(weight)


@pytest.mark.parametrize("family", ["llama", "gemma2", "granite"])
@pytest.mark.parametrize("tied", [False, True])
def test_token_losses_and_the_summed_loss_have_equal_gradients(
    tiny_model: Callable[..., Transformer], family: str, tied: bool
) -> None:
    """Also with softcap, scaled logits and tied embeddings."""
    changes: dict[str, Any] = {"gemma2": {"logit_softcap": 2.0}, "granite": {"logits_scaling": 0.25}}.get(family, {})
    model = tiny_model(64, family=family, tie_embeddings=tied, **changes).requires_grad_(True)
    ids = torch.arange(40).view(2, 20)
    labels = ids.roll(-1, 1).where(ids % 5 > 0, IGNORE_INDEX)
    losses = model(ids, labels_BT=labels, reduction="none")
    assert losses.shape == labels.shape
    assert not losses[labels == IGNORE_INDEX].any()
    summed = model(ids, labels_BT=labels)
    torch.testing.assert_close(losses.sum(), summed)
    parameters = list(model.parameters())
    for got, expected in zip(
        torch.autograd.grad(losses.sum(), parameters), torch.autograd.grad(summed, parameters), strict=True
    ):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


def test_a_compiled_model_gives_the_same(tiny_model: Callable[..., Transformer]) -> None:
    model = tiny_model(64).requires_grad_(True)
    ids = torch.arange(40).view(2, 20)
    call = partial(model, ids, labels_BT=ids.roll(-1, 1), reduction="none")
    expected = torch.autograd.grad(call().sum(), [model.lm_head.weight])
    prepare_model(model, Machine("cpu", "float32", compile=True, threads=1, matmul_flops=1e9))
    torch.testing.assert_close(torch.autograd.grad(call().sum(), [model.lm_head.weight]), expected)
    with eager_mode(), torch.no_grad():
        assert call().shape == ids.shape


@dataclass(frozen=True)
class Pairs:
    """Chosen and rejected rows, (B, T) each, with log-probabilities of the reference model, (2B,)."""

    chosen: Tensor
    rejected: Tensor
    reference: Tensor


class DPO:
    """DPO (arXiv:2305.18290) from the model's token losses."""

    def __init__(self, reference: nn.Module, beta: float) -> None:
        self._reference = reference
        self._beta = beta

    def prepare(self, batch: Pairs, model: nn.Module) -> Pairs:
        with torch.no_grad():
            return Pairs(batch.chosen, batch.rejected, self._sums(self._reference, batch))

    def normalizer(self, batch: Pairs) -> Tensor:
        return torch.tensor(len(batch.chosen))

    def __call__(self, model: nn.Module, batch: Pairs) -> tuple[Tensor, Metrics]:
        chosen, rejected = (self._beta * (self._sums(model, batch) - batch.reference)).chunk(2)
        loss = -F.logsigmoid(chosen - rejected).sum()
        return loss, {"loss": (loss.detach(), len(chosen)), "accuracy": ((chosen > rejected).sum(), len(chosen))}

    @staticmethod
    def _sums(model: nn.Module, batch: Pairs) -> Tensor:
        ids = torch.cat([batch.chosen, batch.rejected])
        return -model(ids[:, :-1], labels_BT=ids[:, 1:], reduction="none").sum(-1)


@pytest.mark.parametrize("adapted", [False, True])
def test_a_dpo_loss_trains(tiny_model: Callable[..., Transformer], adapted: bool) -> None:
    model = tiny_model(64).requires_grad_(True)
    reference = copy.deepcopy(model).requires_grad_(False)
    if adapted:
        add_lora(model, LoRA(rank=4))
    generator = torch.Generator().manual_seed(0)
    pairs = Pairs(*(torch.randint(0, 64, (8, 12), generator=generator) for _ in range(2)), torch.empty(0))
    seen: list[StepReport] = []

    class Keep:
        def after_step(self, report: StepReport) -> None:
            seen.append(report)

    fit(
        model,
        DPO(reference, beta=0.5),
        lambda _: pairs,
        Optimizer(model, OptimizerConfig(matrix_lr=0.003, matrices="adamw")),
        WarmupStableDecay(30, 2, 5),
        progress=Progress(),
        callbacks=[Keep()],
    )
    assert seen[0].metrics["loss"] == pytest.approx(0.6931, abs=1e-3)
    assert seen[-1].metrics["loss"] < 0.1
    assert seen[-1].metrics["accuracy"] == 1
