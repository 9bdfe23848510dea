"""Inspection of a model's forward pass over a text: surprisal, attention weights, and the logit lens.

Shape letters: T: number of tokens, S: number of attended tokens, L: number of layers, N: number of query heads,
K: number of key-value heads, G: number of query heads per key-value head, H: head_dim, D: hidden size, P: number of
feature pairs (H / 2), V: vocabulary size.
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
from groundup.model.attention import cached_attention_mask
from groundup.model.loss import softcapped
from groundup.model.transformer import Block, Rope


@dataclass(frozen=True, slots=True)
class Surprisal:
    """Surprisal of one token of a text.

    Attributes:
        nats: surprisal, which is the negative log-likelihood of the token in nats.
        rank: rank of the token when all tokens are sorted by probability. The most likely token has rank 1.
        entropy: entropy of the predicted distribution, in nats.
        expected: (id, probability) pairs of the most likely tokens, in descending order of probability.
    """

    nats: float
    rank: int
    entropy: float
    expected: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class LensPrediction:
    """Next-token prediction of the logit lens at one layer and one position.

    Attributes:
        token: id of the most likely next token.
        probability: probability of the most likely next token.
        of_actual: probability of the token that follows in the text, or None at the last position.
    """

    token: int
    probability: float
    of_actual: float | None


@dataclass(frozen=True, slots=True)
class AttentionPattern:
    """Attention pattern of one head, averaged over the tokens of a text except the first.

    Attributes:
        back: mean attention distance, in tokens.
        first: mean attention weight on the first token.
        before: mean attention weight on the previous token.
        own: mean attention weight of a token on itself.
        spread: mean entropy of the attention weights, divided by the maximum entropy: 0 if each token attends to a
            single token, and 1 if the attention weights are uniform.
    """

    back: float
    first: float
    before: float
    own: float
    spread: float


class TextTrace:
    """Forward pass of a model over one text, with the hidden states of all layers.

    Args:
        model: model to inspect.
        ids: token ids of the text, which must begin with BOS if the model was trained with BOS.

    Raises:
        DataError: the text has fewer than 2 tokens.
        ConfigError: the text has more tokens than the context length.
    """

    def __init__(self, model: Transformer, ids: Sequence[int]) -> None:
        if len(ids) < 2:
            raise DataError(
                f"{len(ids)} tokens", rule="a prediction needs at least 2 tokens", fix="Give a longer text."
            )
        self.model = model
        self.ids = tuple(ids)
        states: list[Tensor] = []
        self._ropes: list[Rope | None] = []

        def record(layer: int, x_BTD: Tensor, rope: Rope | None) -> None:
            states.append(x_BTD[0])
            self._ropes.append(rope)

        with torch.inference_mode():
            last_BTD = model.model(torch.tensor([ids], device=model.device), layer_hook=record)
        self.states_LTD = states  # Hidden states before each layer.
        self._last_TD = last_BTD[0]  # Output of the last layer after the final norm.

    @torch.inference_mode()
    def surprisals(self, *, expected: int = 5) -> list[Surprisal]:
        """Return the surprisal of each token except the first.

        Args:
            expected: number of most likely tokens to return for each position.

        Returns:
            One item per token, starting with the second token.
        """
        logprobs_TV = self.model.logits(self._last_TD[:-1]).log_softmax(-1)
        actual_T1 = torch.tensor(self.ids[1:], device=logprobs_TV.device)[:, None]
        found_T1 = logprobs_TV.gather(1, actual_T1)
        ranks = ((logprobs_TV > found_T1).sum(1) + 1).tolist()
        entropies = (-(logprobs_TV.exp() * logprobs_TV).nan_to_num()).sum(1).tolist()
        top = logprobs_TV.topk(min(expected, logprobs_TV.shape[1]), dim=1)
        pairs = zip(top.indices.tolist(), top.values.exp().tolist(), strict=True)
        return [
            Surprisal(nats, rank, entropy, tuple(zip(tokens, probabilities, strict=True)))
            for nats, rank, entropy, (tokens, probabilities) in zip(
                (-found_T1[:, 0]).tolist(), ranks, entropies, pairs, strict=True
            )
        ]

    @torch.inference_mode()
    def attention(self, layer: int) -> Tensor:
        """Return the attention weights of a layer.

        Args:
            layer: index of the layer.

        Returns:
            A float32 tensor of shape (N, T, S). The weights of each query token sum to 1.
        """
        config, block = self.model.config, self.model.model.layers[layer]
        assert isinstance(block, Block), "a decoder is made of blocks"
        x_1TD = block.input_layernorm(self.states_LTD[layer][None])
        q_1TNH, k_1SKH, _ = block.self_attn.project(x_1TD, self._ropes[layer])
        length = len(self.ids)
        q_KGTH = q_1TNH[0].float().view(length, config.n_kv_heads, -1, config.head_dim).permute(1, 2, 0, 3)
        k_K1HS = k_1SKH[0].float().permute(1, 2, 0)[:, None]
        scores_NTS = softcapped((q_KGTH @ k_K1HS).flatten(0, 1) * config.attention_scale, config.attention_softcap)
        window = config.sliding_window if config.slides(layer) else None
        seen_TS = cached_attention_mask(torch.arange(length, device=scores_NTS.device)[None], length, window)[0, 0]
        return scores_NTS.masked_fill(~seen_TS, -math.inf).softmax(-1)

    @cached_property
    def patterns(self) -> list[list[AttentionPattern]]:
        """Attention patterns of all heads, as one list per layer."""
        return [self._patterns(self.attention(layer)) for layer in range(self.model.config.n_layers)]

    @torch.inference_mode()
    def lens(self, layer: int) -> list[LensPrediction]:
        """Return the logit lens predictions before a layer (nostalgebraist 2020).

        The logit lens applies the final norm and the output projection to the hidden states before `layer`.

        Args:
            layer: index of the layer, or `n_layers` for the predictions of the model itself.

        Returns:
            One prediction of the next token per position.
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
            LensPrediction(token, probability, actual)
            for token, probability, actual in zip(best.indices.tolist(), of_best, [*of_actual, None], strict=True)
        ]

    def _patterns(self, p_NTS: Tensor) -> list[AttentionPattern]:
        length = p_NTS.shape[1]
        places_T = torch.arange(length, device=p_NTS.device)
        back_TS = (places_T[:, None] - places_T).clamp(min=0).float()
        weights_NTS = p_NTS[:, 1:]  # The first token can attend only to itself.
        back_N = (weights_NTS * back_TS[1:]).sum(-1).mean(-1)
        before_N = p_NTS.diagonal(-1, 1, 2).mean(-1)
        own_N = p_NTS.diagonal(0, 1, 2)[:, 1:].mean(-1)
        most_T = (places_T[1:] + 1).float().log()
        spread_N = (torch.special.entr(weights_NTS).sum(-1) / most_T).mean(-1)
        columns = (back_N, weights_NTS[:, :, 0].mean(-1), before_N, own_N, spread_N)
        return [AttentionPattern(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


@torch.inference_mode()
def nearest_tokens(model: Transformer, token: int, *, count: int = 12) -> list[tuple[int, float]]:
    """Return the tokens whose embeddings are most similar to the embedding of `token`, without `token` itself.

    Args:
        model: model to inspect.
        token: id of the token.
        count: maximum number of tokens to return.

    Returns:
        (id, cosine similarity) pairs in descending order of similarity.
    """
    table_VD = F.normalize(model.model.embed_tokens.dense_weight().float(), dim=1)
    cosines_V = table_VD @ table_VD[token]
    cosines_V[token] = -math.inf
    top = cosines_V.topk(min(count, len(cosines_V) - 1))
    return list(zip(top.indices.tolist(), top.values.tolist(), strict=True))


@torch.inference_mode()
def positions(model: Transformer, length: int) -> Tensor:
    """Return a matrix that shows how the position embeddings of a model distinguish positions.

    Args:
        model: model to inspect.
        length: number of positions T.

    Returns:
        For rotary embeddings, the cosine of the rotation angle of each feature pair at each distance, (P, T). For
        learned position embeddings, the cosine similarities between the embeddings of all positions, (T, T).
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
    """Return the name and the number of elements of each parameter in model order. A tied parameter appears once."""
    return [(name, parameter.numel()) for name, parameter in model.named_parameters()]
