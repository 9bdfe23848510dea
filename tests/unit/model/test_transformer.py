"""The transformer: cached, packed and chunked computation give equal results."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from family_shapes import kv_heads, variants
from groundup.core.errors import ConfigError
from groundup.core.types import IGNORE_INDEX, SHARED_PREFIX
from groundup.model import FAMILIES, ModelConfig, Transformer, init_weights
from groundup.model.loss import summed_nll
from groundup.model.operations import CHUNK_ROWS
from groundup.model.scaled_attention import MASKED_QUERY_BLOCKS, _blocks, explicit_attention, repeat_kv

WINDOWS: list[tuple[str, dict[str, Any]]] = [
    ("mistral", {"sliding_window": 4}),
    ("qwen3", {"sliding_window": 4, "sliding_layers": (False, True)}),
    ("gemma3", {"sliding_window": 4, "sliding_layers": (True, False), "local_rope_theta": 100.0, "logit_softcap": 2.0}),
    ("gemma2", {"sliding_window": 4, "sliding_layers": (True, False), "attention_softcap": 0.5, "logit_softcap": 2.0}),
    ("phi3", {"sliding_window": 4}),
    ("smollm3", {"sliding_window": 4, "sliding_layers": (False, True), "rotary_layers": (True, False)}),
]
OTHERS = [(family, variants(family, 2)) for family in ("gpt_neox", "granite", "smollm3")]


def tiny(family: str = "qwen3", *, tied: bool = False, context_length: int = 32, **variants: Any) -> Transformer:
    config = ModelConfig(
        family, 32, 2, 4, kv_heads(family, 4, 2), 8, 64, 97, context_length, tie_embeddings=tied, **variants
    )
    model = Transformer(config)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    return model


def some_ids(rows: int, length: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, 97, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("family", FAMILIES)
@given(cuts=st.lists(st.integers(1, 31), max_size=5, unique=True))
@settings(max_examples=15, deadline=None)
def test_cached_logits_equal_uncached(family: str, cuts: list[int]) -> None:
    # With an off-by-one cache, text is still fluent, so only a comparison finds the error.
    model, ids = tiny(family), some_ids(2, 32)
    with torch.no_grad():
        expected = model(ids)
        cache = model.new_cache(2, 32)
        edges = [0, *sorted(cuts), 32]
        pieces = [model(ids[:, a:b], cache=cache) for a, b in pairwise(edges)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("family", "variants"), WINDOWS)
def test_sliding_windows_hide_earlier_tokens(family: str, variants: dict[str, Any]) -> None:
    """Two layers with windows of 4 tokens reach 3 + 3 tokens back. Earlier tokens must not change the output."""
    model = tiny(family, **variants | {"sliding_layers": None})
    ids = some_ids(1, 20)
    changed = {back: ids.clone() for back in (6, 7)}
    for back, other in changed.items():
        other[0, 19 - back] = (other[0, 19 - back] + 1) % 97
    for grad in (True, False):  # training uses another code path
        with torch.set_grad_enabled(grad):
            last = model(ids)[0, -1]
            assert torch.equal(model(changed[7])[0, -1], last)
            assert not torch.allclose(model(changed[6])[0, -1], last, atol=1e-4)


def test_a_truncated_cache_equals_a_new_one() -> None:
    model, ids = tiny(), some_ids(1, 20)
    with torch.no_grad():
        cache = model.new_cache(1, 32)
        model(ids, cache=cache)
        cache.truncate(7)
        again = model(ids[:, 7:9], cache=cache)
        torch.testing.assert_close(again, model(ids[:, :9])[:, 7:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("family", "variants"), [*((family, {}) for family in FAMILIES), *WINDOWS, *OTHERS])
def test_packed_loss_equals_separate_documents(family: str, variants: dict[str, Any]) -> None:
    # Without the mask, tokens would attend to other documents in the row.
    model = tiny(family, **variants)
    lengths = [5, 17, 10]
    documents = [some_ids(1, n + 1, seed) for seed, n in enumerate(lengths)]
    alone = sum(model(d[:, :-1], labels_BT=d[:, 1:]) for d in documents)
    packed = model(
        torch.cat([d[:, :-1] for d in documents], 1),
        positions_BT=torch.cat([torch.arange(n) for n in lengths])[None],
        document_ids_BT=torch.cat([torch.full((n,), i) for i, n in enumerate(lengths)])[None],
        labels_BT=torch.cat([d[:, 1:] for d in documents], 1),
    )
    torch.testing.assert_close(packed, alone)


@pytest.mark.parametrize(("family", "variants"), [*((family, {}) for family in FAMILIES), *WINDOWS, *OTHERS])
def test_shared_prefixes_equal_separate_documents(family: str, variants: dict[str, Any]) -> None:
    """The loss and the gradients are those of documents that each contain their prefix, also in sliding windows."""
    model = tiny(family, **variants)
    groups = [(some_ids(1, 5, 7), [4, 7]), (some_ids(1, 6, 8), [3, 6])]  # prefixes, and the lengths after them
    ids, positions, documents, labels, alone = [], [], [], [], torch.zeros(())
    for prefix, lengths in groups:
        size = prefix.shape[1]
        ignored = torch.full((1, size), IGNORE_INDEX)
        ids.append(prefix)
        positions += range(size)
        documents += [SHARED_PREFIX] * size
        labels.append(ignored)
        for length in lengths:
            rest = some_ids(1, length + 1, length)
            alone = alone + model(torch.cat([prefix, rest[:, :-1]], 1), labels_BT=torch.cat([ignored, rest[:, 1:]], 1))
            ids.append(rest[:, :-1])
            positions += range(size, size + length)
            documents += [max(documents) + 1] * length
            labels.append(rest[:, 1:])
    packed = model(
        torch.cat(ids, 1),
        positions_BT=torch.tensor([positions]),
        document_ids_BT=torch.tensor([documents]),
        labels_BT=torch.cat(labels, 1),
    )
    torch.testing.assert_close(packed, alone)
    parameters = list(model.parameters())
    gradients = (torch.autograd.grad(loss, parameters, allow_unused=True) for loss in (packed, alone))
    for got, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("z_loss", [0.0, 0.01])
def test_loss_and_gradients_equal_cross_entropy(z_loss: float) -> None:
    # More rows than a chunk, and ignored labels.
    generator = torch.Generator().manual_seed(0)
    rows = CHUNK_ROWS + 300
    h = torch.randn(rows, 16, generator=generator, requires_grad=True)
    weight = torch.randn(50, 16, generator=generator, requires_grad=True)
    labels = torch.randint(0, 50, (rows,), generator=generator)
    labels[::7] = IGNORE_INDEX
    ours = summed_nll(h, weight, labels, z_loss=z_loss)
    plain = F.cross_entropy(h @ weight.T, labels, ignore_index=IGNORE_INDEX, reduction="sum")
    torch.testing.assert_close(ours, plain)
    held = plain + z_loss * (h @ weight.T)[labels != IGNORE_INDEX].logsumexp(1).square().sum()
    for got, expected in zip(
        torch.autograd.grad(3 * ours, (h, weight)), torch.autograd.grad(3 * held, (h, weight)), strict=True
    ):
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("document_length", [None, 21, 4])
def test_explicit_attention_equals_pytorch(kv_heads: int, document_length: int | None) -> None:
    """Without a mask, with few hidden keys, and with so many that the blocks skip them."""
    masked = document_length is not None
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(2, heads, 24, 8, generator=generator, requires_grad=True) for heads in (4, kv_heads, kv_heads)
    )
    document = torch.arange(24).expand(2, 24) // (document_length or 24)
    causal = torch.ones(24, 24, dtype=torch.bool).tril()
    mask = ((document[:, :, None] == document[:, None, :]) & causal)[:, None] if masked else None
    assert (len(_blocks(24, mask)) == MASKED_QUERY_BLOCKS) == (document_length == 4)
    ours = explicit_attention(q, k, v, mask, 0.4)
    plain = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=not masked, enable_gqa=True, scale=0.4)
    torch.testing.assert_close(ours, plain)
    k_N, v_N = (repeat_kv(x, 4) for x in (k, v))  # as on a GPU with a mask
    spread = F.scaled_dot_product_attention(q, k_N, v_N, attn_mask=mask, is_causal=not masked, scale=0.4)
    torch.testing.assert_close(spread, plain)
    upstream = torch.randn(ours.shape, generator=generator)
    for got, expected in zip(
        torch.autograd.grad(ours, (q, k, v), upstream), torch.autograd.grad(plain, (q, k, v), upstream), strict=True
    ):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


def test_the_initial_loss_is_uniform_and_equal_seeds_give_equal_weights() -> None:
    first, second = tiny(), tiny()
    for model in (first, second):
        init_weights(model, seed=3)
    ids = some_ids(4, 33)
    loss = first(ids[:, :-1], labels_BT=ids[:, 1:]) / ids[:, 1:].numel()
    assert abs(loss.item() - torch.tensor(97.0).log().item()) < 0.01
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_more_tokens_than_the_context_are_an_error() -> None:
    with pytest.raises(ConfigError, match="context_length is 16"):
        tiny(context_length=16)(some_ids(1, 17))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"n_kv_heads": 3}, "n_kv_heads"),
        ({"dim": 0}, "dim"),
        ({"head_dim": 7}, "head_dim"),
        ({"family": "bert"}, "bert"),
        ({"family": "gpt2"}, "GPT-2"),
    ],
)
def test_invalid_configs_are_errors(changes: dict[str, object], named: str) -> None:
    fields = {
        "family": "qwen3",
        "dim": 32,
        "n_layers": 2,
        "n_heads": 4,
        "n_kv_heads": 2,
        "head_dim": 8,
        "ffn_dim": 64,
        "vocab_size": 97,
        "context_length": 32,
    }
    with pytest.raises(ConfigError, match=named):
        ModelConfig(**fields | changes)  # type: ignore[arg-type]
