"""Comparison of a fine-tuned model with its base model: loss on held-out answers, and sample answers of both models.

Shape letters: E: number of examples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from groundup.core.errors import DataError
from groundup.core.types import Example, Message
from groundup.evaluation.comparisons.examples import Comparison
from groundup.evaluation.measure import mean
from groundup.evaluation.prompt_search import trial_examples
from groundup.evaluation.responses import ResponseScore, response_tokens, score_responses
from groundup.inference import complete_all
from groundup.inference.prompting import (
    ChatFormat,
    PromptFormat,
    best_candidate,
    fits,
    greedy_request,
    plain_formats,
)
from groundup.model import Transformer
from groundup.tokenizer import ChatTemplate, Tokenizer


@dataclass(frozen=True, slots=True, eq=False)
class BaseComparison:
    """Comparison of a fine-tuned model with its base model on the same held-out answers.

    Attributes:
        examples: the scored conversations.
        tokens_E: number of answer tokens in each conversation. The summed losses of both models are divided by it.
        fine_tuned: scores of the fine-tuned model.
        chat_format: prompt format of the fine-tuned model.
        base_format: prompt format of the base model.
        loss: comparison of the loss per answer token. The bootstrap intervals resample conversations.
    """

    examples: list[Example]
    tokens_E: npt.NDArray[np.int64]
    fine_tuned: ResponseScore
    chat_format: ChatFormat
    base_format: PromptFormat
    loss: Comparison

    @property
    def sentence(self) -> str:
        """Sentence that reports both losses and their difference."""
        after, before = self.loss.after.estimate, self.loss.before.estimate
        return (
            f"Loss on held-out answers: {after:.3f} nats per token after fine-tuning, {before:.3f} before "
            f"(best prompt format of the base: {self.base_format.name}); {self.loss.difference_and_verdict}."
        )

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as JSON values for the artifact."""
        before, after = (each.interval(seed=self.loss.seed) for each in (self.loss.before, self.loss.after))
        return {
            "responses": int(self.fine_tuned.turns_E.sum()),
            "tokens": int(self.tokens_E.sum()),
            "fine_tuned": after.to_json("loss"),
            "base": before.to_json("loss") | {"format": self.base_format.name},
            "difference": self.loss.difference.to_json("loss"),
            "counted": "tokens of the answers' text, the same for both models; end-of-turn tokens are excluded",
            "end_of_turn": {"loss": float(self.fine_tuned.ends_E.sum() / self.fine_tuned.turns_E.sum())},
        }

    def transcripts(
        self,
        fine_tuned: Transformer,
        base: Transformer,
        tokenizer: Tokenizer,
        *,
        count: int,
        max_tokens: int,
        seed: int = 0,
    ) -> list[dict[str, Any]]:
        """Return randomly chosen questions, each with the answers of both models and the reference answer."""
        drawn = [self.examples[e] for e in np.random.default_rng(seed).permutation(len(self.examples))[:count]]
        questions = [example.messages[:-1] for example in drawn]
        fine_tuned_answers = greedy_answers(fine_tuned, tokenizer, questions, self.chat_format, max_tokens=max_tokens)
        base_answers = greedy_answers(base, tokenizer, questions, self.base_format, max_tokens=max_tokens)
        made = []
        for example, fine_tuned_answer, base_answer in zip(drawn, fine_tuned_answers, base_answers, strict=True):
            messages = [*example.messages[:-1], Message("assistant", fine_tuned_answer)]
            made.append(
                {
                    "messages": [{"role": m.role, "content": m.content} for m in messages],
                    "base": base_answer,
                    "reference": example.messages[-1].content,
                }
            )
        return made


def compare_with_base(
    fine_tuned: Transformer,
    base: Transformer,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    train: Sequence[Example],
    test: Sequence[Example],
    *,
    seed: int = 0,
    advance: Callable[[float], object] = lambda _: None,
) -> BaseComparison:
    """Score held-out answers with a fine-tuned model and with its base model.

    The fine-tuned model is prompted with its chat template, the base model with the prompt format that has the lowest
    loss on training examples.

    Args:
        fine_tuned: fine-tuned model.
        base: base model.
        tokenizer: tokenizer of both models.
        template: chat template of the fine-tuned model.
        train: training examples for choosing the prompt format of the base model.
        test: held-out examples. Examples that exceed the context length in any format are skipped for both models.
        seed: seed of the bootstrap.
        advance: callback for progress, called with the number of examples scored since the last call.

    Returns:
        The comparison.

    Raises:
        DataError: no held-out example fits into the context length.
    """
    chat = ChatFormat(template)
    formats: list[PromptFormat] = [chat, *plain_formats(tokenizer)]
    context = base.config.context_length

    def scorable(examples: Sequence[Example]) -> list[Example]:
        return [example for example in examples if all(fits(format.render, example, context) for format in formats)]

    examples = scorable(test)
    if not examples:
        raise DataError(
            f"{len(test):,} held-out examples: none fits into {context:,} tokens",
            rule="an answer is scored together with its whole conversation",
            fix="Give shorter test examples, or a model with a longer context.",
        )
    base_format = best_format(base, tokenizer, chat, scorable(trial_examples(tokenizer, train)) or examples)
    before = score_responses(base, tokenizer, examples, base_format.render, advance=advance)
    after = score_responses(fine_tuned, tokenizer, examples, chat.render, advance=advance)
    tokens_E = response_tokens(tokenizer, examples)
    old, new = (
        mean("loss of held-out answers", each.nll_E, tokens_E, unit="nats per token", lower_is_better=True)
        for each in (before, after)
    )
    return BaseComparison(examples, tokens_E, after, chat, base_format, Comparison(old, new, seed))


def best_format(
    model: Transformer, tokenizer: Tokenizer, chat: ChatFormat, examples: Sequence[Example]
) -> PromptFormat:
    """Return the prompt format with the lowest loss on the answers of these examples.

    The chat template is not a candidate if its special tokens are missing from the model's vocabulary.
    """
    knows = model.config.vocab_size > max(chat.stop_ids or ())
    formats: list[PromptFormat] = [*([chat] if knows else []), *plain_formats(tokenizer)]

    def loss(format: PromptFormat) -> float:
        return float(score_responses(model, tokenizer, examples, format.render).nll_E.sum())

    return best_candidate(formats, loss)[0]


def greedy_answers(
    model: Transformer,
    tokenizer: Tokenizer,
    questions: Sequence[Sequence[Message]],
    format: PromptFormat,
    *,
    max_tokens: int,
) -> list[str]:
    """Generate the next answer of each conversation by greedy decoding."""
    requests = [greedy_request(format, question, max_tokens) for question in questions]
    return [done.text.strip() for done in complete_all(model, tokenizer, requests)]
