"""Log-probability that a model assigns to the answers in conversations.

Shape letters: B: batch size, T: sequence length, D: hidden size, V: vocabulary size, R: number of scored positions,
E: number of examples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from groundup.core.errors import FormatError
from groundup.core.types import IGNORE_INDEX, Example
from groundup.data.conversations.shared_prefixes import group_by_prefix
from groundup.inference.prompting import RenderedConversation, Renderer
from groundup.model import KVCache, Transformer
from groundup.tokenizer import Tokenizer

_MIN_SAVED_TOKENS = 256  # a shared prefix that saves fewer tokens is not worth smaller batches


@dataclass(frozen=True, slots=True, eq=False)
class ResponseScore:
    """Negative log-likelihood of the answers of each example, in nats.

    Attributes:
        nll_E: negative log-likelihood of the text of the answers.
        ends_E: negative log-likelihood of the end-of-turn tokens; 0 if the prompt format does not have such tokens.
        turns_E: number of answers.
    """

    nll_E: npt.NDArray[np.float64]
    ends_E: npt.NDArray[np.float64]
    turns_E: npt.NDArray[np.int64]


def response_tokens(tokenizer: Tokenizer, examples: Sequence[Example]) -> npt.NDArray[np.int64]:
    """Return the number of answer tokens of each example, (E,).

    The tokens are counted outside any prompt format, so that losses in different formats have the same divisor.
    """
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
    """Score the answers of conversations. Each token is scored given the whole conversation before it.

    Tokens at the beginning of several conversations, such as few-shot examples, are computed once.

    The last token of an answer is scored by the probability that the next token *begins with* its bytes. In plain text,
    the end of an answer and the text after it are often one token, such as a full stop with a line break. A model that
    predicts this longer token must not get a higher loss. The score is the exact probability of the answer's text,
    given the other tokens of the answer.

    Args:
        model: model that scores the answers.
        tokenizer: tokenizer of the model.
        examples: conversations to score.
        render: function that renders a conversation in a prompt format. Rendered conversations must fit into the
            context length.
        batch_tokens: maximum number of tokens per batch, including padding.
        advance: callback for progress, called with the number of examples scored since the last call.

    Returns:
        The score of each example.

    Raises:
        FormatError: the negative log-likelihood is not finite.
    """
    rendered = [render(example) for example in examples]
    nll_E, ends_E = np.zeros(len(rendered)), np.zeros(len(rendered))
    begins_with = _Continuations(tokenizer)
    with torch.inference_mode():
        for prefix, members in _by_prefix(rendered):
            cache = model.new_cache(1, prefix)
            if prefix:
                model.model(torch.tensor([rendered[members[0]].ids[:prefix]], device=model.device), cache=cache)
            for batch in _batches(members, rendered, batch_tokens):
                scored_BT, ends_BT = _score_batch(model, [rendered[e] for e in batch], cache, begins_with)
                nll_E[batch], ends_E[batch] = scored_BT.sum(dim=1).cpu().numpy(), ends_BT.sum(dim=1).cpu().numpy()
                advance(len(batch))
    if not np.isfinite(nll_E).all():
        raise FormatError(
            "negative log-likelihood of answers: not finite",
            rule="an intact model gives each token a finite log-probability",
            fix="The weights are damaged or training diverged: copy or train the model again.",
        )
    turns = [sum(message.role == "assistant" for message in example.messages) for example in examples]
    return ResponseScore(nll_E, ends_E, np.array(turns, dtype=np.int64))


def _by_prefix(rendered: Sequence[RenderedConversation]) -> list[tuple[int, list[int]]]:
    """Group conversations that begin with the same tokens, such as few-shot examples.

    Returns:
        For each group, the number of tokens that are computed once, and the indices of the conversations.
    """
    labeled = []
    for row in rendered:
        ids = np.array(row.ids, dtype=np.int32)
        counted = np.array(row.scored[1:]) | np.array(row.ends[1:])
        labeled.append((ids[:-1], np.where(counted, ids[1:], np.int32(IGNORE_INDEX))))
    groups, rest = [], list[int]()
    for prefix, members in group_by_prefix(labeled):
        if (len(members) - 1) * prefix >= _MIN_SAVED_TOKENS:
            groups.append((prefix, members.tolist()))
        else:
            rest += members.tolist()
    return [*groups, (0, rest)]


def _batches(members: Sequence[int], rendered: Sequence[RenderedConversation], tokens: int) -> Iterator[list[int]]:
    """Divide conversations into batches of similar lengths, beginning with the longest. A batch has padding."""
    order = sorted(members, key=lambda e: -len(rendered[e].ids))
    start = 0
    while start < len(order):
        end = start + max(1, tokens // len(rendered[order[start]].ids))
        yield order[start:end]
        start = end


def _score_batch(
    model: Transformer, rows: Sequence[RenderedConversation], cache: KVCache, begins_with: _Continuations
) -> tuple[Tensor, Tensor]:
    """Return two tensors of negative log-likelihoods in nats, (B, T) each, of the tokens after a shared prefix.

    The first tensor contains the negative log-likelihoods of answer tokens and is 0 elsewhere. The second tensor
    contains the negative log-likelihoods of end-of-turn tokens and is 0 elsewhere.

    Args:
        model: model that scores the answers.
        rows: conversations that begin with the tokens in the cache.
        cache: KV cache of one sequence, the shared prefix, which can be empty.
        begins_with: see `_Continuations`.
    """
    device, prefix = model.device, cache.length
    B, T = len(rows), max(len(row.ids) for row in rows) - 1 - prefix
    inputs, targets = np.zeros((B, T), dtype=np.int64), np.full((B, T), IGNORE_INDEX, dtype=np.int64)
    scored, last, ends = (np.zeros((B, T), dtype=bool) for _ in range(3))
    for place, row in enumerate(rows):
        length = len(row.ids) - 1 - prefix
        inputs[place, :length] = row.ids[prefix:-1]
        for flags, column in ((scored, row.scored), (last, row.last), (ends, row.ends)):
            flags[place, :length] = column[prefix + 1 :]
        counted = scored[place, :length] | ends[place, :length]
        targets[place, :length] = np.where(counted, row.ids[prefix + 1 :], IGNORE_INDEX)
    copies = cache.repeated(B, prefix + T) if prefix else None
    h_BTD = model.model(torch.from_numpy(inputs).to(device), cache=copies)
    kept = torch.from_numpy(scored | ends).to(device)
    logprobs_RV = model.logits(h_BTD[kept]).log_softmax(-1)
    targets_R = torch.from_numpy(targets).to(device)[kept]
    nll_R = -logprobs_RV.gather(1, targets_R[:, None])[:, 0]
    for r in torch.from_numpy(last).to(device)[kept].nonzero()[:, 0].tolist():
        allowed = begins_with(int(targets_R[r])).to(device)
        nll_R[r] = -logprobs_RV[r, allowed].logsumexp(0)
    nll_BT = torch.zeros((B, T), dtype=torch.float64, device=device)
    nll_BT[kept] = nll_R.double()
    return nll_BT * torch.from_numpy(scored).to(device), nll_BT * torch.from_numpy(ends).to(device)


class _Continuations:
    """Returns, for a token, the ids of all tokens that begin with its bytes. The results are cached."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._bytes = tokenizer.text_tokens
        self._found: dict[int, Tensor] = {}

    def __call__(self, token: int) -> Tensor:
        if token not in self._found:
            start = self._bytes[token]
            # The ids are sorted because the order of the vocabulary differs between processes, and floating-point sums
            # depend on the order.
            self._found[token] = torch.tensor(sorted(i for i, text in self._bytes.items() if text.startswith(start)))
        return self._found[token]
