"""Extension of a vocabulary: the same merges as in one training, and old ids do not change."""

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
def external(real_documents: list[str]) -> Tokenizer:
    """A tokenizer like in Llama 3 and Qwen, with special tokens outside the model's vocabulary."""
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(real_documents[:40], trainer)
    backend.add_special_tokens([AddedToken(name, special=True) for name in ("<|end|>", TURN)])
    return Tokenizer(backend, {"eos_token": "<|end|>"})


def test_extension_equals_training_of_the_larger_vocabulary(real_documents: list[str]) -> None:
    once, first = train_tokenizer(real_documents, 3072), train_tokenizer(real_documents, 1024)
    extended = extend_tokenizer(first, iter(real_documents), 2048)
    assert extended.definition["model"]["merges"] == once.definition["model"]["merges"]
    assert extended.vocabulary == once.vocabulary


def test_old_ids_stay_and_new_tokens_are_sequences_of_old_ones(
    external: Tokenizer, real_documents: list[str], tmp_path: Path
) -> None:
    """The library derives ids of added tokens from the vocabulary size.

    After an extension, the end of a turn once had another id, and the model never stopped.
    """
    extended = extend_tokenizer(external, real_documents, 300)
    pieces = new_token_pieces(external, extended)
    assert list(pieces) == list(range(external.vocab_size, external.vocab_size + 300))
    for token_id, known in pieces.items():
        assert len(known) > 1
        assert extended.token_bytes(token_id) == b"".join(map(external.token_bytes, known))
    assert {TURN, "<|end|>"} <= external.vocabulary.keys()
    assert external.vocabulary.items() <= extended.vocabulary.items()

    unseen = "".join(real_documents[-5:]) + f" {TURN}<|end|>\n\tnaïve 中文 🙂"
    old, new = external.encode(unseen), extended.encode(unseen)
    assert len(new) < len(old)
    assert [known for token_id in new for known in pieces.get(token_id, (token_id,))] == old
    assert not extended.special_ids & set(new)

    from transformers import AutoTokenizer

    extended.save(tmp_path)
    peer = AutoTokenizer.from_pretrained(tmp_path)
    assert peer(unseen, add_special_tokens=False, split_special_tokens=True)["input_ids"] == new
    assert peer(TURN, add_special_tokens=False)["input_ids"] == [external.vocabulary[TURN]]


def test_other_vocabularies_are_not_extensions(
    external: Tokenizer, tokenizer: Tokenizer, real_documents: list[str]
) -> None:
    assert new_token_pieces(external, external) == {}
    with pytest.raises(ConfigError, match="groundup tokenize CORPUS --tokenizer"):
        new_token_pieces(external, tokenizer)
    # All tokens have the same ids, but the order of merges differs.
    definition = json.loads(json.dumps(extend_tokenizer(external, real_documents, 50).definition))
    definition["model"]["merges"][100:102] = definition["model"]["merges"][101:99:-1]
    other = Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(definition)), external.config)
    with pytest.raises(ConfigError, match="an extension of it"):
        new_token_pieces(external, other)


def test_a_manually_added_special_token_is_initialized_from_its_name(external: Tokenizer) -> None:
    backend = tokenizers.Tokenizer.from_str(json.dumps(external.definition))
    backend.add_special_tokens(["<|tool|>"])
    pieces = new_token_pieces(external, Tokenizer(backend, external.config))
    assert list(pieces.values()) == [tuple(external.encode("<|tool|>"))]


def test_too_little_text_states_the_possible_extension(external: Tokenizer) -> None:
    with pytest.raises(DataError, match=r"extend <= \d"):
        extend_tokenizer(external, ["xylophones and zeppelins, xylophones and zeppelins"], 500)
