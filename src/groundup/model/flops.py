"""Computation of the parameters, FLOPs and memory of a model from its config."""

from __future__ import annotations

from typing import Literal

from groundup.model.config import MAX_EXPLICIT_LENGTH, ModelConfig

Dtype = Literal["float32", "bfloat16", "float16"]
IDLE_BYTES = 300_000_000  # memory of a process that has imported PyTorch but has not loaded a model
COMPILER_BYTES = 220_000_000  # additional memory of a process that has compiled a model with `torch.compile`
# Constants of `fused_training_bytes`, for an AMD EPYC and an Intel Xeon with AMX, with torch 2.13 (December 2026).
FUSED_IDLE_BYTES = 435e6
_FUSED_MATRIX = 6.5  # bytes per parameter of the matrices in the layers: weights, and part of the gradients
_FUSED_ACTIVATIONS = 1.0  # factor on the values that are saved without recomputation, with fragmentation of the heap
_FUSED_LOGIT = 4.6  # bytes per logit of a chunk
_FUSED_ACCUMULATED = 4  # bytes per parameter of gradients that are kept while the next micro-batch is computed
# The loss is computed in chunks of at most 200 MB of bf16 logits. Chunks are large because each chunk reads and writes
# the whole gradient of the LM head (150 MB for GPT-2).
MAX_CHUNK_LOGITS = 104_000_000
MAX_CHUNK_ROWS = 4096
BYTES: dict[Dtype, int] = {"float32": 4, "bfloat16": 2, "float16": 2}


def parameter_count(config: ModelConfig) -> int:
    """Return the number of parameters. Tied embeddings are counted once."""
    embeddings = config.vocab_size * config.dim
    positions = 0 if config.rotary else config.context_length * config.dim
    head = 0 if config.tie_embeddings else embeddings
    return embeddings + positions + head + config.n_layers * _layer(config) + _norm(config)


def layer_parameters(config: ModelConfig) -> int:
    """Return the number of parameters in the matrices of all layers, without embeddings and output head."""
    return config.n_layers * _layer_matrices(config)


def matmul_parameters(config: ModelConfig) -> int:
    """Return the number of matmul parameters, which are the matrices of all layers and of the output head.

    Embeddings are not counted, because a lookup is not a matmul.
    """
    return layer_parameters(config) + config.vocab_size * config.dim


def flops_per_token(config: ModelConfig, context: int | None = None, *, lora_parameters: int | None = None) -> int:
    """Return the average number of training FLOPs per token, for the forward and the backward pass.

    A matmul parameter takes 6 FLOPs per token. A frozen matmul parameter takes 4 FLOPs, because its gradient is not
    computed. The FLOPs of the two matmuls of attention in each layer are added for the average number of attended
    tokens (Kaplan et al. 2020, arXiv:2001.08361; Chowdhery et al. 2022, appendix B, halved for the causal mask).

    Args:
        config: The model's config.
        context: Sequence length in tokens. Default: `context_length`.
        lora_parameters: Number of LoRA parameters, or None if all weights are trained.
    """
    whole = 3 * inference_flops_per_token(config, context)
    return whole if lora_parameters is None else whole - 2 * matmul_parameters(config) + 6 * lora_parameters


def inference_flops_per_token(config: ModelConfig, context: int | None = None) -> int:
    """Return the average number of FLOPs per token of the forward pass.

    Args:
        config: The model's config.
        context: Sequence length in tokens. Default: `context_length`.
    """
    context = context or config.context_length
    width = config.n_heads * config.head_dim
    return 2 * matmul_parameters(config) + round(4 * width * attended_tokens(config, context))


def attended_tokens(config: ModelConfig, context: int) -> float:
    """Return the average number of tokens that a token attends to, summed over all layers.

    In one layer, the average is half the sequence length, or less if the layer has a sliding window.

    Args:
        config: The model's config.
        context: Sequence length in tokens.
    """
    width = config.sliding_window
    narrow = context / 2 if width is None or width >= context else width - width**2 / (2 * context)
    sliding = sum(config.slides(layer) for layer in range(config.n_layers))
    return sliding * narrow + (config.n_layers - sliding) * context / 2


