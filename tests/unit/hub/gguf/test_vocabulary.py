"""Vocabularies in GGUF metadata: malicious ones are rejected, and valid ones are converted without loss."""

import contextlib
import io
import json
import re
import time
from typing import Any

import numpy as np
import pytest
import sentencepiece
import tokenizers

from groundup.core.errors import FormatError
from groundup.hub.gguf import tokenizer_from_gguf, tokenizer_to_gguf
from groundup.tokenizer import Tokenizer
from groundup.tokenizer.edge_cases import EDGE_CASES


def byte_level(**changes: Any) -> dict[str, Any]:
    """A vocabulary of five tokens, as returned by `gguf`'s reader."""
    made: dict[str, Any] = {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": ["a", "b", "ab", "<|end|>", "c"],
        "token_type": [1, 1, 1, 3, 1],
        "merges": ["a b"],
        "eos_token_id": 3,
    }
    entries = {k: v for k, v in (made | changes).items() if v is not None}
    return {key if "." in key else f"tokenizer.ggml.{key}": value for key, value in entries.items()}


class Endless(list[str]):
    """A list that claims ten million tokens, and fails on access."""

    def __len__(self) -> int:
        return 10_000_000

    def __iter__(self) -> Any:
        raise AssertionError("looked at before its length was")


HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "no vocabulary": ({"tokens": None}, "no tokens"),
    "no kind": ({"model": None}, "tokenizer.ggml.model = None"),
    "a kind that is not known": ({"model": "bert"}, "'bert'"),
    "a kind that is no text": ({"model": 7}, "of type int"),
    "ten million tokens": ({"tokens": Endless()}, "10,000,000 entries"),
    "fewer types than tokens": ({"token_type": [1, 1, 1]}, "3 entries"),
    "more types than tokens": ({"token_type": [1] * 6}, "6 entries"),
    "an unknown type": ({"token_type": [1, 1, 1, 3, 99]}, "types from 1 to 99"),
    "a huge type": ({"token_type": np.array([1, 1, 1, 3, 2**40])}, "32-bit integers"),
    "types that are texts": ({"token_type": ["a", "b", "c", "d", "e"]}, "not a list of numbers"),
    "nested types": ({"token_type": [[1], [1], [1], [3], [1]]}, "not a list of numbers"),
    "scores that are no numbers": ({"model": "llama", "scores": [0.0, np.nan, 0, 0, 0]}, "not finite"),
    "fewer scores than tokens": ({"model": "llama", "scores": [0.0]}, "1 entries"),
    "a merge of unknown tokens": ({"merges": ["a x"]}, "'a x'"),
    "a merge to an unknown token": ({"merges": ["b a"]}, "'b a'"),
    "a merge of one": ({"merges": ["ab"]}, "'ab'"),
    "merges that are numbers": ({"merges": [1, 2]}, "list of texts"),
    "tokens that are one text": ({"tokens": "abcde"}, "list of texts"),
    "a token twice": ({"tokens": ["a", "b", "ab", "a", "c"]}, "'a' occurs twice"),
    "tokens that are not UTF-8": ({"tokens": ["a", "b", "ab", "\ud800", "c"]}, "UTF-8"),
    "an id beyond the end": ({"eos_token_id": 5}, "ids must be from 0 to 4"),
    "an id before the beginning": ({"bos_token_id": -1}, "ids must be from 0 to 4"),
    "an id that is a flag": ({"bos_token_id": True}, "ids must be from 0 to 4"),
    "a flag that is a number": ({"add_bos_token": 1}, "type int"),
    "a pre-tokenizer that is not known": ({"pre": "lama-bpe"}, "Did you mean llama-bpe"),
    "a template that is no text": ({"tokenizer.chat_template": 3}, "type int"),
    "a map of characters that is no bytes": ({"model": "t5", "precompiled_charsmap": [1.5, 2.5]}, "bytes"),
    "a map of characters that is damaged": (
        {"model": "t5", "unknown_token_id": 4, "precompiled_charsmap": np.full(16, 255, np.uint8)},
        "must be a valid trie",
    ),
}


