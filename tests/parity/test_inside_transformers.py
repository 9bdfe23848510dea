"""Attention, hidden states and surprisal of a model equal the results of transformers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from groundup.core.errors import DataError
from groundup.evaluation.internals import TextTrace, nearest_tokens, parameter_map, positions
from groundup.hub import load_model
from groundup.model import Transformer

transformers = pytest.importorskip("transformers", reason="the parity tests need transformers: pip install '.[dev]'")

VOCAB, LENGTH, LAYERS = 200, 24, 3
SMALL: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "pad_token_id": None,
}
LEARNED: dict[str, Any] = {"vocab_size": VOCAB, "n_embd": 48, "n_layer": LAYERS, "n_head": 6, "n_positions": 64}
WHOLE_HEADS = {key: value for key, value in SMALL.items() if key not in ("num_key_value_heads", "head_dim")}
# One of each attention variant: standard, grouped, normalized, windowed, soft-capped, partly or not rotary.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2Config", LEARNED),
    "llama": ("LlamaConfig", SMALL),
    "qwen3": ("Qwen3Config", SMALL | {"tie_word_embeddings": True}),
    "gemma3": ("Gemma3TextConfig", SMALL | {"sliding_window": 6, "sliding_window_pattern": 3}),
    "gemma2": (
        "Gemma2Config",
        SMALL | {"sliding_window": 6, "attn_logit_softcapping": 0.5, "query_pre_attn_scalar": 4},
    ),
    "gpt_neox": ("GPTNeoXConfig", WHOLE_HEADS | {"rotary_pct": 0.5}),
    "olmo2": ("Olmo2Config", SMALL),
    "granite": ("GraniteConfig", SMALL | {"attention_multiplier": 0.5, "residual_multiplier": 0.5}),
    "smollm3": ("SmolLM3Config", SMALL | {"no_rope_layers": [1, 0, 1]}),
}


@pytest.fixture(scope="module", params=FAMILIES)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Transformer]:
    """The same random weights in transformers and groundup, with norm weights that differ from 1."""
    kind, settings = FAMILIES[request.param]
    torch.manual_seed(3)
    config = getattr(transformers, kind)(**settings)
    theirs = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    directory: Path = tmp_path_factory.mktemp("theirs")
    theirs.save_pretrained(directory)
    return theirs, load_model(directory, device="cpu")


@pytest.fixture(scope="module")
def ids() -> list[int]:
    return torch.randint(VOCAB, (LENGTH,), generator=torch.Generator().manual_seed(5)).tolist()


def test_attention_and_states_equal_transformers(both: tuple[Any, Transformer], ids: list[int]) -> None:
    """A wrong group, scale, rotation or window gives a picture that looks equally plausible."""
    theirs, ours = both
    with torch.no_grad():
        said = theirs(torch.tensor([ids]), output_attentions=True, output_hidden_states=True)
    reading = TextTrace(ours, ids)
    for layer in range(LAYERS):
        torch.testing.assert_close(reading.states_LTD[layer], said.hidden_states[layer][0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(reading.attention(layer), said.attentions[layer][0], rtol=1e-4, atol=1e-4)


def test_surprisal_and_the_last_lens_equal_the_model_output(both: tuple[Any, Transformer], ids: list[int]) -> None:
    theirs, ours = both
    with torch.no_grad():
        logprobs_TV = theirs(torch.tensor([ids])).logits[0].float().log_softmax(-1)
    reading = TextTrace(ours, ids)
    surprisals = reading.surprisals(expected=3)
    assert len(surprisals) == LENGTH - 1
    for place, surprisal in enumerate(surprisals):
        row = logprobs_TV[place]
        assert surprisal.nats == pytest.approx(-row[ids[place + 1]].item(), abs=1e-3)
        ahead = row - row[ids[place + 1]]
        assert 1 + int((ahead > 1e-3).sum()) <= surprisal.rank <= 1 + int((ahead > -1e-3).sum())
        assert surprisal.entropy == pytest.approx(
            torch.distributions.Categorical(logits=row).entropy().item(), abs=1e-3
        )
        assert [p for _, p in surprisal.expected] == pytest.approx(row.exp().topk(3).values.tolist(), abs=1e-3)
    guesses = reading.lens(LAYERS)
    assert [prediction.token for prediction in guesses] == logprobs_TV.argmax(-1).tolist()
    of_actual = [math.exp(-surprisal.nats) for surprisal in surprisals]
    assert [prediction.of_actual for prediction in guesses[:-1]] == pytest.approx(of_actual, abs=1e-4)
    assert guesses[-1].of_actual is None


def test_the_lens_applies_the_final_norm_and_head(both: tuple[Any, Transformer], ids: list[int]) -> None:
    """Without the final norm, the lens also shows words, but other ones."""
    theirs, ours = both
    with torch.no_grad():
        states = theirs(torch.tensor([ids]), output_hidden_states=True).hidden_states
        norms = {"transformer": "ln_f", "gpt_neox": "final_layer_norm", "model": "norm"}
        norm = next(getattr(getattr(theirs, base), name) for base, name in norms.items() if hasattr(theirs, base))
        logits_TV = theirs.get_output_embeddings()(norm(states[1]))[0]
    assert [prediction.token for prediction in TextTrace(ours, ids).lens(1)] == logits_TV.argmax(-1).tolist()


def test_attention_patterns_summarize_the_weights(both: tuple[Any, Transformer], ids: list[int]) -> None:
    theirs, ours = both
    with torch.no_grad():
        attentions = theirs(torch.tensor([ids]), output_attentions=True).attentions
    for layer, patterns in enumerate(TextTrace(ours, ids).patterns):
        for head, pattern in enumerate(patterns):
            p_TS = attentions[layer][0, head].double()
            rows = range(1, LENGTH)
            back = sum(float(p_TS[t, s]) * (t - s) for t in rows for s in range(t + 1)) / len(rows)
            assert pattern.back == pytest.approx(back, abs=1e-3)
            assert pattern.first == pytest.approx(float(p_TS[1:, 0].mean()), abs=1e-4)
            assert pattern.before == pytest.approx(sum(float(p_TS[t, t - 1]) for t in rows) / len(rows), abs=1e-4)
            assert pattern.own == pytest.approx(sum(float(p_TS[t, t]) for t in rows) / len(rows), abs=1e-4)
            spread = sum(
                torch.distributions.Categorical(p_TS[t, : t + 1]).entropy().item() / math.log(t + 1) for t in rows
            )
            assert pattern.spread == pytest.approx(spread / len(rows), abs=1e-3)


def test_nearest_tokens_positions_and_map_equal_transformers(both: tuple[Any, Transformer]) -> None:
    theirs, ours = both
    table_VD = theirs.get_input_embeddings().weight.detach().float()
    cosines_V = torch.nn.functional.cosine_similarity(table_VD, table_VD[7:8])
    nearest = [token for token in cosines_V.argsort(descending=True).tolist() if token != 7][:5]
    found = nearest_tokens(ours, 7, count=5)
    assert [token for token, _ in found] == nearest
    assert [cosine for _, cosine in found] == pytest.approx(cosines_V[nearest].tolist(), abs=1e-5)
    assert sum(count for _, count in parameter_map(ours)) == theirs.num_parameters()
    turned = positions(ours, 10)
    if hasattr(theirs, "transformer"):
        places = theirs.transformer.wpe.weight.detach()[:10]
        expected = torch.nn.functional.cosine_similarity(places[:, None], places[None], dim=-1)
        torch.testing.assert_close(turned, expected, rtol=1e-4, atol=1e-4)
    else:
        assert turned.shape == (ours.config.rotary_dim // 2, 10)  # Pairs of features.
        torch.testing.assert_close(
            turned[0], torch.arange(10).float().cos()
        )  # The first pair turns by 1 radian per position.


def test_a_single_token_is_an_error(both: tuple[Any, Transformer]) -> None:
    with pytest.raises(DataError, match="1 tokens"):
        TextTrace(both[1], [5])
