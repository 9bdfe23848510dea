"""How well a model predicts the answers of conversations: after tuning by its chat template, before in plain formats.

Shape letters: B batch, T sequence, D hidden, V vocab, E examples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from groundup.errors import DataError, FormatError
from groundup.evals.stats import Interval, paired_difference, ratio_interval
from groundup.examples.tables import spread
from groundup.generate import Engine, GenerationRequest, Sampling
from groundup.model import Transformer
from groundup.tokenizer import ChatTemplate, Tokenizer
from groundup.types import IGNORE_INDEX, Example, Message, Role


@dataclass(frozen=True, slots=True)
class PromptFormat:
    """A way to lay a conversation out as plain text.

    Attributes:
        name: in words.
        before: what stands before the words of each role.
        after: what stands after each turn; where it appears in what a model writes, its turn is over.
    """

    name: str
    before: dict[Role, str]
    after: str


def _format(name: str, user: str, assistant: str, after: str, system: str = "") -> PromptFormat:
    return PromptFormat(name, {"user": user, "assistant": assistant, "system": system}, after)


PLAIN_FORMATS = (
    _format('lines "Q: ..." and "A: ..."', "Q: ", "A: ", "\n"),
    _format('paragraphs "Question: ..." and "Answer: ..."', "Question: ", "Answer: ", "\n\n"),
    _format('lines "User: ..." and "Assistant: ..."', "User: ", "Assistant: ", "\n", "System: "),
    _format("a line each", "", "", "\n"),
    _format("a paragraph each", "", "", "\n\n"),
    _format("a line with a dash each", "- ", "- ", "\n"),
    _format("all in one line", "", "", " "),
)
CHAT_TEMPLATE = "the chat template"
_ROOM = 8  # tokens
# That each way to ask is tried on: as many ways as there are should not take as long as the tuning, on a CPU.
_TRIED_TOKENS, _TRIED_LEAST, _TRIED_MOST = 2_500, 8, 48


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as a model reads it.

    Attributes:
        ids: with BOS.
        scored: which of them are words of an answer.
        last: which of them are the last token of an answer's words.
        ends: which of them end an answer's turn; none in plain text.
    """

    ids: list[int]
    scored: list[bool]
    last: list[bool]
    ends: list[bool]


Renderer = Callable[[Example], Rendered]


def chat_renderer(template: ChatTemplate) -> Renderer:
    """Conversations by the chat template."""

    def render(example: Example) -> Rendered:
        ids, trained = template.encode_labelled(example.messages)
        ends = [is_trained and token in template.stop_ids for token, is_trained in zip(ids, trained, strict=True)]
        scored = [is_trained and not end for is_trained, end in zip(trained, ends, strict=True)]
        last = [is_scored and end for is_scored, end in zip(scored, [*ends[1:], False], strict=True)]
        return Rendered(ids, scored, last, ends)

    return render


def plain_renderer(tokenizer: Tokenizer, format: PromptFormat) -> Renderer:
    """Conversations as plain text. Words, with a space before them, are encoded apart from what stands around them."""

    def render(example: Example) -> Rendered:
        ids, scored, last = [tokenizer.bos_id], [False], [False]
        for number, message in enumerate(example.messages):
            before = ("" if number == 0 else format.after) + format.before[message.role]
            space = before[len(before.rstrip(" ")) :]
            around = tokenizer.encode(before.rstrip(" "), continues=len(ids) > 1)
            words = tokenizer.encode(space + message.content, continues=len(ids) + len(around) > 1)
            answers = message.role == "assistant"
            ids += around + words
            scored += [False] * len(around) + [answers] * len(words)
            last += [False] * (len(around) + len(words) - 1) + [answers]
        return Rendered(ids, scored, last, [False] * len(ids))

    return render


def plain_prompt(format: PromptFormat, messages: Sequence[Message]) -> str:
    """Messages as plain text, up to where the assistant's words would come."""
    turns = "".join(f"{format.before[message.role]}{message.content}{format.after}" for message in messages)
    return (turns + format.before["assistant"]).rstrip(" ")


@dataclass(frozen=True, slots=True, eq=False)
class ResponseScore:
    """Of each example, in nats: its answers' words, and the ends of its turns.

    Attributes:
        nll_E: of the words of its answers.
        ends_E: of the tokens that end its answers' turns; 0 in plain text, which has none.
        turns_E: how many answers it has.
    """

    nll_E: npt.NDArray[np.float64]
    ends_E: npt.NDArray[np.float64]
    turns_E: npt.NDArray[np.int64]


def response_tokens(tokenizer: Tokenizer, examples: Sequence[Example]) -> npt.NDArray[np.int64]:
    """Tokens of each example's answers, (E,): the divisor that all formats share."""
    texts = [[m.content for m in example.messages if m.role == "assistant"] for example in examples]
    return np.array([sum(map(len, tokenizer.encode_batch(answers))) for answers in texts], dtype=np.int64)


