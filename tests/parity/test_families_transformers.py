"""Models written by transformers, with the variants of each family, are read, written, and read by transformers again.

A missed variant does not fail but gives fluent, wrong answers. So each variant is enabled and has an effect: windows
are shorter than the text, contexts longer than the original context of the RoPE scaling.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from groundup.hub import SpecialTokenIds, load_model, open_weights, save_model, save_weights

transformers = pytest.importorskip("transformers", reason="the parity tests need transformers: pip install '.[dev]'")

VOCAB, LENGTH = 300, 48
SMALL: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 100,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "pad_token_id": None,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 16}
LINEAR = {"rope_type": "linear", "rope_theta": 20_000.0, "factor": 4.0}
DEFAULT = {"rope_type": "default", "rope_theta": 30_000.0}
FULL, SLIDING = "full_attention", "sliding_attention"

VARIANTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "gpt2": ("GPT2Config", {"tie_word_embeddings": True}, "float32"),
    "gpt2, untied, unscaled, a narrow feed-forward layer": (
        "GPT2Config",
        {"tie_word_embeddings": False, "scale_attn_weights": False, "n_inner": 80, "layer_norm_epsilon": 1e-3},
        "bfloat16",
    ),
    "llama": ("LlamaConfig", {}, "float32"),
    "llama 3, biases, tied": (
        "LlamaConfig",
        {"rope_parameters": LLAMA3, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
        "bfloat16",
    ),
    "llama, linear": ("LlamaConfig", {"rope_parameters": LINEAR, "rms_norm_eps": 1e-3}, "float16"),
    "llama, no key of its own says head_dim": (
        "LlamaConfig",
        {"head_dim": None, "num_key_value_heads": None},
        "float32",
    ),
    "mistral, no window": ("MistralConfig", {"sliding_window": None, "rope_parameters": DEFAULT}, "bfloat16"),
    "mistral, a window": ("MistralConfig", {"sliding_window": 7}, "float32"),
    "qwen2, tied": ("Qwen2Config", {"tie_word_embeddings": True, "head_dim": 8}, "bfloat16"),
    "qwen2, windows from a layer on, yarn": (
        "Qwen2Config",
        {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 2, "rope_parameters": YARN},
        "float32",
    ),
    "qwen3": ("Qwen3Config", {"rope_parameters": DEFAULT}, "bfloat16"),
    "qwen3, biases, windows by layer, yarn by hand": (
        "Qwen3Config",
        {
            "attention_bias": True,
            "use_sliding_window": True,
            "sliding_window": 5,
            "layer_types": [SLIDING, FULL, SLIDING, FULL],
            "rope_parameters": YARN | {"attention_factor": 1.5, "beta_fast": 8.0, "beta_slow": 2.0, "truncate": False},
            "tie_word_embeddings": True,
        },
        "float16",
    ),
    "qwen3, yarn with mscale": (
        "Qwen3Config",
        {"rope_parameters": YARN | {"mscale": 1.0, "mscale_all_dim": 0.5}, "head_dim": 32},
        "float32",
    ),
    "gemma3": (
        "Gemma3TextConfig",
        {
            "sliding_window": 6,
            "sliding_window_pattern": 3,
            "query_pre_attn_scalar": 24,
            "rope_parameters": {
                FULL: LINEAR | {"rope_theta": 1e6},
                SLIDING: {"rope_type": "default", "rope_theta": 1e4},
            },
        },
        "float32",
    ),
    "gemma3, soft-capped, untied, biases": (
        "Gemma3TextConfig",
        {
            "sliding_window": 6,
            "layer_types": [FULL, SLIDING, SLIDING, FULL],
            "final_logit_softcapping": 3.0,
            "query_pre_attn_scalar": 16,
            "attention_bias": True,
            "tie_word_embeddings": False,
        },
        "bfloat16",
    ),
    "gemma2, soft-capped": (
        "Gemma2Config",
        {
            "sliding_window": 6,
            "attn_logit_softcapping": 0.7,
            "final_logit_softcapping": 3.0,
            "query_pre_attn_scalar": 24,
            "rope_parameters": LINEAR,
        },
        "float32",
    ),
    "gemma2, no softcaps, own windows, untied, biases": (
        "Gemma2Config",
        {
            "sliding_window": 5,
            "layer_types": [FULL, SLIDING, SLIDING, FULL],
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "query_pre_attn_scalar": 16,
            "attention_bias": True,
            "tie_word_embeddings": False,
        },
        "bfloat16",
    ),
    "gpt_neox": ("GPTNeoXConfig", {}, "float16"),
    "gpt_neox, rotated whole, linear, tied": (
        "GPTNeoXConfig",
        {"rope_parameters": LINEAR | {"partial_rotary_factor": 1.0}, "tie_word_embeddings": True},
        "float32",
    ),
    "gpt_neox, a part of an odd share": (
        "GPTNeoXConfig",
        {"hidden_size": 72, "rope_parameters": DEFAULT | {"partial_rotary_factor": 0.35}, "layer_norm_eps": 1e-3},
        "bfloat16",
    ),
    "olmo2": ("Olmo2Config", {"tie_word_embeddings": True}, "float32"),
    "olmo2, biases, yarn": ("Olmo2Config", {"attention_bias": True, "rope_parameters": YARN}, "bfloat16"),
    "phi3, a window": ("Phi3Config", {"sliding_window": 7, "head_dim": 8}, "bfloat16"),
    "phi3, a part, tied": (
        "Phi3Config",
        {
            "rope_parameters": DEFAULT | {"partial_rotary_factor": 0.75},
            "tie_word_embeddings": True,
            "num_key_value_heads": 6,
            "head_dim": 8,
        },
        "float32",
    ),
    "granite": (
        "GraniteConfig",
        {
            "embedding_multiplier": 3.0,
            "attention_multiplier": 0.3,
            "residual_multiplier": 0.22,
            "logits_scaling": 0.3,
            "tie_word_embeddings": True,
        },
        "float32",
    ),
    "granite, one of everything, biases": (
        "GraniteConfig",
        {"attention_multiplier": 0.25, "attention_bias": True, "mlp_bias": True, "rope_parameters": LINEAR},
        "bfloat16",
    ),
    "smollm3": ("SmolLM3Config", {}, "float32"),
    "smollm3, own layers without positions, windows, biases": (
        "SmolLM3Config",
        {
            "no_rope_layers": [0, 1, 0, 1],
            "use_sliding_window": True,
            "sliding_window": 6,
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": False,
            "rope_parameters": YARN,
        },
        "bfloat16",
    ),
    "smollm3, positions everywhere": ("SmolLM3Config", {"no_rope_layers": [1] * 4}, "bfloat16"),
    "gemma3, no window, all layers alike": (
        "Gemma3TextConfig",
        {"layer_types": [FULL] * 4, "rope_parameters": {FULL: DEFAULT, SLIDING: DEFAULT}},
        "float32",
    ),
}
# Keys that do not change the weights' meaning, or are only read with sliding windows.
NO_MEANING = {
    "architectures", "transformers_version", "dtype", "_name_or_path", "use_cache", "initializer_range",
    "pretraining_tp", "sliding_window_pattern", "_sliding_window_pattern", "attention_dropout", "attn_pdrop",
    "embd_pdrop", "resid_pdrop", "bos_token_id", "eos_token_id", "pad_token_id", "max_window_layers",
    "use_sliding_window", "reorder_and_upcast_attn", "n_inner", "summary_type", "summary_use_proj",
    "summary_activation", "summary_proj_to_labels", "summary_first_dropout", "hidden_dropout", "classifier_dropout",
    "no_rope_layer_interval", "partial_rotary_factor",
}  # fmt: skip


def meaning(config: Any) -> dict[str, Any]:
    said = {key: value for key, value in config.to_dict().items() if key not in NO_MEANING}
    if config.model_type == "gpt2":
        said["n_inner"] = config.n_inner or 4 * config.n_embd
    if FULL in (kinds := said.get("layer_types") or [SLIDING]) and SLIDING not in kinds:
        said.pop("sliding_window")
    for rope in [said.get("rope_parameters") or {}, *(said.get("rope_parameters") or {}).values()]:
        if isinstance(rope, dict) and rope.pop("mscale", None):  # Two keys for a factor.
            below = rope.pop("mscale_all_dim")
            stretch = 0.1 * torch.tensor(rope["factor"]).double().log().item()
            rope["attention_factor"] = pytest.approx((stretch + 1) / (below * stretch + 1))
    return said


def made_by_transformers(directory: Path, variant: str) -> Any:
    kind, changes, dtype = VARIANTS[variant]
    if kind == "GPT2Config":
        sizes = {"n_embd": 48, "n_layer": 3, "n_head": 3, "n_positions": 64, "vocab_size": VOCAB}
    else:
        sizes = dict(SMALL)
    if kind == "GPTNeoXConfig":
        del sizes["num_key_value_heads"], sizes["head_dim"]
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, kind)(**sizes | changes))
    generator = torch.Generator().manual_seed(len(variant))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15, generator=generator)
    model.to(getattr(torch, dtype)).eval().save_pretrained(directory)
    return transformers.AutoModelForCausalLM.from_pretrained(directory, dtype="auto").eval()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_survives_a_round_trip_bit_for_bit(variant: str, tmp_path: Path) -> None:
    theirs = made_by_transformers(tmp_path / "theirs", variant)
    ids = torch.randint(0, VOCAB, (2, LENGTH), generator=torch.Generator().manual_seed(1))
    ours = load_model(tmp_path / "theirs")
    stored = open_weights(tmp_path / "theirs")
    save_weights(tmp_path / "again", stored.config, stored, SpecialTokenIds(1, 2))
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "again", dtype="auto").eval()
    assert meaning(again.config) == meaning(theirs.config)
    assert again.state_dict().keys() == theirs.state_dict().keys()
    for name, tensor in theirs.state_dict().items():
        other = again.state_dict()[name]
        assert tensor.dtype == other.dtype == getattr(torch, VARIANTS[variant][2])
        assert torch.equal(tensor, other), name
    with torch.no_grad():
        assert torch.equal(again(ids).logits, theirs(ids).logits)
        logits = ours(ids)
        precise = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "theirs", dtype=torch.float32).eval()
        torch.testing.assert_close(logits, precise(ids).logits, atol=1e-4, rtol=0)
        cache = ours.new_cache(2, LENGTH)
        pieces = [ours(ids[:, a:b], cache=cache) for a, b in pairwise([0, 3, 20, 21, 22, 40, LENGTH])]
        torch.testing.assert_close(torch.cat(pieces, dim=1), logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("variant", ["gpt2, untied, unscaled, a narrow feed-forward layer", "llama 3, biases, tied"])
def test_a_model_keeps_its_stored_dtype(variant: str, tmp_path: Path) -> None:
    theirs = made_by_transformers(tmp_path / "theirs", variant)
    ours = load_model(tmp_path / "theirs", dtype=None)
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.bfloat16}
    save_model(tmp_path / "ours", ours, bos_id=1, eos_id=2)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype="auto")
    assert again.dtype == torch.bfloat16
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in theirs.state_dict().items())


@pytest.mark.parametrize("variant", ["gpt2", "gemma3, soft-capped, untied, biases", "llama 3, biases, tied"])
def test_shards_are_read_and_written(variant: str, tmp_path: Path) -> None:
    theirs = made_by_transformers(tmp_path / "one", variant)
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="40KB")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 3
    stored = open_weights(tmp_path / "theirs")
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "model.safetensors").write_bytes(b"of an older model")
    save_weights(tmp_path / "ours", stored.config, stored, SpecialTokenIds(1, 2), shard_bytes=60_000)
    assert len(list((tmp_path / "ours").glob("*.safetensors"))) > 2
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype="auto")
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in theirs.state_dict().items())
    save_weights(tmp_path / "ours", stored.config, stored, SpecialTokenIds(1, 2))
    assert [path.name for path in (tmp_path / "ours").glob("model*")] == ["model.safetensors"]
    assert all(torch.equal(stored[name], tensor) for name, tensor in open_weights(tmp_path / "ours").items())


@pytest.mark.parametrize("variant", ["gpt2", "llama"])
def test_a_model_without_head_has_names_without_prefix(variant: str, tmp_path: Path) -> None:
    """The GPT-2 of the hub has "wte.weight", not "transformer.wte.weight"."""
    kind, _, _ = VARIANTS[variant]
    sizes = {"n_embd": 48, "n_layer": 3, "n_head": 3} if variant == "gpt2" else dict(SMALL)
    config = getattr(transformers, kind)(**sizes | {"vocab_size": VOCAB, "tie_word_embeddings": True})
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    ids = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(load_model(tmp_path)(ids), theirs(ids).logits, atol=1e-4, rtol=0)


def test_the_text_model_of_a_multimodal_gemma_is_read(tmp_path: Path) -> None:
    """From 4B on, every Gemma 3 is published as a multimodal model."""
    text = SMALL | {"sliding_window": 6, "sliding_window_pattern": 3}
    eyes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.Gemma3Config(
        text_config=text,
        vision_config=eyes | {"image_size": 28, "patch_size": 14},
        mm_tokens_per_image=1,
        image_token_index=VOCAB - 1,
    )
    theirs = transformers.Gemma3ForConditionalGeneration(config).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.15, generator=generator)
    theirs.save_pretrained(tmp_path / "theirs")
    ids = torch.randint(0, VOCAB - 1, (2, LENGTH), generator=generator)
    stored = open_weights(tmp_path / "theirs")
    save_weights(tmp_path / "ours", stored.config, stored, SpecialTokenIds(1, 2))
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    with torch.no_grad():
        expected = theirs(input_ids=ids).logits
        torch.testing.assert_close(load_model(tmp_path / "theirs")(ids), expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(again(ids).logits, expected, atol=1e-4, rtol=0)
