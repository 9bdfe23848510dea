"""The model card has Hugging Face's metadata and only facts of the stage."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from groundup.core.artifact import begin, read
from groundup.core.artifact.work import Work
from groundup.hub import finish_model
from groundup.hub.model_card import for_repository

INTERVAL = {"value": 0.9, "interval": [0.85, 0.95]}
DATA = [{"name": "a|b", "license": "CC-BY-4.0", "documents": 3, "bytes": 4000}]


@pytest.fixture
def work(tmp_path: Path) -> Callable[[str], Work]:
    return lambda stage: begin(tmp_path / "notes" / "base", stage, {"seed": 4}, {})


def card(work: Work, facts: dict[str, Any], base: Path | None = None) -> ModelCard:
    directory = work.directory
    finish_model(work, facts, [], base=base)
    return ModelCard.load(directory / "README.md")


def unpadded(found: ModelCard) -> str:
    """Return the text of a model card without the padding of its tables."""
    return re.sub(r" +", " ", found.text)


def test_a_pretrained_model(work: Callable[[str], Work]) -> None:
    facts = {"parameters": 4_000_000, "steps": 7, "tokens_seen": 9000, "flops_per_token": 10, "data": DATA}
    outcome = {"predicted": {"bits_per_byte": 2.0}, "measured": {"bits_per_byte": 1.85}}
    found = card(work("pretrain"), facts | {"plan": {"epochs": 0.5}, "prediction": outcome})
    assert (found.data.library_name, found.data.pipeline_tag) == ("transformers", "text-generation")
    assert found.data.license is None and found.data.base_model is None
    for text in ("# notes-base", "4.00M parameters", "a\\|b", "CC-BY-4.0", "9,000", "9.00e+04 FLOPs", "| seed | 4 |"):
        assert text in unpadded(found)
    assert "| validation set, bits per byte | 1.85 |" in unpadded(found)
    (result,) = found.data.eval_results  # Hugging Face shows these values on the page of the model.
    assert (result.metric_name, result.metric_value, result.dataset_name) == ("bits per byte", 1.85, "validation set")


def test_the_license_and_the_name_of_the_base_model_are_kept(work: Callable[[str], Work], tmp_path: Path) -> None:
    base = begin(tmp_path / "smol", "import", {}, {})
    finish_model(base, {"license": "apache-2.0", "source": {"given": "hf://ORG/Smol-1"}, "parameters": 10}, [])
    assert yaml.safe_load((tmp_path / "smol" / "README.md").read_text().split("---")[1])["license"] == "apache-2.0"
    facts = {"labels": ["a", "b"], "test": {"accuracy": INTERVAL, "examples": 5}, "base": "smol"}
    facts["tfidf"] = {"accuracy": INTERVAL}
    found = card(work("finetune.classify"), facts, tmp_path / "smol")
    assert (found.data.license, found.data.base_model) == ("apache-2.0", "ORG/Smol-1")
    assert found.data.pipeline_tag == "text-classification"
    assert "| test examples, accuracy | 0.9 | 0.85 to 0.95 |" in unpadded(found)
    (result,) = found.data.eval_results  # The baseline is not a result of this model.
    assert (result.task_type, result.metric_type, result.metric_value) == ("text-classification", "accuracy", 0.9)


def test_a_license_with_spaces_is_named(work: Callable[[str], Work]) -> None:
    found = card(work("import"), {"license": "Llama 3 Community License", "parameters": 10})
    assert (found.data.license, found.data.license_name) == ("other", "Llama 3 Community License")


def test_an_edited_card_does_not_damage_the_model(work: Callable[[str], Work], tmp_path: Path) -> None:
    card(work("pretrain"), {"parameters": 10})
    (tmp_path / "notes" / "base" / "README.md").write_text("Mine.")
    assert "README.md" not in read(tmp_path / "notes" / "base").outputs


def test_the_examples_of_an_uploaded_card_load_the_model_from_the_repository(work: Callable[[str], Work]) -> None:
    text = for_repository(str(card(work("pretrain"), {"parameters": 10})), "org/notes")
    assert 'AutoModelForCausalLM.from_pretrained("org/notes")' in text
    assert "groundup import hf://org/notes --out notes-base\ngroundup generate notes-base" in text
