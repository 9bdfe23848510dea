"""Token shards: written documents are read back, damaged files are rejected, finished shards are reused."""

from __future__ import annotations

import errno
import json
import pickle
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from groundup.core.errors import DataError, FormatError
from groundup.data import TokenShards, write_shards
from groundup.data.tokens.writing import save_array
from groundup.tokenizer import CorpusEncoder, Tokenizer


def test_every_document_is_read_back(tokenizer: Tokenizer, texts: list[str], directory: Path) -> None:
    shards = TokenShards(directory, "train")
    assert len(list(directory.glob("train-*.tokens.npy"))) > 2
    assert shards.n_documents == len(texts)
    for index, text in enumerate(texts):
        assert shards.document(index).tolist() == tokenizer.encode(text)
        assert shards.lengths[index] == len(tokenizer.encode(text))
        assert shards.byte_lengths[index] == len(text.encode())
    assert shards.n_tokens == sum(len(tokenizer.encode(text)) for text in texts)
    assert shards.n_bytes == sum(len(text.encode()) for text in texts)
    assert (shards.vocab_size, shards.bos_id) == (tokenizer.vocab_size, tokenizer.bos_id)
    shards.verify()


def test_gather_reads_across_shards(texts: list[str], directory: Path) -> None:
    """Positions in several files in any order; an off-by-one error at the end of a file would return another token."""
    shards = TokenShards(directory, "train")
    documents = np.repeat(np.arange(len(texts)), shards.lengths)
    offsets = np.concatenate([np.arange(length) for length in shards.lengths])
    expected = np.concatenate([shards.document(index) for index in range(len(texts))])
    order = np.random.default_rng(0).permutation(len(documents))
    assert np.array_equal(shards.gather(documents[order], offsets[order]), expected[order])


def test_numpy_reads_the_files(directory: Path, texts: list[str]) -> None:
    """The format is .npy, so other programs can read it."""
    tokens = np.load(directory / "train-00000.tokens.npy", allow_pickle=False)
    offsets = np.load(directory / "train-00000.offsets.npy", allow_pickle=False)
    byte_lengths = np.load(directory / "train-00000.bytes.npy", allow_pickle=False)
    assert (tokens.dtype, offsets.dtype, byte_lengths.dtype) == (np.uint16, np.int64, np.int64)
    assert len(offsets) == len(byte_lengths) + 1
    assert offsets[-1] == len(tokens)
    assert byte_lengths.tolist() == [len(text.encode()) for text in texts[: len(byte_lengths)]]


@pytest.mark.parametrize(("vocab_size", "dtype"), [(65_536, np.uint16), (65_600, np.uint32)])
def test_large_vocabularies_do_not_wrap_around(tmp_path: Path, vocab_size: int, dtype: type) -> None:
    """65,536 does not fit into uint16, and numpy casts silently."""
    ids = np.array([0, vocab_size - 1], dtype=np.uint32)
    write_shards(tmp_path, {"train": ["ab"]}, lambda _: [ids], vocab_size=vocab_size, bos_id=0)
    shards = TokenShards(tmp_path, "train")
    assert shards.document(0).tolist() == [0, vocab_size - 1]
    assert shards.document(0).dtype == dtype


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
def test_a_full_disk_raises_the_error_of_the_system() -> None:
    """numpy raises "377520 requested and 44992 written" without an errno."""
    with pytest.raises(OSError) as caught, Path("/dev/full").open("wb", buffering=0) as full:
        save_array(full, np.arange(100_000))
    assert caught.value.errno == errno.ENOSPC


def test_arrays_are_written_as_by_numpy(tmp_path: Path) -> None:
    for array in (np.arange(7, dtype=np.uint16), np.array([], dtype=np.int64), np.arange(20)[::3]):
        with (tmp_path / "ours.npy").open("wb") as file:
            save_array(file, array)
        np.save(tmp_path / "theirs.npy", array, allow_pickle=False)
        assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "theirs.npy").read_bytes()


