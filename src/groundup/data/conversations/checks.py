"""Checks of conversations before training.

The checks detect mistakes that do not show in the training loss. With such a mistake, the loss is low, but the trained
model gives bad answers or never stops. If a check fails, training does not start.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from groundup.core.errors import DataError, FormatError
from groundup.core.types import Example
from groundup.data.conversations.encoded import Encoded, Ids
from groundup.tokenizer import ChatTemplate, Tokenizer

# Markup of common chat templates. If the text of an example contains it, the conversation was probably already rendered
# with a chat template.
_MARKUP = re.compile(
    r"<\|im_start\|>|<\|start_header_id\|>|<start_of_turn>|<\|start_of_role\|>|\[INST\]|<\|(?:user|assistant|system)\|>"
    r"|<[｜|]User[｜|]>|^###? ?(?:Instruction|Response|Human|Assistant):?",
    re.MULTILINE,
)
_MAX_MARKUP = 0.5  # Maximum fraction of examples with markup. The maximum is not 0, as a text may be about templates.
_COMPARED = 32  # Approximate number of evenly spaced examples whose token ids are compared.


def require_raw_text(examples: Sequence[Example], tokenizer: Tokenizer) -> int:
    """Reject data if most examples contain the markup of a chat template.

    Args:
        examples: Conversations.
        tokenizer: Tokenizer of the model.

    Returns:
        Number of examples whose text contains the name of a special token, which is tokenized as ordinary text.

    Raises:
        DataError: More than half of the examples contain markup of a chat template.
    """
    found = [match[0] for example in examples if (match := _markup_in(example))]
    if len(found) > _MAX_MARKUP * len(examples):
        raise DataError(
            f"{len(found):,} of {len(examples):,} examples contain chat template markup such as {found[0]!r}",
            rule="the model's chat template adds the markup, so the examples must not contain it",
            fix="Use the raw text: columns with prompts and responses, or lists of messages.",
        )
    return sum(_names_special(example, _names(tokenizer)) for example in examples)


def require_own_template(template: ChatTemplate, tokenizer: Tokenizer, examples: Sequence[Example]) -> None:
    """Reject a chat template that gives other token ids in training than in inference.

    The expected token ids are computed as in transformers, which renders a conversation as text and then tokenizes the
    text.

    Args:
        template: Chat template that is used in training.
        tokenizer: Tokenizer of the model.
        examples: Conversations.

    Raises:
        FormatError: The token ids differ.
    """
    own = tokenizer.chat_template
    if own is not None and own != template.jinja:
        raise FormatError(
            f"the chat template has {len(template.jinja):,} characters, but the chat template of the model has "
            f"{len(own):,}",
            rule="a chat model must be fine-tuned with its own chat template",
            fix="Use the chat template of the model, or start from its base model.",
        )
    names = _names(tokenizer)
    for example in examples[:: max(1, -(-len(examples) // _COMPARED))]:
        if _names_special(example, names):
            continue  # transformers may tokenize these names as special tokens, but groundup never does.
        trained = template.encode(example.messages)
        expected = tokenizer.encode_rendered(template.render(example.messages))
        if trained != expected:
            place = next(n for n in range(len(trained) + 1) if trained[n : n + 1] != expected[n : n + 1])
            found, wanted = (
                tokenizer.decode(ids[place : place + 8], skip_special_tokens=False) for ids in (trained, expected)
            )
            raise FormatError(
                f"the chat template gives {found!r} at token {place:,} of a conversation, but transformers gives "
                f"{wanted!r}",
                rule="training, chat and export must use the same template",
                fix="Download the model's tokenizer files again, or start from its base model.",
            )


def require_trainable(
    encoded: Sequence[Encoded], template: ChatTemplate, tokenizer: Tokenizer, window: int, *, cut: bool = False
) -> None:
    """Reject examples if training on them would not work, because the answers or the ends of turns have no labels.

    Args:
        encoded: For each example, its token ids and a mask of the tokens that contribute to the loss (trained tokens).
        template: Chat template.
        tokenizer: Tokenizer of the model.
        window: Maximum number of tokens per example.
        cut: Whether longer examples are truncated instead of dropped. Dropped examples are not checked.

    Raises:
        DataError: There are no trained tokens, the end-of-turn token is not trained, or an example starts with two BOS
            tokens.
    """
    encoded = [pair for pair in encoded if cut or not np.any(pair[1][window + 1 :])]
    if not encoded:
        return
    if not any(np.any(trained[1 : window + 1]) for _, trained in encoded):
        raise DataError(
            f"{len(encoded):,} examples do not contain any tokens to train within the first {window:,} tokens",
            rule="the model is trained only on the assistant's turns",
            fix=f"Use examples with answers that start within the model's context of {window:,} tokens.",
        )
    ends = set(template.stop_ids)
    learned = False
    for number, (ids, trained) in enumerate(encoded):
        _require_one_beginning(number, ids, tokenizer)
        for place in _last_of_runs(trained):
            if ids[place] not in ends:
                raise DataError(
                    f"example {number + 1:,}: the token after its answer, {_shown(tokenizer, ids, place + 1)}, "
                    "is not trained",
                    rule="a model that is not trained on the end of a turn never stops",
                    fix="Use the model's own chat template, which must end an answer with one of "
                    f"{', '.join(_shown(tokenizer, [token], 0) for token in template.stop_ids)}.",
                )
            learned = learned or place <= window
    if not learned:
        raise DataError(
            f"the end of every answer is truncated in {len(encoded):,} examples",
            rule="a model that is not trained on the end of a turn never stops",
            fix=f"Add examples that have at most {window:,} tokens.",
        )


def _require_one_beginning(number: int, ids: Ids, tokenizer: Tokenizer) -> None:
    if len(ids) > 1 and ids[0] == ids[1] and ids[0] in tokenizer.special_ids:
        raise DataError(
            f"example {number + 1:,} starts with {_shown(tokenizer, ids, 0)} twice",
            fix="Remove the token from the chat template, or from the post-processor of the tokenizer.",
        )


def _last_of_runs(trained: Sequence[bool] | NDArray[np.bool_]) -> list[int]:
    """Return the index of the last token of each sequence of consecutive trained tokens."""
    places = np.flatnonzero(trained)
    return [int(place) for place in places[np.diff(places, append=len(trained) + 1) > 1]]


def _shown(tokenizer: Tokenizer, ids: Ids, place: int) -> str:
    token = list(ids[place : place + 1])
    return repr(tokenizer.decode(token, skip_special_tokens=False)) if token else "none"


def _markup_in(example: Example) -> re.Match[str] | None:
    return next(filter(None, (_MARKUP.search(message.content) for message in example.messages)), None)


def _names(tokenizer: Tokenizer) -> re.Pattern[str]:
    names = [re.escape(name) for name in tokenizer.control_tokens if len(name) > 1]
    return re.compile("|".join(names) or r"(?!)")


def _names_special(example: Example, names: re.Pattern[str]) -> bool:
    return any(names.search(message.content) for message in example.messages)