@pytest.mark.parametrize(("changes", "said"), HOSTILE.values(), ids=HOSTILE)
def test_malicious_vocabularies_are_rejected(changes: dict[str, Any], said: str) -> None:
    begun = time.monotonic()
    with pytest.raises(FormatError, match=re.escape(said)):
        tokenizer_from_gguf(byte_level(**changes))
    assert time.monotonic() - begun < 5


def test_merges_from_scores_are_bounded() -> None:
    """All strings of two letters, with the maximum number of merges that a malicious file could request."""
    tokens = [f"{n:0{size}b}" for size in range(1, 13) for n in range(2**size)]
    begun = time.monotonic()
    made = tokenizer_from_gguf(byte_level(model="llama", tokens=tokens, token_type=None, merges=None, eos_token_id=0))
    assert len(made.definition["model"]["merges"]) == sum((size - 1) * 2**size for size in range(1, 13))
    assert time.monotonic() - begun < 10


def test_padding_rows_are_no_tokens(tokenizer: Tokenizer) -> None:
    made = tokenizer_to_gguf(tokenizer.definition, tokenizer.config, tokenizer.vocab_size + 60)
    tokens = made.metadata["tokenizer.ggml.tokens"]
    # llama.cpp aborts if two tokens are equal.
    assert len(tokens) == len(set(tokens)) == tokenizer.vocab_size + 60
    back = tokenizer_from_gguf(made.metadata)
    assert Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(back.definition)), back.config).vocab_size == 1024
    with pytest.raises(FormatError, match="embedding has only 1,000 rows"):
        tokenizer_to_gguf(tokenizer.definition, tokenizer.config, 1000)


def test_special_tokens_and_templates_survive_a_round_trip(tokenizer: Tokenizer) -> None:
    config = tokenizer.config | {
        "chat_template": [{"name": "default", "template": "{{ 1 }}"}, {"name": "tool_use", "template": "{{ 2 }}"}]
    }
    turn = tokenizer.token_id("<|im_end|>")
    assert turn is not None
    made = tokenizer_to_gguf(tokenizer.definition, config, 1024, stop_ids=(turn, tokenizer.eos_id))
    assert made.differences == ()
    back = tokenizer_from_gguf(made.metadata)
    assert back.config["chat_template"] == config["chat_template"]
    assert back.stop_ids == (tokenizer.eos_id, turn)
    assert back.config["add_bos_token"] is True
    assert (back.bos_id, back.eos_id, back.pad_id) == (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id)
    again = Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(back.definition)), back.config)
    assert again.control_tokens == tokenizer.control_tokens
    assert again.vocabulary == tokenizer.vocabulary
    assert [again.encode_prompt(text) for text in EDGE_CASES.values()] == [
        tokenizer.encode_prompt(text) for text in EDGE_CASES.values()
    ]


def pieces(
    texts: list[str], kind: str, *, spaced: bool, rule: str = "identity"
) -> tuple[sentencepiece.SentencePieceProcessor, dict[str, Any]]:
    """Return a SentencePiece vocabulary, and its metadata as written by llama.cpp's converter."""
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for text in texts for line in text.splitlines() if line.strip()][:4000]),
        model_writer=made,
        vocab_size=1000,
        model_type=kind,
        byte_fallback=True,
        add_dummy_prefix=spaced,
        remove_extra_whitespaces=False,
        normalization_rule_name=rule,
        minloglevel=2,
        num_threads=1,
    )
    model = sentencepiece.SentencePieceProcessor(model_proto=made.getvalue())
    ids = range(model.get_piece_size())
    kinds = {0: 2, 1: 3, 2: 3}  # Unknown, and two control tokens.
    metadata = {
        "model": {"bpe": "llama", "unigram": "t5"}[kind],
        "tokens": [model.id_to_piece(i) for i in ids],
        "scores": np.array([model.get_score(i) for i in ids], dtype=np.float32),
        "token_type": np.array([6 if model.is_byte(i) else kinds.get(i, 1) for i in ids], dtype=np.int32),
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unknown_token_id": 0,
        "add_space_prefix": spaced,
    }
    return model, {f"tokenizer.ggml.{key}": value for key, value in metadata.items()}


