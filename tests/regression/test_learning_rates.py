"""Learning rates are absolute, and setting a learning rate does not change the fine-tuning method.

In an earlier release, learning rates were multiples of built-in learning rates. With 2e-5, a common value in other
trainers, the loss did not decrease. Setting a learning rate also replaced LoRA by full fine-tuning without a message.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from groundup.commands import finetune_classify, finetune_instruct
from groundup.commands.finetune_classify import FinetuneClassifyConfig
from groundup.commands.finetune_instruct import FinetuneInstructConfig
from groundup.commands.pretrain import PretrainConfig
from groundup.core.config import load
from groundup.core.console import Console
from groundup.core.errors import ConfigError
from groundup.hub import save_model
from groundup.model import Transformer
from groundup.optim import OptimizerConfig
from groundup.tokenizer import Tokenizer
from groundup.train import fine_tuning_method
from groundup.train.learning_rates import classifier_rates, language_model_rates
from groundup.train.planner.fine_tuning import adapter_rates, fine_tuning_rates

WORDS = ["red", "blue", "green", "small", "large", "round", "flat", "warm", "cold", "new", "old"]
INSTRUCT = {"data": "d.jsonl", "model": "m", "out": "o"}
PRETRAIN = {"token_shards": "t", "out": "o", "tokens": 1}


def instruct_config(**keys: Any) -> FinetuneInstructConfig:
    return load(FinetuneInstructConfig, INSTRUCT | keys)


def rates(config: OptimizerConfig) -> tuple[float, ...]:
    return (config.matrix_lr, config.embedding_lr, config.head_lr, config.vector_lr)


def test_adamw_takes_the_rate_for_every_group() -> None:
    for config in (
        language_model_rates(instruct_config(learning_rate=2e-5, optimizer="adamw"), dim=576),
        language_model_rates(instruct_config(learning_rate=2e-5), dim=576, adapted=True),
        language_model_rates(load(PretrainConfig, PRETRAIN | {"optimizer": "adamw", "learning_rate": 2e-5})),
        classifier_rates(load(FinetuneClassifyConfig, INSTRUCT | {"learning_rate": 2e-5}), dim=576, adapted=True),
    ):
        assert rates(config) == (2e-5,) * 4
        assert config.matrices == "adamw"


def test_muon_takes_the_rate_for_its_weights_and_the_others_keep_their_share() -> None:
    found = language_model_rates(load(PretrainConfig, PRETRAIN | {"learning_rate": 0.04}))
    assert rates(found) == pytest.approx((0.04, 0.02, 0.006, 0.006))
    own = instruct_config(learning_rate=0.001, head_learning_rate=3e-4, norm_learning_rate=4e-4)
    assert rates(language_model_rates(own, dim=4096)) == pytest.approx((0.001, 0.0005, 3e-4, 4e-4))


def test_the_default_rates_depend_on_stage_and_hidden_size() -> None:
    assert rates(language_model_rates(load(PretrainConfig, PRETRAIN))) == rates(OptimizerConfig())
    assert rates(language_model_rates(instruct_config(), dim=576)) == rates(fine_tuning_rates(576, 0.3))
    assert rates(language_model_rates(instruct_config(), dim=576, adapted=True)) == rates(adapter_rates(576))
    scaled = instruct_config(learning_rate_scale=0.9)
    assert rates(language_model_rates(scaled, dim=576)) == rates(fine_tuning_rates(576, 0.9))
    assert rates(classifier_rates(load(FinetuneClassifyConfig, INSTRUCT), dim=64, adapted=False)) == (
        0.01,
        0.005,
        0.003,
        0.002,
    )


@pytest.fixture
def base(tmp_path: Path, tokenizer: Tokenizer, tiny_model: Callable[..., Transformer]) -> Path:
    directory = tmp_path / "base"
    save_model(directory, tiny_model(tokenizer.vocab_size, context_length=64), bos_id=0, eos_id=tokenizer.eos_id)
    tokenizer.save(directory)
    rows = ({"prompt": f"Say {word} {other}", "response": other} for word in WORDS for other in WORDS)
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return directory


def fine_tuned(base: Path, out: Path, **keys: Any) -> dict[str, Any]:
    keys = {"threads": 1, "compile": False, "num_epochs": 0.5, "num_evaluations": 0, "max_test_examples": 4} | keys
    config = load(
        FinetuneInstructConfig,
        {"data": str(base.parent / "pairs.jsonl"), "model": str(base), "out": str(out)} | keys,
    )
    return finetune_instruct.run(config, console=Console()).facts


def test_the_rates_are_printed_recorded_and_an_unusual_one_is_warned_of(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = fine_tuned(base, tmp_path / "a", learning_rate=2e-5, optimizer="adamw", method="full")
    said = " ".join(capsys.readouterr().err.split())
    assert {group["learning_rate"] for group in facts["learning_rates"]} == {2e-5}
    assert sum(group["parameters"] for group in facts["learning_rates"]) == facts["parameters"]
    assert re.search(r"norms and biases [\d,]+ AdamW 2e-05", said)
    assert "usual range" not in said

    fine_tuned(base, tmp_path / "b", learning_rate=2e-5, method="full")
    said = " ".join(capsys.readouterr().err.split())
    assert "learning_rate = 2e-05 is below the usual range, 0.0001 to 0.02 for full fine-tuning with Muon" in said
    fine_tuned(base, tmp_path / "c", learning_rate=0.05, optimizer="adamw", method="full")
    said = " ".join(capsys.readouterr().err.split())
    assert "learning_rate = 0.05 is above the usual range, 1e-06 to 0.001 for full fine-tuning with AdamW" in said


def test_a_rate_never_switches_the_method(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this test, every model counts as large, so adapters are the default."""
    monkeypatch.setattr(fine_tuning_method, "_SMALL", 1)
    facts = fine_tuned(base, tmp_path / "a", learning_rate=2e-5)
    said = " ".join(capsys.readouterr().err.split())
    assert facts["plan"]["lora_parameters"]
    assert "LoRA adapters" in said
    assert "learning_rate = 2e-05 is below the usual range, 0.0001 to 0.01 for LoRA with AdamW" in said
    with pytest.raises(ConfigError, match=r"optimizer = muon with method = merged.*--method full"):
        fine_tuned(base, tmp_path / "b", optimizer="muon")
    assert not (tmp_path / "b").exists()
    fine_tuned(base, tmp_path / "c", method="full", lora={"rank": 4})
    assert "no effect with method = full" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "keys",
    [
        {"learning_rate": 0.1},
        {"learning_rate": 0.3, "method": "lora"},
        {"embedding_learning_rate": 0.2},
        {"learning_rate_scale": 5.0},
        {"learning_rate": math.inf},
    ],
)
def test_a_high_rate_needs_a_confirmation(keys: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        instruct_config(**keys)
    if math.isfinite(sum(rate for rate in keys.values() if isinstance(rate, float))):
        with pytest.raises(ConfigError, match="allow_high_learning_rate=true"):
            instruct_config(**keys)
        instruct_config(**keys, allow_high_learning_rate=True)


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match="Remove one of them"):
        instruct_config(learning_rate=1e-4, learning_rate_scale=0.3)
    with pytest.raises(ConfigError, match="optimizer = muon with method = lora"):
        instruct_config(optimizer="muon", method="lora")


def test_a_classifiers_rates_are_printed_and_recorded(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "table.csv"
    lines = [f"{word} {other} thing,{'a' if word < 'n' else 'b'}" for word in WORDS for other in WORDS]
    table.write_text("text,label\n" + "\n".join(lines))
    keys = {"data": str(table), "model": str(base), "out": str(tmp_path / "c"), "threads": 1, "num_epochs": 1}
    config = load(FinetuneClassifyConfig, keys | {"learning_rate": 3e-4, "optimizer": "adamw", "baseline": False})
    facts = finetune_classify.run(config, console=Console()).facts
    assert {group["learning_rate"] for group in facts["learning_rates"]} == {3e-4}
    assert {group["group"] for group in facts["learning_rates"]} == {"matrix", "embedding", "head", "vector"}
    assert "Learning rates" in capsys.readouterr().err
