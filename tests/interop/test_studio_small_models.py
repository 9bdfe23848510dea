"""The Studio in a real browser with tiny models: a full context window, classifier charts, logs, the pipeline."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from groundup.core.artifact import accept, begin
from groundup.hub import save_classifier, save_model
from groundup.model import SequenceClassifier, Transformer
from groundup.tokenizer import Tokenizer
from groundup.tokenizer.chat import ChatTemplate

pytestmark = pytest.mark.interop

CONTEXT = 256
QUESTION = "Please tell me about the import system of Python, and about its many names."
COLLECT = '[collect]\nsources = [{{kind = "folder", path = "{}"}}]\nmin_bytes = 1000\n'
# The JSON schema forces two options, although the model is random.
QUIZ = """
name = "quiz"
title = "Quiz"
about = "one question"
group = "teach"
[[inputs]]
name = "text"
about = "about what"
[prompt]
user = "{text}"
base = "{text}"
[output]
kind = "json"
lettered = ["options"]
[output.json_schema]
type = "object"
required = ["options"]
additionalProperties = false
properties = { options = { type = "array", items = { enum = ["one", "two"] }, minItems = 2, maxItems = 2 } }
"""


@pytest.fixture(scope="module")
def workspace(
    tiny_model: Callable[..., Transformer],
    tokenizer: Tokenizer,
    real_documents: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Two recipes, and a run with a base model, a chat model and a classifier."""
    root = tmp_path_factory.mktemp("small")
    model = tiny_model(tokenizer.vocab_size, context_length=CONTEXT)
    classifier = SequenceClassifier(model.config, 2)
    stages = {"base": "pretrain", "chat": "finetune.instruct", "labels": "finetune.classify"}
    ids = {"bos_id": tokenizer.bos_id, "eos_id": tokenizer.eos_id}
    for number, (name, stage) in enumerate(stages.items(), 1):
        directory = root / "runs" / "mail" / name
        work = begin(directory, stage, {}, {})
        files = (
            save_classifier(directory, classifier, ("a", "b"), pad_id=tokenizer.pad_id, **ids)
            if name == "labels"
            else save_model(directory, model, pad_id=tokenizer.pad_id, **ids)
        )
        files += tokenizer.save(directory)
        rows = [{"step": n, "loss": 3 / n, "tokens_seen": 32 * n, "seconds": 0.1, "lr_factor": 1} for n in range(1, 9)]
        (directory / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
        work.finish({"parameters": 1000 * number}, files)
    settings = root / "runs" / "mail" / "chat" / "tokenizer_config.json"
    table = json.loads(settings.read_text(encoding="utf-8")) | {"chat_template": ChatTemplate(tokenizer).jinja}
    settings.write_text(json.dumps(table), encoding="utf-8")
    accept(settings.with_name("artifact.json"))
    for name in ("texts", "recipes", "apps"):
        (root / name).mkdir()
    for number, text in enumerate(real_documents[:20]):
        (root / "texts" / f"{number}.txt").write_text(text, encoding="utf-8")
    (root / "recipes" / "one.toml").write_text(COLLECT.format(root / "texts"), encoding="utf-8")
    (root / "recipes" / "two.toml").write_text(COLLECT.format(root / "nowhere"), encoding="utf-8")
    (root / "apps" / "quiz.toml").write_text(QUIZ, encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def url(workspace: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "groundup", "studio", "runs", "--port", "0", "--json", "--apps", "apps"]
    with subprocess.Popen(command, cwd=workspace, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


@pytest.fixture
def tab(browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    context.set_default_timeout(60_000)
    yield context.new_page()
    context.close()


def ask(tab: Any, message: str) -> None:
    """Send a message and wait for the complete answer."""
    answers = tab.locator(".answer").count()
    tab.get_by_label("Your message").fill(message)
    tab.get_by_role("button", name="Send").click()
    tab.wait_for_function(
        "(n) => document.querySelectorAll('.answer').length > n && !document.querySelector('button[aria-busy]')",
        arg=answers,
    )


def test_a_chat_drops_old_and_failed_turns(tab: Any, url: str) -> None:
    """After the context window was full, each message got a 400 response."""
    sent: list[Any] = []
    refused: list[str] = []
    tab.on("request", lambda each: "/v1/" in each.url and each.post_data and sent.append(json.loads(each.post_data)))
    tab.on("response", lambda each: each.status >= 400 and refused.append(each.url))
    tab.goto(f"{url}#/chat")
    tab.locator("#model").select_option("mail/chat")
    tab.get_by_label("Max tokens").fill("40")
    for number in range(5):
        ask(tab, f"{number}: {QUESTION}")
    assert refused == []
    assert sent[-1]["messages"][0]["content"] != f"0: {QUESTION}"
    assert sent[-1]["messages"][-1]["content"] == f"4: {QUESTION}"
    assert tab.locator(".truncation").count() == 1
    assert "no longer gets" in tab.locator(".truncation").inner_text()
    assert f"its context window has {CONTEXT} tokens" in tab.locator(".truncation").inner_text()
    ask(tab, "word " * 600)  # longer than the context window
    assert "Later messages omit this turn" in tab.locator(".answer-status").last.inner_text()
    ask(tab, "Now a short one.")
    roles = [message["role"] for message in sent[-1]["messages"]]
    assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
    assert not any("word word" in message["content"] for message in sent[-1]["messages"])
    assert "tokens in" in tab.locator(".answer-status").last.inner_text()
    tab.get_by_role("button", name="Clear conversation").click()
    assert tab.locator(".truncation").count() == 0


def test_the_pipeline_shows_the_stage_of_the_selected_model(tab: Any, url: str) -> None:
    """The pipeline of the chat model showed the parameters of a classifier that was fine-tuned later."""
    tab.goto(f"{url}#/chat")
    for model in ("mail/chat", "mail/base"):
        tab.locator("#model").select_option(model)
        assert (
            tab.locator("#pipeline .step", has_text="Fine-tuned").locator(".headline").inner_text()
            == "2.00k parameters"
        )


def test_charts_of_a_classifier_count_texts(tab: Any, url: str) -> None:
    tab.goto(f"{url}#/train/mail/labels")
    tab.locator(".tiles dd", has_text="256 texts").wait_for()
    charts = tab.locator("#view-train .charts")
    assert "nats per text" in charts.inner_text()
    assert "token" not in charts.inner_text()
    assert tab.locator(".chart svg[role=img]").first.get_attribute("aria-label").endswith("over 256 texts")
    tab.goto(f"{url}#/train/mail/base")
    tab.locator(".tiles dd", has_text="256 tokens").wait_for()
    assert "nats per token" in charts.inner_text()


def test_a_new_run_does_not_show_the_log_of_another(tab: Any, url: str) -> None:
    """The log of the previous run stayed for up to 15 seconds."""
    log = tab.locator(".run-log")
    tab.goto(f"{url}#/train")

    def start(recipe: str) -> None:
        tab.get_by_label("Recipe", exact=True).select_option(f"{recipe}.toml")
        tab.get_by_label("Run name").fill(recipe)
        tab.get_by_role("button", name="Start").click()
        tab.locator("#view-train h3", has_text=recipe).first.wait_for()

    start("one")
    tab.locator("summary", has_text="Log").click()
    tab.wait_for_function("() => document.querySelector('.run-log').textContent.includes('Finished in')")
    tab.locator("#view-train .runs li", has_text="one/").locator(".state", has_text="stopped").wait_for()
    start("two")
    assert "Finished in" not in log.inner_text()
    tab.wait_for_function("() => document.querySelector('.run-log').textContent.includes('nowhere')")
    tab.goto(f"{url}#/train/one/")
    tab.wait_for_function("() => !document.querySelector('.run-log').textContent.includes('nowhere')")


def test_answer_options_are_lettered(tab: Any, url: str) -> None:
    tab.goto(f"{url}#/apps/quiz")
    tab.locator("#model").select_option("mail/chat")
    tab.get_by_label("Text", exact=True).fill("bees")
    tab.get_by_role("button", name="Run").click()
    options = tab.locator(".result ol")
    options.wait_for()
    assert options.get_attribute("type") == "A"
    assert options.evaluate("(list) => getComputedStyle(list).listStyleType") == "upper-alpha"
