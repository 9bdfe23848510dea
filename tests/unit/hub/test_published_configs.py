"""`config.json` of published models: the config gives the published number of parameters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from groundup.core.errors import FormatError
from groundup.hub.config_json import read_config_json, to_config_json
from groundup.model import ModelConfig, Transformer
from groundup.model.config import RopeScaling

SMOLLM2_135M = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 576,
    "initializer_range": 0.041666666666666664,
    "intermediate_size": 1536,
    "is_llama_config": True,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 9,
    "num_hidden_layers": 30,
    "num_key_value_heads": 3,
    "pad_token_id": 2,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_interleaved": False,
    "rope_scaling": None,
    "rope_theta": 100000,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}},
    "transformers_version": "4.42.3",
    "use_cache": True,
    "vocab_size": 49152,
}
LLAMA_32_1B = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009],
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "vocab_size": 128256,
}
GPT2 = {
    "activation_function": "gelu_new",
    "architectures": ["GPT2LMHeadModel"],
    "attn_pdrop": 0.1,
    "bos_token_id": 50256,
    "embd_pdrop": 0.1,
    "eos_token_id": 50256,
    "layer_norm_epsilon": 1e-05,
    "model_type": "gpt2",
    "n_ctx": 1024,
    "n_embd": 768,
    "n_head": 12,
    "n_layer": 12,
    "n_positions": 1024,
    "resid_pdrop": 0.1,
    "summary_type": "cls_index",
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
    "vocab_size": 50257,
}
QWEN25_15B = {
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "max_position_embeddings": 131072,
    "max_window_layers": 28,
    "model_type": "qwen2",
    "num_attention_heads": 12,
    "num_hidden_layers": 28,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 131072,
    "tie_word_embeddings": True,
    "use_mrope": False,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
QWEN3_06B = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "max_position_embeddings": 40960,
    "max_window_layers": 28,
    "model_type": "qwen3",
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
MISTRAL_7B = {
    "architectures": ["MistralForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "model_type": "mistral",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "tie_word_embeddings": False,
    "vocab_size": 32000,
}
GEMMA3_1B = {
    "architectures": ["Gemma3ForCausalLM"],
    "attention_bias": False,
    "attn_logit_softcapping": None,
    "cache_implementation": "hybrid",
    "final_logit_softcapping": None,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 1152,
    "intermediate_size": 6912,
    "max_position_embeddings": 32768,
    "model_type": "gemma3_text",
    "num_attention_heads": 4,
    "num_hidden_layers": 26,
    "num_key_value_heads": 1,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06,
    "rope_local_base_freq": 10000,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": 512,
    "sliding_window_pattern": 6,
    "vocab_size": 262144,
}
# The text config omits transformers' defaults.
GEMMA3_4B = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "model_type": "gemma3",
    "text_config": {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    },
    "vision_config": {"hidden_size": 1152, "model_type": "siglip_vision_model"},
}
PUBLISHED: list[tuple[str, dict[str, Any], int]] = [
    ("SmolLM2-135M", SMOLLM2_135M, 134_515_008),
    ("Llama-3.2-1B", LLAMA_32_1B, 1_235_814_400),
    ("gpt2", GPT2, 124_439_808),
    ("Qwen2.5-1.5B", QWEN25_15B, 1_543_714_304),
    ("Qwen3-0.6B", QWEN3_06B, 596_049_920),
    ("Mistral-7B-v0.1", MISTRAL_7B, 7_241_732_096),
    ("gemma-3-1b", GEMMA3_1B, 999_885_952),
    ("gemma-3-4b, its text", GEMMA3_4B, 3_880_263_168),
]


@pytest.mark.parametrize(("name", "theirs", "parameters"), PUBLISHED, ids=[name for name, _, _ in PUBLISHED])
def test_a_published_config_gives_the_published_size(name: str, theirs: dict[str, Any], parameters: int) -> None:
    config = read_config_json(theirs)
    with torch.device("meta"):
        model = Transformer(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert read_config_json(to_config_json(config)) == config
    assert ModelConfig.from_json(config.to_json()) == config


def test_options_are_read_from_published_keys() -> None:
    llama, gemma, seeing = (read_config_json(theirs) for theirs in (LLAMA_32_1B, GEMMA3_1B, GEMMA3_4B))
    assert llama.rope_scaling == RopeScaling("llama3", 32.0, 8192, 1.0, 4.0)
    assert (gemma.rope_theta, gemma.local_rope_theta, gemma.sliding_window) == (1e6, 1e4, 512)
    assert [gemma.slides(layer) for layer in range(12)] == [True] * 5 + [False] + [True] * 5 + [False]
    assert seeing.rope_scaling == RopeScaling("linear", 8.0)
    assert read_config_json(MISTRAL_7B).sliding_window == 4096
    assert read_config_json(QWEN25_15B).sliding_window is None  # The value is set but disabled.
    switched_on = QWEN25_15B | {"use_sliding_window": True, "sliding_window": 100, "max_window_layers": 20}
    assert read_config_json(switched_on).sliding_layers == (False,) * 20 + (True,) * 8


def test_a_plan_of_an_older_release_keeps_its_digest() -> None:
    """New keys in its JSON would change the digest, and unfinished runs could not be resumed."""
    config = ModelConfig("qwen3", 64, 2, 4, 2, 16, 128, 97, 32)
    assert list(config.to_json()) == [
        "family", "dim", "n_layers", "n_heads", "n_kv_heads", "head_dim", "ffn_dim", "vocab_size", "context_length",
        "rope_theta", "norm_eps", "tie_embeddings",
    ]  # fmt: skip
    assert replace(config, sliding_window=8).to_json()["sliding_window"] == 8


def test_gpt_neox_config_of_transformers_4() -> None:
    """transformers 4.57 writes the rotary fraction under two names, and a saved Pythia was rejected."""
    theirs = {
        "architectures": ["GPTNeoXForCausalLM"],
        "hidden_act": "gelu",
        "hidden_size": 64,
        "intermediate_size": 256,
        "model_type": "gpt_neox",
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "rotary_pct": 0.25,
        "vocab_size": 512,
    }
    config = read_config_json(theirs)
    assert read_config_json(theirs | {"partial_rotary_factor": 0.25}) == config
    with pytest.raises(FormatError, match="partial_rotary_factor"):
        read_config_json(theirs | {"partial_rotary_factor": 0.5})
