"""A tuned model beside its base: how well each predicts held-out answers, and what each answers.

Shape letters: E examples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from groundup.core.errors import DataError
from groundup.core.types import Example, Message
from groundup.data.tables import spread
from groundup.evaluation.rendering import (
    CHAT_TEMPLATE,
    PLAIN_FORMATS,
    PromptFormat,
    chat_renderer,
    fits,
    plain_prompt,
    plain_renderer,
)
from groundup.evaluation.responses import ResponseScore, response_tokens, score_responses
from groundup.evaluation.stats import Interval, paired_difference, ratio_interval
from groundup.inference import Engine, GenerationRequest, Sampling
from groundup.model import Transformer
from groundup.tokenizer import ChatTemplate, Tokenizer

# That each way to ask is tried on: as many ways as there are should not take as long as the tuning, on a CPU.
_TRIED_TOKENS, _TRIED_LEAST, _TRIED_MOST = 2_500, 8, 48


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """A tuned model beside its base on the same answers.

    Attributes:
        examples: the conversations that were scored.
        tokens_E: tokens of each one's answers; both models' nats are divided by them.
        format: the base's best format, `None` for the chat template.
        tuned_loss, base_loss, difference: nats per token of the answers' words, with intervals over conversations.
    """

    examples: list[Example]
    tokens_E: npt.NDArray[np.int64]
    tuned: ResponseScore
    format: PromptFormat | None
    tuned_loss: Interval
    base_loss: Interval
    difference: Interval

    @property
    def sentence(self) -> str:
        """What came out, for a person."""
        if self.difference.excludes_zero:
            verdict = "better" if self.difference.estimate < 0 else "worse"
        else:
            verdict = "not distinguishable"
        after, before, gain = self.tuned_loss.estimate, self.base_loss.estimate, self.difference
        return (
            f"Held-out answers: {after:.3f} nats a token after tuning, {before:.3f} before "
            f"(asked in the base's best format: {self._format_name}); "
            f"difference {gain.estimate:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]: {verdict}."
        )

    @property
    def _format_name(self) -> str:
        return self.format.name if self.format else CHAT_TEMPLATE

    def to_json(self) -> dict[str, Any]:
        """For the artifact."""

        def interval(found: Interval) -> dict[str, Any]:
            # One conversation alone has no interval, and JSON has no infinity.
            bounds = [bound if math.isfinite(bound) else None for bound in (found.low, found.high)]
            return {"loss": found.estimate, "interval": bounds}

        return {
            "responses": int(self.tuned.turns_E.sum()),
            "tokens": int(self.tokens_E.sum()),
            "tuned": interval(self.tuned_loss),
            "base": interval(self.base_loss) | {"format": self._format_name},
            "difference": interval(self.difference),
            "counted": "the words of the answers, which both models are asked for; ends of turns apart",
            "end_of_turn": {"loss": float(self.tuned.ends_E.sum() / self.tuned.turns_E.sum())},
        }

    def transcripts(
        self, tuned: Engine, base: Engine, template: ChatTemplate, count: int, max_tokens: int, *, seed: int = 0
    ) -> list[dict[str, Any]]:
        """A few of the questions, with the tuned model's answer, the base's in its best format, and the data's own."""
        drawn = np.random.default_rng(seed).permutation(len(self.examples))[:count]
        made = []
        for example in (self.examples[e] for e in drawn):
            question, reference = example.messages[:-1], example.messages[-1]
            said = answer(tuned, question, template, max_tokens=max_tokens)
            messages = [*question, Message("assistant", said)]
            asked = template if self.format is None else self.format
            made.append(
                {
                    "messages": [{"role": m.role, "content": m.content} for m in messages],
                    "base": answer(base, question, asked, max_tokens=max_tokens),
                    "reference": reference.content,
                }
            )
        return made


def compare_with_base(
    tuned: Transformer,
    base: Transformer,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    learned: Sequence[Example],
    tested: Sequence[Example],
    *,
    seed: int = 0,
    advance: Callable[[float], object] = lambda _: None,
) -> Comparison:
    """Score held-out answers with the tuned model by its template, and with the base in the format that suits it best.

    Args:
        learned: examples of the training data; the base's format is chosen on some of them.
        tested: held-out examples; those that no format gets into the context are left out, for both models.

    Raises:
        DataError: none of the held-out examples fits into the context.
    """
    renderers = [chat_renderer(template), *(plain_renderer(tokenizer, format) for format in PLAIN_FORMATS)]
    context = base.config.context_length

    def scorable(examples: Sequence[Example]) -> list[Example]:
        return [example for example in examples if all(fits(render, example, context) for render in renderers)]

    examples = scorable(tested)
    if not examples:
        raise DataError(
            f"{len(tested):,} held-out examples: none fits into {context:,} tokens",
            rule="an answer is scored with all that stands before it",
            fix="Give shorter examples to test on, or a model with a longer context.",
        )
    format = best_format(base, tokenizer, template, scorable(to_try_on(tokenizer, learned)) or examples)
    render = chat_renderer(template) if format is None else plain_renderer(tokenizer, format)
    before = score_responses(base, tokenizer, examples, render, advance=advance)
    after = score_responses(tuned, tokenizer, examples, renderers[0], advance=advance)
    tokens_E = response_tokens(tokenizer, examples)
    return Comparison(
        examples,
        tokens_E,
        after,
        format,
        ratio_interval(after.nll_E, tokens_E, seed=seed),
        ratio_interval(before.nll_E, tokens_E, seed=seed),
        paired_difference(after.nll_E, before.nll_E, tokens_E, seed=seed),
    )


def best_format(
    model: Transformer, tokenizer: Tokenizer, template: ChatTemplate, examples: Sequence[Example]
) -> PromptFormat | None:
    """The format in which a model predicts these answers best; None: the chat template.

    A base model that lacks tokens of the template cannot be asked by it.
    """

    def loss(format: PromptFormat | None) -> float:
        render = chat_renderer(template) if format is None else plain_renderer(tokenizer, format)
        return float(score_responses(model, tokenizer, examples, render).nll_E.sum())

    knows = model.config.vocab_size > max(template.stop_ids)
    return min((None, *PLAIN_FORMATS) if knows else PLAIN_FORMATS, key=loss)


def to_try_on(tokenizer: Tokenizer, learned: Sequence[Example]) -> Sequence[Example]:
    """Training examples, from everywhere, on which it is tried which way to ask suits a model."""
    few = spread(learned, _TRIED_MOST)
    sizes = [sum(len(tokenizer.encode(message.content)) for message in example.messages) for example in few]
    count = int(_TRIED_TOKENS * len(few) / max(sum(sizes), 1))
    return spread(few, min(_TRIED_MOST, max(_TRIED_LEAST, count)))


def answer(engine: Engine, question: Sequence[Message], asked: ChatTemplate | PromptFormat, *, max_tokens: int) -> str:
    """What a model answers, most likely word by word, when it is asked by a template or in a plain format."""
    sampling = Sampling(temperature=0.0)
    if isinstance(asked, ChatTemplate):
        ids = tuple(asked.encode(question, add_generation_prompt=True))
        request = GenerationRequest(prompt=ids, answers=True, sampling=sampling, max_tokens=max_tokens)
    else:
        stop = (asked.after if "\n" in asked.after else "\n",)
        prompt = plain_prompt(asked, question)
        request = GenerationRequest(prompt=prompt, sampling=sampling, max_tokens=max_tokens, stop=stop)
    return engine.complete(request).text.strip()
