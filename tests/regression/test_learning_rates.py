"""Learning rates are absolute, and setting a learning rate does not change the fine-tuning method.

In an earlier release, learning rates were multiples of built-in learning rates. With 2e-5, a common value in other
trainers, the loss did not decrease. Setting a learning rate also replaced LoRA by full fine-tuning without a message.
Recipes with the old meaning are rejected.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from groundup.commands import finetune_classify, finetune_instruct
from groundup.commands.finetune_classify import FinetuneClassifyConfig
from groundup.commands.finetune_instruct import FinetuneInstructConfig
from groundup.commands.pretrain import PretrainConfig
from groundup.commands.run import RunConfig, run
from groundup.core.config import Config, load
from groundup.core.console import Console
from groundup.core.errors import ConfigError
from groundup.hub import save_model
from groundup.model import Transformer
from groundup.optim import OptimizerConfig
from groundup.tokenizer import Tokenizer
from groundup.train import adapters
from groundup.train.learning_rates import classifier_rates, language_model_rates
from groundup.train.planner.fine_tuning import adapter_rates, fine_tuning_rates
from groundup.train.planner.rates import convert_rates
from groundup.train.run import PLAN, require_current_plan

ROOT = Path(__file__).parents[2]
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


def test_the_default_rates_are_those_of_earlier_releases() -> None:
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
    monkeypatch.setattr(adapters, "_SMALL", 1)
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


@pytest.mark.parametrize(
    ("config", "keys", "new"),
    [
        (PretrainConfig, PRETRAIN | {"matrix_lr": 0.01}, "learning_rate"),
        (FinetuneClassifyConfig, INSTRUCT | {"vector_lr": 0.01}, "norm_learning_rate"),
        (FinetuneInstructConfig, INSTRUCT | {"lora": {"learning_rate": 0.01}}, "learning_rate, outside of"),
        (FinetuneInstructConfig, INSTRUCT | {"lora": {"targets": ["q_proj"]}}, "target_modules"),
        (FinetuneInstructConfig, INSTRUCT | {"epochs": 3}, "num_epochs"),
        (FinetuneInstructConfig, INSTRUCT | {"cut_long": True}, "truncate"),
        (FinetuneInstructConfig, INSTRUCT | {"evaluations": 4}, "num_evaluations"),
        (FinetuneClassifyConfig, INSTRUCT | {"patience": 3}, "early_stopping_patience"),
        (FinetuneClassifyConfig, INSTRUCT | {"set_apart": 0.1}, "validation_fraction"),
        (PretrainConfig, PRETRAIN | {"skip_spikes": False}, "skip_loss_spikes"),
    ],
)
def test_renamed_settings_are_named(config: type[Config], keys: dict[str, Any], new: str) -> None:
    with pytest.raises(ConfigError, match=rf"is now (lora\.)?{new}"):
        load(config, keys)


# Each entry has a table of an earlier release, the hidden size of its model, and the learning rates used in training.
OLD: list[tuple[str, dict[str, Any], int, tuple[float, ...]]] = [
    ("finetune.instruct", {"learning_rate": 0.6}, 576, rates(fine_tuning_rates(576, 0.6))),
    ("finetune.instruct", {"learning_rate": 0.3}, 576, rates(fine_tuning_rates(576, 0.3))),
    ("finetune.instruct", {"learning_rate": 1.0, "lora": {"learning_rate": 1e-3}}, 64, rates(OptimizerConfig())),
    ("finetune.classify", {"matrix_lr": 0.02, "embedding_lr": 0.01}, 576, (0.02, 0.01, 0.003, 0.002)),
    ("finetune.classify", {"head_lr": 0.001}, 576, (0.01, 0.005, 0.001, 0.002)),
    ("pretrain", {"matrix_lr": 0.03, "vector_lr": 0.01}, 0, (0.03, 0.01, 0.003, 0.01)),
    ("pretrain", {"optimizer": "adamw", "matrix_lr": 0.004}, 0, (0.004, 0.01, 0.003, 0.003)),
    # The setting had no effect if training started from random weights.
    ("pretrain", {"learning_rate": 0.5}, 0, rates(OptimizerConfig())),
    ("pretrain", {"learning_rate": 0.5, "model": "m"}, 512, rates(fine_tuning_rates(512, 0.5))),
]


def resolved(stage: str, table: dict[str, Any], dim: int) -> OptimizerConfig:
    if stage == "pretrain":
        config = load(PretrainConfig, PRETRAIN | table)
        return language_model_rates(config, dim if "model" in table else None)
    adapted = table.get("method", "full") != "full"
    if stage == "finetune.classify":
        return classifier_rates(load(FinetuneClassifyConfig, INSTRUCT | table), dim=dim, adapted=adapted)
    return language_model_rates(instruct_config(**table), dim=dim, adapted=adapted)


@pytest.mark.parametrize(("stage", "table", "dim", "before"), OLD)
def test_the_converted_settings_train_at_the_same_rates(
    stage: str, table: dict[str, Any], dim: int, before: tuple[float, ...]
) -> None:
    kept = {
        key: value for key, value in table.items() if not key.endswith("_lr") and key not in ("learning_rate", "lora")
    }
    assert rates(resolved(stage, kept | convert_rates(stage, table, dim), dim)) == pytest.approx(before, rel=1e-5)


def test_converted_adapters_train_at_the_same_rates() -> None:
    found = convert_rates("finetune.classify", {"method": "lora", "lora": {"learning_rate": 0.005}}, None)
    assert found == {"learning_rate": 0.005, "head_learning_rate": 0.003}
    found = convert_rates("finetune.instruct", {"method": "merged", "lora": {"learning_rate": 0.005}}, 576)
    assert found == {"learning_rate": 0.005, "embedding_learning_rate": pytest.approx(0.3 * 0.01 * 256 / 576, rel=1e-5)}


def refusal(recipe: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        run(RunConfig(recipe=recipe, runs=recipe.parent / "runs"))
    return str(caught.value)


def test_a_recipe_without_a_version_is_refused_with_what_to_write(base: Path, tmp_path: Path) -> None:
    """The printed lines are added to the recipe. The recipe is then valid, and the run fails only at missing data."""
    recipe, body = tmp_path / "old.toml", f'data = "nowhere.jsonl"\nmodel = "{base}"\n'
    recipe.write_text(f"[finetune.instruct]\n{body}learning_rate = 0.5\n")
    told = refusal(recipe)
    assert "learning_rate = 0.5 in [finetune.instruct]" in told and "learning_rate_scale = 0.5" in told
    assert "learning_rate = 0.5 was equivalent to 0.01 for" in told
    lines = [line.strip() for line in told.splitlines() if line.startswith("    ")]
    assert lines == ["version = 2", "[finetune.instruct]", "learning_rate = 0.01", 'method = "full"']
    assert not (tmp_path / "runs").exists()
    recipe.write_text("\n".join([*lines, body]))
    assert "nowhere.jsonl" in str(_fails(lambda: run(RunConfig(recipe=recipe, runs=tmp_path / "runs"))))
    kept = tomllib.loads((tmp_path / "runs" / "old" / "recipe.toml").read_text())
    assert kept["version"] == 2

    # The command line accepts the table of one stage in a recipe, or a file that contains the keys without a table.
    from groundup.cli.commands import _table
    from groundup.commands import STAGES

    recipe.write_text(f"[finetune.instruct]\n{body}lora = {{learning_rate = 0.001}}\n")
    with pytest.raises(ConfigError, match=r"(?s)lora.learning_rate = 0.001.*\n    learning_rate = 0.001"):
        _table(recipe, STAGES["finetune.instruct"])
    recipe.write_text("learning_rate = 0.5\n")
    with pytest.raises(ConfigError, match=r"(?s)\n    learning_rate = 0.01\n"):
        _table(recipe, STAGES["finetune.instruct"], model=str(base))
    with pytest.raises(ConfigError, match="times 256 / hidden size"):
        _table(recipe, STAGES["finetune.instruct"])
    recipe.write_text("version = 2\nlearning_rate = 2e-5\n")
    assert _table(recipe, STAGES["finetune.instruct"]) == {"learning_rate": 2e-5}
    recipe.write_text("version = 9\n[tokenize]\n")
    assert "version = 9" in refusal(recipe)


def _fails(call: Callable[[], Any]) -> BaseException:
    with pytest.raises(Exception) as caught:
        call()
    return caught.value


def test_recipes_that_we_ship_have_the_version() -> None:
    for recipe in (ROOT / "src" / "groundup" / "recipes").glob("*.toml"):
        assert tomllib.loads(recipe.read_text(encoding="utf-8"))["version"] == 2, recipe
    classify = tomllib.loads((ROOT / "src" / "groundup" / "recipes" / "quickstart.toml").read_text(encoding="utf-8"))[
        "finetune"
    ]["classify"]
    rates_of = {key: classify[key] for key in classify if "learning_rate" in key or key == "method"}
    assert rates(resolved("finetune.classify", rates_of, 192)) == pytest.approx((0.02, 0.01, 0.003, 0.003))


def test_an_unfinished_run_of_an_earlier_release_is_refused(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    fine_tuned(base, out, method="full")
    record = json.loads((out / PLAN).read_text())
    assert record.pop("version") == 2
    del record["checksum"]  # plans of earlier releases had no checksum
    (out / PLAN).write_text(json.dumps(record))
    require_current_plan(out)  # a finished run is not resumed, so it is accepted
    (out / "artifact.json").unlink()
    with pytest.raises(ConfigError, match=r"earlier release \(version 1\).*delete"):
        fine_tuned(base, out, method="full")
    assert json.loads((out / PLAN).read_text()) == record


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
