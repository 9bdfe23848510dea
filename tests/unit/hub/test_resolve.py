"""MODEL on the command line: a directory or a run, and the error without a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from groundup.core.artifact import begin
from groundup.core.checksums import write_checked_json
from groundup.core.errors import DataError, ResourceError
from groundup.hub import save_model
from groundup.hub.loading import open_model
from groundup.hub.resolve import resolve_model, stage_output
from groundup.model import Transformer
from groundup.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer, tiny_model: Callable[..., Transformer]) -> Transformer:
    return tiny_model(tokenizer.vocab_size)


def leave(directory: Path, stage: str, model: Transformer, *, finished_at: str) -> Path:
    """Write the output of a training stage with a finish time."""
    work = begin(directory, stage, {}, {})
    work.finish({}, save_model(directory, model, bos_id=0, eos_id=0))
    record = json.loads((directory / "artifact.json").read_text())
    write_checked_json(directory / "artifact.json", record | {"finished_at": finished_at})
    return directory


def test_a_model_directory_resolves_to_itself(tmp_path: Path, model: Transformer):
    """Including a model without artifact, which groundup did not write."""
    save_model(tmp_path / "theirs", model, bos_id=0, eos_id=0)
    assert resolve_model(tmp_path / "theirs") == tmp_path / "theirs"


def test_a_run_resolves_to_the_fine_tuned_model_before_a_newer_base(tmp_path: Path, model: Transformer):
    base = leave(tmp_path / "base", "pretrain", model, finished_at="2026-03-01T00:00:00+0000")
    assert resolve_model(tmp_path) == base
    old = leave(tmp_path / "first", "instruct", model, finished_at="2026-01-01T00:00:00+0000")
    assert resolve_model(tmp_path) == old
    new = leave(tmp_path / "second", "prefer", model, finished_at="2026-02-01T00:00:00+0100")
    assert resolve_model(tmp_path) == new


def test_time_zones_are_respected(tmp_path: Path, model: Transformer):
    """As strings, 01:00+0200 (23:00 UTC the day before) would be after 00:30+0000."""
    leave(tmp_path / "a", "instruct", model, finished_at="2026-01-02T01:00:00+0200")
    later = leave(tmp_path / "b", "instruct", model, finished_at="2026-01-02T00:30:00+0000")
    assert resolve_model(tmp_path) == later


def test_replaced_outputs_are_ignored(tmp_path: Path, model: Transformer):
    leave(tmp_path / "base.replaced-20260101-000000", "pretrain", model, finished_at="2026-09-01T00:00:00+0000")
    base = leave(tmp_path / "base", "pretrain", model, finished_at="2026-01-01T00:00:00+0000")
    assert resolve_model(tmp_path) == base


def test_a_classifier_is_no_language_model(tmp_path: Path, model: Transformer):
    """It also has weights and a config; as a language model it would fail far from the cause."""
    directory = leave(tmp_path / "classifier", "classify", model, finished_at="2026-01-01T00:00:00+0000")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"architectures": ["Qwen3ForSequenceClassification"]}))
    with pytest.raises(DataError, match="classifier"):
        resolve_model(tmp_path)


def test_the_error_lists_the_contents(tmp_path: Path):
    (tmp_path / "corpus").mkdir()
    with pytest.raises(DataError, match="found: corpus"):
        resolve_model(tmp_path)
    with pytest.raises(DataError, match=r"no such directory.*corpus"):
        resolve_model(tmp_path / "corpse")


def test_a_stage_is_found_from_the_run_and_its_outputs(tmp_path: Path, model: Transformer):
    """`groundup evaluate runs/x` and `runs/x/base` must score the same text."""
    tokens = leave(tmp_path / "tokens", "tokenize", model, finished_at="2026-01-01T00:00:00+0000")
    base = leave(tmp_path / "base", "pretrain", model, finished_at="2026-01-02T00:00:00+0000")
    assert stage_output(tmp_path, "tokenize") == tokens
    assert stage_output(base, "tokenize") == tokens.resolve()
    assert stage_output(tmp_path, "collect") is None


@pytest.mark.parametrize(("named", "expected"), [(0, (0,)), ([0, 3], (0, 3)), (None, None)])
def test_stop_tokens_come_from_the_generation_config(
    tmp_path: Path, model: Transformer, tokenizer: Tokenizer, named: object, expected: tuple[int, ...] | None
):
    """A chat model ends its turns with <|im_end|>; with EOS as the only stop token, it never stops."""
    save_model(tmp_path, model, bos_id=0, eos_id=0)
    tokenizer.save(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": named}))
    opened = open_model(tmp_path)
    assert opened.stop_ids == (expected or (tokenizer.eos_id,))
    assert opened.model.config == model.config


def test_a_model_is_opened_on_a_usable_device_only(tmp_path: Path, model: Transformer, tokenizer: Tokenizer):
    save_model(tmp_path, model, bos_id=0, eos_id=0)
    tokenizer.save(tmp_path)
    assert open_model(tmp_path, device="cpu").directory == tmp_path
    with pytest.raises(ResourceError):
        open_model(tmp_path, device="gpu")
