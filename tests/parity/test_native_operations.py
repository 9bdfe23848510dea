"""The compiled kernels compared with the PyTorch operations: values, gradients, and models of every family.

The reference is fp32: a kernel that rounds to bf16 must be as close to it as PyTorch's own bf16.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from family_shapes import kv_heads, variants
from groundup.core.types import SHARED_PREFIX
from groundup.kernels.kernel_choice import KernelChoice
from groundup.kernels.native_library import native_library
from groundup.kernels.native_operations import NativeOperations
from groundup.model import FAMILIES, ModelConfig, Operations, Transformer, init_weights, use_operations
from groundup.model.lora import LoRA, add_lora, lora_layers
from groundup.model.loss import summed_nll
from groundup.optim import newton_schulz

LIBRARY = native_library()
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="no C++ kernels on this machine")

PLAIN = Operations()


@pytest.fixture
def native() -> NativeOperations:
    assert LIBRARY is not None
    return NativeOperations(LIBRARY)


@pytest.fixture(params=["native", "torch"])
def chosen(request: pytest.FixtureRequest) -> NativeOperations:
    """Each kernel that can be chosen for the matmuls of linear layers and MLPs."""
    assert LIBRARY is not None
    return NativeOperations(LIBRARY, KernelChoice(default=request.param, plain=request.param))


def outcome(operation: Callable[..., Tensor], tensors: tuple[Tensor, ...], upstream: Tensor) -> list[Tensor]:
    """Return the result of an operation, and the gradients of its inputs."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    out = operation(*leaves)
    gradients = torch.autograd.grad(out, leaves, upstream.to(out.dtype))
    return [out.detach().float(), *(gradient.float() for gradient in gradients)]


def assert_as_near(
    native: Callable[..., Tensor], plain: Callable[..., Tensor], tensors: tuple[Tensor, ...], upstream: Tensor
) -> None:
    """Of `tensors`, activations (3 dimensions or more) are rounded to bf16; weights are not."""
    rounded = tuple(t.bfloat16() if t.ndim > 2 else t for t in tensors)
    upstream = upstream.bfloat16()
    exact = outcome(plain, tuple(t.float() for t in rounded), upstream.float())
    ours, theirs = outcome(native, rounded, upstream), outcome(plain, rounded, upstream)
    for number, (mine, usual, truth) in enumerate(zip(ours, theirs, exact, strict=True)):
        scale = truth.norm()
        error, usual_error = (mine - truth).norm() / scale, (usual - truth).norm() / scale
        assert error <= max(1.3 * usual_error, 2e-3), f"output {number}: {error:.1e}, PyTorch's bf16 {usual_error:.1e}"


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(70, 64, 96), (513, 384, 1024), (33, 1008, 16)])
@pytest.mark.parametrize("bias", [False, True])
def test_linear(chosen: NativeOperations, rows: int, inputs: int, outputs: int, bias: bool) -> None:
    weights = (normal(outputs, inputs, seed=1, scale=inputs**-0.5), *([normal(outputs, seed=2)] if bias else []))

    def by(operations: Operations) -> Callable[..., Tensor]:
        return lambda x, weight, bias=None: operations.linear(x, weight, bias)

    assert_as_near(by(chosen), by(PLAIN), (normal(3, rows, inputs), *weights), normal(3, rows, outputs, seed=3))


@pytest.mark.parametrize("bias", [False, True])
def test_layers_with_the_same_input(chosen: NativeOperations, bias: bool) -> None:
    """With equal and fewer KV heads than query heads; the input gradient is the sum of all."""
    outputs = (96, 32, 48)
    weights = tuple(normal(size, 64, seed=size, scale=1 / 8) for size in outputs)
    biases = tuple(normal(size, seed=size + 1) for size in outputs) if bias else ()

    def by(operations: Operations) -> Callable[..., Tensor]:
        return lambda x, *given: torch.cat([*operations.linears(x, given[:3], given[3:] or (None,) * 3)], -1)

    upstream = normal(3, 300, sum(outputs), seed=3)
    assert_as_near(by(chosen), by(PLAIN), (normal(3, 300, 64), *weights, *biases), upstream)
    separate = [chosen.linear(normal(3, 300, 64).bfloat16(), weight, None) for weight in weights]
    together = chosen.linears(normal(3, 300, 64).bfloat16(), weights, (None,) * 3)
    assert all(map(torch.equal, separate, together))


