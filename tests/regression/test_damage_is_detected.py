"""Damaged files are detected.

In an earlier release, a model with a flipped bit generated text, and a run with a damaged checkpoint continued with
wrong weights.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from groundup.commands import model_verify
from groundup.core import checksums
from groundup.core.artifact import begin, read, read_intact
from groundup.core.checksums import damaged_files, digests_of, read_checked_json, write_checked_json
from groundup.core.errors import FormatError
from groundup.data import TokenShards, write_shards
from groundup.hub import TrainingState, load_newest_state, save_model, save_state
from groundup.hub.integrity import verify
from groundup.hub.loading import open_model
from groundup.hub.resolve import model_identity
from groundup.tokenizer import Tokenizer
from groundup.train import logs_in, require_logs


def flip(path: Path, at: int | None = None) -> None:
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if at is None else at] ^= 4
    path.write_bytes(content)


@pytest.fixture
def base(tmp_path: Path, tiny_model, tokenizer: Tokenizer) -> Path:  # type: ignore[no-untyped-def]
    """Return the directory of a model as a stage writes it."""
    work = begin(tmp_path / "base", "pretrain", {}, {})
    files = save_model(work.directory, tiny_model(tokenizer.vocab_size), bos_id=0, eos_id=0)
    (work.directory / "metrics.jsonl").write_text('{"loss": 1.5}\n')
    work.finish({"parameters": 1}, files + tokenizer.save(work.directory))
    return tmp_path / "base"


@pytest.mark.parametrize(
    "name", ["model.safetensors", "tokenizer.json", "generation_config.json", "metrics.jsonl", "artifact.json"]
)
def test_one_flipped_bit_of_a_model_is_named(base: Path, name: str) -> None:
    open_model(base)
    place = (base / name).read_bytes().index(b"1") if name == "artifact.json" else None
    flip(base / name, place)
    for reading in (open_model, model_identity, read_intact):
        with pytest.raises(FormatError, match=name.replace(".", r"\.")):
            reading(base)
    said: list[str] = []
    with pytest.raises(FormatError):
        model_verify.run(model_verify.ModelVerifyConfig(model=base.parent), on_text=said.append)
    assert name in "".join(said)


def test_a_change_by_the_user_can_be_accepted(base: Path) -> None:
    record = json.loads((base / "generation_config.json").read_text())
    (base / "generation_config.json").write_text(json.dumps(record | {"temperature": 0.5}))
    with pytest.raises(FormatError, match=r"model verify .* --accept"):
        open_model(base)
    model_verify.run(model_verify.ModelVerifyConfig(model=base, accept=True))
    open_model(base)
    assert [each.damaged for each in verify(base)] == [{}]


def test_a_model_from_elsewhere_has_no_checksums_and_finite_weights(base: Path) -> None:
    (base / "artifact.json").unlink()
    open_model(base)
    assert "no checksums" in verify(base)[0].note
    content = bytearray((base / "model.safetensors").read_bytes())
    content[-4:] = np.float32("nan").tobytes()
    (base / "model.safetensors").write_bytes(content)
    assert "not finite" in str(verify(base)[0].damaged)


def test_a_finished_stage_that_is_damaged_is_not_done(base: Path) -> None:
    flip(base / "model.safetensors")
    with pytest.raises(FormatError, match=r"model\.safetensors"):
        begin(base, "pretrain", {}, {})


def test_a_verified_file_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checksums, "_MIN_AGE_NS", -1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "weights"
    file.write_bytes(b"1" * 1000)
    digest = digests_of([file])[file]
    read_files: list[Path] = []
    hashed = checksums.file_digest
    monkeypatch.setattr(checksums, "file_digest", lambda path: read_files.append(path) or hashed(path))
    monkeypatch.setattr(checksums, "_known", {})  # simulates a new process
    monkeypatch.setattr(checksums, "_loaded", set())
    assert damaged_files(tmp_path, {"weights": digest}) == {}
    assert read_files == []
    file.write_bytes(b"2" * 1000)
    assert "weights" in damaged_files(tmp_path, {"weights": digest})


def test_a_file_that_was_just_written_is_not_remembered(tmp_path: Path) -> None:
    """If a file is written twice within the time resolution of the file system, both versions have the same time."""
    file = tmp_path / "weights"
    file.write_bytes(b"1")
    digest = digests_of([file])[file]
    assert str(file.resolve()) not in checksums._known
    assert damaged_files(tmp_path, {"weights": digest}) == {}


@pytest.mark.parametrize("value", [{"a": 1.5, "b": [True, None, "ü\ud800"]}, {"a": float("inf")}, {}])
def test_a_checked_record_comes_back(tmp_path: Path, value: dict[str, object]) -> None:
    write_checked_json(tmp_path / "r.json", value)
    assert read_checked_json(tmp_path / "r.json", fix="") == value
    (tmp_path / "r.json").write_text((tmp_path / "r.json").read_text().replace("}", ', "c": 1}'))
    with pytest.raises(FormatError):
        read_checked_json(tmp_path / "r.json", fix="")
    (tmp_path / "r.json").write_text(json.dumps(value))
    with pytest.raises(FormatError):
        read_checked_json(tmp_path / "r.json", fix="")


def state(step: int) -> TrainingState:
    return TrainingState(step, {"model": {"w": torch.full((4, 4), float(step))}}, {"plan": "p"})


@pytest.mark.parametrize("name", ["model.safetensors", "state.json"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path, name: str) -> None:
    save_state(tmp_path, state(1))
    flip(save_state(tmp_path, state(2)) / name)
    said: list[str] = []
    found = load_newest_state(tmp_path, warn=said.append)
    assert found is not None and found.step == 1
    assert torch.equal(found.groups["model"]["w"], torch.ones(4, 4))
    assert name in said[0] and "using step 1 instead" in said[0]
    flip(tmp_path / "step-00000001" / name)
    with pytest.raises(FormatError, match="no intact checkpoint"):
        load_newest_state(tmp_path)


def test_a_checkpoint_of_another_format_does_not_stop_the_verification(tmp_path: Path) -> None:
    """`model verify` raised an error at this checkpoint and did not verify the other files."""
    checkpoints = tmp_path / "run" / "checkpoints"
    for step in (1, 2):
        save_state(checkpoints, state(step))
    record = checkpoints / "step-00000001" / "state.json"
    write_checked_json(record, json.loads(record.read_text()) | {"format_version": 99})
    said: list[str] = []
    with pytest.raises(FormatError, match="another format"):
        model_verify.run(model_verify.ModelVerifyConfig(model=tmp_path / "run"), on_text=said.append)
    other, intact = said
    assert other.startswith("DAMAGED") and "format_version 99: this release of groundup reads" in other
    assert intact.startswith("intact") and "step-00000002" in intact


def test_a_rollback_does_not_use_a_state_of_a_later_step(tmp_path: Path) -> None:
    """If a run resumes from an earlier checkpoint, a saved state of a later step may exist. It must not be used."""
    for step in (5, 9):
        save_state(tmp_path, state(step))
    found = load_newest_state(tmp_path, at_most=8)
    assert found is not None and found.step == 5
    assert load_newest_state(tmp_path, at_most=4) is None


def test_an_id_beyond_the_vocabulary_is_named_with_its_place(tmp_path: Path) -> None:
    """In an earlier release, training with 64 damaged bytes ran to its end, and the error blamed the learning rate."""
    texts = {"train": ["a b c", "d e"], "validation": ["f"]}
    write_shards(tmp_path, texts, lambda some: [np.arange(9, dtype=np.uint32) for _ in some], vocab_size=64, bos_id=0)  # type: ignore[arg-type]
    path = tmp_path / "train-00000.tokens.npy"
    content = bytearray(path.read_bytes())
    content[-6:-4] = (65_000).to_bytes(2, "little")
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"train-00000\.tokens\.npy: id 65,000 at position 15,"):
        TokenShards(tmp_path, "train").require_known_ids()


def test_files_that_an_interrupted_stage_kept_are_made_again_when_damaged(tmp_path: Path) -> None:
    """In an earlier release, a resumed `tokenize` used its finished shards and vocabulary without verifying them."""
    work = begin(tmp_path / "out", "tokenize", {}, {})
    for name in ("one", "two"):
        (work.directory / name).write_text(name)
    work.keep([work.directory / "one", work.directory / "two"])
    del work
    flip(tmp_path / "out" / "two", 0)
    again = begin(tmp_path / "out", "tokenize", {}, {})
    assert again.has(again.directory / "one") and not again.has(again.directory / "two")
    assert not (again.directory / "two").exists()


def test_damage_of_a_log_is_said_on_resume(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"loss": 1.5}\n')
    logs = logs_in(tmp_path)
    said: list[str] = []
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"loss": 1.4}\n')  # this line was written after the checkpoint
    require_logs(tmp_path, logs, said.append)
    assert said == []
    flip(tmp_path / "metrics.jsonl", 9)
    require_logs(tmp_path, logs, said.append)
    assert "metrics.jsonl" in said[0]


def test_the_record_of_a_finished_stage_counts_its_logs_as_no_part_of_its_identity(base: Path) -> None:
    made = read(base)
    assert list(made.logs) == ["metrics.jsonl"] and "metrics.jsonl" not in made.outputs
