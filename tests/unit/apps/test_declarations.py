"""Applications as they are declared: ours are sound, a person's own are found, and mistakes in them are explained."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from groundup.apps import App, Catalog
from groundup.apps.declaration import fill_numbers
from groundup.apps.prompter import Prompter, TextModel
from groundup.core.errors import ConfigError, DataError, GroundupError
from groundup.tokenizer import Tokenizer
from groundup.tokenizer.chat import ChatTemplate

OURS = Catalog()
WANTED = {
    "poem", "article", "post", "assistant", "translate", "continue", "sentiment", "intent", "summarize", "rewrite",
    "mcq", "lesson-plan", "script", "answer",
}  # fmt: skip

SHOUT = """
name = "shout"
title = "Shout"
about = "a text in capitals"
group = "create"

[[inputs]]
name = "text"
about = "what to shout"

[[inputs]]
name = "times"
about = "how often"
type = "number"
default = 1

[prompt]
user = "Shout {times} times: {text}"
base = "{text} in capitals:"
"""


def test_all_that_were_asked_for_are_there() -> None:
    assert set(OURS) == WANTED


@pytest.mark.parametrize("name", OURS)
def test_its_test_set_and_its_examples_are_what_it_would_give(name: str) -> None:
    """A reference of another shape, or an example that breaks the schema, would teach and measure something else."""
    app, rows = OURS[name].app, OURS[name].test_rows()
    assert len(rows) >= 4
    outputs = [(row, row["output"]) for row in rows]
    shown = {each.name: each.default for each in app.inputs}
    outputs += [(shown | shot.inputs, shot.output) for shot in app.prompt.shots]
    for given, output in outputs:
        if app.output.kind == "json":
            jsonschema.validate(json.loads(output), fill_numbers(app.output.json_schema, given))
        elif app.output.kind == "label":
            assert output in (app.output.labels or given[app.output.labels_from])
        else:
            assert output.strip()
    assert not {shot.output for shot in app.prompt.shots} & {row["output"] for row in rows} - {"positive", "negative"}


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("chats", [True, False])
def test_it_can_be_asked_of_any_model(tokenizer: Tokenizer, template: ChatTemplate, name: str, chats: bool) -> None:
    """Also of one with a short context, where examples have to go, and with its schema compiled."""
    app, row = OURS[name].app, OURS[name].test_rows()[0]
    del row["output"]
    prompter = Prompter(app, TextModel(tokenizer, template if chats else None, 4_096), row)
    assert prompter.shots == (len(app.prompt.shots) if app.prompt.shots_in_chat or not chats else 0)
    prompter.require_room()
    if app.output.kind != "label":
        request = prompter.request(row)
        text = tokenizer.decode(request.prompt)
        for given in row.values():
            assert str(given) in text or isinstance(given, tuple)
        assert not any("{" + each.name + "}" in text for each in app.inputs)
    short = Prompter(app, TextModel(tokenizer, None, 600), row)
    assert short.shots <= len(app.prompt.shots)


def declared(folder: Path, text: str, name: str = "shout.toml") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_a_persons_own_are_found_and_go_before_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = declared(tmp_path / "mine", SHOUT)
    declared(folder, SHOUT.replace('"shout"', '"poem"'), "other.toml")
    assert Catalog(folder)["poem"].app.title == "Shout"
    assert set(Catalog(folder)) == {*WANTED, "shout"}
    monkeypatch.chdir(declared(tmp_path / "apps", SHOUT).parent)
    assert "shout" in Catalog(), "./apps is looked into where nothing is said"


def test_the_declaration_that_the_documentation_shows_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "apps.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```text\n(# apps/.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert Catalog(declared(tmp_path / "mine", shown))["refusal"].app.prompt.shots


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("about = \"a text", "abuot = \"a text"), "did you mean 'about'?"),
        (lambda text: text.replace("{times} times", "{tiems} times"), "{tiems} in a prompt is no input"),
        (lambda text: text.replace('name = "times"', 'name = "text"'), "names of their own"),
        (lambda text: text.replace('"number"\ndefault = 1', '"number"\ndefault = "one"'), "default of a number"),
        (lambda text: text.replace('"number"\ndefault = 1', '"choice"\ndefault = "one"'), "choices"),
        (lambda text: text.replace('name = "shout"', 'name = "evaluate"'), "commands"),
        (lambda text: text.replace('name = "shout"', 'name = "Shout it"'), "regular expression"),
        (lambda text: text.replace('name = "times"', 'name = "model"').replace("{times}", ""), "option of every"),
        (lambda text: text + '[output]\nkind = "json"\n', "json_schema"),
        (lambda text: text + '[output]\nkind = "label"\nlabels_from = "text"\n', "type labels"),
        (lambda text: text + '[long]\ninput = "times"\nstrategy = "join"\n', "type text"),
        (lambda text: text + '[long]\ninput = "text"\nstrategy = "joined"\n', "strategy"),
        (lambda text: text + '[test]\nfile = "../x.jsonl"\nmetric = "f1"\n', "without a folder"),
        (lambda text: text + '[output]\nkind = "json"\njson_schema = { maxItems = "{text}" }\n', "type number"),
        (lambda text: text + '[output]\nkind = "json"\njson_schema = { a = 1 }\ndistinct = ["a"]\n', "'a' is none"),
        (lambda text: text + "[prompt", "TOML"),
    ],
)  # fmt: skip
def test_a_wrong_declaration_is_explained(tmp_path: Path, change: Callable[[str], str], said: str) -> None:
    """With the file and the key: who declares an application reads no traceback."""
    text = change(SHOUT)
    assert text != SHOUT
    with pytest.raises(ConfigError) as refused:
        Catalog(declared(tmp_path / "mine", text)).named("shout")
    assert said in str(refused.value)
    assert "shout.toml" in str(refused.value)


def test_what_else_lies_in_the_folder_stops_nothing(tmp_path: Path) -> None:
    """A folder called apps may be of another program."""
    folder = declared(tmp_path / "mine", SHOUT)
    (folder / "poem.toml").write_text("[tool]\nname = 1\n", encoding="utf-8")
    catalog = Catalog(folder)
    assert set(catalog) == {*WANTED, "shout"}
    assert [path.name for path in catalog.refused] == ["poem.toml"]
    with pytest.raises(ConfigError, match=r"poem\.toml"):
        catalog.named("poem")  # his, which is wrong: not ours in its place


def test_two_of_one_name_and_a_folder_that_is_not_there(tmp_path: Path) -> None:
    folder = declared(tmp_path / "mine", SHOUT)
    declared(folder, SHOUT, "again.toml")
    catalog = Catalog(folder)
    assert catalog["shout"].path.name == "again.toml", "the first one by name"
    with pytest.raises(ConfigError, match="another application"):
        catalog.named("shout")
    with pytest.raises(DataError, match="no such folder"):
        Catalog(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="Did you mean summarize"):
        OURS.named("sumarise")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2"),
        ('{"text": "x"}', "line 2"),
        ('{"text": "", "output": "X"}', "text is missing"),
        ('{"text": "x", "times": "often", "output": "X"}', "whole number"),
        ("[]", "line 2"),
    ],
)
def test_a_wrong_row_of_a_test_set_is_named(tmp_path: Path, line: str, said: str) -> None:
    folder = declared(tmp_path / "mine", SHOUT + '[test]\nfile = "shout.jsonl"\nmetric = "exact"\n')
    with pytest.raises(DataError, match="no such file"):
        Catalog(folder)["shout"].test_rows()
    (folder / "shout.jsonl").write_text('{"text": "x", "output": "X"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(GroundupError) as refused:
        Catalog(folder)["shout"].test_rows()
    assert said in str(refused.value)
    assert "line 2" in str(refused.value)


def test_what_a_form_needs_is_json(tmp_path: Path) -> None:
    app = Catalog(declared(tmp_path / "mine", SHOUT))["shout"].app
    assert isinstance(app, App)
    descriptions = json.loads(json.dumps(app.describe()))
    assert [each["required"] for each in descriptions["inputs"]] == [True, False]
