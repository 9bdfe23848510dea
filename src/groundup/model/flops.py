"""Parameters, FLOPs and memory of a shape, by formula: no model is built."""

from __future__ import annotations

from typing import Literal

from groundup.model.config import LONGEST_EXPLICIT, ModelConfig

Dtype = Literal["float32", "bfloat16", "float16"]
IDLE_BYTES = 300_000_000  # of a process that has loaded PyTorch and no model
BYTES: dict[Dtype, int] = {"float32": 4, "bfloat16": 2, "float16": 2}


def parameter_count(config: ModelConfig) -> int:
    """Parameters of a model of this shape, a tied matrix counted once."""
    embeddings = config.vocab_size * config.dim
    positions = 0 if config.rotary else config.context_length * config.dim
    head = 0 if config.tie_embeddings else embeddings
    return embeddings + positions + head + config.n_layers * _layer(config) + _norm(config)


def product_parameters(config: ModelConfig) -> int:
    """Parameters that take part in a matrix product for every token: layers and head, not the embedding table."""
    return config.n_layers * _layer_matrices(config) + config.vocab_size * config.dim


def flops_per_token(config: ModelConfig, context: int | None = None, *, trained: int | None = None) -> int:
    """Training FLOPs (forward and backward) of one token in a window of `context` tokens, the whole by default.

    6 a parameter that takes part in products, and attention's two products a layer, for the tokens that a token sees
    on average (Kaplan et al. 2020, arXiv:2001.08361; Chowdhery et al. 2022, appendix B, halved for causality). A
    frozen matrix takes 4: no gradient of its weights is made.

    Args:
        trained: parameters of adapters, which alone are trained, beside those of the shape; None: all of the shape.
    """
    whole = 3 * inference_flops_per_token(config, context)
    return whole if trained is None else whole - 2 * product_parameters(config) + 6 * trained


def inference_flops_per_token(config: ModelConfig, context: int | None = None) -> int:
    """FLOPs of the forward pass of one token, on average over a window of `context` tokens, the whole by default."""
    context = context or config.context_length
    width = config.n_heads * config.head_dim
    return 2 * product_parameters(config) + round(4 * width * tokens_seen(config, context))


def tokens_seen(config: ModelConfig, context: int) -> float:
    """How many tokens a token of a window sees on average, summed over the layers: half of it, or less where they
    slide."""
    width = config.sliding_window
    narrow = context / 2 if width is None or width >= context else width - width**2 / (2 * context)
    sliding = sum(config.slides(layer) for layer in range(config.n_layers))
    return sliding * narrow + (config.n_layers - sliding) * context / 2


def training_bytes(
    config: ModelConfig, micro_batch_size: int, *, trained: int | None = None, bits_per_weight: float = 32
) -> int:
    """Memory of training, roughly: fp32 weights, gradients, optimizer state, and a micro-batch's bf16 activations.

    Args:
        trained: as `flops_per_token` takes it; what is frozen has neither gradients nor state.
        bits_per_weight: of the frozen linear layers inside the blocks; see `groundup.model.quantized.bits_per_weight`.
    """
    tokens = micro_batch_size * config.context_length
    width = 10 * config.dim + 3 * config.ffn_dim + 4 * config.n_heads * config.head_dim
    if config.attention_softcap is not None:  # keeps tanh and probabilities in fp32, and those in bf16, lower half only
        width += 5 * config.n_heads * config.context_length // 2
    elif config.context_length <= LONGEST_EXPLICIT:  # explicit attention keeps its probabilities, upper half included
        width += config.n_heads * config.context_length
    parameters = parameter_count(config)
    kept = 16 * parameters if trained is None else 4 * parameters + 16 * trained
    kept -= round((4 - bits_per_weight / 8) * config.n_layers * _layer_matrices(config))
    return kept + 2 * tokens * config.n_layers * width


def weight_bytes(config: ModelConfig, dtype: Dtype) -> int:
    """Memory of the weights alone."""
    return BYTES[dtype] * parameter_count(config)


def cache_bytes(config: ModelConfig, tokens: int, dtype: Dtype) -> int:
    """Memory of the keys and values of so many tokens: all of them in every layer, also in those that slide."""
    return 2 * BYTES[dtype] * config.n_layers * config.n_kv_heads * config.head_dim * tokens


def inference_bytes(config: ModelConfig, tokens: int, dtype: Dtype) -> int:
    """Memory of a model that answers one sequence of so many tokens: weights, and keys and values."""
    return weight_bytes(config, dtype) + cache_bytes(config, tokens, dtype)


def _layer_matrices(config: ModelConfig) -> int:
    query, key = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    projections = 2 * config.dim * query + 2 * config.dim * key
    return projections + (3 if config.gated else 2) * config.dim * config.ffn_dim


def _layer(config: ModelConfig) -> int:
    biases = 0
    if config.qkv_bias:
        biases += (config.n_heads + 2 * config.n_kv_heads) * config.head_dim
    if config.output_bias:
        biases += config.dim
    if config.ffn_bias:
        biases += (2 if config.gated else 1) * config.ffn_dim + config.dim
    heads = 2 if config.qk_norm == "head" else config.n_heads + config.n_kv_heads if config.qk_norm else 0
    norms = (4 if config.block == "sandwich" else 2) * _norm(config)
    return _layer_matrices(config) + biases + heads * config.head_dim + norms


def _norm(config: ModelConfig) -> int:
    return (2 if config.norm == "layer" else 1) * config.dim
