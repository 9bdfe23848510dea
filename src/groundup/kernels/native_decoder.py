"""A transformer's forward pass by the compiled kernels, for tokens of any sequences, with a paged KV cache.

The result for a token does not depend on other tokens in the same pass: its keys, values and logits are bitwise equal
alone, in a batch, in prefill and in decode, with any number of threads. See native/quantized.h.

Shape letters: R rows (tokens), V vocab, O outputs and I inputs of a layer.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from groundup.core.errors import ResourceError
from groundup.kernels.native_library import native_library
from groundup.kernels.weight_packing import KINDS, PAIR, PANEL, Packer, WeightFormat, packed_format
from groundup.model import ModelConfig, Transformer
from groundup.model.attention import Attention
from groundup.model.layers import MLP, GatedMLP, LayerNorm, Linear, RMSNormPlusOne
from groundup.model.lora import LoRALinear
from groundup.model.quantized import GROUP_SIZE, QuantizedWeight

BLOCK_TOKENS = 16  # tokens of a block of the KV cache
MAX_ROWS = 256  # tokens of a pass; more are computed in several passes
READ_ROWS = 64  # tokens whose logits a reader gets at a time, which limits the memory for a large vocabulary
_EMBED, _LINEAR, _ATTEND, _ADD, _GATE = range(5)
_STORE, _ACCUMULATE, _ACTIVATE, _GATED = range(4)
_QK_NORMS = {None: 0, "head": 1, "projection": 2}
_ACTIVATIONS = {"silu": 0, "gelu": 1, "gelu_tanh": 2}
_HEAD, _FINAL_NORM = -2, -1  # the last two operations of the program; the second one only runs for hidden states
_RESIDUAL, _QKV, _QUERIES, _ATTENDED, _INNER, _BRANCH, _GATE_UP, _LOW_RANK, _KEYS, _VALUES = range(10)
_QUERIES_KEYS_VALUES = (_QKV, _KEYS, _VALUES)  # the last two are columns of the first one

_int, _double, _pointer = ctypes.c_int64, ctypes.c_double, ctypes.c_void_p


class _Norm(ctypes.Structure):
    _fields_ = [("kind", _int), ("weight", _pointer), ("bias", _pointer), ("eps", _double)]


class _Matrix(ctypes.Structure):
    _fields_ = [
        ("kind", _int),
        ("n", _int),
        ("k", _int),
        ("packed", _pointer),
        ("bias", _pointer),
    ]


class _Operation(ctypes.Structure):
    _fields_ = [
        *((name, _int) for name in ("kind", "source", "second", "target")),
        *((name, _int) for name in ("finish", "activation", "is_head")),
        ("multiplier", _double),
        ("softcap", _double),
        ("norm", _Norm),
        ("matrix", _Matrix),
        ("positions", _pointer),
        *((name, _int) for name in ("layer", "n_heads", "n_kv_heads", "head_dim", "rotary_dim", "rope", "window")),
        ("qk_norm", _int),
        ("q_norm", _pointer),
        ("k_norm", _pointer),
        ("qk_eps", _double),
        ("scale", _double),
    ]


class _Batch(ctypes.Structure):
    _fields_ = [
        ("rows", _int),
        *((name, _pointer) for name in ("tokens", "positions", "sequences", "tables")),
        ("outputs", _int),
        *((name, _pointer) for name in ("output_rows", "logits", "cosines", "sines")),
    ]


class _Decoder(ctypes.Structure):
    _fields_ = [
        ("operations", _pointer),
        *((name, _int) for name in ("count", "threads", "layer_bytes")),
        ("buffers", _pointer),
        ("widths", _pointer),
    ]


class RowReader(Protocol):
    """A consumer of the outputs of a range of tokens of one sequence. It reads the tokens in order.

    Attributes:
        reads_states: Whether it reads hidden states after the final norm (R, D), and not logits (R, V).
        position: Position of the next token whose output it reads.
        end: Position after the last token whose output it reads.
    """

    reads_states: bool
    position: int
    end: int

    def read(self, rows: Tensor) -> None:
        """Read the outputs of the next tokens, in fp32, and advance `position`. The memory is reused after the call."""
        ...


@dataclass(frozen=True, slots=True)
class Chunk:
    """New tokens of one sequence.

    Attributes:
        ids: Token ids, at least one.
        start: Position of the first one.
        table: Addresses of the blocks of the sequence's cache, int64, BLOCK_TOKENS tokens each, from position 0 on.
        scored: Whether the logits after the last token are returned.
        reader: A consumer of the outputs of the tokens that are in its range.
    """

    ids: Sequence[int]
    start: int
    table: Tensor
    scored: bool = True
    reader: RowReader | None = None


def unsupported_reason(model: Transformer) -> str | None:
    """Return why the kernels cannot compute a model on this machine, or None if they can."""
    if model.device.type != "cpu":
        return f"the model is on {model.device}"
    return unsupported_config_reason(model.config)


def unsupported_config_reason(config: ModelConfig) -> str | None:
    """Return why the kernels cannot compute models with a config on this machine, or None if they can."""
    if native_library() is None:
        return "the kernels need Linux on a CPU with AVX2, FMA and F16C, and a C++ compiler"
    if config.head_dim % PANEL or any(
        size % GROUP_SIZE for size in (config.dim, config.ffn_dim, config.n_heads * config.head_dim)
    ):
        return f"sizes that are not multiples of {GROUP_SIZE} (head size: of {PANEL})"
    if config.qk_norm is not None and config.norm == "layer":
        return "LayerNorm of queries and keys"
    return None


class NativeDecoder:
    """A transformer, packed for the kernels.

    The weights are copied: the model may be freed afterwards. Pages of memory-mapped weights are released.

    Args:
        weights: Format of dense matrices. int8 has one fp16 scale per 32 inputs (GGUF's Q8_0), int4 also a fp16 minimum
            (GGUF's Q4_1). With int4, embeddings and head are int8. Quantized matrices keep their values.
        threads: CPU threads. Default: torch's number.
        base: A decoder whose packed weights are used for layers that the two models share, as adapters do.

    Raises:
        ResourceError: The kernels cannot compute this model here; see `unsupported_reason`.
    """

    def __init__(
        self,
        model: Transformer,
        weights: WeightFormat,
        *,
        threads: int | None = None,
        base: NativeDecoder | None = None,
    ) -> None:
        if (reason := unsupported_reason(model)) is not None:
            raise ResourceError(f"no native kernels for this model: {reason}", fix="Compute it with PyTorch.")
        library = native_library()
        assert library is not None
        self._library = library
        self.config: ModelConfig = model.config
        self.weights = weights
        self.threads = threads or torch.get_num_threads()
        self._packer = Packer(library)
        self._base = base if base is not None and base.weights == weights else None
        self._matrices: dict[tuple[int, ...], _Matrix] = dict(self._base._matrices) if self._base is not None else {}
        self._kept: list[Tensor] = []
        self._operations: list[_Operation] = []
        with torch.inference_mode():
            self._compile(model)
        self._rotaries = [rotary for rotary in (model.model.rotary, model.model.local_rotary) if rotary is not None]
        self._tables: list[tuple[Tensor, Tensor]] = []
        self._buffers = [torch.zeros(MAX_ROWS, width) for width in self._widths()]
        queries, keys = (heads * self.config.head_dim for heads in (self.config.n_heads, self.config.n_kv_heads))
        self._buffers += [self._buffers[_QKV][:, first:] for first in (queries, queries + keys)]
        self.layer_bytes = 2 * 2 * BLOCK_TOKENS * self.config.n_kv_heads * self.config.head_dim
        self._program = (_Operation * len(self._operations))(*self._operations)
        self._buffer_pointers = (_pointer * len(self._buffers))(*(each.data_ptr() for each in self._buffers))
        self._buffer_widths = (_int * len(self._buffers))(*(each.stride(0) for each in self._buffers))

    @property
    def block_bytes(self) -> int:
        """Bytes of a block of the KV cache: bf16 keys and values of BLOCK_TOKENS tokens in all layers."""
        return self.layer_bytes * self.config.n_layers

    @property
    def nbytes(self) -> int:
        """Bytes of the packed weights."""
        return self._packer.nbytes + sum(tensor.nbytes for tensor in self._kept)

    def forward(self, chunks: Sequence[Chunk]) -> Tensor:
        """Compute new tokens of one or more sequences, and store their keys and values.

        Args:
            chunks: A sequence occurs in at most one of them.

        Returns:
            Logits (scored chunks, V) in fp32.
        """
        logits = torch.empty(sum(chunk.scored for chunk in chunks), self.config.vocab_size)
        rows = [(index, offset) for index, chunk in enumerate(chunks) for offset in range(len(chunk.ids))]
        scored = 0
        for begin in range(0, len(rows), MAX_ROWS):
            scored += self._pass(chunks, rows[begin : begin + MAX_ROWS], logits[scored:])
        return logits

    def _pass(self, chunks: Sequence[Chunk], rows: Sequence[tuple[int, int]], logits: Tensor) -> int:
        """Compute some rows, given as (chunk, offset in it); return the number of logits that were written."""
        n = len(rows)
        outputs = [
            row
            for row, (index, offset) in enumerate(rows)
            if chunks[index].scored and offset == len(chunks[index].ids) - 1
        ]
        self._reserve_positions(max(chunks[index].start + offset for index, offset in rows) + 1)
        tokens = (_int * n)(*(chunks[index].ids[offset] for index, offset in rows))
        positions = (_int * n)(*(chunks[index].start + offset for index, offset in rows))
        sequences = (_int * n)(*(index for index, _ in rows))
        tables = (_pointer * len(chunks))(*(chunk.table.data_ptr() for chunk in chunks))
        cosines, sines = ((_pointer * 2)(*(table[part].data_ptr() for table in self._tables)) for part in (0, 1))

        def run(operations: slice, output_rows: Sequence[int], out: Tensor) -> None:
            first, end, _ = operations.indices(len(self._program))
            numbers = (_int * max(1, len(output_rows)))(*output_rows)
            batch = _Batch(
                n,
                *(ctypes.addressof(array) for array in (tokens, positions, sequences, tables)),
                len(output_rows),
                ctypes.addressof(numbers),
                out.data_ptr(),
                ctypes.addressof(cosines),
                ctypes.addressof(sines),
            )
            decoder = _Decoder(
                ctypes.addressof(self._program[first]),
                end - first,
                self.threads,
                self.layer_bytes,
                ctypes.addressof(self._buffer_pointers),
                ctypes.addressof(self._buffer_widths),
            )
            self._library.groundup_decode(ctypes.byref(decoder), ctypes.byref(batch))

        run(slice(_FINAL_NORM), outputs, logits)
        self._read(chunks, rows, run)
        return len(outputs)

    def _read(
        self,
        chunks: Sequence[Chunk],
        rows: Sequence[tuple[int, int]],
        run: Callable[[slice, Sequence[int], Tensor], None],
    ) -> None:
        """Give the outputs of the computed rows to the readers of their chunks."""
        wanted: dict[int, list[int]] = {}
        for row, (index, offset) in enumerate(rows):
            reader = chunks[index].reader
            if reader is not None and reader.position <= chunks[index].start + offset < reader.end:
                wanted.setdefault(index, []).append(row)
        readers = [(reader, own) for index, own in wanted.items() if (reader := chunks[index].reader) is not None]
        if any(reader.reads_states for reader, _ in readers):
            states = self._buffers[_BRANCH]
            states[: len(rows)] = 0  # the operation adds to its target
            run(slice(_FINAL_NORM, None), (), states)
        logits: Tensor | None = None
        for reader, own in readers:
            if reader.reads_states:
                reader.read(states[own[0] : own[-1] + 1])
                continue
            if logits is None:
                logits = torch.empty(READ_ROWS, self.config.vocab_size)
            for begin in range(0, len(own), READ_ROWS):
                piece = own[begin : begin + READ_ROWS]
                run(slice(_HEAD, _FINAL_NORM), piece, logits)
                reader.read(logits[: len(piece)])

    def _reserve_positions(self, length: int) -> None:
        """Extend the tables of rotary angles to `length` positions."""
        known = len(self._tables[0][0]) if self._tables else 0
        if not self._rotaries or length <= known:
            return
        positions = torch.arange(min(self.config.context_length, max(length, 2 * known, 1024)))[None]
        half = self.config.rotary_dim // 2
        self._tables = [
            tuple(part[0, :, 0, :half].float().contiguous() for part in rotary(positions)) for rotary in self._rotaries
        ]

    def _widths(self) -> list[int]:
        """Return the columns of the buffers, in their order."""
        config = self.config
        queries, keys = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
        gate_up = 2 * -(-config.ffn_dim // PANEL) * PANEL
        return [config.dim, queries + 2 * keys, queries, queries, config.ffn_dim, config.dim, gate_up, self._max_rank]

    # The program: one call per operation, in the order in which they run.

    def _compile(self, model: Transformer) -> None:
        config, decoder = self.config, model.model
        self._max_rank = GROUP_SIZE
        outer: WeightFormat = "int8" if self.weights == "int4" else self.weights
        head, embedding = self._outer(model.lm_head, outer), self._outer(decoder.embed_tokens, outer)
        positions = None if decoder.embed_positions is None else self._floats(decoder.embed_positions.weight)
        self._add(
            _EMBED,
            target=_RESIDUAL,
            matrix=embedding,
            multiplier=config.embedding_scale,
            positions=_address(positions),
        )
        for index, block in enumerate(decoder.layers):
            self._block(block, index, sliding=decoder.sliding[index] and config.sliding_window is not None)
        self._add(
            _LINEAR,
            source=_RESIDUAL,
            is_head=1,
            matrix=head,
            norm=self._norm(decoder.norm),
            multiplier=1 / (config.logits_scaling or 1),
            softcap=config.logit_softcap or 0,
        )
        self._add(_ADD, source=_RESIDUAL, target=_BRANCH, norm=self._norm(decoder.norm))

    def _block(self, block: Any, index: int, *, sliding: bool) -> None:
        config = self.config
        attention, mlp = block.self_attn, block.mlp
        self._project(attention, block.input_layernorm)
        self._attend(attention, index, sliding=sliding)
        if config.block in ("sandwich", "post"):
            self._linear([attention.o_proj], _ATTENDED, _BRANCH)
            self._add_branch(block.post_attention_layernorm)
            self._mlp(mlp, block.pre_feedforward_layernorm)
            self._linear([mlp.down_proj], _INNER, _BRANCH)
            self._add_branch(block.post_feedforward_layernorm)
            return
        if config.block == "parallel":  # the MLP reads the residual stream before attention is added to it
            self._mlp(mlp, block.post_attention_layernorm)
            self._linear([attention.o_proj], _ATTENDED, _RESIDUAL, finish=_ACCUMULATE)
        else:
            self._linear([attention.o_proj], _ATTENDED, _RESIDUAL, finish=_ACCUMULATE)
            self._mlp(mlp, block.post_attention_layernorm)
        self._linear([mlp.down_proj], _INNER, _RESIDUAL, finish=_ACCUMULATE)

    def _project(self, attention: Attention, norm: nn.Module) -> None:
        """Add the projections to queries, keys and values: one operation if their weights have the same format."""
        layers = [attention.q_proj, attention.k_proj, attention.v_proj]
        if len({packed_format(_weight(layer), self.weights) for layer in layers}) == 1:
            self._linear(layers, _RESIDUAL, _QUERIES_KEYS_VALUES[0], norm)
        else:
            for layer, target in zip(layers, _QUERIES_KEYS_VALUES, strict=True):
                self._linear([layer], _RESIDUAL, target, norm)

    def _attend(self, attention: Attention, index: int, *, sliding: bool) -> None:
        config = self.config
        norms = (None, None) if config.qk_norm is None else (attention.q_norm, attention.k_norm)
        q_norm, k_norm = (None if norm is None else self._norm(norm) for norm in norms)
        self._add(
            _ATTEND,
            source=_QKV,
            second=_QUERIES,
            target=_ATTENDED,
            layer=index,
            n_heads=config.n_heads,
            n_kv_heads=config.n_kv_heads,
            head_dim=config.head_dim,
            rotary_dim=config.rotary_dim if config.rotary else 0,
            rope=int(sliding) if config.rotary and config.rotates(index) else -1,
            window=config.sliding_window if sliding else 0,
            qk_norm=_QK_NORMS[config.qk_norm],
            q_norm=None if q_norm is None else q_norm.weight,
            k_norm=None if k_norm is None else k_norm.weight,
            qk_eps=0 if q_norm is None else q_norm.eps,
            scale=attention.scale,
            softcap=config.attention_softcap or 0,
        )

    def _mlp(self, mlp: GatedMLP | MLP, norm: nn.Module) -> None:
        """Add the operations of the MLP before its down projection."""
        activation = _ACTIVATIONS[mlp.activation]
        if isinstance(mlp, MLP):
            if not isinstance(mlp.up_proj, LoRALinear):
                self._linear([mlp.up_proj], _RESIDUAL, _INNER, norm, finish=_ACTIVATE, activation=activation)
                return
            self._linear([mlp.up_proj], _RESIDUAL, _INNER, norm)
            self._add(_GATE, source=_INNER, target=_INNER, activation=activation)
        else:
            gate, up = mlp.gate_proj, mlp.up_proj
            adapted = isinstance(gate, LoRALinear) or isinstance(up, LoRALinear)
            self._linear(
                [gate, up],
                _RESIDUAL,
                _GATE_UP if adapted else _INNER,
                norm,
                finish=_STORE if adapted else _GATED,
                activation=activation,
                alternate=True,
            )
            if adapted:
                self._add(_GATE, source=_GATE_UP, second=1, target=_INNER, activation=activation)

    def _linear(
        self,
        layers: Sequence[Linear],
        source: int,
        target: int,
        norm: nn.Module | None = None,
        finish: int = _STORE,
        activation: int = 0,
        *,
        alternate: bool = False,
    ) -> None:
        """Multiply by the stacked weights of layers that read the same input, then by their adapters."""
        fields = {"source": source, "norm": _Norm() if norm is None else self._norm(norm)}
        scale = (self.config.residual_multiplier or 1) if finish == _ACCUMULATE else 1
        matrix = self._stacked(layers, alternate=alternate)
        self._add(
            _LINEAR, **fields, target=target, finish=finish, activation=activation, multiplier=scale, matrix=matrix
        )
        for layer in layers:
            if not isinstance(layer, LoRALinear):
                continue
            rank = -len(layer.lora_A) % GROUP_SIZE
            low = self._packed([nn.functional.pad(layer.lora_A, (0, 0, 0, rank))], "bfloat16")
            # Rows of zeros for the other layers.
            parts = [layer.lora_B if each is layer else layer.lora_B.new_zeros(each.out_features, 1) for each in layers]
            wide = [nn.functional.pad(part, (0, len(layer.lora_A) + rank - part.shape[1])) for part in parts]
            high = self._packed(wide, "bfloat16", alternate=alternate)
            self._max_rank = max(self._max_rank, low.n)
            self._add(_LINEAR, **fields, target=_LOW_RANK, matrix=low)
            self._add(
                _LINEAR,
                source=_LOW_RANK,
                target=target,
                finish=_ACCUMULATE,
                multiplier=layer.scale * scale,
                matrix=high,
            )

    def _add_branch(self, norm: nn.Module) -> None:
        multiplier = self.config.residual_multiplier or 1
        self._add(_ADD, source=_BRANCH, target=_RESIDUAL, norm=self._norm(norm), multiplier=multiplier)

    def _add(self, kind: int, **fields: Any) -> None:
        self._operations.append(_Operation(kind=kind, **{"multiplier": 1, **fields}))

    def _norm(self, norm: nn.Module) -> _Norm:
        if isinstance(norm, nn.Identity):
            return _Norm()
        weight: Any = norm.weight + 1.0 if isinstance(norm, RMSNormPlusOne) else norm.weight
        bias: Any = norm.bias if isinstance(norm, LayerNorm) else None
        kind = 2 if isinstance(norm, LayerNorm) else 1
        pointers = [_address(None if each is None else self._floats(each)) for each in (weight, bias)]
        return _Norm(kind, *pointers, norm.eps)

    def _floats(self, tensor: Tensor) -> Tensor:
        copy = tensor.detach().float().clone().contiguous()
        self._kept.append(copy)
        return copy

    def _stacked(self, layers: Sequence[Linear], *, alternate: bool) -> _Matrix:
        """Return the packed weights of layers without their adapters. Weights that `base` has packed are reused."""
        key = tuple(map(_storage, layers))
        if key not in self._matrices:
            bias = None
            if layers[0].bias is not None:
                bias = (_alternated if alternate else torch.cat)([layer.bias for layer in layers])
            self._matrices[key] = self._packed(list(map(_weight, layers)), self.weights, bias, alternate=alternate)
        return self._matrices[key]

    def _outer(self, layer: nn.Module, weights: WeightFormat) -> _Matrix:
        """Return the packed embedding or head."""
        key = (_storage(layer),)
        if key not in self._matrices:
            self._matrices[key] = self._packed([_weight(layer)], weights)
        return self._matrices[key]

    def _packed(
        self,
        weights: Sequence[Tensor | QuantizedWeight],
        chosen: WeightFormat,
        bias_O: Tensor | None = None,
        *,
        alternate: bool = False,
    ) -> _Matrix:
        packed = self._packer.pack(weights, chosen, alternate=alternate)
        bias = None if bias_O is None else self._floats(nn.functional.pad(bias_O, (0, -len(bias_O) % PAIR)))
        return _Matrix(KINDS[packed.format], packed.outputs, packed.inputs, packed.address, _address(bias))


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _weight(layer: nn.Module) -> Tensor | QuantizedWeight:
    stored: Any = layer.weight if layer.quantized is None else layer.quantized
    return stored


def _storage(layer: nn.Module) -> int:
    """Return the address of a layer's weights, which layers of the same base share."""
    weight = _weight(layer)
    return (weight.values if isinstance(weight, QuantizedWeight) else weight).data_ptr()


def _alternated(matrices: list[Tensor]) -> Tensor:
    """Return panels of two matrices in turn, each padded to whole panels."""
    missing = -len(matrices[0]) % PANEL
    pad = (0, missing) if matrices[0].dim() == 1 else (0, 0, 0, missing)
    panels = (nn.functional.pad(each, pad).unflatten(0, (-1, PANEL)) for each in matrices)
    return torch.stack(list(panels), dim=1).flatten(0, 2)