def training_bytes(
    config: ModelConfig, micro_batch_size: int, *, lora_parameters: int | None = None, bits_per_weight: float = 32
) -> int:
    """Return an estimate of the memory for training in bytes.

    The estimate includes weights, gradients and optimizer state in fp32, and the activations of a micro-batch in bf16.

    Args:
        config: The model's config.
        micro_batch_size: Number of sequences per micro-batch.
        lora_parameters: See `flops_per_token`. Frozen parameters do not have gradients or optimizer state.
        bits_per_weight: Average bits per weight of the linear layers, which is less than 32 if they are quantized. See
            `groundup.model.quantization.bits_per_weight`.
    """
    tokens = micro_batch_size * config.context_length
    width = 10 * config.dim + 3 * config.ffn_dim + 4 * config.n_heads * config.head_dim
    # Softcapped attention saves tanh and attention weights in fp32, and attention weights in bf16, for the lower
    # triangle of the attention matrix. Explicit attention saves the whole matrix.
    if config.attention_softcap is not None:
        width += 5 * config.n_heads * config.context_length // 2
    elif config.context_length <= MAX_EXPLICIT_LENGTH:
        width += config.n_heads * config.context_length
    parameters = parameter_count(config)
    state = 16 * parameters if lora_parameters is None else 4 * parameters + 16 * lora_parameters
    state -= round((4 - bits_per_weight / 8) * layer_parameters(config))
    return state + 2 * tokens * config.n_layers * width


def fused_training_bytes(
    config: ModelConfig,
    rows: int,
    *,
    accumulated: bool = False,
    matrix_state: int = 4,
    averaged: bool = False,
    dropout: bool = False,
    idle: float = FUSED_IDLE_BYTES,
) -> int:
    """Return an estimate of the peak memory of a process that trains with the C++ kernels, in bytes.

    The kernels recompute activations, and the gradients of a layer are computed while the activations of later layers
    are already freed. So the peak is below `training_bytes`. The constants are between the least-squares fits for
    two machines (10 and 61 runs, 0.8M to 29M parameters), with an error of at most 10 % on both.

    Args:
        config: The model's config.
        rows: Number of sequences per micro-batch.
        accumulated: Whether a step has several micro-batches.
        matrix_state: Bytes of optimizer state per parameter of the matrices in the layers: 4 for Muon, 8 for AdamW.
        averaged: Whether a moving average of the weights is kept.
        dropout: Whether dropout masks are kept.
        idle: Bytes of the process without the model.
    """
    tokens = rows * config.context_length
    matrices = layer_parameters(config)
    parameters = parameter_count(config)
    state = (_FUSED_MATRIX + matrix_state) * matrices + 16 * (parameters - matrices)
    state += (_FUSED_ACCUMULATED * accumulated + 4 * averaged) * parameters
    width = 10 * config.dim + 3 * config.ffn_dim + 4 * config.n_heads * config.head_dim + 2 * dropout * config.dim
    logits = min(min(tokens, MAX_CHUNK_ROWS) * config.vocab_size, MAX_CHUNK_LOGITS)
    activations = _FUSED_ACTIVATIONS * 2 * tokens * config.n_layers * width
    return round(idle + state + activations + _FUSED_LOGIT * logits)


def weight_bytes(config: ModelConfig, dtype: Dtype) -> int:
    """Return the size of the weights in bytes."""
    return BYTES[dtype] * parameter_count(config)


def cache_bytes(config: ModelConfig, tokens: int, dtype: Dtype) -> int:
    """Return the size of the KV cache in bytes. Layers with a sliding window also cache all tokens.

    Args:
        config: The model's config.
        tokens: Number of cached tokens.
        dtype: Dtype of the KV cache.
    """
    return 2 * BYTES[dtype] * config.n_layers * config.n_kv_heads * config.head_dim * tokens


def inference_bytes(config: ModelConfig, tokens: int, dtype: Dtype) -> int:
    """Return the memory in bytes for inference on one sequence, which consists of the weights and the KV cache.

    Args:
        config: The model's config.
        tokens: Length of the sequence in tokens.
        dtype: Dtype of the weights and the KV cache.
    """
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
