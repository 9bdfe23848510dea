"""The tokens of a chat for a vocabulary that has none: GPT-2's, Llama's, and those of other base models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from groundup.tokenizer.chat import ChatML
from groundup.tokenizer.tokenizer import Tokenizer
from groundup.tokenizer.vocabulary import IM_END, IM_START

_DECODER = "added_tokens_decoder"  # of tokenizer_config.json, in which transformers keeps added tokens a second time


def with_chat_tokens(tokenizer: Tokenizer) -> Tokenizer:
    """The same vocabulary with the two special tokens that stand around a turn, after all others.

    One that has them, or a chat template of its own, comes back as it is.
    """
    if tokenizer.chat_template is not None or ChatML.is_possible(tokenizer):
        return tokenizer
    return _with_special_tokens(tokenizer, [n for n in (IM_START, IM_END) if tokenizer.token_id(n) is None])


def chat_token_pieces(base: Tokenizer, tokenizer: Tokenizer) -> dict[int, tuple[int, ...]]:
    """Of each token that `with_chat_tokens` added, the ids of `base` that its row of weights begins as the mean of.

    The end of a turn begins as the end of a text, which a model already knows to be an end; the beginning as the pieces
    that its name has as text.
    """
    added = {name: tokenizer.markers[name] for name in (IM_START, IM_END) if name not in base.markers}
    return {
        token_id: (base.eos_id,) if name == IM_END else tuple(base.encode(name))
        for name, token_id in added.items()
        if name in tokenizer.markers
    }


def _with_special_tokens(tokenizer: Tokenizer, names: Sequence[str]) -> Tokenizer:
    definition: dict[str, Any] = json.loads(json.dumps(tokenizer.definition))
    kind = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = {name: tokenizer.vocab_size + n for n, name in enumerate(names)}
    entries = definition["model"]["vocab"]
    if isinstance(entries, dict):
        # The library numbers an added token that the model's vocabulary lacks by that vocabulary's size, which may be
        # another id. So all of them are written into it, where text never finds them: no merge leads there.
        entries |= {token["content"]: token["id"] for token in definition["added_tokens"]} | added
    definition["added_tokens"] += [{"id": token_id, "content": name, **kind} for name, token_id in added.items()]
    grown = tokenizer.with_definition(definition)
    if _DECODER in grown.config:
        told = {str(token_id): {"content": name, **kind} for name, token_id in added.items()}
        grown.config[_DECODER] = grown.config[_DECODER] | told
    return grown
