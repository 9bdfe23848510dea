"""Encoding and decoding: lossless, and user text never becomes a special token."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers

from groundup.core.errors import DataError, FormatError
from groundup.tokenizer import END_OF_TEXT, IM_END, SPECIAL_TOKENS, Tokenizer

MULTILINGUAL = [
    "All human beings are born free and equal in dignity and rights.",
    "Alle Menschen sind frei und gleich an Würde und Rechten geboren.",
    "Все люди рождаются свободными и равными в своем достоинстве и правах.",
    "人人生而自由,在尊严和权利上一律平等。",
    "すべての人間は、生まれながらにして自由であり、",
    "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق.",
    "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता",
    "👩‍👩‍👧 e\u0301 \u0000 \x1b[31m \r\n \u2028 \U0010ffff",
    "",
]


@pytest.mark.parametrize("text", MULTILINGUAL)
def test_round_trip(tokenizer: Tokenizer, text: str) -> None:
    """A missing byte in the vocabulary or a normalizer would silently lose text."""
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("special", SPECIAL_TOKENS)
def test_typed_special_tokens_stay_text(tokenizer: Tokenizer, special: str) -> None:
    """By default, the library parses special tokens in text, so a user could inject a system turn."""
    for text in (special, f"a{special}b", f" {special}\n{special}{special}"):
        ids = tokenizer.encode(text)
        assert not tokenizer.special_ids & set(ids)
        assert tokenizer.decode(ids) == text
        assert tokenizer.encode_batch([text, text]) == [ids, ids]


def test_added_tokens_that_are_not_special_stay_text(tokenizer: Tokenizer) -> None:
    """Qwen adds "<think>" with special=false, so options that disable special tokens do not cover it."""
    definition = json.loads(json.dumps(tokenizer.definition))
    extra = definition["added_tokens"][0] | {
        "id": tokenizer.vocab_size,
        "content": "<think>",
        "special": False,
    }
    definition["added_tokens"].append(extra)
    backend = tokenizers.Tokenizer.from_str(json.dumps(definition))
    extended = Tokenizer(backend, tokenizer.config)
    assert backend.encode("<think>", add_special_tokens=False).ids == [extra["id"]]
    assert extra["id"] not in extended.encode("a <think> b")
    assert extended.token_id("<think>") == extra["id"]
    assert extended.vocab_size == tokenizer.vocab_size + 1


def test_special_ids_do_not_depend_on_the_vocabulary(tokenizer: Tokenizer) -> None:
    """Checkpoints, the template check and stop ids refer to them by id."""
    assert [tokenizer.token_id(token) for token in SPECIAL_TOKENS] == list(range(len(SPECIAL_TOKENS)))
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (0, 0, 1)
    assert tokenizer.special_ids == set(range(len(SPECIAL_TOKENS)))
    assert tokenizer.token_id("a") is None  # text is not a special token


def test_decode_skips_or_shows_special_tokens(tokenizer: Tokenizer) -> None:
    im_end = tokenizer.token_id(IM_END)
    assert im_end is not None
    ids = [tokenizer.bos_id, *tokenizer.encode("hi"), im_end]
    assert tokenizer.decode(ids) == "hi"
    assert tokenizer.decode(ids, skip_special_tokens=False) == f"{END_OF_TEXT}hi{IM_END}"


def test_lone_surrogates_are_replaced_not_raised(tokenizer: Tokenizer) -> None:
    """A str from JSON or a file name can contain a lone surrogate, for which libraries raise different errors."""
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a\ufffdb"
    assert tokenizer.decode(tokenizer.encode("\ud83d\ude00")) == "😀"
    assert tokenizer.encode_batch(["a\ud800b"]) == [tokenizer.encode("a\ufffdb")]


def test_an_id_out_of_range_is_an_error(tokenizer: Tokenizer) -> None:
    """A model with more embedding rows than tokens can sample such an id."""
    with pytest.raises(DataError, match="token id 99999"):
        tokenizer.decode([99_999])


def test_save_and_load_keep_ids(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    for text in MULTILINGUAL:
        assert loaded.encode(text) == tokenizer.encode(text)
    assert (loaded.bos_id, loaded.eos_id, loaded.pad_id) == (
        tokenizer.bos_id,
        tokenizer.eos_id,
        tokenizer.pad_id,
    )
    assert loaded.config == tokenizer.config
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again" / "tokenizer.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()


def test_the_library_adds_bos_by_default(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Models pretrained with groundup expect BOS, so other tools must add it by default."""
    tokenizer.save(tmp_path)
    peer = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert peer.encode("A text.").ids == [tokenizer.bos_id, *tokenizer.encode("A text.")]


