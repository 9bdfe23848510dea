"""Inspection of a loaded model. Functions of this module return results of `groundup.evaluation.internals` as JSON."""

from __future__ import annotations

import base64
import math
from dataclasses import astuple
from typing import Any

from groundup.evaluation.internals import TextTrace, nearest_tokens, parameter_map, positions
from groundup.studio.model_cache import InspectedModel

MAX_TOKENS = 256  # Longer texts are truncated to this number of tokens, so that responses are fast.
_MAX_LENS_TOKENS = 64  # The limit is low, because the logit lens computes the logits of all tokens after each layer.
_MAX_POSITIONS = 64

Json = dict[str, Any]


def token_surprisals(model: InspectedModel, text: str) -> Json:
    """Return surprisal, rank, entropy and top predictions of each token, and statistics of each attention head.

    Raises:
        DataError: `text` is empty.
    """
    with model.state.lock:
        reading, num_truncated = _reading(model, text)
        config = reading.model.config
        surprisals = reading.surprisals()
        tokens = [_token(model, reading.ids[0])]
        for token, surprisal in zip(reading.ids[1:], surprisals, strict=True):
            top = [{**_token(model, other), "p": _rounded(p)} for other, p in surprisal.expected]
            numbers = {"nats": _rounded(surprisal.nats), "rank": surprisal.rank, "entropy": _rounded(surprisal.entropy)}
            tokens.append({**_token(model, token), **numbers, "top": top})
        head_stats = [[[_rounded(value) for value in astuple(head)] for head in layer] for layer in reading.patterns]
    tokenizer = model.served.tokenizer
    num_bytes = sum(len(tokenizer.token_bytes(token)) for token in reading.ids[1:])
    return {
        "tokens": tokens,
        "num_truncated": num_truncated,
        "layers": config.n_layers,
        "heads": config.n_heads,
        "head_stats": head_stats,
        "bits_per_byte": sum(surprisal.nats for surprisal in surprisals) / math.log(2) / max(1, num_bytes),
        "step": model.step,
    }


def attention_weights(model: InspectedModel, text: str, layer: int) -> Json:
    """Return the attention weights of all heads of a layer.

    Returns:
        A dict with three keys. "heads" is the number of heads N, and "tokens" is the number of tokens T. "weights" is
        an array of bytes with the shape (N, T, T), encoded in base64. The byte 255 is an attention weight of 1.
    """
    with model.state.lock:
        reading, _ = _reading(model, text)
        p_NTS = reading.attention(layer % reading.model.config.n_layers)
    packed = (255 * p_NTS).round().byte().cpu().numpy().tobytes()
    return {"heads": p_NTS.shape[0], "tokens": p_NTS.shape[1], "weights": base64.b64encode(packed).decode()}


def logit_lens(model: InspectedModel, text: str) -> Json:
    """Return the most likely next tokens that the logit lens computes from the embeddings and from each layer."""
    with model.state.lock:
        reading, _ = _reading(model, text)
        if len(reading.ids) > _MAX_LENS_TOKENS:
            reading = TextTrace(reading.model, reading.ids[:_MAX_LENS_TOKENS])
        rows = [reading.lens(layer) for layer in range(reading.model.config.n_layers + 1)]
    return {
        "tokens": [_token(model, token) for token in reading.ids],
        "rows": [
            [
                {
                    **_token(model, guess.token),
                    "p": _rounded(guess.probability),
                    "p_actual": None if guess.of_actual is None else _rounded(guess.of_actual),
                }
                for guess in row
            ]
            for row in rows
        ],
    }


def nearest_embeddings(model: InspectedModel, token: int) -> Json:
    """Return the tokens whose embeddings have the highest cosine similarity to the embedding of `token`."""
    served = model.served
    token = min(max(token, 0), served.engine.vocab_size - 1)
    with model.state.lock:
        nearest = nearest_tokens(served.engine.model, token)
    in_vocabulary = ((other, cosine) for other, cosine in nearest if other < served.engine.vocab_size)
    return {
        **_token(model, token),
        "nearest": [{**_token(model, other), "cosine": _rounded(cosine)} for other, cosine in in_vocabulary],
    }


def parameters(model: InspectedModel) -> Json:
    """Return the config of the model, the number of parameters of each tensor, and the positional encoding."""
    transformer = model.served.engine.model
    with model.state.lock:
        encoding = positions(transformer, min(_MAX_POSITIONS, transformer.config.context_length))
    return {
        "shape": transformer.config.to_json(),
        "weights": [{"name": name, "count": count} for name, count in parameter_map(transformer)],
        "positions": {
            "kind": "rotary" if transformer.config.rotary else "learned",
            "rows": [[_rounded(value) for value in row] for row in encoding.tolist()],
        },
    }


def _reading(model: InspectedModel, text: str) -> tuple[TextTrace, int]:
    """Run the model on a text. Also return the number of tokens that were dropped because the text was too long."""
    served = model.served
    ids = [served.tokenizer.bos_id, *served.tokenizer.encode(text)]
    limit = min(MAX_TOKENS, served.context_length)
    kept, num_truncated = tuple(ids[:limit]), max(0, len(ids) - limit)
    if model.state.reading is None or model.state.reading.ids != kept:
        model.state.reading = TextTrace(served.engine.model, kept)
    return model.state.reading, num_truncated


def _token(model: InspectedModel, token: int) -> Json:
    tokenizer = model.served.tokenizer
    text = tokenizer.token_bytes(token).decode("utf-8", errors="replace") if token < tokenizer.vocab_size else ""
    special = {"special": True} if token in tokenizer.special_ids else {}
    return {"id": token, "text": text, **special}


def _rounded(value: float) -> float:
    return round(value, 5)
