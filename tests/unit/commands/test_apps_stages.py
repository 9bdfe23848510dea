"""`groundup apps` works with a text, a file, a table and a classifier, and evaluates applications."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file

from groundup.apps import Catalog
from groundup.apps.first_use import show_score
from groundup.apps.runner import open_runner
from groundup.apps.scores import AppScore, save_scores, stored_scores
from groundup.cli import cli
from groundup.core.console import Console, visible
from groundup.core.errors import ConfigError, DataError, GroundupError
from groundup.hub import save_classifier
from groundup.model import SequenceClassifier, Transformer
from groundup.tokenizer import Tokenizer


def call(*arguments: str | Path, stdin: str = "") -> Result:
    done = CliRunner().invoke(cli, ["apps", *map(str, arguments)], input=stdin)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


@pytest.fixture(scope="module")
def classifier(
    tiny_model: Callable[..., Transformer], tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return a classifier with three labels and random weights."""
    directory = tmp_path_factory.mktemp("runs") / "classifier"
    decoder = tiny_model(tokenizer.vocab_size, context_length=64)
    torch.manual_seed(1)
    model = SequenceClassifier(decoder.config, 3).eval().requires_grad_(False)
    model.model.load_state_dict(decoder.model.state_dict())
    save_classifier(directory, model, ("law", "music", "sport"), pad_id=tokenizer.pad_id, bos_id=0, eos_id=0)
    tokenizer.save(directory)
    return directory


def test_list_and_help_show_the_inputs() -> None:
    shown = call("list").output
    assert re.search(r"^summarize +Summarize a text", shown, re.MULTILINE)
    assert "sentences" in call("list", "summarize").output
    lines = [json.loads(line) for line in call("list", "--json").output.splitlines()]
    assert len(lines) == 14 and lines[0]["inputs"]
    helped = call("intent", "--help").output
    assert "--labels A,B,..." in helped and "[required]" in helped
    assert "Example: groundup apps intent" in helped


def test_a_text_a_file_and_standard_input_give_the_same(chat_directory: Path, tmp_path: Path) -> None:
    text = "The council met on Monday. The roof will be mended in May."
    (tmp_path / "minutes.txt").write_text(text, encoding="utf-8")
    common = ("--model", chat_directory, "--temperature", "0", "--max-tokens", "20", "--json")
    results = [
        json.loads(call("summarize", given, *common, stdin=text).stdout)
        for given in (text, tmp_path / "minutes.txt", "-")
    ]
    assert results[0] == results[1] == results[2]
    assert results[0]["text"]
    plain = call("summarize", text, *common[:-1]).stdout
    assert plain.strip() == visible(results[0]["text"]), "the terminal shows no control characters"


def test_html_files_are_read(chat_directory: Path, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(
        "<html><body><article><h1>News</h1><p>The tower clock was mended after nine silent years, and the whole town "
        "came to hear it strike noon for the first time.</p></article><script>alert(1)</script></body></html>",
        encoding="utf-8",
    )
    options = ("--model", chat_directory, "--max-tokens", "5", "--json")
    page = json.loads(call("summarize", tmp_path / "page.html", *options).stdout)
    text = json.loads(call("summarize", "The tower clock was mended.", *options).stdout)
    assert page["prompt_tokens"] > text["prompt_tokens"] + 15


def test_inputs_are_options(chat_directory: Path) -> None:
    common = ("--model", chat_directory, "--seed", "1", "--max-tokens", "400", "--json")
    done = json.loads(call("mcq", "The Nile floods.", "--count", "1", *common).stdout)
    assert len(done["value"]["questions"]) == 1
    with pytest.raises(ConfigError, match="from 1 to 10"):
        call("mcq", "The Nile floods.", "--count", "50", *common)
    labelled = call("intent", "Stop that!", "--labels", "ask,complain", "--model", chat_directory).stdout
    assert re.fullmatch(r"(ask|complain)\t0\.\d{3}\n", labelled)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("sumarize", "x"), "apps summarize'?"),
        (("summarize",), "no input"),
        (("summarize", "minutes.txt"), "no such file"),
        (("intent", "x"), "labels is missing"),
        (("run", "summarize", "x", "--set", "inputs.sentence=2"), "'sentences'?"),
    ],
)
def test_mistakes_are_explained(chat_directory: Path, arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(GroundupError) as refused:
        call(*arguments, "--model", chat_directory)
    assert said in str(refused.value)


def test_generated_control_characters_do_not_reach_the_terminal(chat_directory: Path) -> None:
    """This model generates random bytes. A terminal would interpret some of them as control sequences."""
    control = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
    met = 0
    for seed in range(12):
        options = ("--model", chat_directory, "--temperature", "2", "--seed", str(seed), "--max-tokens", "200")
        met += bool(control.search(json.loads(call("continue", "x", *options, "--json").stdout)["text"]))
        assert not control.search(call("continue", "x", *options).stdout)
    assert met, "the output must contain at least one control character for this test"


def test_a_table_is_returned_with_results(chat_directory: Path, tmp_path: Path) -> None:
    table, out = tmp_path / "reviews.csv", tmp_path / "labelled.csv"
    texts = ["Good, and cheap.", "=2+5", "", "It broke at once."]
    with table.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["text", "stars"], *([text, n] for n, text in enumerate(texts))])
    call("sentiment", "--batch", table, "--out", out, "--model", chat_directory)
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["output"] in ("positive", "negative") for row in rows] == [True, True, False, True]
    assert "text is missing" in rows[2]["error"]
    assert rows[1]["text"] == "'=2+5", "a spreadsheet would evaluate the text as a formula"
    printed = call("sentiment", "--batch", table, "--model", chat_directory).stdout
    lines = [json.loads(line) for line in printed.splitlines()]
    assert [line["output"] for line in lines] == [row["output"] or None for row in rows]
    assert sum(lines[0]["probabilities"].values()) == pytest.approx(1)


