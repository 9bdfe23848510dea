"""What a model was trained on is known again, and nothing of it can be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from groundup.core.errors import FormatError
from groundup.data.learned import LEARNED_FILE, learned_by, learned_hash, save_learned


def test_texts_are_known_again_in_other_letters_and_spaces(tmp_path: Path) -> None:
    path = save_learned(tmp_path, ["Where is  my parcel?", "Straße", "Straße"])
    assert path.stat().st_size == 16
    known = learned_by(tmp_path)
    assert all(learned_hash(text) in known for text in ("where is my PARCEL? ", "STRASSE"))
    assert learned_hash("Where is my letter?") not in known
    assert b"parcel" not in path.read_bytes()


def test_what_was_learned_before_stays_learned(tmp_path: Path) -> None:
    save_learned(tmp_path, ["one"])
    save_learned(tmp_path, ["two"], learned_by(tmp_path))
    assert {learned_hash("one"), learned_hash("two")} == learned_by(tmp_path)


def test_a_model_without_a_record_and_a_damaged_one(tmp_path: Path) -> None:
    assert not learned_by(tmp_path)
    (tmp_path / LEARNED_FILE).write_bytes(b"1234567")
    with pytest.raises(FormatError, match="8 bytes each"):
        learned_by(tmp_path)
