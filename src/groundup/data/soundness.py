"""What must be true of conversations before a model is trained on them; where it is not, the run does not start.

Each of these mistakes trains a model that looks well by its loss, and answers badly or without end.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from groundup.core.errors import DataError, FormatError
from groundup.core.types import Example
from groundup.data.encoded import Encoded, Ids
from groundup.tokenizer import ChatTemplate, Tokenizer

# What the chat templates of well-known models write around turns. In the words of an example it says that somebody has
# laid the conversation out already.
_LAID_OUT = re.compile(
    r"<\|im_start\|>|<\|start_header_id\|>|<start_of_turn>|<\|start_of_role\|>|\[INST\]|<\|(?:user|assistant|system)\|>"
    r"|<[｜|]User[｜|]>|^###? ?(?:Instruction|Response|Human|Assistant):?",
    re.MULTILINE,
)
_MOST_LAID_OUT = 0.5  # a few may speak about templates
_COMPARED = 32  # examples, from everywhere among them


def require_words(examples: Sequence[Example], tokenizer: Tokenizer) -> int:
    """Refuse examples that carry a chat template in their words.

    Returns:
        How many examples have names of special tokens in their words: these stay text.

    Raises:
        DataError: more than half of them are laid out by some template.
    """
    found = [match[0] for example in examples if (match := _laid_out(example))]
    if len(found) > _MOST_LAID_OUT * len(examples):
        raise DataError(
            f"{len(found):,} of {len(examples):,} examples have {found[0]!r} in their words",
            rule="examples hold what was said and nothing else: the model's own chat template is put around it, and "
            "another one inside of it would be learned as text",
            fix="Give the words alone: columns with prompts and responses, or lists of turns.",
        )
    return sum(_names_special(example, _names(tokenizer)) for example in examples)


def require_own_template(template: ChatTemplate, tokenizer: Tokenizer, examples: Sequence[Example]) -> None:
    """Refuse to train with another template than the one that the model is asked with.

    Judge is the template's text, rendered and read as transformers does.

    Raises:
        FormatError: the ids differ.
    """
    own = tokenizer.chat_template
    if own is not None and own != template.jinja:
        raise FormatError(
            f"a template of {len(template.jinja):,} characters beside the model's own, of {len(own):,}",
            rule="a model that chats is tuned with the template that it was tuned with before",
            fix="Take its own, or begin from its base model.",
        )
    names = _names(tokenizer)
    for example in examples[:: max(1, -(-len(examples) // _COMPARED))]:
        if _names_special(example, names):
            continue  # transformers may read these as special tokens, we never do
        ours = template.encode(example.messages)
        theirs = tokenizer.encode_rendered(template.render(example.messages))
        if ours != theirs:
            place = next(n for n in range(len(ours) + 1) if ours[n : n + 1] != theirs[n : n + 1])
            said, wanted = (
                tokenizer.decode(ids[place : place + 8], skip_special_tokens=False) for ids in (ours, theirs)
            )
            raise FormatError(
                f"a conversation differs at token {place:,}: {said!r} is trained, {wanted!r} is asked",
                rule="training, chat and export lay conversations out by one template",
                fix="Copy the model's tokenizer files again from where they came, or begin from its base model.",
            )


def require_sound(
    encoded: Sequence[Encoded], template: ChatTemplate, tokenizer: Tokenizer, window: int, *, cut: bool = False
) -> None:
    """Refuse labels by which nothing, or no end of an answer, is learned, and texts that begin twice.

    Args:
        encoded: the ids of each example, and which of them are trained.
        window: tokens of an example that are read.
        cut: longer examples lose their end; else they are left out, and nothing is asked of them.

    Raises:
        DataError: no token is trained; an answer's end of turn is not; an example begins with BOS twice.
    """
    encoded = [pair for pair in encoded if cut or not np.any(pair[1][window + 1 :])]
    if not encoded:
        return
    if not any(np.any(trained[1 : window + 1]) for _, trained in encoded):
        raise DataError(
            f"{len(encoded):,} examples: no token of theirs is trained",
            rule="a model learns the words of the assistant, and needs at least one",
            fix="Give examples with answers, the answer last, that begin within the model's context of "
            f"{window:,} tokens.",
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
                    rule="the end of an answer's turn is trained with it, or the model never learns to stop",
                    fix="Use the model's own chat template unchanged; it must end an answer with one of "
                    f"{', '.join(_shown(tokenizer, [token], 0) for token in template.stop_ids)}.",
                )
            learned = learned or place <= window
    if not learned:
        raise DataError(
            f"{len(encoded):,} examples: the end of every answer is cut off",
            rule="the end of an answer's turn is trained with it, or the model never learns to stop",
            fix=f"Give examples of which some end within the {window:,} tokens that are read.",
        )


def _require_one_beginning(number: int, ids: Ids, tokenizer: Tokenizer) -> None:
    if len(ids) > 1 and ids[0] == ids[1] and ids[0] in tokenizer.special_ids:
        raise DataError(
            f"example {number + 1:,} begins with {_shown(tokenizer, ids, 0)} twice",
            rule="a text begins once: a model has never seen a second beginning, and answers worse after it",
            fix="Take it out of the chat template, or of the step that puts it before the text.",
        )


def _last_of_runs(trained: Sequence[bool] | NDArray[np.bool_]) -> list[int]:
    """Where trained tokens stand, each the last one of those that stand together."""
    places = np.flatnonzero(trained)
    return [int(place) for place in places[np.diff(places, append=len(trained) + 1) > 1]]


def _shown(tokenizer: Tokenizer, ids: Ids, place: int) -> str:
    token = list(ids[place : place + 1])
    return repr(tokenizer.decode(token, skip_special_tokens=False)) if token else "none"


def _laid_out(example: Example) -> re.Match[str] | None:
    return next(filter(None, (_LAID_OUT.search(message.content) for message in example.messages)), None)


def _names(tokenizer: Tokenizer) -> re.Pattern[str]:
    names = [re.escape(name) for name in tokenizer.markers if len(name) > 1]
    return re.compile("|".join(names) or r"(?!)")


def _names_special(example: Example, names: re.Pattern[str]) -> bool:
    return any(names.search(message.content) for message in example.messages)
