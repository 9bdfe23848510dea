"""`groundup compare-recipes` compares means over seeds, and refuses to compare recipes by single models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from groundup.commands import compare_recipes
from groundup.commands.compare_recipes import CompareRecipesConfig
from groundup.core.console import Console
from groundup.core.errors import ConfigError, DataError
from groundup.evaluation.comparisons.examples import SeedComparison
from groundup.evaluation.measure import mean
from groundup.evaluation.stats import mean_interval, t_quantile, welch_difference
from groundup.evaluation.tasks import TaskResult, on_shared_items, scoring
from groundup.hub import save_model
from groundup.model import Transformer
from groundup.tokenizer import Tokenizer

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer, tiny_model: Callable[..., Transformer]
) -> Path:
    """Six models of two "recipes": the second scales the initial weights by 4."""
    root = tmp_path_factory.mktemp("seeds")
    for recipe, scale in (("small", 1.0), ("large", 4.0)):
        for seed in range(3):
            model = tiny_model(tokenizer.vocab_size, context_length=64)
            generator = torch.Generator().manual_seed(seed + int(10 * scale))
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.dim() == 2:
                        parameter.normal_(0, 0.05 * scale, generator=generator)
            directory = root / recipe / f"seed-{seed}" / "base"
            save_model(directory, model, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id)
            tokenizer.save(directory)
    return root


def config(runs: Path, out: Path, **changes: object) -> CompareRecipesConfig:
    text = out.parent / "letter.txt"
    text.write_text("Dear reader, this is a letter about the weather. " * 8, encoding="utf-8")
    values = {"before": (runs / "small",), "after": (runs / "large",), "out": out, "text": text}
    return CompareRecipesConfig(**(values | changes))


def test_recipes_are_compared_by_the_means_over_seeds(runs: Path, tmp_path: Path) -> None:
    facts = compare_recipes.run(config(runs, tmp_path / "out"), console=QUIET).facts
    line = facts["lines"][0]
    before, after = (np.array(line["values"][key]) for key in ("before", "after"))
    assert len(before) == len(after) == 3
    assert line["difference"]["value"] == pytest.approx(after.mean() - before.mean())
    expected = welch_difference(before.tolist(), after.tolist())
    assert line["difference"]["interval"] == pytest.approx([expected.low, expected.high])
    assert line["verdict"] == ("worse" if expected.low > 0 else "not distinguishable")  # More bits per byte are worse.
    assert "over seeds" in (tmp_path / "out" / "compare.md").read_text()


def test_all_models_are_scored_on_the_same_items(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If each model averaged its own items, a recipe would gain from a context in which hard items do not fit."""
    rows = [{"question": f"What is {word}?", "answer": word} for word in ("red", "a blue house", "x", "nothing")]
    task = tmp_path / "questions.jsonl"
    task.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    calls = iter(range(6 * len(rows)))

    def fits(*_: object) -> bool:
        model, item = divmod(next(calls), len(rows))
        return model != 4 or item != 1  # The second model of the second recipe has no room for the second item.

    monkeypatch.setattr(scoring, "_fits", fits)
    out = tmp_path / "out"
    facts = compare_recipes.run(config(runs, out, task=(task,), text=None), console=QUIET).facts
    assert all("questions, 3 items" in line["what"] for line in facts["lines"])
    assert "1 item left out" in (out / "compare.md").read_text()
    assert "(items that fit: 4, 4, 4, 4, 3, 4)" in (out / "compare.md").read_text()


def test_different_items_are_refused() -> None:
    """Prompts of memorization are cut by tokens, so they differ between tokenizers."""
    one, other = (
        TaskResult("recall", "memorization", [mean("rate", [0.0, 1.0])], [{"prompt": text} for text in texts])
        for texts in (("a b", "c"), ("a b", "c d"))
    )
    assert on_shared_items([one, one])[1] is None
    with pytest.raises(DataError, match="of 2 items of the first model, another one shares only 1"):
        on_shared_items([one, one, other])


def test_fewer_than_three_seeds_are_refused(runs: Path, tmp_path: Path) -> None:
    two = tuple(runs / "large" / f"seed-{n}" for n in (0, 1))
    with pytest.raises(ConfigError, match="at least 3 models with different seeds"):
        compare_recipes.run(config(runs, tmp_path / "out", after=two), console=QUIET)


def test_one_run_does_not_count_as_two_seeds(runs: Path, tmp_path: Path) -> None:
    again = (runs / "large", runs / "large" / "seed-0")
    with pytest.raises(ConfigError, match="are the same model"):
        compare_recipes.run(config(runs, tmp_path / "out", after=again), console=QUIET)


def test_welch_interval_equals_published_values() -> None:
    """scipy.stats.ttest_ind(b, a, equal_var=False).confidence_interval(), and t tables."""
    assert t_quantile(0.975, 4) == pytest.approx(2.776445, abs=1e-4)
    assert t_quantile(0.975, 1) == pytest.approx(12.7062, rel=1e-4)
    assert t_quantile(0.975, 1000) == pytest.approx(1.962339, abs=1e-4)
    found = welch_difference([1.0, 2.0, 4.0], [3.0, 5.0, 9.0])
    assert (found.estimate, found.low, found.high) == pytest.approx((10 / 3, -3.0141443, 9.6808109), abs=1e-4)
    assert mean_interval([1.0, 2.0, 4.0]).high == pytest.approx(7 / 3 + 4.302653 * (7 / 9) ** 0.5, abs=1e-3)


def test_seeds_of_one_recipe_are_rarely_called_different() -> None:
    """An interval over items would call most pairs of seeds different, because it ignores the noise of training."""
    generator = np.random.default_rng(0)
    verdicts = []
    for _ in range(400):
        a, b = generator.normal(2.0, 0.01, (2, 3))
        verdicts.append(SeedComparison(mean("x", a), mean("x", b)).verdict)
    wrong = sum(verdict != "not distinguishable" for verdict in verdicts) / len(verdicts)
    assert 0.005 < wrong < 0.08