@pytest.mark.parametrize("spaced", [True, False], ids=["llama", "gemma"])
@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_sentencepiece_gives_the_same_ids(kind: str, spaced: bool, real_documents: list[str]) -> None:
    """Merges are derived from scores; one wrong position would split words differently."""
    model, metadata = pieces(real_documents, kind, spaced=spaced)
    files = tokenizer_from_gguf(metadata)
    backend = tokenizers.Tokenizer.from_str(json.dumps(files.definition))
    backend.encode_special_tokens = True
    scores = metadata["tokenizer.ggml.scores"].astype(np.float64)
    for text in [*EDGE_CASES.values(), *real_documents[-40:]]:
        ours, theirs = backend.encode(text, add_special_tokens=False).ids, model.encode(text)
        # Unigram: rounding decides between two equally likely segmentations.
        assert ours == theirs or (kind == "unigram" and abs(scores[ours].sum() - scores[theirs].sum()) < 0.01), text
    # The reverse: llama.cpp derives scores from merges. For unigram it has no byte fallback, which is reported.
    made = tokenizer_to_gguf(files.definition, files.config, model.get_piece_size())
    assert made.metadata["tokenizer.ggml.tokens"] == metadata["tokenizer.ggml.tokens"]
    np.testing.assert_array_equal(made.metadata["tokenizer.ggml.token_type"], metadata["tokenizer.ggml.token_type"])
    assert ("Chinese" in dict(made.differences)) == (kind == "unigram")
    assert "sentence" not in dict(made.differences)


def test_a_charsmap_is_applied_and_a_broken_one_rejected(real_documents: list[str]) -> None:
    """The library does not check bounds in the trie: a malicious one would crash the process."""
    protocol = pytest.importorskip("sentencepiece.sentencepiece_model_pb2", reason="protobuf is not installed")
    model, metadata = pieces(real_documents, "unigram", spaced=True, rule="nmt_nfkc")
    parsed = protocol.ModelProto.FromString(model.serialized_model_proto())
    charsmap = np.frombuffer(parsed.normalizer_spec.precompiled_charsmap, dtype=np.uint8)
    key = "tokenizer.ggml.precompiled_charsmap"
    files = tokenizer_from_gguf(metadata | {key: charsmap})
    backend = tokenizers.Tokenizer.from_str(json.dumps(files.definition))
    for text in ("ＡＢＣ ﬁne ½ ① ｶ", "Straße №5 Ⅷ", "The “quoted”\ttext…"):
        assert backend.encode(text, add_special_tokens=False).tokens == model.encode(text, out_type=str), text
    made = tokenizer_to_gguf(files.definition, files.config, model.get_piece_size())
    np.testing.assert_array_equal(made.metadata[key], charsmap)
    rng = np.random.default_rng(0)
    for _ in range(50):
        broken = charsmap.copy()
        broken[rng.integers(0, 5000, 20)] = rng.integers(0, 256, 20)
        with contextlib.suppress(FormatError):
            definition = tokenizer_from_gguf(metadata | {key: broken}).definition
            tokenizers.Tokenizer.from_str(json.dumps(definition)).encode_batch(list(EDGE_CASES.values()))


def test_a_missing_pre_tokenizer_is_reported() -> None:
    files = tokenizer_from_gguf(byte_level(pre=None))
    assert any("does not specify a pre-tokenizer" in note for note in files.notes)
