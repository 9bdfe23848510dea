"""Looking inside of an open model: the figures of `groundup.evaluation.inside`, for a page to draw."""

from __future__ import annotations

import base64
import math
from dataclasses import astuple
from typing import Any

from groundup.evaluation.inside import Reading, neighbours, parameter_map, positions
from groundup.studio.shelf import Volume

MOST_TOKENS = 256  # of a text that is looked into: what fits on a page, and is read while somebody waits
_MOST_LENS = 64  # of them, through the lens: each layer meets the whole vocabulary
_PLACES = 64  # of which positions are shown

Json = dict[str, Any]


def read_text(volume: Volume, text: str) -> Json:
    """Each token of a text with how much it surprised the model; and where each head looks.

    Raises:
        DataError: no text.
    """
    with volume.lock:
        reading, left_out = _reading(volume, text)
        config = reading.model.config
        surprises = reading.surprises()
        shown = [_token(volume, reading.ids[0])]
        for token, surprise in zip(reading.ids[1:], surprises, strict=True):
            expected = [{**_token(volume, other), "p": _rounded(p)} for other, p in surprise.expected]
            figures = {"nats": _rounded(surprise.nats), "rank": surprise.rank, "entropy": _rounded(surprise.entropy)}
            shown.append({**_token(volume, token), **figures, "expected": expected})
        looks = [[[_rounded(value) for value in astuple(look)] for look in row] for row in reading.looks]
    tokenizer = volume.served.tokenizer
    size = sum(len(tokenizer.token_bytes(token)) for token in reading.ids[1:])
    return {
        "tokens": shown,
        "left_out": left_out,
        "layers": config.n_layers,
        "heads": config.n_heads,
        "looks": looks,
        "bits_per_byte": sum(surprise.nats for surprise in surprises) / math.log(2) / max(1, size),
        "step": volume.step,
        "lens_tokens": min(_MOST_LENS, len(reading.ids)),
    }


def attention(volume: Volume, text: str, layer: int) -> Json:
    """The attention of all heads of a layer: N x T x S bytes in base64, 255 for all of a token's attention."""
    with volume.lock:
        reading, _ = _reading(volume, text)
        p_NTS = reading.attention(layer % reading.model.config.n_layers)
    packed = (255 * p_NTS).round().byte().cpu().numpy().tobytes()
    return {"heads": p_NTS.shape[0], "tokens": p_NTS.shape[1], "weights": base64.b64encode(packed).decode()}


def lens(volume: Volume, text: str) -> Json:
    """What the model would say after each token if it ended at each layer, from the embedding to the last."""
    with volume.lock:
        reading, _ = _reading(volume, text)
        if len(reading.ids) > _MOST_LENS:
            reading = Reading(reading.model, reading.ids[:_MOST_LENS])
        rows = [reading.lens(layer) for layer in range(reading.model.config.n_layers + 1)]
    return {
        "tokens": [_token(volume, token) for token in reading.ids],
        "rows": [
            [
                {
                    **_token(volume, guess.token),
                    "p": _rounded(guess.probability),
                    "actual": None if guess.of_actual is None else _rounded(guess.of_actual),
                }
                for guess in row
            ]
            for row in rows
        ],
    }


def similar(volume: Volume, token: int) -> Json:
    """The tokens whose embeddings point most nearly where this one's does."""
    served = volume.served
    token = min(max(token, 0), served.engine.vocab_size - 1)
    with volume.lock:
        found = neighbours(served.engine.model, token)
    known = ((other, cosine) for other, cosine in found if other < served.engine.vocab_size)
    return {
        **_token(volume, token),
        "neighbours": [{**_token(volume, other), "cosine": _rounded(cosine)} for other, cosine in known],
    }


def anatomy(volume: Volume) -> Json:
    """Where the weights are, and how places are told apart."""
    model = volume.served.engine.model
    with volume.lock:
        turned = positions(model, min(_PLACES, model.config.context_length))
    return {
        "shape": model.config.to_json(),
        "weights": [{"name": name, "count": count} for name, count in parameter_map(model)],
        "positions": {
            "kind": "rotary" if model.config.rotary else "learned",
            "rows": [[_rounded(value) for value in row] for row in turned.tolist()],
        },
    }


def _reading(volume: Volume, text: str) -> tuple[Reading, int]:
    """The text as the model reads it, and how many of its tokens are too many to show."""
    served = volume.served
    # Tokens of one character are the shortest there are: what follows cannot be within those that are shown.
    ids = [served.tokenizer.bos_id, *served.tokenizer.encode(text)]
    most = min(MOST_TOKENS, served.context_length)
    kept, left_out = tuple(ids[:most]), max(0, len(ids) - most)
    if volume.reading is None or volume.reading.ids != kept:
        volume.reading = Reading(served.engine.model, kept)
    return volume.reading, left_out


def _token(volume: Volume, token: int) -> Json:
    tokenizer = volume.served.tokenizer
    text = tokenizer.token_bytes(token).decode("utf-8", errors="replace") if token < tokenizer.vocab_size else ""
    special = {"special": True} if token in tokenizer.special_ids else {}
    return {"id": token, "text": text, **special}


def _rounded(value: float) -> float:
    return round(value, 5)