def test_load_errors(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"tokenizer\.json: no such file"):
        Tokenizer.load(tmp_path)
    tokenizer.save(tmp_path)
    content = (tmp_path / "tokenizer.json").read_text(encoding="utf-8")
    (tmp_path / "tokenizer.json").write_text(content[: len(content) // 2], encoding="utf-8")
    with pytest.raises(FormatError, match=r"tokenizer\.json"):
        Tokenizer.load(tmp_path)


def test_wordpiece_vocabularies_are_errors() -> None:
    """Decoding by bytes would give wrong text for a WordPiece vocabulary."""
    backend = tokenizers.Tokenizer(tokenizers.models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    with pytest.raises(FormatError, match="WordPiece"):
        Tokenizer(backend, {"eos_token": "[UNK]"})


def test_config_must_name_tokens_that_exist(tokenizer: Tokenizer) -> None:
    backend = tokenizers.Tokenizer.from_str(json.dumps(tokenizer.definition))
    with pytest.raises(FormatError, match="no eos_token"):
        Tokenizer(backend, {})
    with pytest.raises(FormatError, match="<nothing>"):
        Tokenizer(backend, {"eos_token": "<nothing>"})
    stand_in = Tokenizer(backend, {"bos_token": None, "eos_token": {"content": IM_END}})  # like Qwen
    assert stand_in.pad_id == stand_in.eos_id == tokenizer.token_id(IM_END)
    # Qwen separates documents with <|endoftext|>. The EOS of its chat models ends a turn and does not start documents.
    assert stand_in.bos_id == tokenizer.token_id(END_OF_TEXT)


def test_the_library_adds_the_prompt(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """transformers calls the library with right truncation, which must keep the text after the input."""
    framed = tokenizer.with_prompt("What is ", " about?")
    framed.save(tmp_path)
    backend = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    before = [tokenizer.bos_id, *tokenizer.encode("What is ")]
    behind = tokenizer.encode(" about?")
    assert framed.num_added_tokens == len(before) + len(behind)
    for text in MULTILINGUAL:
        ids = tokenizer.encode(text)
        assert framed.encode(text) == ids
        assert framed.build_inputs(ids) == backend.encode(text).ids == [*before, *ids, *behind]
        backend.enable_truncation(framed.num_added_tokens + 3)
        assert (
            framed.build_inputs(ids, framed.num_added_tokens + 3)
            == backend.encode(text).ids
            == [*before, *ids[:3], *behind]
        )
        backend.no_truncation()
    again = Tokenizer.load(tmp_path)
    assert again.affixes == framed.affixes
    assert again.adds_bos == tokenizer.adds_bos
    assert again.with_prompt("", "").affixes == (tuple(before), ())


def test_build_inputs_is_never_empty_and_never_too_long(tokenizer: Tokenizer) -> None:
    framed = tokenizer.with_prompt("What is ", " about?")
    for longest in range(1, framed.num_added_tokens + 3):
        assert 1 <= len(framed.build_inputs(tokenizer.encode("a long text about nothing"), longest)) <= longest
    assert tokenizer.build_inputs([]) == [tokenizer.bos_id]
