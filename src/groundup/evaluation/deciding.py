"""The score by which one state of a tuning run is preferred to another: of answers set apart, less is better."""

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
from groundup.kernels import eagerly
from groundup.model import Transformer
from groundup.tokenizer import ChatTemplate, Tokenizer
from groundup.train import Selection

_WRITTEN = 48  # answers that are written for a score: 20 times in a run, word by word
_LONGEST = 256  # tokens of such an answer


def answer_selection(
    metric: DeciderName | None, patience: int | None, model: Transformer, data: InstructionData
) -> Selection | None:
    """Return the selection of the best weights on the validation answers of instruction tuning, if it has any."""
    if not data.validation:
        return None
    metric = metric or "loss"
    score = score_of_answers(metric, model, data.tokenizer, data.template, data.validation, data.train)
    return Selection(score, metric, patience)


def score_of_answers(
    by: DeciderName,
    model: Transformer,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    examples: Sequence[Example],
    learned: Sequence[Example] = (),
) -> Callable[[], float]:
    """A score of the model as it then is, on answers that it has not learned.

    Args:
        by: "loss" is nats per token of these answers, the ends of their turns included. For any other, the model
            answers some of the questions, the likeliest word after word, and the score is 1 less the figure (of 0 to
            1) that decides in `groundup.evaluation.metrics`.
        learned: what it learns from, which helps to tell whether answers are labels.

    Raises:
        DataError: none of the examples fits into the context.
    """
    render = ChatFormat(template).render
    fitting = [example for example in examples if fits(render, example, model.config.context_length)]
    if not fitting:
        raise DataError(
            f"{len(examples):,} examples set apart: none fits into {model.config.context_length:,} tokens",
            rule="the best state is chosen on answers that are not learned",
            fix="Give shorter examples, or leave keep_best and patience out.",
        )
    if by != "loss":
        labels = label_names([example.messages[-1].content for example in (*learned, *examples)])
        prompted = PromptedModel(model, tokenizer, template, template.stop_ids)
        return _by_metric(by, prompted, evenly_spaced(fitting, _WRITTEN), labels)
    tokens = int(response_tokens(tokenizer, fitting).sum())

    def score() -> float:
        with eagerly():
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
    most = min(_LONGEST, 8 + longest + longest // 4)

    def score() -> float:
        with eagerly():
            written = generate_answers(prompted, prompt, examples, most)
        return 1 - measures(by, written, references, labels=labels)[0].estimate / 100

    return score
