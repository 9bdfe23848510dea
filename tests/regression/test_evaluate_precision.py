"""`evaluate` uses bfloat16 if it is faster and gives the same bits per byte. An earlier release used float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from groundup.commands.evaluate import EvaluateConfig, run
from groundup.core.artifact import Artifact
from groundup.evaluation import precision
from groundup.evaluation.bpb import encode_texts
from groundup.evaluation.precision import MAX_DIFFERENCE, choose_precision
from groundup.hub import save_model
from groundup.model import Transformer
from groundup.tokenizer import Tokenizer


@pytest.fixture(autouse=True)
def _fast_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make bfloat16 the faster dtype on every machine, so that the results do not depend on the machine."""
    monkeypatch.setattr(precision, "fastest_dtype", lambda device: ("bfloat16", 1e12))


def made(path: Path, model: Transformer, tokenizer: Tokenizer) -> Path:
    save_model(path, model, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id)
    tokenizer.save(path)
    return path


@pytest.fixture(scope="module")
def text(real_documents: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "topics.txt"
    path.write_text("\n\n".join(real_documents)[:110_000], encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def alike(
    tokenizer: Tokenizer, tiny_model: Callable[..., Transformer], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return made(tmp_path_factory.mktemp("models") / "alike", tiny_model(tokenizer.vocab_size), tokenizer)


def evaluated(model: Path, data: Path, out: Path, **settings: object) -> Artifact:
    return run(EvaluateConfig(model=model, data=data, samples=0, out=out, **settings))


def test_the_faster_dtype_is_used_where_the_score_agrees(
    alike: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fast = evaluated(alike, text, tmp_path / "fast").facts
    assert fast["dtype"] == "bfloat16"
    assert abs(fast["bfloat16_difference"]) <= MAX_DIFFERENCE
    assert fast["checked_tokens"] > 3000
    assert "Scored in bfloat16" in capsys.readouterr().err
    full = evaluated(alike, text, tmp_path / "full", dtype="float32").facts
    assert full["dtype"] == "float32"
    assert fast["bpb"] != full["bpb"]
    assert fast["bpb"] == pytest.approx(full["bpb"], rel=MAX_DIFFERENCE)


def test_full_precision_is_kept_where_the_score_differs(
    tokenizer: Tokenizer,
    tiny_model: Callable[..., Transformer],
    text: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The logits are about 200. At this size, bfloat16 can represent only whole numbers."""
    model = tiny_model(tokenizer.vocab_size)
    model.model.embed_tokens.weight.add_(10)
    model.lm_head.weight.mul_(10).add_(200 / model.config.dim)
    directory = made(tmp_path / "steep", model, tokenizer)
    by_default = evaluated(directory, text, tmp_path / "default").facts
    assert abs(by_default["bfloat16_difference"]) > MAX_DIFFERENCE
    assert by_default["dtype"] == "float32"
    assert "Scored in float32, although bfloat16 is faster here" in capsys.readouterr().err
    assert by_default["bpb"] == evaluated(directory, text, tmp_path / "full", dtype="float32").facts["bpb"]


def test_small_texts_and_other_machines_stay_in_full_precision(
    tokenizer: Tokenizer,
    tiny_model: Callable[..., Transformer],
    real_documents: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_model(tokenizer.vocab_size)
    small, large = (encode_texts(real_documents[:count], tokenizer) for count in (1, 200))
    assert choose_precision(model, small, bos_id=tokenizer.bos_id).dtype == "float32"
    assert choose_precision(model, large, bos_id=tokenizer.bos_id).dtype == "bfloat16"
    assert choose_precision(model, small, bos_id=tokenizer.bos_id, chosen="bfloat16").dtype == "bfloat16"
    monkeypatch.setattr(precision, "fastest_dtype", lambda device: ("float32", 1e12))
    assert choose_precision(model, large, bos_id=tokenizer.bos_id).dtype == "float32"
    assert model.model.compute_dtype is None, "the evaluation must not change the model"
