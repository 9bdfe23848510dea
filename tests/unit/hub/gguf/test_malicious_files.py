"""Malicious files are rejected by name, before any allocation of the size that they claim."""

import resource
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter

from groundup.core.errors import FormatError
from groundup.hub.gguf import GgufFile

STRING, ARRAY, UINT32, UINT64 = 8, 9, 4, 10
F32, Q8_0 = 0, 8


def text(value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(value) if length is None else length) + value


def entry(key: bytes, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def tensor(name: bytes, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def file(*, entries: bytes = b"", n_entries: int = 0, tensors: bytes = b"", n_tensors: int = 0, data: int = 0) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", 3, n_tensors, n_entries) + entries + tensors
    return head + b"\0" * (-len(head) % 32 + data)


HUGE = struct.pack("<Q", 2**60)
HOSTILE = {
    "empty": (b"", "empty file"),
    "other": (b"PK\x03\x04" + b"\0" * 60, "begins with b'PK"),
    "short": (b"GGUF\x03\0\0", "bytes remain"),
    "version-1": (b"GGUF" + struct.pack("<III", 1, 0, 0), "GGUF version 1"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "entry-count": (file(n_entries=2**40), "1,099,511,627,776 metadata entries"),
    "tensor-count": (file(n_tensors=2**40), "1,099,511,627,776 tensors"),
    "key-length": (file(entries=text(b"", 2**60) + b"\0" * 8, n_entries=1), "1,152,921,504,606,846,976 bytes"),
    "text-length": (file(entries=entry(b"a", STRING, HUGE), n_entries=1), "1,152,921,504,606,846,976 bytes"),
    "text-wraps": (file(entries=entry(b"a", STRING, b"\xff" * 8), n_entries=1), "18,446,744,073,709,551,615 bytes"),
    "value-type": (file(entries=entry(b"a", 99, b"\0" * 8), n_entries=1), "value type 99"),
    "array-length": (file(entries=entry(b"a", ARRAY, struct.pack("<I", UINT32) + HUGE), n_entries=1), "the maximum is"),
    "array-of-empty-text": (
        file(entries=entry(b"a", ARRAY, struct.pack("<IQ", STRING, 2**24)), n_entries=1),
        "16,777,216 items",
    ),
    "nested-arrays": (
        file(entries=entry(b"a", ARRAY, struct.pack("<IQ", ARRAY, 1) * 50_000), n_entries=1),
        "an array of arrays",
    ),
    "same-key": (file(entries=entry(b"a", UINT32, b"\0" * 4) * 2, n_entries=2), "'a' occurs twice"),
    "not-utf-8": (file(entries=entry(b"a", STRING, text(b"\xff\xfe")), n_entries=1), "UTF-8"),
    "alignment": (
        file(entries=entry(b"general.alignment", UINT32, struct.pack("<I", 0)), n_entries=1),
        "general.alignment = 0",
    ),
    "dimensions": (file(tensors=text(b"t") + struct.pack("<I", 2**31), n_tensors=1, data=64), "2147483648 dimensions"),
    "product": (file(tensors=tensor(b"t", (2**32, 2**32), F32, 0), n_tensors=1, data=64), "less than 2^63"),
    "no-values": (file(tensors=tensor(b"t", (0, 4), F32, 0), n_tensors=1, data=64), "positive"),
    "beyond-the-end": (file(tensors=tensor(b"t", (32,), F32, 0), n_tensors=1, data=96), "the file has"),
    "offset": (file(tensors=tensor(b"t", (8,), F32, 2**63), n_tensors=1, data=64), "the file has"),
    "unaligned": (file(tensors=tensor(b"t", (8,), F32, 4), n_tensors=1, data=64), "at multiples of 32"),
    "ragged-block": (file(tensors=tensor(b"t", (33,), Q8_0, 0), n_tensors=1, data=96), "a multiple of 32"),
    "overlap": (
        file(tensors=tensor(b"a", (16,), F32, 0) + tensor(b"b", (8,), F32, 32), n_tensors=2, data=64),
        "'a' and 'b' overlap",
    ),
    "same-tensor": (file(tensors=tensor(b"a", (8,), F32, 0) * 2, n_tensors=2, data=64), "'a' occurs twice"),
    "unknown-type": (file(tensors=tensor(b"a", (8,), 777, 0), n_tensors=1, data=64), "'a' (type 777)"),
    "integers": (file(tensors=tensor(b"a", (8,), 26, 0), n_tensors=1, data=64), "'a' (I32)"),
    "part": (file(entries=entry(b"split.count", 2, struct.pack("<H", 3)), n_entries=1), "one of 3 parts"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_malicious_headers_are_rejected_quickly(tmp_path: Path, case: str) -> None:
    content, named = HOSTILE[case]
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    with pytest.raises(FormatError) as caught:
        GgufFile(path)
    assert time.perf_counter() - start < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB
    assert named in str(caught.value)
    assert str(path) in caught.value.value
    assert caught.value.fix


def test_truncated_files_are_rejected(tmp_path: Path) -> None:
    """A file truncated at any byte is an error, never a model with rows of zeros."""
    writer = GGUFWriter(tmp_path / "whole.gguf", "llama")
    writer.add_array("tokenizer.ggml.tokens", ["a", "ü", "<s>"])
    writer.add_tensor("output_norm.weight", np.ones(16, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    whole = (tmp_path / "whole.gguf").read_bytes()
    assert GgufFile(tmp_path / "whole.gguf").metadata["tokenizer.ggml.tokens"] == ["a", "ü", "<s>"]
    pre_tokenize = tmp_path / "cut.gguf"
    for length in range(len(whole)):
        pre_tokenize.write_bytes(whole[:length])
        with pytest.raises(FormatError):
            GgufFile(pre_tokenize)


def test_names_are_escaped_for_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(file(tensors=tensor(b"\x1b[2Ja", (8,), 777, 0), n_tensors=1, data=64))
    with pytest.raises(FormatError) as caught:
        GgufFile(path)
    assert "\x1b" not in str(caught.value)
