"""The tokenizer: text to ids and back, kept in the files that the ecosystem reads."""

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
    around_texts,
    build,
    continuing,
    decoding,
    guarded,
    vocabulary,
    with_around,
)
from groundup.tokenizer.source import CONFIG_FILE, TEMPLATE_FILE, TOKENIZER_FILE, TokenizerSource, read_source
from groundup.tokenizer.vocabulary import END_OF_TEXT


class Tokenizer:
    """A vocabulary: ours, byte-level BPE (Sennrich et al. 2016; bytes as in GPT-2, Radford et al. 2019), or that of
    another model (see `definition`).

    Text never becomes a special token: where a user types `<|im_start|>`, `encode` gives the ids of those twelve
    characters. Nor does it become a token that was added to a byte-level vocabulary without being called special
    (Qwen's `<think>`, DeepSeek's `<｜User｜>`), unless that is white space. SentencePiece's own additions (Gemma's
    `<h1>`) are words like others. transformers' plain call `tokenizer(text)` reads special tokens inside the text, and
    begins with BOS where `adds_bos`.

    Attributes:
        bos_id: the token that is put before every document, in training and scoring: BOS where the model begins texts
            with it; else `<|endoftext|>` where there is one, BOS, or EOS.
        adds_bos: whether the model expects it at the beginning of a prompt.
        around: what the plain call puts before a text and behind it: BOS or nothing, and nothing; see `framed`.
        eos_id: ends what a model writes; the same token as BOS in our own vocabularies.
        stop_ids: all tokens that end what the model writes (`eos_token_id` of `generation_config.json`, or EOS).
        pad_id: fills up batches; never in text.
        vocab_size: one more than the largest id.
        special_ids: ids that no text has, and that are no text.
        markers: the names of all tokens that text never becomes, with their ids.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        config: Mapping[str, Any],
        source: TokenizerSource | None = None,
    ) -> None:
        """Wrap a tokenizer of Hugging Face's library.

        Args:
            backend: with its post-processor and decoder.
            config: the contents of `tokenizer_config.json`; names the BOS, EOS and PAD tokens.
            source: the files that it comes from.

        Raises:
            FormatError: a kind that is not known, or the config names tokens that the vocabulary lacks.
        """
        self._source = source or TokenizerSource()
        self.config = dict(config)
        # From the library and not from the file: older files leave things out, or write them otherwise.
        self.definition: dict[str, Any] = json.loads(backend.to_str())
        self._backend = backend
        self._decoding = decoding(self.definition)
        self._vocabulary = vocabulary(self.definition)
        self.vocab_size = max(self._vocabulary.values()) + 1
        self._name_special_tokens()
        added = {token["content"]: token for token in self.definition["added_tokens"]}
        special = {token["id"] for token in added.values() if token["special"]}
        self.special_ids = frozenset(special | {self.bos_id, self.eos_id, self.pad_id})
        self.markers = {
            name: number
            for name, number in self._vocabulary.items()
            if number in self.special_ids or (name in added and not self._is_word(name))
        }
        safe, self._secret_of = guarded(self.definition, self.markers)
        self._plain = build(safe, TOKENIZER_FILE)
        moved = [n for n, i in self.markers.items() if self._plain.token_to_id(self._secret_of[n]) != i]
        if moved:
            raise FormatError(
                f"{TOKENIZER_FILE}: {moved[0]!r} has the id {self.markers[moved[0]]}",
                rule="the ids of added tokens follow those of the vocabulary",
                fix="Copy the file again from where it came.",
            )

    @classmethod
    def load(cls, directory: Path) -> Tokenizer:
        """Read the tokenizer of a directory, ours or that of another model.

        Raises:
            DataError: a file is missing.
            FormatError: a file is damaged, or of a kind that is not known.
        """
        source = read_source(directory)
        text = source.files[TOKENIZER_FILE].decode("utf-8", errors="replace")
        return cls(build(text, str(directory / TOKENIZER_FILE)), source.config, source)

    def with_definition(self, definition: Mapping[str, Any]) -> Tokenizer:
        """Another vocabulary (the contents of a `tokenizer.json`) in this one's place: all else stays."""
        kept = {name: content for name, content in self._source.files.items() if name in (CONFIG_FILE, TEMPLATE_FILE)}
        source = replace(self._source, files=kept)
        return Tokenizer(build(dict(definition), TOKENIZER_FILE), self.config, source)

    def framed(self, before: str, behind: str) -> Tokenizer:
        """The same vocabulary, that puts these words around each text in the plain call: a question about it.

        They are in its files, so that transformers puts them there, too, and cuts a long text between them.
        """
        ids = (*self.around[0], *self.encode(before)), self.encode(behind, continues=True)
        return self.with_definition(with_around(self.definition, *ids))

    def save(self, directory: Path) -> list[Path]:
        """Write its files: those that it was loaded from, byte for byte, where nothing was changed; returns them.

        `transformers.AutoTokenizer` loads the directory with the same ids.
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
        with atomic_file(directory / TOKENIZER_FILE) as temporary:  # last: where it is, the tokenizer is whole
            temporary.write_bytes(content)
        return [directory / name for name in sorted({*self._source.files, CONFIG_FILE, TOKENIZER_FILE})]

    @property
    def text_ids(self) -> dict[str, int]:
        """The ids that begin, end and pad texts, by the names of their settings."""
        return {"bos_id": self.bos_id, "eos_id": self.eos_id, "pad_id": self.pad_id}

    @property
    def chat_template(self) -> str | None:
        """The Jinja text of the model's chat template; of several named ones, the default.

        Raises:
            FormatError: it is no text.
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
                rule="a chat template is a text, or a list of named texts",
                fix="Copy the file again from where it came.",
            )
        return found

    def set_chat_template(self, jinja: str) -> None:
        """Keep a template in the config; nothing changes where it is the model's own already."""
        if jinja != self.chat_template:
            self.config["chat_template"] = jinja

    def encode(self, text: str, *, continues: bool = False) -> list[int]:
        """The ids of a text, without BOS. A lone surrogate, which UTF-8 cannot hold, is read as U+FFFD.

        Args:
            continues: the text goes on from other text, so that no space is put before it (as SentencePiece does).
        """
        backend = self._continuing if continues else self._plain
        with _patterns_that_end():
            ids: list[int] = backend.encode(well_formed(text), add_special_tokens=False).ids
        return ids

    def encode_rendered(self, text: str) -> list[int]:
        """The ids of a rendered template as transformers reads it: names of special tokens in it are special tokens."""
        with _patterns_that_end():
            ids: list[int] = self._backend.encode(well_formed(text), add_special_tokens=False).ids
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` for many texts, on all cores. A corpus goes faster through `CorpusEncoder`."""
        with _patterns_that_end():
            encodings = self._plain.encode_batch_fast([well_formed(text) for text in texts], add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def encode_words(self, texts: Sequence[str]) -> Iterator[list[int]]:
        """The ids of each word of texts: of each piece that is encoded by itself, over whose ends no token reaches."""
        with _patterns_that_end():
            encodings = self._plain.encode_batch([well_formed(text) for text in texts], add_special_tokens=False)
        for encoding in encodings:
            numbered = zip(encoding.word_ids, encoding.ids, strict=True)
            for _, word in itertools.groupby(numbered, key=lambda pair: pair[0]):
                yield [token_id for _, token_id in word]

    @property
    def vocabulary(self) -> Mapping[str, int]:
        """Every token as the vocabulary writes it (of bytes: in GPT-2's alphabet), added tokens included; its id."""
        return self._vocabulary

    def encode_prompt(self, text: str) -> list[int]:
        """The ids of a text that a model goes on from: with BOS where the model expects it, and never none."""
        return self.begun(self.encode(text))

    def begun(self, ids: Sequence[int]) -> list[int]:
        """The ids of a text as those of a prompt: see `encode_prompt`."""
        return [self.bos_id, *ids] if self.adds_bos or not ids else list(ids)

    @property
    def added(self) -> int:
        """How many tokens the plain call adds to a text."""
        return sum(map(len, self.around))

    def whole(self, ids: Sequence[int], longest: int | None = None) -> list[int]:
        """The ids of a text as the plain call gives them, cut to `longest` as by `truncation=True`; never none."""
        before, behind = self.around
        room = len(ids) if longest is None else max(0, longest - self.added)
        return [*before, *ids[:room], *behind][:longest] or [self.bos_id]

    def encode_marked(self, pieces: Sequence[str]) -> tuple[list[int], NDArray[np.int64]]:
        """The ids of text with special tokens in it.

        Args:
            pieces: text, and at every odd place the name of one of the `markers`.

        Returns:
            The ids, and for each the part of the text that it stands for, (N, 2): the places of its first character and
            of the one after its last, in the pieces joined.
        """
        written = [self._secret_of[piece] if n % 2 else well_formed(piece) for n, piece in enumerate(pieces)]
        encoding = self._plain.encode("".join(written), add_special_tokens=False)
        # Places in the text with the secret names to places in the text with the real ones.
        real, secret = (np.array([0, *map(len, texts)]) for texts in (pieces, written))
        offsets_N2 = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
        begins = secret.cumsum()
        piece_N2 = np.searchsorted(begins[:-1], offsets_N2, side="right") - 1
        inside_N2 = np.minimum(offsets_N2 - begins[piece_N2], real[1:][piece_N2])
        return encoding.ids, real.cumsum()[piece_N2] + inside_N2

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of ids. Bytes that are not UTF-8 (a cut-off character) become U+FFFD.

        Raises:
            DataError: an id that the vocabulary does not have.
        """
        skipped = self.special_ids if skip_special_tokens else ()
        text = b"".join(self.token_bytes(i) for i in ids if i not in skipped)
        return (text[1:] if self.drops_space and text[:1] == b" " else text).decode("utf-8", errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that one id stands for; of a special token, its name; of an unused id, none.

        Raises:
            DataError: an id that the vocabulary does not have.
        """
        found = self._bytes_of.get(token_id)
        if found is None and not 0 <= token_id < self.vocab_size:
            raise DataError(
                f"token id {token_id}",
                rule=f"this vocabulary has the ids 0 to {self.vocab_size - 1:,}",
                fix="Use the tokenizer that the model was trained with.",
            )
        return found or b""

    @property
    def byte_level(self) -> bool:
        """Whether its tokens are bytes, and nothing is put before a text."""
        return self._decoding.byte_level and continuing(self.definition) == self.definition

    @property
    def drops_space(self) -> bool:
        """Whether a space at the beginning of a decoded text is not part of it (SentencePiece)."""
        return self._decoding.drops_space

    @cached_property
    def text_tokens(self) -> dict[int, bytes]:
        """The bytes of every token that text can have."""
        taken = set(self.markers.values())
        return {token_id: text for token_id, text in self._bytes_of.items() if token_id not in taken}

    @cached_property
    def min_vocab_size(self) -> int:
        """Rows that an embedding needs for all text: special tokens of other media may lie beyond them."""
        return 1 + max(*self.text_tokens, self.bos_id, self.eos_id)

    @cached_property
    def longest_token(self) -> int:
        """Bytes of the longest token that text can have."""
        return max(map(len, self.text_tokens.values()))

    def token_id(self, token: str) -> int | None:
        """The id of a special token by its name, e.g. `<|im_end|>`; None where there is no such token."""
        return self.markers.get(token)

    @cached_property
    def _continuing(self) -> tokenizers.Tokenizer:
        if continuing(self.definition) == self.definition:
            return self._plain
        return build(continuing(guarded(self.definition, self.markers)[0]), TOKENIZER_FILE)

    @cached_property
    def _bytes_of(self) -> dict[int, bytes]:
        added = {token["content"] for token in self.definition["added_tokens"]}
        return {
            number: name.encode()
            if name in self.markers
            else (self._decoding.text_of(name).encode() if name in added else self._decoding.bytes_of(name))
            for name, number in self._vocabulary.items()
        }

    @cached_property
    def _templates(self) -> str:
        """All that is written in chat templates, whether they can be used or not."""
        kept = self._source.files.get(TEMPLATE_FILE, b"").decode("utf-8", errors="replace")
        return f"{self.config.get('chat_template')}{kept}"

    @property
    def _changed(self) -> set[str]:
        before = self._source.config
        return {key for key in self.config if self.config[key] != before.get(key)}

    def _is_word(self, name: str) -> bool:
        """Whether an added token that is not special is text like other: see the class."""
        if not self._decoding.text_of(name).strip():
            return True
        if self._decoding.byte_level or name in self._templates:  # what stands between turns, whatever it is called
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
        around = around_texts(self.definition)
        begins = bool(self.config.get("add_bos_token")) and bos is not None if around is None else named in around[0]
        # Who does not begin texts with BOS nearly always has kept the token that stood between GPT-2's documents. Chat
        # models often call the beginning of a turn BOS: SmolLM2-135M-Instruct predicts 384 tokens of prose with 3.50
        # nats each after <|endoftext|>, with 3.72 after its "BOS".
        between = None if begins else self._vocabulary.get(END_OF_TEXT)
        bos = next((i for i in (between, named) if i is not None), eos)
        self.adds_bos = begins if around is None else bos in around[0]
        if eos is None or bos is None:
            raise FormatError(
                f"{CONFIG_FILE}: no eos_token and no bos_token",
                rule="a document needs a token that begins it",
                fix='Name one, e.g. "eos_token": "<|endoftext|>".',
            )
        self.bos_id, self.eos_id = bos, eos
        self.around: tuple[tuple[int, ...], tuple[int, ...]] = around or ((bos,) if begins else (), ())
        self.stop_ids: tuple[int, ...] = tuple(stops) or (eos,)
        padding = next(iter(ids.get("pad", ())), eos)
        self.pad_id: int = pad if pad is not None else padding

    def _named(self, key: str) -> int | None:
        """The id of a token that the config names; older files hold the whole token."""
        token = self.config[key] if key in self.config else self._source.names.get(key)
        content = token.get("content") if isinstance(token, Mapping) else token
        if content is None:
            return None
        found = self._vocabulary.get(content) if isinstance(content, str) else None
        if found is None:
            raise FormatError(
                f"{CONFIG_FILE}: {key} = {str(content)[:80]!r}",
                rule=f"the token must be in {TOKENIZER_FILE}",
                fix="Copy both files again from where they came: they do not belong together.",
            )
        return found


@contextmanager
def _patterns_that_end() -> Iterator[None]:
    """A pattern of a foreign tokenizer may try without end; the library gives up, and panics, which is no Exception."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise FormatError(
            f"{TOKENIZER_FILE}: {error}",
            rule="its patterns must find their way through every text",
            fix="The file is damaged or made to do harm: get it from where the model came from.",
        ) from None
