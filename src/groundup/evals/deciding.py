"""The score by which one state of a tuning run is preferred to another: of answers set apart, less is better."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from groundup.errors import DataError
from groundup.evals.responses import chat_renderer, fits, response_tokens, score_responses
from groundup.model import Transformer
from groundup.parallel import eagerly
from groundup.tokenizer import ChatTemplate, Tokenizer
from groundup.types import Example


def loss_of_answers(
    model: Transformer, tokenizer: Tokenizer, template: ChatTemplate, examples: Sequence[Example]
) -> Callable[[], float]:
    """A score of the model as it then is: nats per token of these answers, the ends of their turns included.

    Raises:
        DataError: none of the examples fits into the context.
    """
    render = chat_renderer(template)
    fitting = [example for example in examples if fits(render, example, model.config.context_length)]
    if not fitting:
        raise DataError(
            f"{len(examples):,} examples set apart: none fits into {model.config.context_length:,} tokens",
            rule="the best state is chosen on answers that are not learned",
            fix="Give shorter examples, or leave keep_best and patience out.",
        )
    tokens = int(response_tokens(tokenizer, fitting).sum())

    def score() -> float:
        with eagerly():
            found = score_responses(model, tokenizer, fitting, render)
        return float(found.nll_E.sum() + found.ends_E.sum()) / tokens

    return score
