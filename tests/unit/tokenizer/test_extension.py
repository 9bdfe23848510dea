"""A vocabulary that goes on: the same merges as the library would have learned, and nothing old changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers
from tokenizers import AddedToken

from groundup.core.errors import ConfigError, DataError
from groundup.tokenizer import Tokenizer, extend_tokenizer, new_token_pieces, train_tokenizer

TURN = "<|turn|>"


@pytest.fixture(scope="module")
def foreign(real_documents: list[str]) -> Tokenizer:
    """Made as Llama 3's and Qwen's: special tokens that stand behind the model's vocabulary, not in it."""
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(real_documents[:40], trainer)
    backend.add_special_tokens([AddedToken(name, special=True) for name in ("<|end|>", TURN)])
    return Tokenizer(backend, {"eos_token": "<|end|>"})


def test_going_on_is_what_training_at_once_would_have_learned(real_documents: list[str]) -> None:
    once, first = train_tokenizer(real_documents, 3072), train_tokenizer(real_documents, 1024)
    extended = extend_tokenizer(first, iter(real_documents), 2048)
    assert extended.definition["model"]["merges"] == once.definition["model"]["merges"]
    assert extended.vocabulary == once.vocabulary


def test_old_ids_stay_and_the_new_ones_are_their_pieces(
    foreign: Tokenizer, real_documents: list[str], tmp_path: Path
) -> None:
    """An added token outside the model's vocabulary is numbered by its size: extended, the end of a turn once became
    another token, and the model never stopped."""
    extended = extend_tokenizer(foreign, real_documents, 300)
    pieces = new_token_pieces(foreign, extended)
    assert list(pieces) == list(range(foreign.vocab_size, foreign.vocab_size + 300))
    for token_id, known in pieces.items():
        assert len(known) > 1
        assert extended.token_bytes(token_id) == b"".join(map(foreign.token_bytes, known))
    assert {TURN, "<|end|>"} <= foreign.vocabulary.keys()
    assert foreign.vocabulary.items() <= extended.vocabulary.items()

    unseen = "".join(real_documents[-5:]) + f" {TURN}<|end|>\n\tnaïve 中文 🙂"
    old, new = foreign.encode(unseen), extended.encode(unseen)
    assert len(new) < len(old)
    assert [known for token_id in new for known in pieces.get(token_id, (token_id,))] == old
    assert not extended.special_ids & set(new)

    from transformers import AutoTokenizer

    extended.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(unseen, add_special_tokens=False, split_special_tokens=True)["input_ids"] == new
    assert theirs(TURN, add_special_tokens=False)["input_ids"] == [foreign.vocabulary[TURN]]


def test_a_vocabulary_is_an_extension_of_itself_and_of_no_other(
    foreign: Tokenizer, tokenizer: Tokenizer, real_documents: list[str]
) -> None:
    assert new_token_pieces(foreign, foreign) == {}
    with pytest.raises(ConfigError, match="groundup tokenize CORPUS --tokenizer"):
        new_token_pieces(foreign, tokenizer)
    # All tokens are there under their ids, and yet the text is cut otherwise.
    definition = json.loads(json.dumps(extend_tokenizer(foreign, real_documents, 50).definition))
    definition["model"]["merges"][100:102] = definition["model"]["merges"][101:99:-1]
    other = Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(definition)), foreign.config)
    with pytest.raises(ConfigError, match="an extension of it"):
        new_token_pieces(foreign, other)


def test_a_special_token_that_was_added_by_hand_is_made_of_its_name(foreign: Tokenizer) -> None:
    backend = tokenizers.Tokenizer.from_str(json.dumps(foreign.definition))
    backend.add_special_tokens(["<|tool|>"])
    pieces = new_token_pieces(foreign, Tokenizer(backend, foreign.config))
    assert list(pieces.values()) == [tuple(foreign.encode("<|tool|>"))]


def test_text_that_repeats_too_little_says_what_it_gives(foreign: Tokenizer) -> None:
    with pytest.raises(DataError, match=r"extend <= \d"):
        extend_tokenizer(foreign, ["xylophones and zeppelins, xylophones and zeppelins"], 500)
