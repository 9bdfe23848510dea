"""The tokenizer, which encodes and decodes text, and which reads and writes the file formats of transformers."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray

from groundup.core.errors import DataError, FormatError
from groundup.core.files import atomic_file, write_json
from groundup.core.types import well_formed
from groundup.tokenizer.definition import (
    build,
    decoding,
    read_affixes,
    vocabulary,
    with_affixes,
    with_protected_tokens,
    without_prefix_space,
)
from groundup.tokenizer.source import CONFIG_FILE, TEMPLATE_FILE, TOKENIZER_FILE, TokenizerSource, read_source
from groundup.tokenizer.vocabulary import END_OF_TEXT


class Tokenizer:
    """A tokenizer that groundup trained (byte-level BPE, Radford et al. 2019), or the tokenizer of another model.

    Text is never encoded as a special token. For `<|im_start|>` in a text, `encode` returns the ids of the twelve
    characters. In a byte-level vocabulary, text is also never encoded as an added token that is not special, such as
    `<think>` of Qwen or `<｜User｜>` of DeepSeek. However, white space can be encoded as an added token. Added
    tokens of SentencePiece vocabularies, such as `<h1>` of Gemma, are ordinary text. In contrast, `tokenizer(text)` of
    transformers parses special tokens in text.

    Attributes:
        bos_id: Id of the token at the start of each document in training and scoring. If the model starts texts with
            BOS, `bos_id` is the id of BOS. Otherwise `bos_id` is the id of the first of `<|endoftext|>`, BOS and EOS
            that exists.
        adds_bos: Whether the model expects BOS at the start of a prompt.
        affixes: Ids that transformers adds before and after a text in `tokenizer(text)`. See `with_prompt`.
        eos_id: Id of the end-of-sequence token. In groundup's vocabularies, `eos_id` is the same as `bos_id`.
        stop_ids: Ids of all stop tokens, from `eos_token_id` in `generation_config.json` (default: EOS).
        pad_id: Id of the padding token, which never occurs in encoded text.
        vocab_size: Largest id + 1.
        special_ids: Ids of all special tokens.
        control_tokens: Dictionary from token names to ids, with all tokens that text is never encoded as.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        config: Mapping[str, Any],
        source: TokenizerSource | None = None,
    ) -> None:
        """Wrap a tokenizer of Hugging Face's tokenizers library.

        Args:
            backend: The tokenizer, with its post-processor and decoder.
            config: Contents of `tokenizer_config.json`, with the names of the BOS, EOS and PAD tokens.
            source: The files from which the tokenizer was loaded, or None if it was not loaded from files.

        Raises:
            FormatError: This kind of tokenizer is not supported, or a token in the config is not in the vocabulary.
        """
        self._source = source or TokenizerSource()
        self.config = dict(config)
        # The definition is read from the library and not from the file, because older files have different formats.
        self.definition: dict[str, Any] = json.loads(backend.to_str())
        self._backend = backend
        self._decoding = decoding(self.definition)
        self._vocabulary = vocabulary(self.definition)
        self.vocab_size = max(self._vocabulary.values()) + 1
        self._name_special_tokens()
        added = {token["content"]: token for token in self.definition["added_tokens"]}
        special = {token["id"] for token in added.values() if token["special"]}
        self.special_ids = frozenset(special | {self.bos_id, self.eos_id, self.pad_id})
        self.control_tokens = {
            name: number
            for name, number in self._vocabulary.items()
            if number in self.special_ids or (name in added and not self._is_word(name))
        }
        safe, self._replacement_of = with_protected_tokens(self.definition, self.control_tokens)
        self._plain = build(safe, TOKENIZER_FILE)
        moved = [n for n, i in self.control_tokens.items() if self._plain.token_to_id(self._replacement_of[n]) != i]
        if moved:
            raise FormatError(
                f"{TOKENIZER_FILE}: {moved[0]!r} has the id {self.control_tokens[moved[0]]}",
                rule="the ids of added tokens must be larger than all other ids",
                fix="Copy the file again from its source.",
            )

    @classmethod
    def load(cls, directory: Path) -> Tokenizer:
        """Load a tokenizer from a tokenizer directory or a model directory.

        Args:
            directory: The directory.

        Returns:
            The tokenizer.

        Raises:
            DataError: A file is missing.
            FormatError: A file is damaged, or this kind of tokenizer is not supported.
        """
        source = read_source(directory)
        text = source.files[TOKENIZER_FILE].decode("utf-8", errors="replace")
        return cls(build(text, str(directory / TOKENIZER_FILE)), source.config, source)

    def with_definition(self, definition: Mapping[str, Any]) -> Tokenizer:
        """Return a copy of this tokenizer with another definition, e.g. with another vocabulary.

        Args:
            definition: Contents of a `tokenizer.json`.
        """
        files = {name: content for name, content in self._source.files.items() if name in (CONFIG_FILE, TEMPLATE_FILE)}
        source = replace(self._source, files=files)
        return Tokenizer(build(dict(definition), TOKENIZER_FILE), self.config, source)

    def with_prompt(self, before: str, after: str) -> Tokenizer:
        """Return a copy of this tokenizer with a prompt that `build_inputs` adds before and after each text.

        The prompt is stored in `tokenizer.json`, so transformers also adds the prompt. If transformers truncates its
        input, only the text is truncated and the prompt is kept.

        Args:
            before: Part of the prompt before each text.
            after: Part of the prompt after each text.
        """
        ids = (*self.affixes[0], *self.encode(before)), self.encode(after, continues=True)
        return self.with_definition(with_affixes(self.definition, *ids))

    def save(self, directory: Path) -> list[Path]:
        """Write the files of the tokenizer. Files that have not changed are copied byte by byte.

        `transformers.AutoTokenizer` can load the directory and then gives the same ids.

        Args:
            directory: The output directory.

        Returns:
            Paths of the files that were written.
        """
        for name, content in self._source.files.items():
            if name not in (TOKENIZER_FILE, CONFIG_FILE):
                with atomic_file(directory / name) as temporary:
                    temporary.write_bytes(content)
        if self.config == self._source.config and CONFIG_FILE in self._source.files:
            with atomic_file(directory / CONFIG_FILE) as temporary:
                temporary.write_bytes(self._source.files[CONFIG_FILE])
        else:
            write_json(directory / CONFIG_FILE, self.config)
        content = self._source.files.get(TOKENIZER_FILE) or self._backend.to_str(pretty=True).encode()
        with atomic_file(directory / TOKENIZER_FILE) as temporary:  # written last, as a sign of a complete tokenizer
            temporary.write_bytes(content)
        return [directory / name for name in sorted({*self._source.files, CONFIG_FILE, TOKENIZER_FILE})]

    @property
    def text_ids(self) -> dict[str, int]:
        """The ids of the BOS, EOS and PAD tokens in a dictionary with the keys `bos_id`, `eos_id` and `pad_id`."""
        return {"bos_id": self.bos_id, "eos_id": self.eos_id, "pad_id": self.pad_id}

    @property
    def chat_template(self) -> str | None:
        """The chat template of the model in Jinja syntax, or None if the model does not have a chat template.

        If the model has several named templates, the template with the name "default" is returned.

        Raises:
            FormatError: The template is not a string.
        """
        if TEMPLATE_FILE in self._source.files and "chat_template" not in self._changed:
            return self._source.files[TEMPLATE_FILE].decode("utf-8", errors="replace")
        found = self.config.get("chat_template")
        if isinstance(found, list):
            found = {t.get("name"): t.get("template") for t in found if isinstance(t, dict)}
        if isinstance(found, dict):
            found = found.get("default") if "default" in found or len(found) != 1 else next(iter(found.values()))
        if found is not None and not isinstance(found, str):
            raise FormatError(
                f"{CONFIG_FILE}: chat_template is a {type(found).__name__}",
                rule="it must be a string, or a list of named templates",
                fix="Copy the file again from its source.",
            )
        return found

    def set_chat_template(self, jinja: str) -> None:
        """Set the chat template in the config. If `jinja` is already the chat template, the config is not changed.

        Args:
            jinja: The template in Jinja syntax.
        """
        if jinja != self.chat_template:
            self.config["chat_template"] = jinja

    def encode(self, text: str, *, continues: bool = False) -> list[int]:
        """Return the ids of a text, without BOS.

        A lone surrogate is replaced by U+FFFD, because it cannot be encoded as UTF-8.

        Args:
            text: The text.
            continues: Whether the text continues other text, so that SentencePiece must not add a space before it.
        """
        backend = self._continuing_backend if continues else self._plain
        with _backend_errors():
            ids: list[int] = backend.encode(well_formed(text), add_special_tokens=False).ids
        return ids

    def encode_rendered(self, text: str) -> list[int]:
        """Return the ids of the rendered text of a chat template.

        As in transformers, the names of special tokens in the text are encoded as these special tokens.

        Args:
            text: The rendered text.
        """
        with _backend_errors():
            ids: list[int] = self._backend.encode(well_formed(text), add_special_tokens=False).ids
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, computed in parallel. To encode a corpus, `CorpusEncoder` is faster.

        Args:
            texts: The texts.
        """
        with _backend_errors():
            encodings = self._plain.encode_batch_fast([well_formed(text) for text in texts], add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def encode_words(self, texts: Sequence[str]) -> Iterator[list[int]]:
        """Yield the ids of each word of the texts.

        A word is a piece of text that the pre-tokenizer splits off. A token never contains parts of two words.

        Args:
            texts: The texts.
        """
        with _backend_errors():
            encodings = self._plain.encode_batch([well_formed(text) for text in texts], add_special_tokens=False)
        for encoding in encodings:
            numbered = zip(encoding.word_ids, encoding.ids, strict=True)
            for _, word in itertools.groupby(numbered, key=lambda pair: pair[0]):
                yield [token_id for _, token_id in word]

    @property
    def vocabulary(self) -> Mapping[str, int]:
        """A dictionary from each token to its id, including added tokens.

        Tokens are written as in `tokenizer.json`. Byte-level tokens are written in the byte alphabet of GPT-2.
        """
        return self._vocabulary

    def encode_prompt(self, text: str) -> list[int]:
        """Return the ids of a prompt. BOS is added if the model expects BOS or if the prompt is empty.

        Args:
            text: The prompt.
        """
        return self.add_bos(self.encode(text))

    def add_bos(self, ids: Sequence[int]) -> list[int]:
        """Return the ids with BOS at the start if the model expects BOS or if there are no ids.

        Args:
            ids: Ids of a text.
        """
        return [self.bos_id, *ids] if self.adds_bos or not ids else list(ids)

    @property
    def num_added_tokens(self) -> int:
        """The number of tokens that `build_inputs` adds to a text."""
        return sum(map(len, self.affixes))

    def build_inputs(self, ids: Sequence[int], max_length: int | None = None) -> list[int]:
        """Add the same tokens before and after a text as `tokenizer(text, truncation=True)` in transformers.

        Args:
            ids: Ids of the text.
            max_length: Maximum number of ids in the result. A text that is too long is truncated.

        Returns:
            The ids of the text and of the added tokens. If there are no ids, BOS is returned.
        """
        before, after = self.affixes
        available = len(ids) if max_length is None else max(0, max_length - self.num_added_tokens)
        return [*before, *ids[:available], *after][:max_length] or [self.bos_id]

    def encode_with_control_tokens(self, pieces: Sequence[str]) -> tuple[list[int], NDArray[np.int64]]:
        """Encode a text that contains control tokens.

        Args:
            pieces: The text, split at its control tokens. The pieces with an even index are text. The pieces with an
                odd index are names of control tokens.

        Returns:
            The ids, and the start and end offset of each token in the joined pieces. The offsets count characters and
            have shape (number of tokens, 2).
        """
        encoded = [self._replacement_of[piece] if n % 2 else well_formed(piece) for n, piece in enumerate(pieces)]
        encoding = self._plain.encode("".join(encoded), add_special_tokens=False)
        # Convert offsets in the text with replacement names to offsets in the text with the real names.
        real, replaced = (np.array([0, *map(len, texts)]) for texts in (pieces, encoded))
        offsets_N2 = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
        starts = replaced.cumsum()
        piece_N2 = np.searchsorted(starts[:-1], offsets_N2, side="right") - 1
        inside_N2 = np.minimum(offsets_N2 - starts[piece_N2], real[1:][piece_N2])
        return encoding.ids, real.cumsum()[piece_N2] + inside_N2

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Return the text of the ids. Invalid UTF-8, such as an incomplete character, is replaced by U+FFFD.

        Args:
            ids: The ids.
            skip_special_tokens: Whether to omit special tokens from the text.

        Raises:
            DataError: An id is not in the vocabulary.
        """
        skipped = self.special_ids if skip_special_tokens else ()
        text = b"".join(self.token_bytes(i) for i in ids if i not in skipped)
        return (text[1:] if self.strips_leading_space and text[:1] == b" " else text).decode("utf-8", errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes of a token.

        For a special token, the result is its name. For an id that is not used, the result is empty.

        Args:
            token_id: The id of the token.

        Raises:
            DataError: The id is not in the vocabulary.
        """
        found = self._bytes_of.get(token_id)
        if found is None and not 0 <= token_id < self.vocab_size:
            raise DataError(
                f"token id {token_id}",
                rule=f"the vocabulary has the ids 0 to {self.vocab_size - 1:,}",
                fix="Use the tokenizer that the model was trained with.",
            )
        return found or b""

    @property
    def byte_level(self) -> bool:
        """Whether the vocabulary is byte-level, and no space is added before a text."""
        return self._decoding.byte_level and without_prefix_space(self.definition) == self.definition

    @property
    def strips_leading_space(self) -> bool:
        """Whether decoding removes a leading space, as in SentencePiece."""
        return self._decoding.strips_leading_space

    @cached_property
    def text_tokens(self) -> dict[int, bytes]:
        """A dictionary from the id of each token that can occur in encoded text to its bytes."""
        excluded = set(self.control_tokens.values())
        return {token_id: text for token_id, text in self._bytes_of.items() if token_id not in excluded}

    @cached_property
    def min_vocab_size(self) -> int:
        """The minimum number of token embeddings that a model needs for text.

        This number can be smaller than `vocab_size`, because special tokens of other modalities may have larger ids.
        """
        return 1 + max(*self.text_tokens, self.bos_id, self.eos_id)

    @cached_property
    def longest_token(self) -> int:
        """The length in bytes of the longest token that can occur in encoded text."""
        return max(map(len, self.text_tokens.values()))

    def token_id(self, token: str) -> int | None:
        """Return the id of a control token such as `<|im_end|>`, or None if the token does not exist."""
        return self.control_tokens.get(token)

    @cached_property
    def _continuing_backend(self) -> tokenizers.Tokenizer:
        if without_prefix_space(self.definition) == self.definition:
            return self._plain
        return build(
            without_prefix_space(with_protected_tokens(self.definition, self.control_tokens)[0]), TOKENIZER_FILE
        )

    @cached_property
    def _bytes_of(self) -> dict[int, bytes]:
        added = {token["content"] for token in self.definition["added_tokens"]}
        return {
            number: name.encode()
            if name in self.control_tokens
            else (self._decoding.text_of(name).encode() if name in added else self._decoding.bytes_of(name))
            for name, number in self._vocabulary.items()
        }

    @cached_property
    def _templates(self) -> str:
        """The concatenated text of all chat templates, including templates that cannot be used."""
        template = self._source.files.get(TEMPLATE_FILE, b"").decode("utf-8", errors="replace")
        return f"{self.config.get('chat_template')}{template}"

    @property
    def _changed(self) -> set[str]:
        before = self._source.config
        return {key for key in self.config if self.config[key] != before.get(key)}

    def _is_word(self, name: str) -> bool:
        """Return whether an added token that is not special is ordinary text (see the docstring of the class)."""
        if not self._decoding.text_of(name).strip():
            return True
        if self._decoding.byte_level or name in self._templates:  # A token that a chat template uses is not text.
            return False
        entries = self.definition["model"]["vocab"]
        return name in entries if isinstance(entries, dict) else any(name == piece for piece, _ in entries)

    def _name_special_tokens(self) -> None:
        ids = {role: [i for i in given if i < self.vocab_size] for role, given in self._source.ids.items()}
        bos, eos, pad = (self._named(f"{kind}_token") for kind in ("bos", "eos", "pad"))
        stops = ids.get("eos", ())
        if eos is None:
            eos = next(iter(stops), bos)
        named = bos if bos is not None else next(iter(ids.get("bos", ())), None)
        around = read_affixes(self.definition)
        begins = bool(self.config.get("add_bos_token")) and bos is not None if around is None else named in around[0]
        # Models that do not start texts with BOS usually separate documents with <|endoftext|>, like GPT-2. The BOS of
        # a chat model is often the start-of-turn token, which is not a good start of a document. For example, the loss
        # of SmolLM2-135M-Instruct on 384 tokens of prose is 3.50 nats per token after <|endoftext|>, and 3.72 after
        # BOS.
        between = None if begins else self._vocabulary.get(END_OF_TEXT)
        bos = next((i for i in (between, named) if i is not None), eos)
        self.adds_bos = begins if around is None else bos in around[0]
        if eos is None or bos is None:
            raise FormatError(
                f"{CONFIG_FILE}: no eos_token and no bos_token",
                rule="a tokenizer needs a BOS or EOS token to start documents",
                fix='Add a token to the file, for example "eos_token": "<|endoftext|>".',
            )
        self.bos_id, self.eos_id = bos, eos
        self.affixes: tuple[tuple[int, ...], tuple[int, ...]] = around or ((bos,) if begins else (), ())
        self.stop_ids: tuple[int, ...] = tuple(stops) or (eos,)
        padding = next(iter(ids.get("pad", ())), eos)
        self.pad_id: int = pad if pad is not None else padding

    def _named(self, key: str) -> int | None:
        """Return the id of a special token in the config, such as "eos_token", or None if the config has no such token.

        In older files, the token is an object with its text in the field "content".
        """
        token = self.config[key] if key in self.config else self._source.names.get(key)
        content = token.get("content") if isinstance(token, Mapping) else token
        if content is None:
            return None
        found = self._vocabulary.get(content) if isinstance(content, str) else None
        if found is None:
            raise FormatError(
                f"{CONFIG_FILE}: {key} = {str(content)[:80]!r}",
                rule=f"the token is not in {TOKENIZER_FILE}",
                fix="The files are from different tokenizers. Copy both files again from their source.",
            )
        return found


@contextmanager
def _backend_errors() -> Iterator[None]:
    """Convert panics of the tokenizers library to `FormatError`.

    The library panics if a split pattern exceeds the backtracking limit of its regex engine.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise FormatError(
            f"{TOKENIZER_FILE}: {error}",
            rule="a split pattern fails on this text",
            fix="The file is damaged or malicious. Copy the file again from its source.",
        ) from None
