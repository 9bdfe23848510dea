"""Forward passes for the sequences of an engine, by PyTorch or by the compiled kernels.

Shape letters: T tokens, V vocab.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from groundup.core.types import InferenceDtype
from groundup.inference.blocks import BlockLayout, BlockPool, BlockTable
from groundup.inference.threads import DecodeThreads
from groundup.kernels.native_decoder import (
    BLOCK_TOKENS,
    READ_ROWS,
    Chunk,
    NativeDecoder,
    RowReader,
    unsupported_reason,
)
from groundup.kernels.weight_packing import WeightFormat, packed_format
from groundup.model import BatchCache, KVCache, Transformer
from groundup.model.layers import Embedding, Linear
from groundup.model.quantized import QuantizedWeight

PREFILL_TOKENS = 256  # prompt tokens of a forward pass, so that a long prompt does not delay other requests
_SHARED_PREFILL_TOKENS = 64  # the same, while other sequences decode
_CACHE_BYTES = 2**30
# Rows of a decode step in PyTorch. On a CPU, a step with 8 rows takes at most 1.6 times as long as a step with 1 row
# (SmolLM2-135M in fp32; in bf16 it is faster). On a GPU, reading the weights takes most of the time of a step.
_CPU_ROWS, _GPU_ROWS = 8, 32


class SequenceCache(Protocol):
    """The keys and values of one sequence."""

    @property
    def length(self) -> int:
        """Number of tokens whose keys and values are stored."""


@dataclass(frozen=True, slots=True)
class SequenceStep:
    """New tokens of a sequence for one forward pass.

    Attributes:
        cache: The cache of the sequence.
        ids: All token ids of the sequence up to the last new one. The cache holds the first `cache.length` of them.
        scored: Whether the logits of the last token are needed.
        reader: A consumer of the outputs of the new tokens that are in its range.
    """

    cache: SequenceCache
    ids: Sequence[int]
    scored: bool
    reader: RowReader | None = None


class Runner(Protocol):
    """What the engine needs of a model."""

    @property
    def nbytes(self) -> int:
        """Bytes of weights that the runner holds in addition to the model."""
        ...

    def open(self, ids: Sequence[int], max_tokens: int, *, shared: bool = True) -> SequenceCache:
        """Return a cache for a sequence that begins with `ids` and has at most `max_tokens` tokens.

        The cache may already hold keys and values of the first ids, but never of the last one. If it is not shared,
        it is empty, and other sequences do not use its keys and values.
        """
        ...

    def extend(self, cache: SequenceCache, ids: Sequence[int]) -> bytes | None:
        """Add keys and values that another sequence has stored in the meantime for the next of `ids`.

        Returns:
            A key of the tokens that follow: a sequence with an equal key can use what this sequence computes next.
            None if other sequences cannot use it.
        """
        ...

    def prefill_tokens(self, length: int, *, shared: bool) -> int:
        """Return the maximum number of prompt tokens in the next forward pass.

        Args:
            length: Number of tokens that the cache of the sequence holds.
            shared: Whether other sequences decode in the same pass.
        """
        ...

    def max_sequences(self, length: int) -> int:
        """Return the maximum number of concurrent sequences of up to `length` tokens, as limited by memory."""
        ...

    def reserve(self, cache: SequenceCache, length: int) -> None:
        """Reserve memory for `length` tokens of a sequence.

        Raises:
            OutOfBlocksError: Other sequences use all of the memory.
        """
        ...

    def forward(self, steps: Sequence[SequenceStep]) -> list[Tensor | Exception | None]:
        """Compute new tokens; return for each step its logits (V,) in fp32, an error, or None if it is not scored."""
        ...

    def close(self, cache: SequenceCache) -> None:
        """Release the memory of a sequence."""
        ...

    def share(self, model: Transformer, identity: bytes | None = None) -> Runner:
        """Return a runner of the same kind for another model, which shares the weights that both models have.

        Args:
            model: The other model.
            identity: See `make_runner`.
        """
        ...


class TorchRunner:
    """A model computed by PyTorch, on the model's device and in its dtype.

    The tokens of a sequence do not depend on other sequences:

    - Chunks of a prompt begin at fixed positions, and each chunk is computed in its own forward pass.
    - Sequences in decode are computed together, but always in batches of the same number of rows. Missing sequences are
      replaced by padding, because matmul kernels round differently for another number of rows. Attention is computed
      separately for each sequence.
    - Before the first batch with several sequences, the runner checks that the kernels compute each row of a batch in
      the same way. If not, each sequence gets its own batch.
    """

    def __init__(self, model: Transformer) -> None:
        self._model = model

    @property
    def nbytes(self) -> int:
        """Return 0: the runner uses the weights of the model."""
        return 0

    def open(self, ids: Sequence[int], max_tokens: int, *, shared: bool = True) -> SequenceCache:
        """Return an empty cache."""
        return self._model.new_cache(1, max_tokens)

    def extend(self, cache: SequenceCache, ids: Sequence[int]) -> bytes | None:
        """Do nothing: sequences do not share keys and values."""

    def prefill_tokens(self, length: int, *, shared: bool) -> int:
        """Return the tokens up to the end of the current chunk."""
        return PREFILL_TOKENS - length % PREFILL_TOKENS

    def max_sequences(self, length: int) -> int:
        """Return the number of sequences of `length` tokens whose keys and values take 1 GiB."""
        return max(1, _CACHE_BYTES // (self._model.cache_bytes_per_token * length))

    def reserve(self, cache: SequenceCache, length: int) -> None:
        """Do nothing: the cache grows when it is extended."""

    def forward(self, steps: Sequence[SequenceStep]) -> list[Tensor | Exception | None]:
        """Compute chunks of prompts one after the other, and tokens of sequences in decode in batches.

        An error is returned only for the sequence that causes it.
        """
        results: list[Tensor | Exception | None] = [None] * len(steps)
        decoding: list[int] = []
        for index, step in enumerate(steps):
            assert isinstance(step.cache, KVCache)
            try:
                step.cache.reserve(len(step.ids))
                if len(step.ids) - step.cache.length > 1:
                    results[index] = self._prefill(step, step.cache)
                else:
                    decoding.append(index)
            except Exception as error:
                results[index] = error
        rows = 1 if len(decoding) == 1 or not self._rows_are_equal else self._rows
        for start in range(0, len(decoding), rows):
            indices = decoding[start : start + rows]
            for index, result in zip(indices, self._decode([steps[index] for index in indices]), strict=True):
                results[index] = result
        return results

    def close(self, cache: SequenceCache) -> None:
        """Do nothing: the memory is freed with the cache."""

    def share(self, model: Transformer, identity: bytes | None = None) -> Runner:
        """Return a runner for another model."""
        return TorchRunner(model)

    @property
    def _device(self) -> torch.device:
        return self._model.device

    @property
    def _rows(self) -> int:
        return _GPU_ROWS if self._device.type == "cuda" else _CPU_ROWS

    def _prefill(self, step: SequenceStep, cache: KVCache) -> Tensor | None:
        start = cache.length
        new_ids = torch.tensor(step.ids[start:], device=self._device)
        h_TD = self._model.model(new_ids[None], cache=cache)[0]
        self._read(h_TD, start, step.reader)
        return self._model.logits(h_TD[-1]).float().cpu() if step.scored else None

    def _read(self, h_TD: Tensor, start: int, reader: RowReader | None) -> None:
        """Pass the outputs of the tokens from position `start` on to a reader, as far as they are in its range."""
        if reader is None:
            return
        h_TD = h_TD[max(0, reader.position - start) : max(0, reader.end - start)]
        for piece_RD in h_TD.split(READ_ROWS) if len(h_TD) else ():
            reader.read((piece_RD if reader.reads_states else self._model.logits(piece_RD)).float().cpu())

    def _decode(self, steps: Sequence[SequenceStep]) -> list[Tensor | Exception | None]:
        """Compute one new token of each sequence; return the logits (V,) of each, or None if they are not needed.

        If a batch fails, each of its sequences is computed again by itself, so that only a failing one gets an error.
        """
        caches = [step.cache for step in steps if isinstance(step.cache, KVCache)]
        starts = [cache.length for cache in caches]
        try:
            h_BD = self._batch_states([step.ids[-1] for step in steps], caches)
            for row, step in enumerate(steps):
                self._read(h_BD[row : row + 1], starts[row], step.reader)
            logits_BV = self._model.logits(h_BD)[: len(steps)].float().cpu()
            return [logits_V if step.scored else None for step, logits_V in zip(steps, logits_BV, strict=True)]
        except Exception as error:
            for cache, start in zip(caches, starts, strict=True):
                cache.truncate(start)
            return [error] if len(steps) == 1 else [result for step in steps for result in self._decode([step])]

    def _batch_states(self, ids: Sequence[int], caches: Sequence[KVCache]) -> Tensor:
        """Return the hidden states (B, D) after one new token of each sequence. The last rows are padding."""
        padding = [0] * (self._rows - len(ids))
        ids_BT = torch.tensor([*ids, *padding], device=self._device)[:, None]
        positions_BT = torch.tensor([*(cache.length for cache in caches), *padding], device=self._device)[:, None]
        return self._model.model(ids_BT, positions_BT, cache=BatchCache(caches))[:, 0]

    @cached_property
    def _rows_are_equal(self) -> bool:
        """Whether the logits of a sequence are bitwise the same in another row of the batch, with other neighbors."""
        ids = [token % self._model.config.vocab_size for token in range(self._rows)]
        logits = []
        for order in (ids, ids[1:] + ids[:1]):
            h_BD = self._batch_states(order, [self._model.new_cache(1, 1) for _ in order])
            logits.append(self._model.logits(h_BD))
        return torch.equal(logits[0].roll(-1, dims=0), logits[1])


class NativeRunner:
    """A model computed by the compiled kernels, all sequences in one pass, with a cache of prefixes.

    Args:
        model: The language model. Its weights are copied.
        weights: Format of the copy.
        threads: CPU threads; see `DecodeThreads`.
        base: A runner whose packed weights are used for layers that both models have.
        pool: Memory of the KV cache, which runners of one worker thread share. It is allowed at least one sequence of
            the full context length. Default: a pool of its own.
        identity: See `make_runner`.

    Raises:
        ResourceError: The kernels cannot compute this model on this machine.
    """

    def __init__(
        self,
        model: Transformer,
        weights: WeightFormat,
        *,
        threads: int | None = None,
        base: NativeRunner | None = None,
        pool: BlockPool | None = None,
        identity: bytes | None = None,
    ) -> None:
        self._threads = DecodeThreads(threads)
        self.decoder: NativeDecoder = NativeDecoder(
            model, weights, threads=threads, base=None if base is None else base.decoder
        )
        given = secrets.token_bytes(16) if identity is None else identity
        digest = hashlib.blake2b(given + weights.encode(), digest_size=16).digest()
        self._layout = BlockLayout(digest, self.decoder.block_bytes)
        self.pool = make_pool() if pool is None else pool
        self.pool.allow(-(-model.config.context_length // BLOCK_TOKENS) * self.decoder.block_bytes)

    @property
    def nbytes(self) -> int:
        """Bytes of the packed weights."""
        return self.decoder.nbytes

    def open(self, ids: Sequence[int], max_tokens: int, *, shared: bool = True) -> SequenceCache:
        """Return a cache with the stored tokens with which `ids` begins."""
        return self.pool.open(self._layout, ids, shared=shared)

    def extend(self, cache: SequenceCache, ids: Sequence[int]) -> bytes | None:
        """Add the stored blocks that follow, and return the key of the next one."""
        assert isinstance(cache, BlockTable)
        return self.pool.extend(cache, ids)

    def prefill_tokens(self, length: int, *, shared: bool) -> int:
        """Return the size of a chunk, which does not affect results."""
        return _SHARED_PREFILL_TOKENS if shared else PREFILL_TOKENS

    def max_sequences(self, length: int) -> int:
        """Return the number of blocks: if they are all in use, the engine preempts sequences."""
        return self.pool.max_bytes // self._layout.block_bytes

    def reserve(self, cache: SequenceCache, length: int) -> None:
        """Add blocks to the cache of a sequence."""
        assert isinstance(cache, BlockTable)
        self.pool.reserve(cache, length)

    def forward(self, steps: Sequence[SequenceStep]) -> list[Tensor | Exception | None]:
        """Compute all sequences in one pass."""
        chunks = []
        for step in steps:
            assert isinstance(step.cache, BlockTable)
            start = step.cache.length
            chunks.append(Chunk(step.ids[start:], start, step.cache.addresses, step.scored, step.reader))
        self.decoder.threads = self._threads.current()
        logits = iter(self.decoder.forward(chunks))
        for step in steps:
            assert isinstance(step.cache, BlockTable)
            self.pool.advance(step.cache, step.ids)
        return [next(logits) if step.scored else None for step in steps]

    def close(self, cache: SequenceCache) -> None:
        """Release the blocks of a sequence; full ones stay until their memory is needed."""
        assert isinstance(cache, BlockTable)
        self.pool.close(cache)

    def share(self, model: Transformer, identity: bytes | None = None) -> Runner:
        """Return a runner for another model; PyTorch if the kernels cannot compute it."""
        if unsupported_reason(model) is not None:
            prepare_for_torch(model)
            return TorchRunner(model)
        decoder = self.decoder
        return NativeRunner(
            model, decoder.weights, threads=self._threads.fixed, base=self, pool=self.pool, identity=identity
        )


def prepare_for_torch(model: Transformer) -> None:
    """Convert stored weights that PyTorch would otherwise convert in each forward pass, in place.

    Frozen weights in half precision are cast to fp32 if activations are fp32. Matrices of types that have no kernel are
    converted once.
    """
    for module in model.modules():
        if isinstance(module, Linear | Embedding) and module.quantized is not None:
            module.quantized = module.quantized.resolve()
    if model.model.compute_dtype == torch.float32:
        for parameter in model.parameters():
            if not parameter.requires_grad:  # the parameters of a model in training must not be replaced
                parameter.data = parameter.data.float()
    if model.config.tie_embeddings:
        model.lm_head.quantized = model.model.embed_tokens.quantized


def make_pool(max_bytes: int = _CACHE_BYTES) -> BlockPool:
    """Return an empty memory for the KV cache of the compiled kernels, with a limit in bytes."""
    return BlockPool(BLOCK_TOKENS, max_bytes)


def make_runner(
    model: Transformer,
    dtype: InferenceDtype = "auto",
    *,
    pool: BlockPool | None = None,
    identity: bytes | None = None,
) -> Runner:
    """Return the runner of a model for a weight format.

    Args:
        model: The language model.
        dtype: Format of the weights that are not quantized; quantized weights keep their values. "auto": bf16 by the
            compiled kernels if they can compute the model, otherwise PyTorch. "float32": PyTorch.
        pool: Memory of the KV cache of the compiled kernels, which the runners of one worker share. Default: a new one.
        identity: Digest of everything that the model computes: its weights and its config. Models with the same one
            find the same prefixes in the pool. Default: a new one, so that only this runner finds its prefixes.

    Returns:
        The runner.

    Raises:
        ResourceError: The kernels cannot compute this model, and the format needs them.
    """
    if dtype == "float32" or (dtype == "auto" and not _kernels_can_compute(model)):
        prepare_for_torch(model)
        return TorchRunner(model)
    return NativeRunner(model, "bfloat16" if dtype == "auto" else dtype, pool=pool, identity=identity)


def runner_format(runner: Runner, model: Transformer) -> str:
    """Return the format of most of the weights with which a runner computes a model."""
    if isinstance(runner, NativeRunner):
        chosen = runner.decoder.weights
        kept = Counter(packed_format(each, chosen) for each in model.modules() if isinstance(each, QuantizedWeight))
        return kept.most_common(1)[0][0] if kept else chosen
    return str(next(model.parameters()).dtype).removeprefix("torch.")


def runner_weight_bytes(runner: Runner, model: Transformer) -> int:
    """Return the bytes of the weights that a runner reads in a forward pass of a model."""
    return runner.nbytes or sum(parameter.nbytes for parameter in model.parameters())


def _kernels_can_compute(model: Transformer) -> bool:
    """Return whether the compiled kernels can compute a model. They cannot read weights that FSDP has sharded."""
    if dist.is_available() and dist.is_initialized():
        from groundup.distributed import is_sharded

        if any(map(is_sharded, model.parameters())):
            return False
    return unsupported_reason(model) is None
