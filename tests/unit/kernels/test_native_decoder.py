"""The compiled forward pass: close to PyTorch, and bitwise equal in every schedule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random

import pytest
import torch
from torch import Tensor

from family_shapes import small
from groundup.kernels import native_decoder
from groundup.kernels.native_decoder import (
    BLOCK_TOKENS,
    Chunk,
    NativeDecoder,
    unsupported_reason,
)
from groundup.kernels.native_library import native_library
from groundup.kernels.weight_packing import WeightFormat
from groundup.model import Transformer
from groundup.model.families import FAMILIES
from groundup.model.lora import LoRA, add_lora
from groundup.model.quantized import QuantizedWeight, quantize_int4

pytestmark = pytest.mark.skipif(native_library() is None, reason="no C++ kernels on this machine")
FORMATS: tuple[WeightFormat, ...] = ("bfloat16", "int8", "int4")
LENGTH = 24
# The kernels also round the inputs of matrices, to the format of the weights or 8 bits, and keys and values to bf16.
TOLERANCE: dict[WeightFormat, float] = {"bfloat16": 0.02, "int8": 0.06, "int4": 0.06}


@pytest.fixture(params=["this CPU", "emulated_amx", "without_vnni", "avx2"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "this CPU":
        library = request.getfixturevalue(request.param)
        monkeypatch.setattr(native_decoder, "native_library", lambda: library)


def build(family: str = "qwen3", seed: int = 0) -> Transformer:
    """A random model whose norms and biases matter."""
    torch.manual_seed(seed)
    model = Transformer(small(family)).eval()
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            parameter.data += 0.2 * torch.randn_like(parameter)
        else:
            parameter.data *= 3 if "embed" not in name else 1
    return model


def rounded(model: Transformer, weights: WeightFormat) -> Transformer:
    """The model with its matrices rounded as the kernels store them."""
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2 or "embed_positions" in name or "lora" in name:
            continue
        if weights == "bfloat16":
            parameter.data = parameter.data.bfloat16().float()
        else:
            outer = "embed" in name or "lm_head" in name
            is_int8 = weights == "int8" or outer
            parameter.data = (
                QuantizedWeight.quantize(parameter.data, 8).dequantize() if is_int8 else int4(parameter.data)
            )
    return model


def int4(weight: Tensor) -> Tensor:
    """Return a matrix rounded to 4 bits."""
    return quantize_int4(weight).dequantize()


class Caches:
    """Blocks for sequences, filled with NaN: what was not stored must not be read."""

    def __init__(self, decoder: NativeDecoder, count: int, length: int = LENGTH + 8) -> None:
        blocks = math.ceil(length / BLOCK_TOKENS)
        self._pool = torch.full((count, blocks, decoder.block_bytes // 2), math.nan, dtype=torch.bfloat16)
        self.tables = [torch.tensor([block.data_ptr() for block in sequence]) for sequence in self._pool]


def random_ids(count: int, length: int = LENGTH) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, small("qwen3").vocab_size, (count, length), generator=generator).tolist()


def one_by_one(decoder: NativeDecoder, ids: Sequence[int]) -> Tensor:
    """Logits (T, V) after each token, each computed by a pass of its own."""
    cache = Caches(decoder, 1)
    steps = [decoder.forward([Chunk([token], place, cache.tables[0])]) for place, token in enumerate(ids)]
    return torch.cat(steps)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("weights", FORMATS)
def test_logits_are_those_of_pytorch(family: str, weights: WeightFormat) -> None:
    model = build(family)
    decoder = NativeDecoder(model, weights, threads=1)
    (ids,) = random_ids(1)
    logits_TV = one_by_one(decoder, ids)
    with torch.inference_mode():
        expected_TV = rounded(model, weights)(torch.tensor([ids]))[0]
    assert (logits_TV - expected_TV).norm() < TOLERANCE[weights] * expected_TV.norm()


@pytest.mark.parametrize("weights", FORMATS)
def test_adapters_are_applied(weights: WeightFormat) -> None:
    model = build()
    add_lora(model, LoRA(rank=3, alpha=6))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_()
    (ids,) = random_ids(1)
    logits_TV = one_by_one(NativeDecoder(model, weights, threads=1), ids)
    with torch.inference_mode():
        expected_TV = rounded(model, weights)(torch.tensor([ids]))[0]
    assert (logits_TV - expected_TV).norm() < TOLERANCE[weights] * expected_TV.norm()


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("family", ["qwen3", "gemma2", "olmo2", "gpt2"])
@pytest.mark.parametrize("weights", FORMATS)
def test_results_do_not_depend_on_the_schedule(family: str, weights: WeightFormat) -> None:
    decoder = NativeDecoder(build(family), weights, threads=1)
    sequences = random_ids(7)
    alone = [one_by_one(decoder, ids) for ids in sequences]
    random = Random(0)
    for threads in (1, 2, 3):
        decoder.threads = threads
        cache = Caches(decoder, len(sequences))
        lengths = [0] * len(sequences)
        while min(lengths) < LENGTH:
            chunks, owners = [], []
            for owner in random.sample(range(len(sequences)), random.randint(1, len(sequences))):
                start = lengths[owner]
                end = min(LENGTH, start + random.choice([1, 1, 1, 2, 5, 17]))
                if start < end:
                    chunks.append(Chunk(sequences[owner][start:end], start, cache.tables[owner], random.random() < 0.8))
                    owners.append(owner)
                    lengths[owner] = end
            if not chunks:
                continue
            logits = iter(decoder.forward(chunks))
            for chunk, owner in zip(chunks, owners, strict=True):
                if chunk.scored:
                    assert torch.equal(next(logits), alone[owner][chunk.start + len(chunk.ids) - 1])


@pytest.mark.parametrize("weights", ["int8", "int4"])
@pytest.mark.parametrize("length", [1, 9, 16, 23])
@pytest.mark.parametrize("other", ["emulated_amx", "without_vnni", "avx2"])
def test_all_dot_product_instructions_give_the_same_bits(
    weights: WeightFormat, length: int, other: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dot products of int8 values are exact. Only 1 / x in the activation is rounded differently with AVX2."""
    model = build()
    (ids,) = random_ids(1, length)

    def logits() -> Tensor:
        decoder = NativeDecoder(model, weights, threads=2)
        cache = Caches(decoder, 1)
        return decoder.forward([Chunk(ids, 0, cache.tables[0])])

    usual = logits()
    library = request.getfixturevalue(other)
    monkeypatch.setattr(native_decoder, "native_library", lambda: library)
    same = torch.equal(logits(), usual)
    assert same or (other == "avx2" and (logits() - usual).norm() < 1e-2 * usual.norm())


def test_int4_keeps_weights_that_are_on_its_grid() -> None:
    generator = torch.Generator().manual_seed(0)
    q = torch.randint(0, 16, (8, 4, 32), generator=generator).float()
    q[..., 0], q[..., 1] = 0, 15
    scales = torch.rand(8, 4, 1, generator=generator).half().float()
    weight = (q * scales - 5 * scales.half().float()).flatten(1)
    assert torch.allclose(int4(weight), weight, atol=2e-3)
    noise = torch.randn(16, 128, generator=generator)
    assert (int4(noise) - noise).norm() < 0.09 * noise.norm()


def test_more_tokens_than_a_pass_has() -> None:
    model = build()
    decoder = NativeDecoder(model, "int8", threads=2)
    sequences = random_ids(12, 32)
    cache = Caches(decoder, 12, 32)
    logits = decoder.forward([Chunk(ids, 0, table) for ids, table in zip(sequences, cache.tables, strict=True)])
    assert torch.equal(logits[-1], one_by_one(decoder, sequences[-1])[-1])


def test_a_model_with_odd_sizes_is_refused() -> None:
    config = small("qwen3", dim=40)
    assert "multiples of 32" in (unsupported_reason(Transformer(config)) or "")
