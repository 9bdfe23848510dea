"""transformers reads groundup's tokenizer with the same ids, also after saving it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from groundup.tokenizer import IM_START, Tokenizer

TEXTS = [
    "It's  THEY'RE 123\r\n\n\tdef f(x): return x ** 2",
    " leading, trailing ",
    "cafe\u0301 日本語 😀 العربية",
    "a . b , it 's , do n't",  # Text that clean_up_tokenization_spaces would change.
    "",
]


@pytest.mark.parametrize("words", [None, ('It says "', '", in short:')])
@pytest.mark.parametrize("model_type", ["qwen3", "llama", "gpt2"])
def test_ids_and_text_are_equal_after_saving_in_transformers(
    tokenizer: Tokenizer, tmp_path: Path, model_type: str, words: tuple[str, str] | None
) -> None:
    """transformers selects a tokenizer class by the model in the directory; some of them rebuild the pre-tokenizer."""
    transformers = pytest.importorskip("transformers")
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    tokenizer = tokenizer.with_prompt(*words) if words else tokenizer
    tokenizer.save(ours)
    for directory in (ours, theirs):
        directory.mkdir(exist_ok=True)
        (directory / "config.json").write_text(json.dumps({"model_type": model_type}), encoding="utf-8")
    transformers.AutoTokenizer.from_pretrained(ours).save_pretrained(theirs)
    for directory in (ours, theirs):
        peer = transformers.AutoTokenizer.from_pretrained(directory)
        assert (peer.bos_token_id, peer.eos_token_id, peer.pad_token_id) == (
            tokenizer.bos_id,
            tokenizer.eos_id,
            tokenizer.pad_id,
        )
        assert len(peer) == tokenizer.vocab_size
        assert set(peer("a")) == {"input_ids", "attention_mask"}  # The inputs of the models.
        for text in TEXTS:
            ids = tokenizer.encode(text)
            assert peer(text)["input_ids"] == tokenizer.build_inputs(ids)
            longest = tokenizer.num_added_tokens + 2
            assert peer(text, truncation=True, max_length=longest)["input_ids"] == tokenizer.build_inputs(ids, longest)
            assert peer(text, add_special_tokens=False)["input_ids"] == ids
            assert peer.decode(ids) == text
        typed = f"{IM_START}user"
        assert peer(typed)["input_ids"][len(tokenizer.affixes[0])] == tokenizer.token_id(IM_START)
        safe = peer(typed, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert safe == tokenizer.encode(typed)
        again = Tokenizer.load(directory)
        assert again.build_inputs(again.encode(TEXTS[0])) == tokenizer.build_inputs(tokenizer.encode(TEXTS[0]))