def test_a_table_without_the_input_column_is_an_error(chat_directory: Path, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="no column for text; its columns are a, b"):
        call("summarize", "--batch", tmp_path / "x.csv", "--model", chat_directory)
    (tmp_path / "y.csv").write_text("review\nGood.\nBad.\n", encoding="utf-8")
    done = call("sentiment", "--batch", tmp_path / "y.csv", "--model", chat_directory).stdout
    assert len(done.splitlines()) == 2, "the only column of a table may have any name"


def test_a_classifier_returns_its_own_labels(classifier: Path, real_documents: list[str]) -> None:
    done = json.loads(call("sentiment", "A fine concert.", "--model", classifier, "--json").stdout)
    assert list(done["probabilities"]) == ["law", "music", "sport"]
    assert sum(done["probabilities"].values()) == pytest.approx(1)
    some = json.loads(
        call("intent", "A fine concert.", "--labels", "sport,law", "--model", classifier, "--json").stdout
    )
    assert list(some["probabilities"]) == ["sport", "law"]
    assert some["probabilities"]["law"] / some["probabilities"]["sport"] == pytest.approx(
        done["probabilities"]["law"] / done["probabilities"]["sport"]
    )
    long = json.loads(call("intent", max(real_documents, key=len)[:3_000], "--model", classifier, "--json").stdout)
    assert long["parts"] > 5
    with pytest.raises(ConfigError, match="labels of this classifier are law, music, sport"):
        call("intent", "x", "--labels", "law,cooking", "--model", classifier)
    with pytest.raises(ConfigError, match="is a classifier"):
        call("poem", "x", "--model", classifier)


def test_user_applications_are_commands(chat_directory: Path, tmp_path: Path) -> None:
    (tmp_path / "echo.toml").write_text(
        'name = "echo"\ntitle = "Echo"\nabout = "the same again"\ngroup = "create"\n'
        '[[inputs]]\nname = "text"\nabout = "what to say"\n[prompt]\nuser = "{text}"\nbase = "{text}"\n',
        encoding="utf-8",
    )
    for line in (("echo", "Hello", "--apps", tmp_path), ("echo", "Hello", f"--apps={tmp_path}")):
        assert call(*line, "--model", chat_directory, "--max-tokens", "5").stdout
    assert "the same again" in call("list", "--apps", tmp_path).output
    with pytest.raises(ConfigError, match="unknown command"):
        call("echo", "Hello", "--model", chat_directory)
    with pytest.raises(ConfigError, match="no test set"):
        call("evaluate", "echo", "--apps", tmp_path, "--model", chat_directory)
    with pytest.raises(DataError, match="no such directory"):
        call("list", "--apps", tmp_path / "nothing")