@pytest.mark.parametrize("width", [64, 384, 100])
def test_norms(native: NativeOperations, width: int) -> None:
    """Also with a mean far from 0, and widths that are no multiple of a vector."""
    x, upstream = normal(2, 37, width) * 3 + 5, normal(2, 37, width, seed=3)
    weight, bias = normal(width, seed=1) + 1, normal(width, seed=2)
    assert_as_near(
        lambda x, w: native.rms_norm(x, w, 1e-6), lambda x, w: PLAIN.rms_norm(x, w, 1e-6), (x, weight), upstream
    )
    assert_as_near(
        lambda x, w, b: native.layer_norm(x, w, b, 1e-5),
        lambda x, w, b: PLAIN.layer_norm(x, w, b, 1e-5),
        (x, weight, bias),
        upstream,
    )


@pytest.mark.parametrize("norm", ["rms", "layer"])
@pytest.mark.parametrize("has_branch", [True, False])
@pytest.mark.parametrize("width", [64, 384, 100])
def test_norms_of_a_residual_stream(native: NativeOperations, norm: str, has_branch: bool, width: int) -> None:
    """The sum is rounded as PyTorch rounds it, and the gradient of the residual stream is part of the gradient."""
    x, branch, weight, bias = (
        normal(2, 37, width),
        normal(2, 37, width, seed=1),
        normal(width, seed=2) + 1,
        normal(width),
    )
    tensors = (x, branch, weight, bias)[: None if norm == "layer" else 3]
    tensors = tensors if has_branch else tensors[:1] + tensors[2:]

    def both(operations: Operations, x: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
        branch, *parameters = rest if has_branch else (None, *rest)
        add = operations.add_rms_norm if norm == "rms" else operations.add_layer_norm
        return add(x, branch, *parameters, 1e-5)  # type: ignore[arg-type]

    def by(operations: Operations) -> Callable[..., Tensor]:
        return lambda *given: torch.cat(both(operations, *given), -1)

    assert_as_near(by(native), by(PLAIN), tensors, normal(2, 37, 2 * width, seed=3))
    rounded = [t.bfloat16() if t.ndim > 2 else t for t in tensors]
    assert torch.equal(both(native, *rounded)[0], both(PLAIN, *rounded)[0])
    x = rounded[0].requires_grad_()
    assert torch.equal(torch.autograd.grad(both(native, *rounded)[0].sum(), x)[0], torch.ones_like(x))


def test_an_expanded_scalar_gradient(native: NativeOperations) -> None:
    """The gradient of a sum is an expanded scalar; its copy must outlive the kernels that read it."""

    def gradients(operations: Operations) -> list[Tensor]:
        x, up = (normal(4, 256, 256, seed=seed).bfloat16().requires_grad_() for seed in (0, 1))
        weight, bias = (normal(256, seed=seed).requires_grad_() for seed in (2, 3))
        q, k, v = (normal(2, 64, 2, 32, seed=seed).bfloat16().requires_grad_() for seed in (4, 5, 6))
        seen = operations.attention_mask(torch.arange(64).expand(2, 64), None, None)
        outs = (
            operations.rms_norm(x, weight, 1e-6),
            operations.layer_norm(x, weight, bias, 1e-5),
            operations.activate("silu", x, up),
            operations.attend(q, k, v, seen, 0.2),
        )
        leaves = ((x, weight), (x, weight, bias), (x, up), (q, k, v))
        pairs = zip(outs, leaves, strict=True)
        return [grad.float() for out, inputs in pairs for grad in torch.autograd.grad(out.sum(), inputs)]

    for ours, plain in zip(gradients(native), gradients(PLAIN), strict=True):
        assert (ours - plain).norm() <= 0.02 * plain.norm() + 0.1


@pytest.mark.parametrize("activation", ["silu", "gelu_tanh"])
@pytest.mark.parametrize("gated", [True, False])
def test_activations(native: NativeOperations, activation: Any, gated: bool) -> None:
    """From the range where they vanish to the range where they are the identity."""
    gate = torch.linspace(-200, 200, 3 * 41 * 31).view(3, 41, 31)
    gate[0] = normal(41, 31)
    tensors = (gate, normal(3, 41, 31, seed=1)) if gated else (gate,)

    def by(operations: Operations) -> Callable[..., Tensor]:
        return lambda gate, up=None: operations.activate(activation, gate, up)

    assert_as_near(by(native), by(PLAIN), tensors, normal(3, 41, 31, seed=2))


@pytest.mark.parametrize(("rows", "width", "inner"), [(70, 64, 96), (513, 384, 1024), (31, 32, 32), (33, 48, 80)])
@pytest.mark.parametrize("activation", ["silu", "gelu_tanh"])
@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_feed_forward_layers(
    chosen: NativeOperations, rows: int, width: int, inner: int, activation: Any, gated: bool, bias: bool
) -> None:
    """With rows that fill no block, and (48, 80) with widths that the kernels do not support."""
    shapes = [*[(inner, width)] * (1 + gated), (width, inner)]
    weights = tuple(normal(*shape, seed=seed, scale=shape[1] ** -0.5) for seed, shape in enumerate(shapes, 1))
    biases = tuple(normal(shape[0], seed=seed) for seed, shape in enumerate(shapes, 5)) if bias else ()
    count = len(shapes)

    def by(operations: Operations) -> Callable[..., Tensor]:
        return lambda x, *p: operations.feed_forward(x, activation, p[:count], p[count:] or (None,) * count)

    tensors = (normal(3, rows, width), *weights, *biases)
    assert_as_near(by(chosen), by(PLAIN), tensors, normal(3, rows, width, seed=9))


def test_a_second_backward_pass_is_an_error(chosen: NativeOperations) -> None:
    """The first backward pass overwrites its values with gradients."""
    weights = [normal(64, 32, seed=1).requires_grad_(), normal(32, 64, seed=2).requires_grad_()]
    out = chosen.feed_forward(normal(2, 5, 32).bfloat16(), "silu", weights, (None, None)).sum()
    out.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.backward()


def test_rotation(native: NativeOperations) -> None:
    angles = normal(2, 19, 1, 24, seed=1, scale=3)
    rope = tuple(torch.cat([part, part], -1).bfloat16() for part in (angles.cos(), angles.sin()))
    assert_as_near(
        lambda x: native.rotate(x, rope), lambda x: PLAIN.rotate(x, rope), (normal(2, 19, 5, 48),), normal(2, 19, 5, 48)
    )


@pytest.mark.parametrize("per_head", [True, False])
def test_qk_norm_and_rotation(native: NativeOperations, per_head: bool) -> None:
    """One kernel gives the same queries as two: it must round between them, and read each head's weight."""
    heads, head_dim = 5, 48
    angles = normal(2, 19, 1, head_dim // 2, seed=1, scale=3)
    rope = tuple(torch.cat([part, part], -1).bfloat16() for part in (angles.cos(), angles.sin()))
    tensors = (normal(2, 19, heads, head_dim), normal(head_dim if per_head else heads * head_dim, seed=2) + 1)

    def by(operations: Operations) -> Callable[..., Tensor]:
        return lambda x, weight: operations.rms_norm_rotate(x, weight, 1e-6, rope)

    assert_as_near(by(native), by(PLAIN), tensors, normal(2, 19, heads, head_dim, seed=3))
    x, weight = tensors[0].bfloat16(), tensors[1]
    normed = native.rms_norm(x.flatten(2).unflatten(2, (-1, len(weight))), weight, 1e-6).view_as(x)
    assert torch.equal(native.rms_norm_rotate(x, weight, 1e-6, rope), native.rotate(normed, rope))


@pytest.mark.parametrize(
    ("length", "heads", "key_heads", "head_dim"), [(512, 2, 2, 64), (333, 4, 1, 128), (70, 4, 2, 32), (31, 1, 1, 96)]
)
@pytest.mark.parametrize("window", [None, 40])
def test_attention(
    native: NativeOperations, length: int, heads: int, key_heads: int, head_dim: int, window: int | None
) -> None:
    """Documents that begin at block edges and elsewhere, one of a single token, windows, grouped queries."""
    starts = torch.zeros(2, length, dtype=torch.long)
    starts[0, length // 3], starts[0, length // 3 + 1], starts[1, min(64, length - 1)] = 1, 1, 1
    documents, positions = starts.cumsum(1), torch.arange(length).expand(2, length)
    q, k, v = (normal(2, length, n, head_dim, seed=n) for n in (heads, key_heads, key_heads))

    def by(operations: Operations) -> Callable[..., Tensor]:
        seen = operations.attention_mask(positions, documents, window)
        return lambda q, k, v: operations.attend(q, k, v, seen, head_dim**-0.5)

    assert_as_near(by(native), by(PLAIN), (q, k, v), normal(2, length, heads, head_dim, seed=9))


@pytest.mark.parametrize(("length", "prefix"), [(512, 20), (333, 64), (70, 13), (200, 75)])
@pytest.mark.parametrize("window", [None, 40, 90])
def test_attention_to_shared_prefixes(native: NativeOperations, length: int, prefix: int, window: int | None) -> None:
    """Row 0 has two prefixes, each with two documents; row 1 has a document without a prefix, then a prefix."""
    documents, positions = torch.zeros(2, length, dtype=torch.long), torch.zeros(2, length, dtype=torch.long)
    half = length // 2
    for row, start, end, first in ((0, 0, half, 0), (0, half, length, 2), (1, half, length, 1)):
        split = (start + prefix + end) // 2
        documents[row, start : start + prefix] = SHARED_PREFIX
        documents[row, start + prefix : split], documents[row, split:end] = first, first + 1
        positions[row, start:split] = torch.arange(split - start)
        positions[row, split:end] = prefix + torch.arange(end - split)
    positions[1, :half] = torch.arange(half)
    q, k, v = (normal(2, length, n, 32, seed=n) for n in (4, 2, 2))

    def by(operations: Operations) -> Callable[..., Tensor]:
        seen = operations.attention_mask(positions, documents, window)
        return lambda q, k, v: operations.attend(q, k, v, seen, 32**-0.5)

    assert_as_near(by(native), by(PLAIN), (q, k, v), normal(2, length, 4, 32, seed=9))
    exact = outcome(by(PLAIN), (q, k, v), normal(2, length, 4, 32, seed=9))
    in_fp32 = outcome(by(native), (q, k, v), normal(2, length, 4, 32, seed=9))
    assert all(map(torch.equal, in_fp32, exact))  # fp32 uses the same mask as PyTorch's operations


def test_stale_buffers_have_no_effect(native: NativeOperations) -> None:
    """Threads reuse buffers: keys after a last half block were not overwritten, and 0 x NaN is NaN."""

    def gradients(length: int, value: float) -> list[Tensor]:
        documents, positions = torch.zeros(8, length, dtype=torch.long), torch.arange(length).expand(8, length)
        seen = native.attention_mask(positions, documents, None)
        tensors = tuple(torch.full((8, length, 1, 64), value).bfloat16() for _ in range(3))
        return outcome(lambda q, k, v: native.attend(q, k, v, seen, 0.125), tensors, torch.ones(8, length, 1, 64))

    assert gradients(64, float("nan"))[1].isnan().any()
    for tensor in gradients(45, 1.0):
        assert tensor.isfinite().all()


def test_a_repeated_document_id_uses_the_mask(native: NativeOperations) -> None:
    """The kernel's runs of keys cannot express it; the mask can."""
    documents = torch.tensor([[0, 1, 0, 0]])
    positions = torch.arange(4)[None]
    assert torch.equal(
        native.attention_mask(positions, documents, None), PLAIN.attention_mask(positions, documents, None)
    )


@pytest.mark.parametrize("z_loss", [0.0, 0.01])
def test_loss(native: NativeOperations, z_loss: float) -> None:
    logits, labels = normal(37, 1003, scale=4).bfloat16(), torch.arange(37) * 27
    labels[5] = -100
    truth, slope = PLAIN.nll_and_residual(logits.float(), labels, z_loss)
    nll, residual = native.nll_and_residual(logits.clone(), labels, z_loss)
    torch.testing.assert_close(nll, truth, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(residual.float(), slope, atol=1e-6, rtol=4e-3)
    assert nll[5] == 0 and not residual[5].any()


@pytest.mark.parametrize("vocabulary", [50_257, 527, 16, 5])
def test_a_head_with_partial_tiles(native: NativeOperations, vocabulary: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With GPT-2's 50,257 rows and with less than a tile; over two chunks, of which the second is added."""
    monkeypatch.setattr(native, "chunk_rows", lambda vocab_size: 64)
    count, width = 100, 64
    h, labels = normal(count, width).bfloat16(), torch.arange(count) * 7919 % vocabulary
    weight = normal(vocabulary, width, seed=1, scale=width**-0.5)

    def by(operations: Operations, dtype: torch.dtype) -> list[Tensor]:
        leaves = [h.detach().to(dtype).requires_grad_(), weight.clone().requires_grad_()]
        nll = summed_nll(*leaves, labels, operations)
        return [nll.detach(), *(gradient.float() for gradient in torch.autograd.grad(nll, leaves))]

    truth, usual, ours = by(PLAIN, torch.float32), by(PLAIN, torch.bfloat16), by(native, torch.bfloat16)
    for number, (mine, theirs, exact) in enumerate(zip(ours, usual, truth, strict=True)):
        error, usual_error = ((found - exact).norm() / exact.norm() for found in (mine, theirs))
        assert error <= max(1.3 * usual_error, 2e-3), f"output {number}: {error:.1e}, PyTorch's bf16 {usual_error:.1e}"


@pytest.mark.parametrize("rows", [50_257, 527, 5])
@pytest.mark.parametrize("add", [False, True])
def test_a_gradient_with_partial_tiles_is_not_rounded(native: NativeOperations, rows: int, add: bool) -> None:
    """The operands are bf16, sums and result fp32. The error of the PyTorch matmul is 0.1."""
    left, right, before = normal(77, rows).bfloat16(), normal(77, 64, seed=1).bfloat16(), normal(rows, 64, seed=2)
    out = before.clone() if add else torch.full_like(before, float("nan"))
    native.transposed_matmul(out, left, right, add=add)
    exact = left.double().t() @ right.double() + (before.double() if add else 0)
    torch.testing.assert_close(out.double(), exact, atol=2e-5, rtol=1e-6)


@pytest.mark.parametrize("shape", [(64, 96), (96, 64), (128, 128), (100, 64)])
def test_orthogonalization(native: NativeOperations, shape: tuple[int, int]) -> None:
    matrices = [normal(*shape, seed=seed) for seed in range(3)]
    usual = newton_schulz(matrices)
    for mine, theirs in zip(native.orthogonalize([m.clone() for m in matrices]), usual, strict=True):
        # Both are in bf16, and the quintic iteration amplifies rounding errors.
        assert (mine.float() - theirs.float()).norm() / theirs.float().norm() < 0.03
        spectra = [torch.linalg.svdvals(matrix.float()) for matrix in (mine, theirs)]
        torch.testing.assert_close(*spectra, atol=0.02, rtol=0)


def a_model(family: Any) -> Transformer:
    config = ModelConfig(
        family, dim=64, n_layers=3, n_heads=2, n_kv_heads=kv_heads(family, 2, 1), head_dim=32, ffn_dim=96,
        vocab_size=160, context_length=64, tie_embeddings=True,
        **variants(family),
    )  # fmt: skip
    model = Transformer(config)
    init_weights(model, 0)
    for index, parameter in enumerate(
        model.parameters()
    ):  # Zero-initialized parameters would hide the gradients of others.
        parameter.data += normal(*parameter.shape, seed=index, scale=0.05)
    return model


@pytest.mark.parametrize("rank", [None, 4, 16])
@pytest.mark.parametrize("family", FAMILIES)
def test_models_of_every_family(chosen: NativeOperations, family: Any, rank: int | None) -> None:
    """Loss and gradients of a packed batch are as close to fp32 as the PyTorch operations in bf16.

    Also with adapters on frozen weights: their matmuls use the kernels if the rank fills a tile (16), and PyTorch if it
    does
    not (4). Frozen norms must not compute weight gradients.
    """
    model = a_model(family)
    if rank is not None:
        add_lora(model, LoRA(rank=rank))
        for index, layer in enumerate(lora_layers(model).values()):
            layer.lora_B.data = normal(*layer.lora_B.shape, seed=index, scale=0.05)
    ids = torch.randint(160, (3, 64), generator=torch.Generator().manual_seed(1))
    documents = (torch.arange(64) >= 23).long().expand(3, 64)
    positions = (torch.arange(64) - 23 * documents).expand(3, 64)

    def by(operations: Operations, dtype: torch.dtype) -> tuple[float, Tensor]:
        use_operations(model, operations)
        model.model.compute_dtype = dtype
        model.zero_grad(set_to_none=True)
        loss = model(ids, positions, documents, labels_BT=ids.roll(-1, 1)) / ids.numel()
        loss.backward()
        return loss.item(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    truth, slope = by(PLAIN, torch.float32)
    usual, usual_slope = by(PLAIN, torch.bfloat16)
    loss, gradient = by(chosen, torch.bfloat16)
    assert abs(loss - truth) <= max(2 * abs(usual - truth), 2e-3)
    assert (gradient - slope).norm() <= 1.2 * (usual_slope - slope).norm()


def test_a_copied_model_uses_the_same_kernels(native: NativeOperations) -> None:
    """FSDP copies a model without weights, adapters copy it with shared weights; a loaded library cannot be copied."""
    model = a_model("llama")
    use_operations(model, native)
    assert copy.deepcopy(model).operations is native
