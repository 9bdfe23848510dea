"""The first command that the quickstart suggests prints text.

In an earlier release, this command opened the chat model and printed nothing in 8 of 26 attempts.
"""

from __future__ import annotations

import html
import io
import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from groundup.commands import STAGES, evaluate
from groundup.commands.generate import GenerateConfig, run
from groundup.core.artifact import begin
from groundup.core.console import Console
from groundup.core.recipe import next_commands, recipe_steps
from groundup.hub import save_model
from groundup.inference import Completion
from groundup.model import Transformer
from groundup.report import read_run, render
from groundup.tokenizer import ChatTemplate, Tokenizer


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer, tiny_model: Callable[..., Transformer]
) -> Path:
    """Return a run with a base model that generates text, and a chat model that always predicts the end of the text."""
    directory = tmp_path_factory.mktemp("runs") / "tiny run"
    for stage, name in (("pretrain", "base"), ("finetune_instruct", "chat")):
        model, out = tiny_model(tokenizer.vocab_size), directory / name
        if name == "chat":
            model.lm_head.weight.zero_()  # all logits are equal, so greedy decoding selects ID 0
            assert tokenizer.eos_id == 0
        work = begin(out, stage, {}, {})
        files = save_model(out, model, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id)
        tokenizer.save(out)
        if name == "chat":
            fine_tuned = Tokenizer.load(out)
            fine_tuned.set_chat_template(ChatTemplate(tokenizer).jinja)
            fine_tuned.save(out)
        work.finish({}, files)
    return directory


def generated(path: Path, **settings: object) -> tuple[Completion, str]:
    shown = io.StringIO()
    config = GenerateConfig(model=path, prompt="Once upon a time", max_tokens=8, seed=1, **settings)
    return run(config, console=Console(stream=shown)), " ".join(shown.getvalue().split())


def test_a_run_says_which_of_its_models_was_opened(finished: Path) -> None:
    done, shown = generated(finished, temperature=0)
    assert done.text == ""
    assert "opened chat, its newest fine-tuned model" in shown
    assert "is a chat model. generate does not use its chat template" in shown
    assert "it generated the end-of-text token first (finish_reason: stop)" in shown
    assert f"groundup chat '{finished / 'chat'}'" in shown
    assert f"groundup generate '{finished / 'base'}'" in shown


def test_a_base_model_writes_without_a_word(finished: Path) -> None:
    done, shown = generated(finished / "base")
    assert done.text.strip()
    assert shown == ""


def test_a_run_without_a_chat_model_says_so(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "base", tmp_path / "run" / "base")
    assert (
        "opened base, its newest base model, because it does not contain a fine-tuned model."
        in generated(tmp_path / "run")[1]
    )


def test_an_output_without_text_is_reported(finished: Path) -> None:
    done, _ = generated(finished / "base")
    stopped, shown = generated(finished / "base", stop=(done.text[:1],))
    assert stopped.text == ""
    assert "the output started with a --stop text (finish_reason: stop)" in shown


@pytest.mark.parametrize("place", [{}, {"out": "models/mine"}], ids=["default", "chosen by the recipe"])
def test_a_finished_recipe_suggests_the_base_model(place: dict[str, str]) -> None:
    tables = {
        "pretrain": {"token_shards": "tokens", "minutes": 1, **place},
        "finetune": {"instruct": {"data": ["questions.csv"]}},
    }
    commands = next_commands(Path("runs/x"), recipe_steps(tables, Path("runs/x"), "recipe.toml", STAGES))
    assert f'groundup generate {place.get("out", "runs/x/base")} "Once upon a time"' in commands


def test_the_help_and_the_report_suggest_the_base_model(finished: Path) -> None:
    assert "runs/quickstart/base" in STAGES["generate"].example
    page = html.unescape(render(read_run(finished)))
    assert "groundup generate 'tiny run/base' \"The history of\"" in page


@pytest.mark.parametrize(("name", "command"), [("base", "groundup generate"), ("chat", "groundup chat")])
def test_an_evaluation_suggests_what_suits_the_model(finished: Path, tmp_path: Path, name: str, command: str) -> None:
    data = tmp_path / "letter.txt"
    data.write_text("Dear reader, this is a letter.", encoding="utf-8")
    evaluate.run(evaluate.EvaluateConfig(model=finished / name, data=data, samples=0, out=tmp_path / "report"))
    commands = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))["next"]
    assert commands[0].startswith(f"{command} {shlex.quote(str(finished / name))}")
