"""Addition of chat tokens to the vocabulary of base models that lack them, such as GPT-2 and Llama."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from groundup.tokenizer.chat import ChatML
from groundup.tokenizer.tokenizer import Tokenizer
from groundup.tokenizer.vocabulary import IM_END, IM_START

_DECODER = "added_tokens_decoder"  # key of tokenizer_config.json in which transformers lists the added tokens again


def with_chat_tokens(tokenizer: Tokenizer) -> Tokenizer:
    """Append special tokens for the start and end of a turn to the vocabulary.

    A tokenizer that already has these tokens, or that has a chat template, is returned unchanged.

    Args:
        tokenizer: The tokenizer of a base model.
    """
    if tokenizer.chat_template is not None or ChatML.is_possible(tokenizer):
        return tokenizer
    return _with_special_tokens(tokenizer, [n for n in (IM_START, IM_END) if tokenizer.token_id(n) is None])


def chat_token_pieces(base: Tokenizer, tokenizer: Tokenizer) -> dict[int, tuple[int, ...]]:
    """Return, for each token that `with_chat_tokens` added, the old tokens that initialize its embedding.

    The embedding of a new token is initialized with the mean of the embeddings of its old tokens. The end-of-turn token
    is initialized with EOS, because the model already uses EOS as an end. The start-of-turn token is initialized with
    the tokens of its name.

    Args:
        base: The tokenizer before `with_chat_tokens`.
        tokenizer: The tokenizer that `with_chat_tokens` returned.

    Returns:
        A dictionary from the id of each new token to ids of `base`.
    """
    added = {name: tokenizer.control_tokens[name] for name in (IM_START, IM_END) if name not in base.control_tokens}
    return {
        token_id: (base.eos_id,) if name == IM_END else tuple(base.encode(name))
        for name, token_id in added.items()
        if name in tokenizer.control_tokens
    }


def _with_special_tokens(tokenizer: Tokenizer, names: Sequence[str]) -> Tokenizer:
    definition: dict[str, Any] = json.loads(json.dumps(tokenizer.definition))
    kind = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = {name: tokenizer.vocab_size + n for n, name in enumerate(names)}
    entries = definition["model"]["vocab"]
    if isinstance(entries, dict):
        # The tokenizers library assigns new ids to added tokens that are not in the vocabulary of the BPE model. To
        # keep their ids, all added tokens are added to this vocabulary. Text is not encoded as these tokens, because
        # they are not the result of a merge.
        entries |= {token["content"]: token["id"] for token in definition["added_tokens"]} | added
    definition["added_tokens"] += [{"id": token_id, "content": name, **kind} for name, token_id in added.items()]
    extended = tokenizer.with_definition(definition)
    if _DECODER in extended.config:
        entries = {str(token_id): {"content": name, **kind} for name, token_id in added.items()}
        extended.config[_DECODER] = extended.config[_DECODER] | entries
    return extended
