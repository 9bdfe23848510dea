"""What goes on inside of a model while it reads a text: surprise, attention, and what each layer would say next.

Shape letters: T tokens, S tokens looked at, L layers, N query heads, K kv heads, G query heads of one kv head,
H head_dim, D dim, P pairs of features (H / 2), V vocab.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.core.errors import DataError
from groundup.model import Transformer
from groundup.model.attention import seen_with_cache
from groundup.model.loss import softcapped
from groundup.model.transformer import Block, Rope


@dataclass(frozen=True, slots=True)
class Surprise:
    """What a model expected at one place of a text.

    Attributes:
        nats: negative log-likelihood of the token that stands there.
        rank: how many tokens it held more likely, plus 1.
        entropy: of the whole distribution, in nats: how undecided it was.
        expected: the most likely (id, probability), best first.
    """

    nats: float
    rank: int
    entropy: float
    expected: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Guess:
    """What the model would say after a token if it ended at some layer.

    Attributes:
        probability: of that token.
        of_actual: the probability of the token that really follows; None after the last one.
    """

    token: int
    probability: float
    of_actual: float | None


@dataclass(frozen=True, slots=True)
class Look:
    """Where one head of one layer looks, on average over the tokens of a text, the first one left out.

    Attributes:
        back: how far, in tokens.
        first, before, own: the share of its attention on the first token, on the one before, and on itself.
        spread: entropy of its attention by the most that it could be: 0 looks at one token, 1 at all alike.
    """

    back: float
    first: float
    before: float
    own: float
    spread: float


class Reading:
    """One text, read by one model.

    Args:
        ids: its tokens, with what the model expects before a text.

    Raises:
        DataError: fewer than 2 tokens.
        ConfigError: more tokens than the model's context has.
    """

    def __init__(self, model: Transformer, ids: Sequence[int]) -> None:
        if len(ids) < 2:
            raise DataError(
                f"{len(ids)} tokens", rule="what is read has a token that is expected by another", fix="Give some text."
            )
        self.model = model
        self.ids = tuple(ids)
        states: list[Tensor] = []
        self._ropes: list[Rope | None] = []

        def watch(layer: int, x_BTD: Tensor, rope: Rope | None) -> None:
            states.append(x_BTD[0])
            self._ropes.append(rope)

        with torch.inference_mode():
            last_BTD = model.model(torch.tensor([ids], device=model.lm_head.weight.device), watch=watch)
        self.states_LTD = states  # what goes into each layer
        self._last_TD = last_BTD[0]  # what comes out of the last one, normalized

    @torch.inference_mode()
    def surprises(self, *, expected: int = 5) -> list[Surprise]:
        """One for each token but the first, which nothing announces."""
        logprobs_TV = self.model.logits(self._last_TD[:-1]).log_softmax(-1)
        actual_T1 = torch.tensor(self.ids[1:], device=logprobs_TV.device)[:, None]
        found_T1 = logprobs_TV.gather(1, actual_T1)
        ranks = ((logprobs_TV > found_T1).sum(1) + 1).tolist()
        entropies = (-(logprobs_TV.exp() * logprobs_TV).nan_to_num()).sum(1).tolist()
        top = logprobs_TV.topk(min(expected, logprobs_TV.shape[1]), dim=1)
        pairs = zip(top.indices.tolist(), top.values.exp().tolist(), strict=True)
        return [
            Surprise(nats, rank, entropy, tuple(zip(tokens, probabilities, strict=True)))
            for nats, rank, entropy, (tokens, probabilities) in zip(
                (-found_T1[:, 0]).tolist(), ranks, entropies, pairs, strict=True
            )
        ]

    @torch.inference_mode()
    def attention(self, layer: int) -> Tensor:
        """How much of its attention each token gives to each, by head: (N, T, S) fp32, every row sums to 1."""
        config, block = self.model.config, self.model.model.layers[layer]
        assert isinstance(block, Block), "a decoder is made of blocks"
        x_1TD = block.input_layernorm(self.states_LTD[layer][None])
        q_1TNH, k_1SKH, _ = block.self_attn.projected(x_1TD, self._ropes[layer])
        length = len(self.ids)
        q_KGTH = q_1TNH[0].float().view(length, config.n_kv_heads, -1, config.head_dim).permute(1, 2, 0, 3)
        k_K1HS = k_1SKH[0].float().permute(1, 2, 0)[:, None]
        scores_NTS = softcapped((q_KGTH @ k_K1HS).flatten(0, 1) * config.attention_scale, config.attention_softcap)
        window = config.sliding_window if config.slides(layer) else None
        seen_TS = seen_with_cache(torch.arange(length, device=scores_NTS.device)[None], length, window)[0, 0]
        return scores_NTS.masked_fill(~seen_TS, -math.inf).softmax(-1)

    @cached_property
    def looks(self) -> list[list[Look]]:
        """A summary of each head, by layer."""
        return [self._looks(self.attention(layer)) for layer in range(self.model.config.n_layers)]

    @torch.inference_mode()
    def lens(self, layer: int) -> list[Guess]:
        """After each token, what the model would say if it ended before `layer`; at `n_layers` it has all of them.

        The "logit lens" (nostalgebraist 2020): the last norm and the output matrix, put on what is known by then.
        """
        decoder = self.model.model
        h_TD = self._last_TD if layer == len(self.states_LTD) else decoder.norm(self.states_LTD[layer])
        logits_TV = self.model.logits(h_TD)
        normalizer_T = logits_TV.logsumexp(1)
        best = logits_TV.max(1)
        actual_T1 = torch.tensor(self.ids[1:], device=logits_TV.device)[:, None]
        of_actual = (logits_TV[:-1].gather(1, actual_T1)[:, 0] - normalizer_T[:-1]).exp().tolist()
        of_best = (best.values - normalizer_T).exp().tolist()
        return [
            Guess(token, probability, actual)
            for token, probability, actual in zip(best.indices.tolist(), of_best, [*of_actual, None], strict=True)
        ]

    def _looks(self, p_NTS: Tensor) -> list[Look]:
        length = p_NTS.shape[1]
        places_T = torch.arange(length, device=p_NTS.device)
        back_TS = (places_T[:, None] - places_T).clamp(min=0).float()
        looking = p_NTS[:, 1:]  # the first token has nowhere else to look
        back_N = (looking * back_TS[1:]).sum(-1).mean(-1)
        before_N = p_NTS.diagonal(-1, 1, 2).mean(-1)
        own_N = p_NTS.diagonal(0, 1, 2)[:, 1:].mean(-1)
        most_T = (places_T[1:] + 1).float().log()
        spread_N = (torch.special.entr(looking).sum(-1) / most_T).mean(-1)
        columns = (back_N, looking[:, :, 0].mean(-1), before_N, own_N, spread_N)
        return [Look(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


@torch.inference_mode()
def neighbours(model: Transformer, token: int, *, count: int = 12) -> list[tuple[int, float]]:
    """The tokens whose embeddings point most nearly where this one's does: (id, cosine), itself left out."""
    table_VD = F.normalize(model.model.embed_tokens.weight.float(), dim=1)
    cosines_V = table_VD @ table_VD[token]
    cosines_V[token] = -math.inf
    top = cosines_V.topk(min(count, len(cosines_V) - 1))
    return list(zip(top.indices.tolist(), top.values.tolist(), strict=True))


@torch.inference_mode()
def positions(model: Transformer, length: int) -> Tensor:
    """How a model tells places apart.

    Returns:
        With rotary positions (P, T): the cosine of the angle by which each pair of features is turned between two
        tokens that are so many places apart. With learned ones (T, T): the cosines between their embeddings.
    """
    decoder = model.model
    if decoder.rotary is None:
        assert decoder.embed_positions is not None, "positions are rotary or learned"
        table_TD = F.normalize(decoder.embed_positions.weight[:length].float(), dim=1)
        return table_TD @ table_TD.T
    return (
        decoder.rotary.frequencies_P[:, None] * torch.arange(length, device=decoder.rotary.frequencies_P.device)
    ).cos()


def parameter_map(model: Transformer) -> list[tuple[str, int]]:
    """(name, weights) of every tensor, in the order of the model; one that is used twice is counted once."""
    return [(name, parameter.numel()) for name, parameter in model.named_parameters()]
