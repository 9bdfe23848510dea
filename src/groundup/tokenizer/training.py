"""Training a vocabulary."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterable, Iterator

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from groundup.core.errors import ConfigError, DataError
from groundup.tokenizer.definition import LARGEST_ID
from groundup.tokenizer.tokenizer import Tokenizer
from groundup.tokenizer.vocabulary import (
    END_OF_TEXT,
    PAD,
    SMALLEST_VOCAB,
    SPECIAL_TOKENS,
    SPLIT_PATTERN,
    VOCAB_MULTIPLE,
)

# What transformers needs to know beyond tokenizer.json. The class is named as transformers 4 names it (5
# reads it too); without model_input_names, transformers 4 hands its models token_type_ids, which they refuse.
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

_LOOK_SECONDS = 0.2  # how often a waiting thread looks at signals where the system does not wake it
_GRACE_SECONDS = 10.0  # for the texts that are being read when nobody waits any more


def train_tokenizer(texts: Iterable[str], vocab_size: int, *, at_most: bool = False) -> Tokenizer:
    """Train a byte-level BPE vocabulary; the same texts, in whatever order, give the same vocabulary.

    Args:
        texts: read once, as a stream.
        vocab_size: ids in all, special tokens and the 256 bytes included; a multiple of 64.
        at_most: where the texts hold too few repeated pairs for `vocab_size`, make it as large as they allow
            instead of raising an error.

    Raises:
        ConfigError: a vocabulary size that cannot be.
        DataError: too little text for it.
    """
    if not SMALLEST_VOCAB <= vocab_size <= LARGEST_ID or vocab_size % VOCAB_MULTIPLE:
        possible = round(min(max(vocab_size, SMALLEST_VOCAB), LARGEST_ID) / VOCAB_MULTIPLE) * VOCAB_MULTIPLE
        raise ConfigError(
            f"vocab_size = {vocab_size:,}",
            rule=f"a vocabulary size is a multiple of {VOCAB_MULTIPLE} from {SMALLEST_VOCAB} to {LARGEST_ID:,}",
            fix=f"Give e.g. {possible:,}.",
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
        if possible < SMALLEST_VOCAB or not at_most:
            raise DataError(
                f"vocab_size = {vocab_size:,}: the text gives {learned:,}",
                rule="every token must be a byte or be seen at least twice in the text",
                fix=f"Collect more text, or give vocab_size <= {possible:,}."
                if possible >= SMALLEST_VOCAB
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
    # The library looks at no signal until it is done, half a minute for 30 MB. So it works in a thread of its own,
    # which Ctrl-C leaves behind. Events and no `Thread.join`: interrupted, that takes the thread for finished
    # (CPython before 3.13).
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
        while not done.wait(_LOOK_SECONDS):
            pass
    finally:
        left.set()
        # A thread that still reads would need the interpreter while that ends, and take the process down with it.
        all_read.wait(_GRACE_SECONDS)
    if failures:
        raise failures[0]


def _shortened(backend: tokenizers.Tokenizer, vocab_size: int) -> tokenizers.Tokenizer:
    # Ids are in the order of the merges, so the first ids are what training for a smaller size would have
    # given.
    definition = json.loads(backend.to_str())
    model = definition["model"]
    model["vocab"] = {token: token_id for token, token_id in model["vocab"].items() if token_id < vocab_size}
    model["merges"] = [merge for merge in model["merges"] if "".join(merge) in model["vocab"]]
    return tokenizers.Tokenizer.from_str(json.dumps(definition))
