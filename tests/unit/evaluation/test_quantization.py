"""Quality of quantized weights: the figures match their definitions, and are measured with the runner of the engine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from family_shapes import small
from groundup.evaluation.quantization import (
    WINDOW_TOKENS,
    Windows,
    compare_quality,
    quality_note,
    quality_row,
    runner_logits,
    stored_quality,
    text_windows,
)
from groundup.hub.loading import OpenedModel
from groundup.inference.runner import NativeRunner, TorchRunner
from groundup.kernels.native_library import native_library
from groundup.kernels.weight_packing import WeightFormat
from groundup.model import Transformer
from groundup.tokenizer import Tokenizer


@pytest.fixture
def opened(tokenizer: Tokenizer, tmp_path: Path) -> OpenedModel:
    torch.manual_seed(0)
    config = small("qwen3", vocab_size=tokenizer.vocab_size, context_length=512, n_layers=2)
    return OpenedModel(tmp_path, Transformer(config).eval(), tokenizer, tokenizer.stop_ids)


def test_figures_are_those_of_their_definitions() -> None:
    torch.manual_seed(1)
    reference_TV, other_TV = torch.randn(2, 300, 50)
    ids = torch.randint(50, (301,))

    def part(logits_TV: Tensor) -> object:
        return lambda given: logits_TV[: len(given)]

    windows = Windows((tuple(ids.tolist()),), 1000, "numbers")
    (found,) = compare_quality(("a", part(reference_TV)), {"b": part(other_TV)}, windows)  # type: ignore[arg-type,dict-item]
    p_TV, q_TV = reference_TV.double().log_softmax(-1), other_TV.double().log_softmax(-1)
    assert found.tokens == 300
    assert found.bpb == pytest.approx(float(F.nll_loss(q_TV, ids[1:], reduction="sum")) / math.log(2) / 1000)
    assert found.reference_bpb == pytest.approx(float(F.nll_loss(p_TV, ids[1:], reduction="sum")) / math.log(2) / 1000)
    assert found.kl == pytest.approx(float(F.kl_div(q_TV, p_TV, log_target=True, reduction="batchmean")), rel=1e-4)
    assert found.agreed == int((p_TV.argmax(-1) == q_TV.argmax(-1)).sum())
    assert quality_row(found)[:3] == ("b", "a", "300")


def test_windows_cover_the_text_once_from_bos(opened: OpenedModel, real_documents: list[str]) -> None:
    found = text_windows(real_documents, opened, max_tokens=1200, source="documents")
    bos = opened.tokenizer.bos_id
    assert [ids[0] for ids in found.ids] == [bos] * 3
    assert max(map(len, found.ids)) == WINDOW_TOKENS
    assert found.tokens == 1200
    text = opened.tokenizer.decode([token for ids in found.ids for token in ids[1:]])
    assert "\n\n".join(real_documents).startswith(text)
    assert found.bytes == len(text.encode())


@pytest.mark.skipif(native_library() is None, reason="no C++ kernels on this machine")
def test_the_logits_are_those_that_generate_text(opened: OpenedModel, real_documents: list[str]) -> None:
    exact = runner_logits(TorchRunner(opened.model))
    windows = text_windows(real_documents, opened, max_tokens=300, source="documents")
    ids: Sequence[int] = windows.ids[0]
    with torch.inference_mode():
        assert torch.allclose(exact(ids), opened.model(torch.tensor([ids]))[0], atol=1e-4)
    others = {weights: runner_logits(NativeRunner(opened.model, weights)) for weights in ("bfloat16", "int8", "int4")}
    half, eight, four = compare_quality(("float32", exact), others, windows)  # type: ignore[arg-type]
    assert 0 < half.kl < 1e-3
    assert 0 < eight.kl < four.kl < 0.1
    assert abs(half.bpb / half.reference_bpb - 1) < 1e-3


@pytest.mark.skipif(native_library() is None, reason="no C++ kernels on this machine")
def test_the_note_is_measured_once_per_model_and_format(
    opened: OpenedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (opened.directory / "weights").write_text("1")

    def noted(weights: WeightFormat) -> str:
        return quality_note(opened, NativeRunner(opened.model, weights))

    assert stored_quality(opened.directory, "int8").startswith("To measure the quality of int8 weights: groundup bench")
    first = noted("int8")
    assert "bits per byte" in first
    assert first == stored_quality(opened.directory, "int8")
    assert "--quality --dtype int8" in first
    monkeypatch.setattr("groundup.evaluation.quantization.TorchRunner", None)  # measuring again would fail
    assert noted("int8") == first
    (opened.directory / "weights").write_text("changed")
    with pytest.raises(TypeError):
        noted("int8")
