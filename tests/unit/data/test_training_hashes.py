"""Training texts are recognized by their hashes, but cannot be reconstructed from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from groundup.core.errors import FormatError
from groundup.data.training_hashes import HASHES_FILE, save_training_hashes, text_hash, training_hashes


def test_texts_are_recognized_ignoring_case_and_white_space(tmp_path: Path) -> None:
    path = save_training_hashes(tmp_path, ["Where is  my parcel?", "Straße", "Straße"])
    assert path.stat().st_size == 16
    known = training_hashes(tmp_path)
    assert all(text_hash(text) in known for text in ("where is my PARCEL? ", "STRASSE"))
    assert text_hash("Where is my letter?") not in known
    assert b"parcel" not in path.read_bytes()


def test_hashes_of_earlier_training_are_kept(tmp_path: Path) -> None:
    save_training_hashes(tmp_path, ["one"])
    save_training_hashes(tmp_path, ["two"], training_hashes(tmp_path))
    assert {text_hash("one"), text_hash("two")} == training_hashes(tmp_path)


def test_a_model_without_a_record_and_a_damaged_record(tmp_path: Path) -> None:
    assert not training_hashes(tmp_path)
    (tmp_path / HASHES_FILE).write_bytes(b"1234567")
    with pytest.raises(FormatError, match="not a multiple of 8"):
        training_hashes(tmp_path)
