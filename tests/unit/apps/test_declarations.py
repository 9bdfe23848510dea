"""Bundled applications are valid, the user's applications are found, and errors in declarations are clear."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from groundup.apps import App, Catalog
from groundup.apps.declaration import fill_numbers
from groundup.apps.lettered_options import readable_value
from groundup.apps.prompter import Prompter, TextModel
from groundup.core.errors import ConfigError, DataError, GroundupError
from groundup.tokenizer import Tokenizer
from groundup.tokenizer.chat import ChatTemplate

BUNDLED = Catalog()
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


def test_all_required_applications_exist() -> None:
    assert set(BUNDLED) == WANTED


@pytest.mark.parametrize("name", BUNDLED)
def test_references_and_examples_are_valid_outputs(name: str) -> None:
    """The references of the test set and the few-shot examples match the schema or the labels."""
    app, rows = BUNDLED[name].app, BUNDLED[name].test_rows()
    assert len(rows) >= 50, "an interval of fewer examples is too wide for a verdict"
    assert app.test is not None
    outputs = [] if app.test.metric == "checks" else [(row, row["output"]) for row in rows]
    shown = {each.name: each.default for each in app.inputs}
    outputs += [(shown | shot.inputs, shot.output) for shot in app.prompt.shots]
    for given, output in outputs:
        if app.output.kind == "json":
            jsonschema.validate(json.loads(output), fill_numbers(app.output.written_schema, given))
            jsonschema.validate(readable_value(output, app.output.options), fill_numbers(app.output.json_schema, given))
        elif app.output.kind == "label":
            assert output in (app.output.labels or given[app.output.labels_from])
        else:
            assert output.strip()
    assert not {shot.output for shot in app.prompt.shots} & {row["output"] for row in rows} - {"positive", "negative"}


@pytest.mark.parametrize("name", BUNDLED)
@pytest.mark.parametrize("chats", [True, False])
def test_prompts_fit_chat_and_base_models(tokenizer: Tokenizer, template: ChatTemplate, name: str, chats: bool) -> None:
    """If the context is short, the prompt has fewer few-shot examples. The test also compiles the schema."""
    app, row = BUNDLED[name].app, BUNDLED[name].test_rows()[0]
    del row["output"]
    prompter = Prompter(app, TextModel(tokenizer, template if chats else None, 4_096), row)
    assert prompter.shots == (len(app.prompt.shots) if app.prompt.shots_in_chat or not chats else 0)
    prompter.require_space()
    if app.output.kind != "label":
        request = prompter.request(row)
        assert bool(request.unrepeated) == bool(app.decoding.no_repeat_ngram_size and prompter.shots)
        text = tokenizer.decode(request.prompt)
        for given in row.values():
            assert str(given) in text or isinstance(given, tuple)
        assert not any("{" + each.name + "}" in text for each in app.inputs)
    short = Prompter(app, TextModel(tokenizer, None, 600), row)
    assert short.shots <= len(app.prompt.shots)


def write_app(folder: Path, text: str, name: str = "shout.toml") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_user_applications_replace_bundled_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_app(tmp_path / "mine", SHOUT)
    write_app(folder, SHOUT.replace('"shout"', '"poem"'), "other.toml")
    assert Catalog(folder)["poem"].app.title == "Shout"
    assert set(Catalog(folder)) == {*WANTED, "shout"}
    monkeypatch.chdir(write_app(tmp_path / "apps", SHOUT).parent)
    assert "shout" in Catalog(), "applications in ./apps must be found by default"


def test_the_declaration_in_the_documentation_is_valid(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "apps.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```text\n(# apps/.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert Catalog(write_app(tmp_path / "mine", shown))["refusal"].app.prompt.shots


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("about = \"a text", "abuot = \"a text"), "did you mean 'about'?"),
        (lambda text: text.replace("{times} times", "{tiems} times"), "{tiems} in a prompt is not an input"),
        (lambda text: text.replace('name = "times"', 'name = "text"'), "the same name"),
        (lambda text: text.replace('"number"\ndefault = 1', '"number"\ndefault = "one"'), "must be a number"),
        (lambda text: text.replace('"number"\ndefault = 1', '"choice"\ndefault = "one"'), "choices"),
        (lambda text: text.replace('name = "shout"', 'name = "evaluate"'), "commands"),
        (lambda text: text.replace('name = "shout"', 'name = "Shout it"'), "regular expression"),
        (lambda text: text.replace('name = "times"', 'name = "model"').replace("{times}", ""), "option of every"),
        (lambda text: text + '[output]\nkind = "json"\n', "json_schema"),
        (lambda text: text + '[output]\nkind = "label"\nlabels_from = "text"\n', "type labels"),
        (lambda text: text + '[long]\ninput = "times"\nstrategy = "join"\n', "type text"),
        (lambda text: text + '[long]\ninput = "text"\nstrategy = "joined"\n', "strategy"),
        (lambda text: text + '[test]\nfile = "../x.jsonl"\nmetric = "f1"\n', "without a directory"),
        (lambda text: text + '[output]\nkind = "json"\njson_schema = { maxItems = "{text}" }\n', "type number"),
        (lambda text: text + '[output]\nkind = "json"\njson_schema = { a = 1 }\ndistinct = ["a"]\n', "not a list"),
        (lambda text: text + '[test]\nfile = "x"\nmetric = "checks"\nchecks = { topic = "txt" }\n', "'txt' is not"),
        (lambda text: text + '[test]\nfile = "x"\nmetric = "f1"\nbaseline = "example"\n', "requires shots"),
        (lambda text: text + "[prompt", "TOML"),
    ],
)  # fmt: skip
def test_an_invalid_declaration_is_an_error(tmp_path: Path, change: Callable[[str], str], said: str) -> None:
    """The error message contains the file and the key."""
    text = change(SHOUT)
    assert text != SHOUT
    with pytest.raises(ConfigError) as refused:
        Catalog(write_app(tmp_path / "mine", text)).named("shout")
    assert said in str(refused.value)
    assert "shout.toml" in str(refused.value)


def test_invalid_files_do_not_affect_other_applications(tmp_path: Path) -> None:
    """The directory `apps` may contain files of another program."""
    folder = write_app(tmp_path / "mine", SHOUT)
    (folder / "poem.toml").write_text("[tool]\nname = 1\n", encoding="utf-8")
    catalog = Catalog(folder)
    assert set(catalog) == {*WANTED, "shout"}
    assert [path.name for path in catalog.refused] == ["poem.toml"]
    with pytest.raises(ConfigError, match=r"poem\.toml"):
        catalog.named("poem")  # the user's invalid file takes precedence over the bundled application


def test_duplicate_names_and_a_missing_directory_are_errors(tmp_path: Path) -> None:
    folder = write_app(tmp_path / "mine", SHOUT)
    write_app(folder, SHOUT, "again.toml")
    catalog = Catalog(folder)
    assert catalog["shout"].path.name == "again.toml", "the file whose name is first in alphabetical order must be used"
    with pytest.raises(ConfigError, match="already has the name"):
        catalog.named("shout")
    with pytest.raises(DataError, match="no such directory"):
        Catalog(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="unknown application 'sumarise'; did you mean 'summarize'"):
        BUNDLED.named("sumarise")


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
def test_an_invalid_row_of_a_test_set_is_an_error(tmp_path: Path, line: str, said: str) -> None:
    folder = write_app(tmp_path / "mine", SHOUT + '[test]\nfile = "shout.jsonl"\nmetric = "exact"\n')
    with pytest.raises(DataError, match="no such file"):
        Catalog(folder)["shout"].test_rows()
    (folder / "shout.jsonl").write_text('{"text": "x", "output": "X"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(GroundupError) as refused:
        Catalog(folder)["shout"].test_rows()
    assert said in str(refused.value)
    assert "line 2" in str(refused.value)


def test_describe_is_json(tmp_path: Path) -> None:
    app = Catalog(write_app(tmp_path / "mine", SHOUT))["shout"].app
    assert isinstance(app, App)
    descriptions = json.loads(json.dumps(app.describe()))
    assert [each["required"] for each in descriptions["inputs"]] == [True, False]
