"""Forward passes for the sequences of an engine, by PyTorch or by the compiled kernels.

Shape letters: T tokens, V vocab.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from groundup.core.types import InferenceDtype
from groundup.inference.blocks import BlockPool, BlockTable
from groundup.kernels.native_decoder import BLOCK_TOKENS, Chunk, NativeDecoder, WeightFormat, native_obstacle
from groundup.model import KVCache, Transformer

PREFILL_TOKENS = 256  # prompt tokens of a forward pass, so that a long prompt does not delay other requests
_SHARED_PREFILL_TOKENS = 64  # the same, while other sequences decode
_CACHE_BYTES = 2**30


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
    """

    cache: SequenceCache
    ids: Sequence[int]
    scored: bool


class Runner(Protocol):
    """What the engine needs of a model."""

    def open(self, ids: Sequence[int], max_tokens: int) -> SequenceCache:
        """Return a cache for a sequence that begins with `ids` and has at most `max_tokens` tokens.

        The cache may already hold keys and values of the first tokens, but never of the last one.
        """
        ...

    def prefill_tokens(self, length: int, *, shared: bool) -> int:
        """Return the maximum number of prompt tokens in the next forward pass.

        Args:
            length: Number of tokens that the cache of the sequence holds.
            shared: Whether other sequences decode in the same pass.
        """
        ...

    def reserve(self, cache: SequenceCache, length: int) -> None:
        """Reserve memory for `length` tokens of a sequence.

        Raises:
            OutOfBlocksError: Other sequences use all of the memory.
        """
        ...

    def forward(self, works: Sequence[SequenceStep]) -> list[Tensor | Exception | None]:
        """Compute new tokens; return for each work its logits (V,) in fp32, an error, or None if it is not scored."""
        ...

    def close(self, cache: SequenceCache) -> None:
        """Release the memory of a sequence."""
        ...

    def share(self, model: Transformer) -> Runner:
        """Return a runner of the same kind for another model, which shares weights that both models have."""
        ...


class TorchRunner:
    """A model computed by PyTorch, each sequence by itself, on the model's device and in its dtype.

    Chunks of a prompt begin at fixed positions: if they depended on the load, so would rounding, and the same request
    could give different tokens.
    """

    def __init__(self, model: Transformer) -> None:
        self._model = model

    def open(self, ids: Sequence[int], max_tokens: int) -> SequenceCache:
        """Return an empty cache."""
        return self._model.new_cache(1, max_tokens)

    def prefill_tokens(self, length: int, *, shared: bool) -> int:
        """Return the tokens up to the end of the current chunk."""
        return PREFILL_TOKENS - length % PREFILL_TOKENS

    def reserve(self, cache: SequenceCache, length: int) -> None:
        """Do nothing: the cache grows when it is extended."""

    def forward(self, works: Sequence[SequenceStep]) -> list[Tensor | Exception | None]:
        """Compute the sequences one after the other. An error in one sequence is returned for this sequence only."""
        results: list[Tensor | Exception | None] = []
        for work in works:
            try:
                results.append(self._logits(work))
            except Exception as error:
                results.append(error)
        return results

    def close(self, cache: SequenceCache) -> None:
        """Do nothing: the memory is freed with the cache."""

    def share(self, model: Transformer) -> Runner:
        """Return a runner for another model."""
        return TorchRunner(model)

    def _logits(self, work: SequenceStep) -> Tensor | None:
        assert isinstance(work.cache, KVCache)
        new_ids = torch.tensor(work.ids[work.cache.length :], device=self._model.lm_head.weight.device)
        h_BTD = self._model.model(new_ids[None], cache=work.cache)
        return self._model.logits(h_BTD[0, -1]).float().cpu() if work.scored else None


class NativeRunner:
    """A model computed by the compiled kernels, all sequences in one pass, with a cache of prefixes.

    Args:
        model: The language model. Its weights are copied.
        weights: Format of the copy.
        threads: CPU threads. Default: torch's number.
        base: A runner whose packed weights are used for layers that both models have.
        cache_bytes: Maximum size of the KV cache. It is at least one sequence of the full context length.

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
        cache_bytes: int = _CACHE_BYTES,
    ) -> None:
        self.decoder: NativeDecoder = NativeDecoder(
            model, weights, threads=threads, base=None if base is None else base.decoder
        )
        self._cache_bytes = cache_bytes
        context_blocks = -(-model.config.context_length // BLOCK_TOKENS)
        block_bytes = self.decoder.block_bytes
        self.pool = BlockPool(BLOCK_TOKENS, block_bytes, max(cache_bytes, context_blocks * block_bytes))

    def open(self, ids: Sequence[int], max_tokens: int) -> SequenceCache:
        """Return a cache with the stored tokens with which `ids` begins."""
        return self.pool.open(ids)

    def prefill_tokens(self, length: int, *, shared: bool) -> int:
        """Return the size of a chunk, which does not affect results."""
        return _SHARED_PREFILL_TOKENS if shared else PREFILL_TOKENS

    def reserve(self, cache: SequenceCache, length: int) -> None:
        """Add blocks to the cache of a sequence."""
        assert isinstance(cache, BlockTable)
        self.pool.reserve(cache, length)

    def forward(self, works: Sequence[SequenceStep]) -> list[Tensor | Exception | None]:
        """Compute all sequences in one pass."""
        chunks = []
        for work in works:
            assert isinstance(work.cache, BlockTable)
            start = work.cache.length
            chunks.append(Chunk(work.ids[start:], start, work.cache.addresses, work.scored))
        logits = iter(self.decoder.forward(chunks))
        for work in works:
            assert isinstance(work.cache, BlockTable)
            self.pool.advance(work.cache, work.ids)
        return [next(logits) if work.scored else None for work in works]

    def close(self, cache: SequenceCache) -> None:
        """Release the blocks of a sequence; full ones stay until their memory is needed."""
        assert isinstance(cache, BlockTable)
        self.pool.close(cache)

    def share(self, model: Transformer) -> Runner:
        """Return a runner for another model; PyTorch if the kernels cannot compute it."""
        if native_obstacle(model) is not None:
            return TorchRunner(model)
        decoder = self.decoder
        return NativeRunner(model, decoder.weights, threads=decoder.threads, base=self, cache_bytes=self._cache_bytes)


def make_runner(model: Transformer, dtype: InferenceDtype = "auto", *, cache_bytes: int = _CACHE_BYTES) -> Runner:
    """Return the runner of a model for a weight format.

    Args:
        model: The language model.
        dtype: "auto": bf16 by the compiled kernels if they can compute the model, otherwise PyTorch with the model's
            own weights. "float32": PyTorch.
        cache_bytes: Limit of the KV cache of the compiled kernels.

    Returns:
        The runner.

    Raises:
        ResourceError: The kernels cannot compute this model, and the format needs them.
    """
    if dtype == "float32" or (dtype == "auto" and native_obstacle(model) is not None):
        return TorchRunner(model)
    return NativeRunner(model, "bfloat16" if dtype == "auto" else dtype, cache_bytes=cache_bytes)
