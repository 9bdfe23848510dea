"""Generation for many requests whose completions are all needed before the next step, as in evaluation and rollouts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from groundup.core.types import InferenceDtype
from groundup.inference.engine import Engine
from groundup.inference.request import Completion, GenerationRequest
from groundup.inference.runner import make_runner
from groundup.model import Transformer
from groundup.tokenizer import Tokenizer


def complete_all(
    model: Transformer,
    tokenizer: Tokenizer,
    requests: Sequence[GenerationRequest],
    *,
    dtype: InferenceDtype = "auto",
    stop_ids: Sequence[int] | None = None,
    advance: Callable[[float], object] = lambda _: None,
) -> list[Completion]:
    """Generate completions for all requests with the model's current weights.

    The tokens of a request do not depend on the other requests. If you have an engine, call
    its method `complete_all`, which does not convert the weights again.

    Args:
        model: The language model.
        tokenizer: The model's tokenizer.
        requests: The generation requests.
        dtype: Weight format; see `make_runner`.
        stop_ids: Stop tokens for requests without their own. Default: the tokenizer's EOS.
        advance: Called with the number of completions since the last call.

    Returns:
        One completion per request, in the same order, with the log-probabilities of its tokens.

    Raises:
        ConfigError: A prompt does not fit into the context.
    """
    if not requests:
        return []
    stops = None if stop_ids is None else tuple(stop_ids)
    with Engine(model, tokenizer, runner=make_runner(model, dtype), stop_ids=stops) as engine:
        return engine.complete_all(requests, advance=advance)
