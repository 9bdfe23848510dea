"""An adapter is trained with exactly the prompt of its application, and the application finds and uses it."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from groundup.apps import Catalog
from groundup.apps.application_models import find_adapter, require_valid_outputs, training_prompt
from groundup.apps.inputs import check_inputs
from groundup.apps.prompter import Prompter, TextModel
from groundup.cli import cli
from groundup.commands import finetune_classify
from groundup.commands.finetune_instruct import FinetuneInstructConfig, run
from groundup.core.console import Console
from groundup.core.errors import ConfigError, DataError
from groundup.core.types import Example, Message
from groundup.data.columns import fill
from groundup.recipes import bundled
from groundup.tokenizer import Tokenizer
from groundup.tokenizer.chat import ChatTemplate

BUNDLED = Catalog()
TABLES = {name: tomllib.loads(path.read_text(encoding="utf-8")).get("finetune", {}) for name, path in bundled().items()}
FINE_TUNED = {name: table["instruct"] for name, table in TABLES.items() if table.get("instruct", {}).get("application")}


def test_most_applications_with_text_have_a_recipe() -> None:
    assert {table["application"] for table in FINE_TUNED.values()} >= {
        "translate", "answer", "summarize", "rewrite", "assistant", "mcq", "lesson-plan", "script",
    }  # fmt: skip


@pytest.mark.parametrize("name", FINE_TUNED)
def test_the_trained_prompt_is_the_prompt_of_the_application(
    name: str, tokenizer: Tokenizer, template: ChatTemplate
) -> None:
    """A difference of one space between training and use lowers the quality of a small model."""
    table = FINE_TUNED[name]
    app, inputs = BUNDLED[table["application"]].app, table["inputs"]
    row = {"text": "Where is it?", "passage": "A {strange} text.", "dialogue": "A: Hi", "question": "Who?"}
    row |= {"en": "Good evening.", "de": "Guten Abend.", "instruction": "Say hello.", "style": "simpler"}
    row |= {"count": "2", "topic": "bees", "grade": "grade 3", "minutes": "30", "viewers": "children", "scenes": "2"}
    trained = fill(training_prompt(app, inputs), row, whole=True)
    given = {each.name: fill(inputs.get(each.name, "{" + each.name + "}"), row) for each in app.inputs}
    prompter = Prompter(app, TextModel(tokenizer, template, 4_096, trained_for=app.name), check_inputs(app, given))
    asked = tokenizer.decode(prompter.request(prompter.given).prompt)
    assert asked.count(trained) == 1
    alone = template.encode([Message("user", trained)], add_generation_prompt=True)
    assert tuple(alone) == prompter.request(prompter.given).prompt, "a trained prompt has no examples"


def test_unknown_inputs_and_two_prompts_are_errors(chat_directory: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown input 'txt'"):
        training_prompt(BUNDLED["translate"].app, {"txt": "{en}"})
    with pytest.raises(ConfigError, match="prompt is set together with application"):
        run(tuning(chat_directory, tmp_path / "out", tmp_path, prompt="{en}"), console=Console(quiet=True))


def tuning(model: Path, out: Path, folder: Path, **changes: Any) -> FinetuneInstructConfig:
    rows = [{"en": f"The bus number {n} is late.", "de": f"Der Bus Nummer {n} kommt zu spät."} for n in range(12)]
    (folder / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    values = {
        "data": str(folder / "table.jsonl"), "model": model, "out": out, "method": "lora", "application": "translate",
        "inputs": {"text": "{en}", "to": "German"}, "response": "{de}", "num_epochs": 1, "num_evaluations": 0,
        "compile": False, "threads": 1,
    }  # fmt: skip
    return FinetuneInstructConfig.model_validate(values | changes)


def test_an_application_uses_its_adapter(chat_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The adapter is used only for its application, and only with the weights that it was trained on."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(chat_directory, tmp_path / "run" / "model")
    adapter = tmp_path / "run" / "german"
    run(tuning(tmp_path / "run" / "model", adapter, tmp_path), console=Console(quiet=True))
    translate, model = BUNDLED["translate"].app, tmp_path / "run" / "model"
    assert find_adapter(translate, model, {"to": " german"}) == (adapter, [])
    assert find_adapter(BUNDLED["rewrite"].app, model, {}) == (None, [])
    assert find_adapter(translate, adapter, {"to": "German"}) == (None, []), "the model itself is the adapter"
    use = ["apps", "translate", "Hello.", "--model", str(model), "--max-tokens", "20"]
    said = CliRunner().invoke(cli, [*use, "--to", "German"], catch_exceptions=False).stderr
    assert f"Adapter: {adapter} (license of its data: private)" in said
    none = [*use, "--to", "German", "--adapter", "none"]
    assert "Adapter:" not in CliRunner().invoke(cli, none, catch_exceptions=False).stderr
    # The default target language is French, into which an adapter for German must not translate.
    said = CliRunner().invoke(cli, use, catch_exceptions=False).stderr
    assert f"Adapter {adapter} was trained with to = German; not used." in said and "Adapter:" not in said
    _, (note,) = find_adapter(translate, model, {}, columns=["to"])
    assert "was trained with to = German, and rows of the table have their own" in note


def test_a_classifier_is_used_only_for_labels_that_it_has(
    chat_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other labels are scored by the language model; the classifier would refuse them as unknown."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(chat_directory, tmp_path / "run" / "model")
    lines = [f'{{"text": "message {n}", "label": "{("refund", "invoice")[n % 2]}"}}\n' for n in range(24)]
    (tmp_path / "table.jsonl").write_text("".join(lines), encoding="utf-8")
    values = {
        "data": str(tmp_path / "table.jsonl"), "model": tmp_path / "run" / "model", "out": tmp_path / "run" / "intents",
        "method": "lora", "application": "intent", "num_epochs": 1, "threads": 1,
    }  # fmt: skip
    finetune_classify.run(finetune_classify.FinetuneClassifyConfig.model_validate(values), console=Console(quiet=True))
    intent, model = BUNDLED["intent"].app, tmp_path / "run" / "model"
    assert find_adapter(intent, model, {}) == (tmp_path / "run" / "intents", [])
    assert find_adapter(intent, model, {"labels": "refund, invoice"})[0] == tmp_path / "run" / "intents"
    found, (note,) = find_adapter(intent, model, {"labels": "refund,complaint"})
    assert found is None and note.endswith("has no label 'complaint'; not used.")


def test_training_responses_must_match_the_schema_of_the_application() -> None:
    """A response in another format teaches a format that the grammar forbids."""
    ask, plan = Message("user", "Write a plan."), json.loads(BUNDLED["lesson-plan"].app.prompt.shots[0].output)
    good = Example((ask, Message("assistant", json.dumps(plan))))
    require_valid_outputs("lesson-plan", [good])
    require_valid_outputs("translate", [Example((ask, Message("assistant", "no JSON")))])
    del plan["homework"]
    for text, problem in ((json.dumps(plan), "'homework' is a required property"), ("A plan", "Expecting value")):
        with pytest.raises(DataError, match=rf"{problem}.*lesson-plan writes JSON"):
            require_valid_outputs("lesson-plan", [good, Example((ask, Message("assistant", text)))])
