"""Many texts to their ends, a token of each at a time in one product: for those who wait for all of them anyway.

The engine steps its requests in turn, so that a request is a function of itself alone, bit for bit. Here the products
of a batch may round differently from those of one sequence, which moves a token where two were equally likely.

Shape letters: B batch, T sequence, D dim, V vocab.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from groundup.inference.request import Completion, GenerationRequest, TokenEvent
from groundup.inference.sequence import GeneratedSequence, prompt_ids
from groundup.model import BatchCache, Transformer
from groundup.tokenizer import Tokenizer

_BATCH = 16
_CACHE_BYTES = 2**30  # of keys and values; fewer sequences at a time where theirs are large


@dataclass(slots=True, eq=False)
class _Running:
    """A sequence in the batch: whose it is, and what it has said."""

    place: int
    sequence: GeneratedSequence
    events: list[TokenEvent] = field(default_factory=list)


def complete_all(
    model: Transformer,
    tokenizer: Tokenizer,
    requests: Sequence[GenerationRequest],
    *,
    stop_ids: Sequence[int] | None = None,
    batch_size: int = _BATCH,
    advance: Callable[[float], object] = lambda _: None,
) -> list[Completion]:
    """Generate all requests to their ends.

    Args:
        stop_ids: tokens that end a request which names none itself; the tokenizer's EOS by default.
        batch_size: sequences at a time, at most.
        advance: called with the number of requests that have ended since the last call.

    Returns:
        One completion a request, in their order.

    Raises:
        ConfigError: a prompt that does not fit into the context.
    """
    context = model.config.context_length
    vocab_size = min(tokenizer.vocab_size, model.config.vocab_size)
    ids = [prompt_ids(each, tokenizer, vocab_size=vocab_size, context_length=context) for each in requests]
    stops = frozenset((tokenizer.eos_id,) if stop_ids is None else stop_ids)
    # From the longest on: sequences of like length stand together, and what does not fit is known at once.
    waiting = sorted(range(len(requests)), key=lambda place: len(ids[place]))
    done: dict[int, Completion] = {}
    running: list[_Running] = []
    batch = _new_batch(model, requests, ids, batch_size) if requests else None

    def settle(index: int, logits_V: Tensor) -> None:
        """Draw a sequence's next token; one that has ended leaves, and the last takes its place."""
        each = running[index]
        each.events.append(each.sequence.accept(logits_V[:vocab_size].float().cpu()))
        if each.events[-1].finish_reason is not None:
            done[each.place] = Completion.of(each.events, prompt_tokens=len(ids[each.place]))
            last = running.pop()
            if index < len(running):
                running[index] = last
            assert batch is not None
            batch.close(index)
            advance(1)

    with torch.inference_mode():
        while batch is not None and (waiting or running):
            while waiting and len(running) < batch.places:
                place = waiting.pop()
                sequence = GeneratedSequence(requests[place], ids[place], model, tokenizer, stops, batch.open())
                running.append(_Running(place, sequence))
                settle(len(running) - 1, _read_prompt(model, sequence))
            if running:
                logits_BV = _step(model, batch, [each.sequence for each in running])
                for index in reversed(range(len(running))):  # backwards: who moves up has been served
                    settle(index, logits_BV[index])
    return [done[place] for place in range(len(requests))]


def _new_batch(
    model: Transformer, requests: Sequence[GenerationRequest], ids: Sequence[Sequence[int]], batch_size: int
) -> BatchCache:
    context = model.config.context_length
    longest = max(
        min(context, len(prompt) + (request.max_tokens or context))
        for request, prompt in zip(requests, ids, strict=True)
    )
    rows = min(batch_size, len(requests), _CACHE_BYTES // (model.cache_bytes_per_token * longest))
    return model.new_batch(max(1, rows), longest)


def _read_prompt(model: Transformer, sequence: GeneratedSequence) -> Tensor:
    """Logits (V,) after a sequence's prompt."""
    device = model.lm_head.weight.device
    while not sequence.prefilled:
        h_BTD = model.model(sequence.next_ids().to(device)[None], cache=sequence.cache)
    return model.logits(h_BTD[0, -1])


def _step(model: Transformer, batch: BatchCache, sequences: Sequence[GeneratedSequence]) -> Tensor:
    """Logits (B, V) after the last token of each sequence."""
    ids_BT = torch.stack([sequence.next_ids() for sequence in sequences]).to(model.lm_head.weight.device)
    h_BTD = model.model(ids_BT, batch.positions, cache=batch)
    return model.logits(h_BTD[:, -1])