def score_responses(
    model: Transformer,
    tokenizer: Tokenizer,
    examples: Sequence[Example],
    render: Renderer,
    *,
    batch_tokens: int = 8192,
    advance: Callable[[float], object] = lambda _: None,
) -> ResponseScore:
    """Score the answers of conversations, each token given all that stands before it.

    Of an answer's last token only that is asked which the text says: that the next token *begins with* its bytes. Plain
    text often goes on inside the same token (a full stop with its line break), which must not count against a model
    that expects it. This is the exact probability of the answer's text, whatever follows, given its other tokens.

    Args:
        render: `chat_renderer` or `plain_renderer`; what it gives must fit into the model's context.
        batch_tokens: most tokens at a time, filled-up ones included.
        advance: called with the number of examples scored since the last call.

    Raises:
        FormatError: the model's likelihoods are not numbers.
    """
    rendered = [render(example) for example in examples]
    order = sorted(range(len(rendered)), key=lambda e: -len(rendered[e].ids))
    nll_E, ends_E = np.zeros(len(rendered)), np.zeros(len(rendered))
    begins_with = _Continuations(tokenizer)
    row = 0
    with torch.inference_mode():
        while row < len(order):
            rows = order[row : row + max(1, batch_tokens // len(rendered[order[row]].ids))]
            scored_BT, ends_BT = _score_batch(model, [rendered[e] for e in rows], begins_with)
            nll_E[rows], ends_E[rows] = scored_BT.sum(dim=1).cpu().numpy(), ends_BT.sum(dim=1).cpu().numpy()
            row += len(rows)
            advance(len(rows))
    if not np.isfinite(nll_E).all():
        raise FormatError(
            "negative log-likelihood of answers: not finite",
            rule="a sound model gives every token a finite one",
            fix="Its weights are damaged or its training diverged: copy or tune it again.",
        )
    turns = [sum(message.role == "assistant" for message in example.messages) for example in examples]
    return ResponseScore(nll_E, ends_E, np.array(turns, dtype=np.int64))


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


def fits(render: Renderer, example: Example, context_length: int) -> bool:
    """Whether a conversation can be scored at once, and its question asked with room for an answer."""
    return len(render(example).ids) <= context_length - _ROOM


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


def _score_batch(model: Transformer, rows: Sequence[Rendered], begins_with: _Continuations) -> tuple[Tensor, Tensor]:
    """Nats of the words and of the turns' ends at each place, (B, T) each, 0 elsewhere."""
    device = model.lm_head.weight.device
    B, T = len(rows), max(len(row.ids) for row in rows) - 1
    inputs, targets = np.zeros((B, T), dtype=np.int64), np.full((B, T), IGNORE_INDEX, dtype=np.int64)
    scored, last, ends = (np.zeros((B, T), dtype=bool) for _ in range(3))
    for place, row in enumerate(rows):
        length = len(row.ids) - 1
        inputs[place, :length] = row.ids[:-1]
        scored[place, :length], last[place, :length], ends[place, :length] = row.scored[1:], row.last[1:], row.ends[1:]
        counted = scored[place, :length] | ends[place, :length]
        targets[place, :length] = np.where(counted, row.ids[1:], IGNORE_INDEX)
    h_BTD = model.model(torch.from_numpy(inputs).to(device))
    kept = torch.from_numpy(scored | ends).to(device)
    logprobs_RV = model.lm_head(h_BTD[kept]).float().log_softmax(-1)
    targets_R = torch.from_numpy(targets).to(device)[kept]
    nll_R = -logprobs_RV.gather(1, targets_R[:, None])[:, 0]
    for r in torch.from_numpy(last).to(device)[kept].nonzero()[:, 0].tolist():
        allowed = begins_with(int(targets_R[r])).to(device)
        nll_R[r] = -logprobs_RV[r, allowed].logsumexp(0)
    nll_BT = torch.zeros((B, T), dtype=torch.float64, device=device)
    nll_BT[kept] = nll_R.double()
    return nll_BT * torch.from_numpy(scored).to(device), nll_BT * torch.from_numpy(ends).to(device)


class _Continuations:
    """Which tokens begin with the bytes of a token; found once for each."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._bytes = tokenizer.text_tokens
        self._found: dict[int, Tensor] = {}

    def __call__(self, token: int) -> Tensor:
        if token not in self._found:
            start = self._bytes[token]
            # Sorted: the vocabulary comes in another order in each process, and a sum's last bit depends on the order.
            self._found[token] = torch.tensor(sorted(i for i, text in self._bytes.items() if text.startswith(start)))
        return self._found[token]