def write_app(folder: Path, metric: str, rows: list[dict[str, str]]) -> Path:
    """Write an application with a small test set, so that a test takes less than a second."""
    folder.mkdir()
    (folder / "echo.toml").write_text(
        'name = "echo"\ntitle = "Echo"\nabout = "the same again"\ngroup = "create"\n'
        '[[inputs]]\nname = "text"\nabout = "what to say"\n[prompt]\nuser = "{text}"\nbase = "{text}"\n'
        f'[output]\nmax_tokens = 8\n[test]\nfile = "echo.jsonl"\n{metric}\n',
        encoding="utf-8",
    )
    (folder / "echo.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


ROWS = [{"text": f"Where is the key of room {n}?", "output": f"It lies under the blue mat {n}."} for n in range(6)]


def test_scores_of_one_model_and_of_two(chat_directory: Path, base_directory: Path, tmp_path: Path) -> None:
    """Both models have the same weights, and one has a chat template. Equal scores are not distinguishable."""
    alone = call("evaluate", "sentiment", "--model", chat_directory).stdout
    rows = [[cell.strip("| ") for cell in line.split(" | ")] for line in alone.splitlines()]
    assert rows[0] == ["application", "metric", "score (95 %)", "baseline", "examples"]
    assert [row[:2] for row in rows[2:]] == [["sentiment", "accuracy"], ["sentiment", "macro-F1"]]
    assert "random guess: 50.0" in alone
    folder = write_app(tmp_path / "mine", 'metric = "likelihood"', ROWS)
    models = ("--model", base_directory, "--fine-tuned", chat_directory, "--apps", folder, "--json")
    (compared,) = map(json.loads, call("evaluate", "echo", *models).stdout.splitlines())
    assert compared["lines"][0]["unit"] == "bits" and compared["lines"][0]["less_is_better"]
    same = call("evaluate", "sentiment", "--model", chat_directory, "--fine-tuned", chat_directory, "--json").stdout
    assert {line["verdict"] for line in json.loads(same)["lines"]} == {"not distinguishable"}


@pytest.mark.parametrize("metric", ["chrf", "checks", "ranking"])
def test_a_model_below_the_baseline_is_reported_on_first_use(chat_directory: Path, tmp_path: Path, metric: str) -> None:
    """A model with random weights is not a tool. The test runs once: afterwards, the stored score is used."""
    model = tmp_path / "model"
    shutil.copytree(chat_directory, model)
    checks = 'metric = "checks"\nbaseline = "copy"\nchecks = { topic = "text" }'
    folder = write_app(tmp_path / "mine", checks if metric == "checks" else f'metric = "{metric}"', ROWS)
    use = ("echo", "Hello there", "--model", model, "--apps", folder)
    first, second = call(*use).stderr, call(*use).stderr
    assert "testing it" in first and "testing it" not in second
    for said in (first, second):
        assert "a demonstration, not a tool" in said
        assert ("of 6 on its test" in said) == (metric != "chrf")
    stored = json.loads((model / "applications.json").read_text(encoding="utf-8"))
    assert stored["applications"]["echo"]["items"] == 6


def test_a_test_set_of_your_own_replaces_the_declared_one(chat_directory: Path, tmp_path: Path) -> None:
    """The score of other examples is not stored, because it would replace the score that the warning shows."""
    model = tmp_path / "model"
    shutil.copytree(chat_directory, model)
    folder, own = write_app(tmp_path / "mine", 'metric = "chrf"', ROWS), tmp_path / "own.jsonl"
    own.write_text("".join(json.dumps(row) + "\n" for row in ROWS[:2]), encoding="utf-8")
    use, before = ("evaluate", "echo", "--model", model, "--apps", folder, "--test", own), stored_scores(model)
    assert json.loads(call(*use, "--json").stdout)["examples"] == 2
    assert stored_scores(model) == before
    own.write_text(json.dumps({"question": "Where?", "output": "Here"}), encoding="utf-8")
    with pytest.raises(ConfigError, match="line 1: unknown input 'question'"):
        call(*use)
    own.write_text(json.dumps({"text": "Where?"}), encoding="utf-8")
    with pytest.raises(DataError, match=r"line 1.*the inputs \(text\) and output"):
        call(*use)
    with pytest.raises(ConfigError, match="Name one application"):
        call("evaluate", "--model", model, "--test", own)


@pytest.mark.parametrize("name", Catalog())
def test_each_application_warns_below_its_baseline(
    chat_directory: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Word salad of a small model must not look like a result. The stored score stands for a run of the test set."""
    model, found = tmp_path / "model", Catalog()[name]
    shutil.copytree(chat_directory, model)
    poor = AppScore("m", 8.0, (2.0, 20.0), 50, "points", 4, "TF-IDF", 18.0, 9, (-20.0, -1.0), False, found.test_digest)
    save_scores(model, {name: poor})
    with ExitStack() as stack:
        runner = open_runner(model, None, Console(quiet=True), stack)
        show_score(runner, found, model, Console())
    text = " ".join(capsys.readouterr().err.split())
    assert f"{name}: 4 of 50 on its test, the baseline (TF-IDF) 9" in text
    assert "a demonstration, not a tool. Better suited: " in text


def test_an_application_runs_without_its_test_set(chat_directory: Path, tmp_path: Path) -> None:
    folder = write_app(tmp_path / "mine", 'metric = "chrf"', ROWS)
    (folder / "echo.jsonl").unlink()
    done = call("echo", "Hello there", "--model", chat_directory, "--apps", folder)
    assert done.stdout and "no such file" in done.stderr


def test_a_score_of_other_weights_or_another_test_set_is_not_used(chat_directory: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(chat_directory, model)
    folder = write_app(tmp_path / "mine", 'metric = "chrf"', ROWS)
    use = ("echo", "Hello there", "--model", model, "--apps", folder)
    call("evaluate", "echo", "--model", model, "--apps", folder)
    assert "testing it" not in call(*use).stderr
    (folder / "echo.jsonl").write_text(json.dumps(ROWS[0]) + "\n" + json.dumps(ROWS[1]) + "\n", encoding="utf-8")
    assert "testing it" in call(*use).stderr, "the test set has changed"
    assert "testing it" not in call(*use).stderr
    weights = load_file(model / "model.safetensors")
    save_file({name: tensor * 1.5 for name, tensor in weights.items()}, model / "model.safetensors")
    assert "testing it" in call(*use).stderr, "the weights have changed"
