"""The validation score by which instruction tuning selects the best weights; lower is better."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from groundup.core.errors import DataError
from groundup.core.types import DeciderName, Example
from groundup.data.instruction import InstructionData
from groundup.data.tables import evenly_spaced
from groundup.evaluation.metrics import label_names, measures
from groundup.evaluation.prompt_search import FewShotPrompt, PromptedModel, generate_answers
from groundup.evaluation.responses import response_tokens, score_responses
from groundup.inference.prompting import ChatFormat, fits
from groundup.kernels import eager_mode
from groundup.model import Transformer
from groundup.tokenizer import ChatTemplate, Tokenizer
from groundup.train import Selection

_NUM_GENERATED = 48  # Number of answers that are generated per score, about 20 times in a run.
_MAX_ANSWER_TOKENS = 256  # Maximum number of tokens per generated answer.


def answer_selection(
    metric: DeciderName | None, patience: int | None, model: Transformer, data: InstructionData
) -> Selection | None:
    """Return the selection of the best weights by the validation answers; None without a validation set.

    Args:
        metric: metric to select by; default: loss.
        patience: number of evaluations without improvement before training stops; None: never.
        model: model in training.
        data: examples of instruction tuning.

    Returns:
        The selection, or None.
    """
    if not data.validation:
        return None
    metric = metric or "loss"
    score = answer_score(metric, model, data.tokenizer, data.template, data.validation, data.train)
    return Selection(score, metric, patience)


def answer_score(
    by: DeciderName,
    model: Transformer,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    examples: Sequence[Example],
    train: Sequence[Example] = (),
) -> Callable[[], float]:
    """Return a function that scores the current weights on validation answers; lower is better.

    Args:
        by: "loss": nats per token of the answers, with end-of-turn tokens. Any other metric: 1 minus the metric (0 to
            1) of greedily generated answers to a sample of the questions.
        model: model in training.
        tokenizer: tokenizer of the model.
        template: chat template of the model.
        examples: validation examples.
        train: training examples, which help to detect whether the answers are labels.

    Returns:
        A function that returns the score.

    Raises:
        DataError: no example fits into the context.
    """
    render = ChatFormat(template).render
    fitting = [example for example in examples if fits(render, example, model.config.context_length)]
    if not fitting:
        raise DataError(
            f"{len(examples):,} validation examples: none fits into {model.config.context_length:,} tokens",
            rule="the best weights are selected on the validation set",
            fix="Give shorter examples, or omit keep_best and early_stopping_patience.",
        )
    if by != "loss":
        labels = label_names([example.messages[-1].content for example in (*train, *examples)])
        prompted = PromptedModel(model, tokenizer, template, template.stop_ids)
        return _by_metric(by, prompted, evenly_spaced(fitting, _NUM_GENERATED), labels)
    tokens = int(response_tokens(tokenizer, fitting).sum())

    def score() -> float:
        with eager_mode():
            found = score_responses(model, tokenizer, fitting, render)
        return float(found.nll_E.sum() + found.ends_E.sum()) / tokens

    return score


def _by_metric(
    by: DeciderName, prompted: PromptedModel, examples: Sequence[Example], labels: Sequence[str]
) -> Callable[[], float]:
    assert by != "loss" and prompted.chat_format is not None
    prompt = FewShotPrompt(prompted.chat_format)
    references = [example.messages[-1].content for example in examples]
    longest = max(len(ids) for ids in prompted.tokenizer.encode_batch(references))
    max_tokens = min(_MAX_ANSWER_TOKENS, 8 + longest + longest // 4)

    def score() -> float:
        with eager_mode():
            written = generate_answers(prompted, prompt, examples, max_tokens)
        return 1 - measures(by, written, references, labels=labels)[0].estimate / 100

    return score
