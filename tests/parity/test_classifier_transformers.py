"""groundup's classifiers in transformers and vice versa: equal logits, with any padding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from family_shapes import NO_CLASSIFIER, small
from groundup.core.errors import FormatError
from groundup.data.labels.batches import Padding
from groundup.hub import load_classifier, load_model, save_classifier
from groundup.model import FAMILIES, ModelConfig, SequenceClassifier

transformers = pytest.importorskip("transformers", reason="the parity tests need transformers: pip install '.[dev]'")

SHAPES = [(family, tied) for family in FAMILIES if family not in NO_CLASSIFIER for tied in (True, False)]
LABELS = ("spam", "ham", 'a "quoted" label', "ラベル")
PAD = 1
CONFIGS = {
    "llama": "LlamaConfig",
    "mistral": "MistralConfig",
    "qwen2": "Qwen2Config",
    "qwen3": "Qwen3Config",
    "gemma3": "Gemma3TextConfig",
    "gemma2": "Gemma2Config",
    "gpt_neox": "GPTNeoXConfig",
    "olmo2": "Olmo2Config",
    "phi3": "Phi3Config",
    "smollm3": "SmolLM3Config",
}
CLOSE = {"atol": 1e-4, "rtol": 0}


def random_(model: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15, generator=generator)


def texts(vocab_size: int) -> list[list[int]]:
    """Texts of different lengths without the padding id."""
    generator = torch.Generator().manual_seed(5)
    return [torch.randint(2, vocab_size, (n,), generator=generator).tolist() for n in (3, 17, 32, 1)]


def padded(ids: list[list[int]], side: str) -> dict[str, torch.Tensor]:
    width = max(map(len, ids))
    rows, mask = [], []
    for text in ids:
        fill = [PAD] * (width - len(text))
        rows.append(text + fill if side == "right" else fill + text)
        mask.append([1] * len(text) + [0] * len(fill) if side == "right" else [0] * len(fill) + [1] * len(text))
    attention = torch.tensor(mask)
    # GPT-2 has learned position embeddings, which count padding without position_ids.
    return {
        "input_ids": torch.tensor(rows),
        "attention_mask": attention,
        "position_ids": (attention.cumsum(1) - 1).clamp(min=0),
    }


def ours_on(model: SequenceClassifier, ids: list[list[int]]) -> torch.Tensor:
    return model(*Padding(PAD, model.config.context_length).pad(ids))


@pytest.mark.parametrize(("family", "tied"), SHAPES)
def test_a_round_trip_through_transformers(family: str, tied: bool, tmp_path: Path) -> None:
    head_dim = 16 if FAMILIES[family].multi_head_only else 24
    config = small(family, head_dim=head_dim, vocab_size=512, tie_embeddings=tied)
    model = SequenceClassifier(config, len(LABELS))
    random_(model, 0)
    ids = texts(512)
    save_classifier(tmp_path / "ours", model, LABELS, bos_id=0, eos_id=0, pad_id=PAD)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "ours").eval()
    assert [theirs.config.id2label[i] for i in range(len(LABELS))] == list(LABELS)
    assert theirs.config.label2id == {label: i for i, label in enumerate(LABELS)}
    with torch.no_grad():
        expected = ours_on(model, ids)
        for side in ("right", "left"):
            torch.testing.assert_close(theirs(**padded(ids, side)).logits, expected, **CLOSE)
        theirs.save_pretrained(tmp_path / "theirs")
        again, labels = load_classifier(tmp_path / "theirs")
        assert labels == LABELS
        torch.testing.assert_close(ours_on(again, ids), expected, **CLOSE)


@pytest.mark.parametrize(("family", "tied"), SHAPES)
def test_a_classifier_of_transformers_is_loaded(family: str, tied: bool, tmp_path: Path) -> None:
    """With two unnamed labels, transformers writes neither their number nor their names."""
    common = {"vocab_size": 300, "tie_word_embeddings": tied, "pad_token_id": PAD}
    if family == "gpt2":
        config = transformers.GPT2Config(n_embd=48, n_layer=2, n_head=3, n_positions=40, **common)
    else:
        kind = getattr(transformers, CONFIGS[family])
        config = kind(
            hidden_size=48,
            intermediate_size=100,
            num_hidden_layers=2,
            num_attention_heads=6,
            **({} if FAMILIES[family].multi_head_only else {"num_key_value_heads": 2, "head_dim": 8}),
            max_position_embeddings=40,
            **common,
        )
    theirs = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    random_(theirs, 2)
    theirs.save_pretrained(tmp_path)
    ours, labels = load_classifier(tmp_path)
    assert labels == ("LABEL_0", "LABEL_1")
    ids = texts(300)
    with torch.no_grad():
        for side in ("right", "left"):
            torch.testing.assert_close(theirs(**padded(ids, side)).logits, ours_on(ours, ids), **CLOSE)


def test_a_regression_head_is_rejected(tmp_path: Path) -> None:
    """A regression head has one output; softmax would give probability 1."""
    config = transformers.LlamaConfig(
        hidden_size=48, intermediate_size=100, num_hidden_layers=1, num_attention_heads=3, vocab_size=300, num_labels=1
    )
    transformers.AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(FormatError, match="1 labels"):
        load_classifier(tmp_path)


def test_language_models_and_classifiers_are_distinguished(tmp_path: Path) -> None:
    model = SequenceClassifier(ModelConfig("qwen3", 32, 1, 2, 2, 16, 64, 300, 32, tie_embeddings=False), 2)
    save_classifier(tmp_path / "classifier", model, ("a", "b"), bos_id=0, eos_id=0, pad_id=1)
    with pytest.raises(FormatError, match="lm_head"):
        load_model(tmp_path / "classifier")
    config = transformers.LlamaConfig(
        hidden_size=48, intermediate_size=100, num_hidden_layers=1, num_attention_heads=3, vocab_size=300
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "language")
    with pytest.raises(FormatError, match="score"):
        load_classifier(tmp_path / "language")
