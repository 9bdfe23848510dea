"""Weight tables of GGUF files. A table maps parameters to GGUF tensor names, and is used for import and export."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from groundup.model import ModelConfig, Transformer
from groundup.model.families.base import BlockKind, split_heads
from groundup.model.weight_map import (
    EMBEDDING,
    HEAD,
    AddOne,
    Operation,
    PermuteHeads,
    Split,
    Weight,
    expand,
    renamed,
    shapes,
)

ROPE_FACTORS = "rope_freqs.weight"  # Divisors of the RoPE frequencies in Llama 3.1 and later models.
TOKEN_EMBEDDING, OUTPUT = "token_embd.weight", "output.weight"

_INPUTS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
_OUTPUTS = {"post_attention_layernorm": "post_attention_norm", "post_feedforward_layernorm": "post_ffw_norm"}
_NORMS: dict[BlockKind, dict[str, str]] = {
    "pre": _INPUTS,
    "parallel": _INPUTS,
    "post": _OUTPUTS,
    "sandwich": {"input_layernorm": "attn_norm", **_OUTPUTS, "pre_feedforward_layernorm": "ffn_norm"},
}
_LAYER, _FILE_LAYER = "model.layers.{layer}.", "blk.{layer}."


def gguf_weight_table(config: ModelConfig) -> Iterator[Weight]:
    """Yield the tensors of a GGUF file, layer by layer. The output head is omitted if it is tied to the embedding."""
    return expand(_weights(config), config.n_layers)


def table_shapes(config: ModelConfig, table: Sequence[Weight]) -> dict[str, tuple[int, ...]]:
    """Return GGUF tensor name -> shape for all tensors of a weight table."""
    with torch.device("meta"):
        state_shapes = {name: tensor.shape for name, tensor in Transformer(config).state_dict().items()}
    return {name: tuple(shape) for name, shape in shapes(table, state_shapes).items()}


def _weights(config: ModelConfig) -> Iterator[Weight]:
    declared = config.declared.gguf
    yield from renamed({EMBEDDING: TOKEN_EMBEDDING})
    if not config.tie_embeddings:
        yield from renamed({HEAD: OUTPUT})
    if not config.rotary:
        yield from renamed({"model.embed_positions.weight": "position_embd.weight"})
    norm_bias = config.norm == "layer"
    of_norms: tuple[Operation, ...] = (AddOne(),) if config.norm == "rms_plus_one" else ()
    yield from _named({"model.norm": "output_norm"}, norm_bias, *of_norms)
    norms = dict(_NORMS[config.block])
    if config.qk_norm:
        norms |= {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}
    yield from _layer(norms, norm_bias, *of_norms)
    if declared is not None and declared.fused_qkv:
        names = tuple(f"{_LAYER}self_attn.{part}_proj." for part in "qkv")
        for kind in ("weight", "bias") if config.qkv_bias else ("weight",):
            file_name = f"{_FILE_LAYER}attn_qkv.{kind}"
            yield Weight(file_name, tuple(name + kind for name in names), (split_heads(config),))
    else:
        # RoPE rotates pairs of adjacent features in llama.cpp, and pairs (i, i + head_dim / 2) in transformers. For
        # some architectures, GGUF files store the rows in the order of llama.cpp.
        permuted = declared is not None and declared.permuted
        for part, heads in (("q", config.n_heads), ("k", config.n_kv_heads), ("v", None)):
            operations = (PermuteHeads(heads),) if permuted and heads is not None else ()
            yield from _layer({f"self_attn.{part}_proj": f"attn_{part}"}, config.qkv_bias, *operations)
    yield from _layer({"self_attn.o_proj": "attn_output"}, config.output_bias)
    if declared is not None and declared.fused_gate_up:
        gate_up = tuple(f"{_LAYER}mlp.{part}_proj.weight" for part in ("gate", "up"))
        yield Weight(f"{_FILE_LAYER}ffn_up.weight", gate_up, (Split((config.ffn_dim,) * 2),))
        yield from _layer({"mlp.down_proj": "ffn_down"}, config.ffn_bias)
        return
    feed_forward = {"mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
    if config.gated:
        feed_forward |= {"mlp.gate_proj": "ffn_gate"}
    yield from _layer(feed_forward, config.ffn_bias)


def _layer(names: dict[str, str], bias: bool, *operations: Operation) -> tuple[Weight, ...]:
    return _named({_LAYER + name: _FILE_LAYER + file_name for name, file_name in names.items()}, bias, *operations)


def _named(names: dict[str, str], bias: bool, *operations: Operation) -> tuple[Weight, ...]:
    kinds = ("weight", "bias") if bias else ("weight",)
    pairs = {f"{name}.{kind}": f"{file_name}.{kind}" for name, file_name in names.items() for kind in kinds}
    return renamed(pairs, *operations)
