"""Small copies of the tokenizers of well-known models, created with Hugging Face tokenizers and SentencePiece."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import sentencepiece
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_SPLIT = LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")
VOCAB = 700

Maker = Callable[[Sequence[str]], tuple[tokenizers.Tokenizer, dict[str, Any]]]


def _special(*names: str) -> list[AddedToken]:
    return [AddedToken(name, special=True, normalized=False) for name in names]


def _bytes(texts: Sequence[str], split: pre_tokenizers.PreTokenizer, normalizer: Any = None) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE(ignore_merges=True))
    backend.pre_tokenizer, backend.decoder = split, decoders.ByteLevel()
    if normalizer is not None:
        backend.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=VOCAB, initial_alphabet=alphabet, show_progress=False)
    )
    return backend


def _split(pattern: str) -> pre_tokenizers.PreTokenizer:
    steps = [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    return pre_tokenizers.Sequence(steps)


def _bos(backend: tokenizers.Tokenizer, name: str) -> Any:
    return processors.TemplateProcessing(
        single=f"{name} $A", pair=f"{name} $A {name} $B", special_tokens=[(name, backend.token_to_id(name))]
    )


def gpt2(texts: Sequence[str]) -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    backend = _bytes(texts, pre_tokenizers.ByteLevel(add_prefix_space=False))
    backend.add_special_tokens(_special("<|endoftext|>"))
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    return backend, {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}


def llama3(texts: Sequence[str]) -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    backend = _bytes(texts, _split(LLAMA3_SPLIT))
    names = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    backend.add_special_tokens(_special(*names))
    backend.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=False), _bos(backend, "<|begin_of_text|>")]
    )
    return backend, {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}


def qwen(texts: Sequence[str]) -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    backend = _bytes(texts, _split(QWEN_SPLIT), normalizers.NFC())
    backend.add_special_tokens(_special("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
    backend.add_tokens([AddedToken(n, special=False, normalized=False) for n in ("<think>", "</think>", "<tool_call>")])
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    config = {"bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "add_bos_token": False}
    return backend, config


def smollm2(texts: Sequence[str]) -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    digits = pre_tokenizers.Digits(individual_digits=True)
    backend = _bytes(texts, pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)]))
    backend.add_special_tokens(_special("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
    return backend, {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}


def neox(texts: Sequence[str]) -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    """Return a tokenizer with runs of spaces and non-special control tokens as added tokens."""
    backend = _bytes(texts, pre_tokenizers.ByteLevel(add_prefix_space=False))
    backend.add_tokens([AddedToken(" " * n, normalized=True) for n in range(24, 1, -1)])
    backend.add_special_tokens(_special("<|endoftext|>"))
    backend.add_tokens([AddedToken("<｜User｜>", normalized=False), AddedToken("<｜Assistant｜>", normalized=False)])
    return backend, {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}


def _pieces(texts: Sequence[str], kind: str, symbols: Sequence[str] = (), **options: Any) -> list[tuple[str, float]]:
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for text in texts for line in text.splitlines() if line.strip()][:4000]),
        model_writer=made,
        vocab_size=VOCAB,
        model_type=kind,
        byte_fallback=True,
        character_coverage=0.995,
        user_defined_symbols=list(symbols),
        normalization_rule_name="identity",
        minloglevel=2,
        num_threads=1,
        **options,
    )
    model = sentencepiece.SentencePieceProcessor(model_proto=made.getvalue())
    return [(model.id_to_piece(i), model.get_score(i)) for i in range(model.get_piece_size())]


def _sentencepiece_bpe(pieces: Sequence[tuple[str, float]], fixed: Sequence[str]) -> tokenizers.Tokenizer:
    ids = {piece: number for number, (piece, _) in enumerate(pieces)}
    scores = dict(pieces)
    merges = []
    for piece in ids:
        if piece not in fixed and not piece.startswith("<0x"):
            halves = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
            merges += [(left, right) for left, right in halves if left in ids and right in ids]
    merges.sort(key=lambda pair: -scores["".join(pair)])
    return tokenizers.Tokenizer(models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))


def _spaces() -> list[Any]:
    return [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]


def llama2(texts: Sequence[str]) -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    """Return a tokenizer in the format of older files, with a space before each piece of text."""
    fixed = ("<unk>", "<s>", "</s>")
    backend = _sentencepiece_bpe(_pieces(texts, "bpe"), fixed)
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence([*_spaces(), decoders.Strip(" ", 1, 0)])
    backend.add_special_tokens(_special(*fixed))
    backend.post_processor = _bos(backend, "<s>")
    return backend, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def mistral(texts: Sequence[str]) -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    """Return a tokenizer with a space before a text, but not after special tokens."""
    fixed = ("<unk>", "<s>", "</s>", "[INST]", "[/INST]")
    backend = _sentencepiece_bpe(_pieces(texts, "bpe", ("[INST]", "[/INST]")), fixed)
    backend.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence([*_spaces(), decoders.Strip(" ", 1, 0)])
    backend.add_special_tokens(_special(*fixed))
    backend.post_processor = _bos(backend, "<s>")
    return backend, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def gemma(texts: Sequence[str]) -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    """Return a tokenizer without a space before a text, and with runs of white space and HTML tags as tokens."""
    words = ("\n\n", "\n\n\n", "▁▁", "▁▁▁▁", "<h1>", "</h1>")
    turns = ("<start_of_turn>", "<end_of_turn>")
    backend = _sentencepiece_bpe(_pieces(texts, "bpe", (*turns, "\n", *words)), (*turns, *words, "<bos>"))
    fixed = ("<unk>", "<s>", "</s>", *turns)
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    backend.decoder = decoders.Sequence(_spaces())
    backend.add_tokens([AddedToken(word, special=False, normalized=False) for word in words])
    backend.add_special_tokens(_special(*fixed))
    backend.post_processor = _bos(backend, "<s>")
    return backend, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def t5(texts: Sequence[str]) -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    pieces = _pieces(texts, "unigram")
    backend = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="always")
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace("▁", prepend_scheme="always")])
    backend.add_special_tokens(_special("<unk>", "<s>", "</s>"))
    return backend, {"bos_token": None, "eos_token": "</s>", "unk_token": "<unk>"}


MAKERS: dict[str, Maker] = {
    maker.__name__: maker for maker in (gpt2, llama3, qwen, smollm2, neox, llama2, mistral, gemma, t5)
}


def add_special_tokens(
    made: tuple[tokenizers.Tokenizer, dict[str, Any]], names: Sequence[str]
) -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    """Add special tokens to a tokenizer, such as the tokens of tool calls."""
    made[0].add_special_tokens(_special(*names))
    return made


def save(directory: Path, made: tuple[tokenizers.Tokenizer, dict[str, Any]], chat_template: str | None = None) -> Path:
    """Write a tokenizer directory as on the Hugging Face Hub."""
    backend, config = made
    directory.mkdir(parents=True, exist_ok=True)
    backend.save(str(directory / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False} | config
    if chat_template is not None:
        config["chat_template"] = chat_template
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    return directory
