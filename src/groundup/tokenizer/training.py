"""Training of byte-level BPE tokenizers."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterable, Iterator

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from groundup.core.errors import ConfigError, DataError
from groundup.tokenizer.definition import MAX_TOKEN_ID
from groundup.tokenizer.tokenizer import Tokenizer
from groundup.tokenizer.vocabulary import (
    END_OF_TEXT,
    MIN_VOCAB_SIZE,
    PAD,
    SPECIAL_TOKENS,
    SPLIT_PATTERN,
    VOCAB_MULTIPLE,
)

# Contents of `tokenizer_config.json` for transformers. The class name is from transformers 4, but transformers 5 also
# accepts it. If model_input_names is missing, transformers 4 passes the argument token_type_ids to its models, and the
# models do not accept this argument.
TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": END_OF_TEXT,
    "eos_token": END_OF_TEXT,
    "pad_token": PAD,
    "additional_special_tokens": [token for token in SPECIAL_TOKENS if token not in (END_OF_TEXT, PAD)],
    "add_bos_token": True,
    "clean_up_tokenization_spaces": False,
    "model_input_names": ["input_ids", "attention_mask"],
}

_POLL_SECONDS = 0.2  # interval at which the waiting thread handles signals
_GRACE_SECONDS = 10.0  # maximum wait for the training thread to stop reading after an interrupt


def train_tokenizer(texts: Iterable[str], vocab_size: int, *, allow_smaller: bool = False) -> Tokenizer:
    """Train a byte-level BPE tokenizer (Radford et al. 2019). The order of the texts does not affect the tokenizer.

    Args:
        texts: Training texts. The iterable is read only once.
        vocab_size: Number of ids, including special tokens and the 256 bytes, which must be a multiple of 64.
        allow_smaller: Whether to train a smaller vocabulary instead of raising an error if the texts contain too few
            repeated pairs for `vocab_size`.

    Returns:
        The tokenizer.

    Raises:
        ConfigError: The vocabulary size is invalid.
        DataError: There is not enough text for the vocabulary size.
    """
    if not MIN_VOCAB_SIZE <= vocab_size <= MAX_TOKEN_ID or vocab_size % VOCAB_MULTIPLE:
        possible = round(min(max(vocab_size, MIN_VOCAB_SIZE), MAX_TOKEN_ID) / VOCAB_MULTIPLE) * VOCAB_MULTIPLE
        raise ConfigError(
            f"vocab_size = {vocab_size:,}",
            rule=f"it must be a multiple of {VOCAB_MULTIPLE} from {MIN_VOCAB_SIZE} to {MAX_TOKEN_ID:,}",
            fix=f"Set e.g. vocab_size = {possible:,}.",
        )
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(SPLIT_PATTERN), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    _train(backend, trainer, texts)
    learned = backend.get_vocab_size()
    if learned < vocab_size:
        possible = learned // VOCAB_MULTIPLE * VOCAB_MULTIPLE
        if possible < MIN_VOCAB_SIZE or not allow_smaller:
            raise DataError(
                f"vocab_size = {vocab_size:,}: the text is enough for {learned:,}",
                rule="each token except bytes must occur at least twice in the text",
                fix=f"Collect more text, or set vocab_size <= {possible:,}."
                if possible >= MIN_VOCAB_SIZE
                else "Collect more text.",
            )
        backend = _shortened(backend, possible)
    backend.post_processor = processors.TemplateProcessing(
        single=f"{END_OF_TEXT} $A",
        pair=f"{END_OF_TEXT} $A {END_OF_TEXT}:1 $B:1",
        special_tokens=[(END_OF_TEXT, SPECIAL_TOKENS.index(END_OF_TEXT))],
    )
    return Tokenizer(backend, TOKENIZER_CONFIG)


def _train(backend: tokenizers.Tokenizer, trainer: trainers.BpeTrainer, texts: Iterable[str]) -> None:
    # The tokenizers library does not handle signals during training, which takes 30 s for 30 MB of text. Therefore the
    # training runs in a separate thread, and the main thread can react to Ctrl-C. The main thread does not use
    # `Thread.join`, because an interrupted join marks the thread as finished in CPython before 3.13.
    left, all_read, done = threading.Event(), threading.Event(), threading.Event()
    failures: list[BaseException] = []

    def read() -> Iterator[str]:
        try:
            yield from itertools.takewhile(lambda _: not left.is_set(), texts)
        finally:
            all_read.set()

    def work() -> None:
        try:
            backend.train_from_iterator(read(), trainer)
        except BaseException as error:
            failures.append(error)
        finally:
            all_read.set()
            done.set()

    threading.Thread(target=work, name="vocabulary", daemon=True).start()
    try:
        while not done.wait(_POLL_SECONDS):
            pass
    finally:
        left.set()
        # If the thread still reads texts while the interpreter shuts down, the process crashes.
        all_read.wait(_GRACE_SECONDS)
    if failures:
        raise failures[0]


def _shortened(backend: tokenizers.Tokenizer, vocab_size: int) -> tokenizers.Tokenizer:
    # Token ids are in the order of the merges, so the tokens with the lowest ids are the vocabulary that would result
    # from training with a smaller vocabulary size.
    definition = json.loads(backend.to_str())
    model = definition["model"]
    model["vocab"] = {token: token_id for token, token_id in model["vocab"].items() if token_id < vocab_size}
    model["merges"] = [merge for merge in model["merges"] if "".join(merge) in model["vocab"]]
    return tokenizers.Tokenizer.from_str(json.dumps(definition))