class Counting:
    """A tokenizer that counts the texts that it encodes."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.encoder = CorpusEncoder(tokenizer, [])
        self.texts = 0

    def __call__(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        self.texts += len(texts)
        return self.encoder.encode(texts)


def test_an_interrupted_run_continues_with_the_next_shard(
    tokenizer: Tokenizer, texts: list[str], directory: Path, tmp_path: Path
) -> None:
    """If it is killed between two files of a shard or during a write, only that shard is encoded again."""
    shutil.copytree(directory, tmp_path / "tokens")
    tokens = tmp_path / "tokens"
    for lost in ("index.json", "train-00001.bytes.npy", "train-00002.offsets.npy"):
        (tokens / lost).unlink()
    encode = Counting(tokenizer)
    write_shards(
        tokens,
        {"train": texts, "validation": texts[5:9]},
        encode,
        vocab_size=1024,
        bos_id=0,
        shard_bytes=16_000,
    )
    redone = [len(np.load(directory / f"train-0000{n}.bytes.npy")) for n in (1, 2)]
    assert encode.texts == sum(redone)
    assert {p.name: p.read_bytes() for p in tokens.iterdir()} == {p.name: p.read_bytes() for p in directory.iterdir()}


def test_shards_of_other_texts_are_not_reused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    encode = Counting(tokenizer)
    for text in ("the first", "another text"):
        write_shards(tmp_path, {"train": [text]}, encode, vocab_size=1024, bos_id=0)
        assert tokenizer.decode(TokenShards(tmp_path, "train").document(0).tolist()) == text
    assert encode.texts == 2


def copy(directory: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(directory, tmp_path / "copy"))


def test_truncated_files_are_rejected_when_opened(directory: Path, tmp_path: Path) -> None:
    """After a full disk or an interrupted copy, training on the remaining tokens would not be noticed."""
    tokens = copy(directory, tmp_path)
    path = tokens / "train-00001.tokens.npy"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(FormatError, match=r"train-00001\.tokens\.npy"):
        TokenShards(tokens, "train")
    path.write_bytes(b"")
    with pytest.raises(FormatError, match="tokenize again"):
        TokenShards(tokens, "train")
    path.unlink()
    with pytest.raises(FormatError, match=r"train-00001\.tokens\.npy"):
        TokenShards(tokens, "train")


def test_a_changed_token_is_found_by_the_digest(directory: Path, tmp_path: Path) -> None:
    tokens = copy(directory, tmp_path)
    path = tokens / "train-00001.tokens.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    shards = TokenShards(tokens, "train")  # opening does not read all tokens
    with pytest.raises(FormatError, match="digest"):
        shards.verify()


def test_exchanged_files_are_rejected(directory: Path, tmp_path: Path) -> None:
    tokens = copy(directory, tmp_path)
    shutil.copy(tokens / "train-00000.offsets.npy", tokens / "train-00001.offsets.npy")
    with pytest.raises(FormatError, match="must match the index"):
        TokenShards(tokens, "train")


def test_decreasing_offsets_are_rejected(directory: Path, tmp_path: Path) -> None:
    """A document of negative length would shift all later tokens."""
    tokens = copy(directory, tmp_path)
    path = tokens / "train-00000.offsets.npy"
    offsets = np.load(path)
    offsets[[1, -2]] = offsets[[-2, 1]]
    np.save(path, offsets)
    with pytest.raises(FormatError, match="must match the index"):
        TokenShards(tokens, "train")


def test_a_shard_in_the_place_of_another_is_rejected(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Its three files match each other, but not the index."""
    encode = CorpusEncoder(tokenizer, []).encode
    texts = {"train": ["one", "a longer document"]}
    write_shards(tmp_path, texts, encode, vocab_size=1024, bos_id=0, shard_bytes=1)
    for part in ("tokens", "offsets", "bytes"):
        shutil.copy(tmp_path / f"train-00001.{part}.npy", tmp_path / f"train-00000.{part}.npy")
    with pytest.raises(FormatError, match="must match the index"):
        TokenShards(tmp_path, "train")


class Trap:
    """Runs code when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


def test_no_pickle_is_loaded(directory: Path, tmp_path: Path) -> None:
    """By default numpy could unpickle such a file, and untrusted shards would run code."""
    tokens = copy(directory, tmp_path)
    mark = tmp_path / "code-ran"
    path = tokens / "train-00000.tokens.npy"
    path.write_bytes(pickle.dumps(Trap(mark)))
    with pytest.raises(FormatError, match=r"train-00000\.tokens\.npy"):
        TokenShards(tokens, "train")
    np.save(path, np.array([Trap(mark)], dtype=object), allow_pickle=True)
    with pytest.raises(FormatError, match=r"train-00000\.tokens\.npy"):
        TokenShards(tokens, "train")
    assert not mark.exists()


def test_index_errors_name_the_file(directory: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"index\.json: no such file"):
        TokenShards(tmp_path, "train")
    tokens = copy(directory, tmp_path)
    index = json.loads((tokens / "index.json").read_text(encoding="utf-8"))
    for change, message in (
        ({"format_version": 2}, "format_version 2"),
        ({"shards": {}}, "incomplete"),
        ({"vocab_size": "many"}, "incomplete"),
        ({"shards": {"train": []}}, "no train documents"),
    ):
        (tokens / "index.json").write_text(json.dumps(index | change), encoding="utf-8")
        with pytest.raises((DataError, FormatError), match=message):
            TokenShards(tokens, "train")
    (tokens / "index.json").write_text("[1, 2", encoding="utf-8")
    with pytest.raises(FormatError, match=r"index\.json"):
        TokenShards(tokens, "train")
