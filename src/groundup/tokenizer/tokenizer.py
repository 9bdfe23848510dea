"""The tokenizer: text to ids and back, kept in the two files that the ecosystem reads."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers

from groundup.errors import DataError, FormatError
from groundup.files import atomic_file, read_json, write_json
from groundup.tokenizer.vocabulary import BYTE_OF
from groundup.types import well_formed

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"


class Tokenizer:
    """A byte-level BPE vocabulary (Sennrich et al. 2016; bytes as in GPT-2, Radford et al. 2019).

    Any string can be encoded, and decoding gives it back exactly. Text never becomes a special token: where a
    user types "<|im_start|>", `encode` gives the ids of those twelve characters. This is what transformers
    does with `tokenizer(text, add_special_tokens=False, split_special_tokens=True)`; its plain call
    `tokenizer(text)` begins with BOS, as the documents of our models do, and reads special tokens inside the
    text.

    Attributes:
        bos_id: begins every document.
        eos_id: ends what a model writes; the same token as BOS in our own vocabularies.
        pad_id: fills up batches; never in text.
        vocab_size: one more than the largest id.
        special_ids: ids that no text has.
    """

    def __init__(self, backend: tokenizers.Tokenizer, config: Mapping[str, Any]) -> None:
        """Wrap a tokenizer of Hugging Face's library.

        Args:
            backend: byte-level BPE with its post-processor and decoder.
            config: the contents of `tokenizer_config.json`; names the BOS, EOS and PAD tokens.

        Raises:
            FormatError: not byte-level BPE, or the config names tokens that the vocabulary lacks.
        """
        self._backend = backend
        self.config = dict(config)
        self.definition: dict[str, Any] = json.loads(backend.to_str())
        self._require_byte_level()
        # Without the added tokens there is nothing that text could turn into, whatever its flags say.
        plain = self.definition | {
            "added_tokens": [],
            "post_processor": None,
            "truncation": None,
            "padding": None,
        }
        self._plain = tokenizers.Tokenizer.from_str(json.dumps(plain))
        self._vocabulary = backend.get_vocab(with_added_tokens=True)
        self.vocab_size = max(self._vocabulary.values()) + 1
        self.special_ids = frozenset(t["id"] for t in self.definition["added_tokens"] if t["special"])
        eos = self._named_token("eos_token")
        bos = self._named_token("bos_token")
        if eos is None and bos is None:
            raise FormatError(
                f"{CONFIG_FILE}: no eos_token and no bos_token",
                rule="a document needs a token that begins it",
                fix='Name one, e.g. "eos_token": "<|endoftext|>".',
            )
        # Qwen's vocabularies have no BOS, many have no PAD; EOS stands in, as in transformers' recipes.
        self.eos_id: int = eos if eos is not None else bos  # type: ignore[assignment]
        self.bos_id: int = bos if bos is not None else self.eos_id
        pad = self._named_token("pad_token")
        self.pad_id: int = pad if pad is not None else self.eos_id

    @classmethod
    def load(cls, directory: Path) -> Tokenizer:
        """Read `tokenizer.json` and `tokenizer_config.json`, ours or those of another model directory.

        Raises:
            DataError: a file is missing.
            FormatError: a file is damaged, or holds no byte-level BPE.
        """
        path = directory / TOKENIZER_FILE
        for needed in (path, directory / CONFIG_FILE):
            if not needed.is_file():
                raise DataError(
                    f"{needed}: no such file",
                    rule=f"a tokenizer is a directory with {TOKENIZER_FILE} and {CONFIG_FILE}",
                    fix="Give the directory that groundup tokenize left, or a model directory.",
                )
        try:
            backend = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises Exception itself
            raise FormatError(
                f"{path}: {error}",
                rule="this file must be a tokenizer of the Hugging Face tokenizers library",
                fix="Copy it again from where it came, or run groundup tokenize again.",
            ) from error
        return cls(backend, read_json(directory / CONFIG_FILE))

    def save(self, directory: Path) -> None:
        """Write both files; `transformers.AutoTokenizer` loads the directory with the same ids."""
        write_json(directory / CONFIG_FILE, self.config)
        with atomic_file(directory / TOKENIZER_FILE) as temporary:  # last: where it is, the tokenizer is whole
            temporary.write_text(self._backend.to_str(pretty=True), encoding="utf-8")

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without BOS. A lone surrogate, which UTF-8 cannot hold, is read as U+FFFD."""
        ids: list[int] = self._plain.encode(well_formed(text), add_special_tokens=False).ids
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` for many texts, on all cores. A corpus goes faster through `CorpusEncoder`."""
        encodings = self._plain.encode_batch_fast([well_formed(text) for text in texts], add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def encode_words(self, texts: Sequence[str]) -> Iterator[list[int]]:
        """The ids of each word of texts: of each piece that is encoded by itself, over whose ends no token reaches."""
        for encoding in self._plain.encode_batch([well_formed(text) for text in texts], add_special_tokens=False):
            numbered = zip(encoding.word_ids, encoding.ids, strict=True)
            for _, word in itertools.groupby(numbered, key=lambda pair: pair[0]):
                yield [token_id for _, token_id in word]

    @property
    def vocabulary(self) -> Mapping[str, int]:
        """Every token as the vocabulary writes it (of bytes: in GPT-2's alphabet), added tokens included; its id."""
        return self._vocabulary

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of ids. Bytes that are not UTF-8 (a cut-off character) become U+FFFD.

        Raises:
            DataError: an id that the vocabulary does not have.
        """
        skipped = self.special_ids if skip_special_tokens else ()
        return b"".join(self.token_bytes(i) for i in ids if i not in skipped).decode("utf-8", errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that one id stands for; of a special token, its name.

        Raises:
            DataError: an id that the vocabulary does not have.
        """
        try:
            return self._bytes_of[token_id]
        except KeyError:
            raise DataError(
                f"token id {token_id}",
                rule=f"this vocabulary has the ids 0 to {self.vocab_size - 1:,}",
                fix="Use the tokenizer that the model was trained with.",
            ) from None

    @property
    def text_tokens(self) -> dict[int, bytes]:
        """The bytes of every token that text can have."""
        return {token_id: text for token_id, text in self._bytes_of.items() if token_id not in self._added}

    def token_id(self, token: str) -> int | None:
        """The id of a special token by its name, e.g. "<|im_end|>"; None where there is no such token."""
        found = self._vocabulary.get(token)
        return found if found in self._added else None

    @cached_property
    def _added(self) -> dict[int, str]:
        return {token["id"]: token["content"] for token in self.definition["added_tokens"]}

    @cached_property
    def _bytes_of(self) -> dict[int, bytes]:
        table = {
            token_id: bytes(BYTE_OF[character] for character in token)
            for token, token_id in self._vocabulary.items()
            if token_id not in self._added
        }
        return table | {token_id: content.encode() for token_id, content in self._added.items()}

    def _named_token(self, key: str) -> int | None:
        token = self.config.get(key)
        content = token["content"] if isinstance(token, Mapping) else token  # older files hold the whole token
        if content is None:
            return None
        found = self._vocabulary.get(content)
        if found is None:
            raise FormatError(
                f"{CONFIG_FILE}: {key} = {content!r}",
                rule=f"the token must be in {TOKENIZER_FILE}",
                fix="Copy both files again from where they came: they do not belong together.",
            )
        return int(found)

    def _require_byte_level(self) -> None:
        model = self.definition["model"]
        decoder = self.definition["decoder"] or {}
        kinds = {decoder.get("type"), *(part.get("type") for part in decoder.get("decoders", []))}
        vocabulary = model.get("vocab", {})
        if model["type"] != "BPE" or "ByteLevel" not in kinds or not all(c in vocabulary for c in BYTE_OF):
            raise FormatError(
                f"a {model['type']} tokenizer with {len(vocabulary):,} entries",
                rule="groundup uses byte-level BPE: a ByteLevel decoder and all 256 bytes in the vocabulary",
                fix="Train one with groundup tokenize, or take one of the GPT-2, Llama 3 or Qwen kind.",
            )
