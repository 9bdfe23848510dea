"""Batched generation: all requests decode together, one token per sequence and forward pass.

Use it if all completions are needed before the next step, as in evaluation. The engine runs its requests separately, so
a request always gives the same tokens. Here, batched matmuls may round differently, which can change a token if two
tokens are almost equally likely.

Shape letters: B batch, T sequence, D dim, V vocab.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from groundup.inference.request import Completion, GenerationRequest, TokenEvent
from groundup.inference.runner import PREFILL_TOKENS
from groundup.inference.sequence import GeneratedSequence, prompt_ids
from groundup.model import BatchCache, KVCache, Transformer
from groundup.tokenizer import Tokenizer

_BATCH_SIZE = 16
_MAX_CACHE_BYTES = 2**30  # KV cache; reduces the batch size of large models


@dataclass(slots=True, eq=False)
class _Running:
    """A sequence in the batch, the index of its request, its cache and its events."""

    index: int
    sequence: GeneratedSequence
    cache: KVCache
    events: list[TokenEvent] = field(default_factory=list)


def complete_all(
    model: Transformer,
    tokenizer: Tokenizer,
    requests: Sequence[GenerationRequest],
    *,
    stop_ids: Sequence[int] | None = None,
    batch_size: int = _BATCH_SIZE,
    advance: Callable[[float], object] = lambda _: None,
) -> list[Completion]:
    """Generate completions for all requests in batches.

    Args:
        model: The language model.
        tokenizer: The model's tokenizer.
        requests: The generation requests.
        stop_ids: Stop tokens for requests without their own. Default: the tokenizer's EOS.
        batch_size: Maximum number of sequences per batch.
        advance: Called with the number of completions since the last call.

    Returns:
        One completion per request, in the same order.

    Raises:
        ConfigError: A prompt does not fit into the context.
    """
    context = model.config.context_length
    vocab_size = min(tokenizer.vocab_size, model.config.vocab_size)
    ids = [prompt_ids(each, tokenizer, vocab_size=vocab_size, context_length=context) for each in requests]
    stops = frozenset((tokenizer.eos_id,) if stop_ids is None else stop_ids)
    # Longest first: sequences of a batch then have similar lengths, and a lack of memory shows immediately.
    waiting = sorted(range(len(requests)), key=lambda index: len(ids[index]))
    done: dict[int, Completion] = {}
    running: list[_Running] = []
    batch = _new_batch_cache(model, requests, ids, batch_size) if requests else None

    def accept(slot: int, logits_V: Tensor) -> None:
        """Sample a sequence's next token. If the sequence ends, the last sequence moves to its slot."""
        each = running[slot]
        each.events.append(each.sequence.accept(logits_V[:vocab_size].float().cpu()))
        if each.events[-1].finish_reason is not None:
            done[each.index] = Completion.of(each.events, prompt_tokens=len(ids[each.index]))
            last = running.pop()
            if slot < len(running):
                running[slot] = last
            assert batch is not None
            batch.close(slot)
            advance(1)

    with torch.inference_mode():
        while batch is not None and (waiting or running):
            while waiting and len(running) < batch.num_slots:
                index = waiting.pop()
                sequence = GeneratedSequence(requests[index], ids[index], tokenizer, context, vocab_size, stops)
                running.append(_Running(index, sequence, batch.open()))
                accept(len(running) - 1, _prefill(model, sequence, running[-1].cache))
            if running:
                logits_BV = _step(model, batch, [each.sequence.ids[-1] for each in running])
                for slot in reversed(range(len(running))):  # backwards: a sequence that moves already has its token
                    accept(slot, logits_BV[slot])
    return [done[index] for index in range(len(requests))]


def _new_batch_cache(
    model: Transformer, requests: Sequence[GenerationRequest], ids: Sequence[Sequence[int]], batch_size: int
) -> BatchCache:
    context = model.config.context_length
    longest = max(
        min(context, len(prompt) + (request.max_tokens or context))
        for request, prompt in zip(requests, ids, strict=True)
    )
    num_slots = min(batch_size, len(requests), _MAX_CACHE_BYTES // (model.cache_bytes_per_token * longest))
    return model.new_batch_cache(max(1, num_slots), longest)


def _prefill(model: Transformer, sequence: GeneratedSequence, cache: KVCache) -> Tensor:
    """Run the model on a prompt and return the logits (V,) of its last token."""
    sequence.note_computed(len(sequence.ids))
    for chunk_T in torch.tensor(sequence.ids, device=model.lm_head.weight.device).split(PREFILL_TOKENS):
        h_BTD = model.model(chunk_T[None], cache=cache)
    return model.logits(h_BTD[0, -1])


def _step(model: Transformer, batch: BatchCache, last_ids: Sequence[int]) -> Tensor:
    """Run one decode step and return the logits (B, V)."""
    ids_BT = torch.tensor(last_ids, device=model.lm_head.weight.device)[:, None]
    h_BTD = model.model(ids_BT, batch.positions, cache=batch)
    return model.logits(h_BTD[:, -1])
