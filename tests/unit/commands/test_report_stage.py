"""`groundup report` writes its page to the right place, updates the page, and reports errors."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest

from groundup.commands import collect, report
from groundup.commands.report import ReportConfig
from groundup.commands.run import RunConfig, run
from groundup.core import artifact
from groundup.core.checksums import write_checked_json
from groundup.core.console import Console
from groundup.core.errors import ConfigError, DataError, FormatError
from groundup.core.recipe import Stage


@pytest.fixture
def run_directory(tmp_path: Path, real_documents: list[str]) -> Path:
    texts = tmp_path / "texts"
    texts.mkdir()
    for number, text in enumerate(real_documents):
        (texts / f"{number}.txt").write_text(text, encoding="utf-8")
    collect.run(collect.CollectConfig(folder=texts, out=tmp_path / "run" / "corpus", workers=1))
    return tmp_path / "run"


def files_in(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_the_page_is_in_the_run_and_other_files_are_unchanged(run_directory: Path) -> None:
    before = files_in(run_directory)
    stream = io.StringIO()
    made = report.run(ReportConfig(run=run_directory), console=Console(stream=stream))
    after = files_in(run_directory)
    assert set(after) - set(before) == {run_directory / "report.html", run_directory / "artifact.json"}
    assert {path: after[path] for path in before} == before
    assert made == artifact.read(run_directory)
    assert f"{(run_directory / 'report.html').resolve().as_uri()}" in stream.getvalue()


def test_it_is_written_again_if_a_record_changed_or_the_page_is_missing(run_directory: Path) -> None:
    page = run_directory / "report.html"
    first = report.run(ReportConfig(run=run_directory))
    drawn = page.stat().st_mtime_ns
    assert report.run(ReportConfig(run=run_directory)) == first
    assert page.stat().st_mtime_ns == drawn
    page.unlink()
    report.run(ReportConfig(run=run_directory))
    assert page.is_file()
    record = json.loads((run_directory / "corpus" / "artifact.json").read_text(encoding="utf-8"))
    write_checked_json(run_directory / "corpus" / "artifact.json", record | {"seconds": 7200.0})
    report.run(ReportConfig(run=run_directory))
    assert "2 hours" in page.read_text(encoding="utf-8")


def test_out_sets_the_directory(run_directory: Path, tmp_path: Path) -> None:
    before = files_in(run_directory)
    report.run(ReportConfig(run=run_directory, out=tmp_path / "site"))
    assert sorted(path.name for path in (tmp_path / "site").iterdir()) == ["artifact.json", "report.html"]
    assert files_in(run_directory) == before


def test_the_record_of_the_report_is_not_the_output_of_another_stage(run_directory: Path) -> None:
    """`artifact.json` in the directory of a run must not make the run look like a corpus."""
    report.run(ReportConfig(run=run_directory))
    assert list(artifact.outputs_in(run_directory)) == [run_directory / "corpus"]
    assert list(artifact.outputs_in(run_directory.parent)) == [run_directory]
    assert artifact.read(run_directory).stage == "report"


def test_the_page_contains_no_home_directory(
    run_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands on the page must work, but must not contain private paths."""
    (run_directory / "recipe.toml").write_text('name = "run"\n[collect]\n', encoding="utf-8")
    for here, place in (
        (tmp_path, "run"),
        (run_directory / "corpus", "run"),
        (tmp_path.parent, f"{tmp_path.name}/run"),
    ):
        monkeypatch.chdir(here)
        shutil.rmtree(tmp_path / "site", ignore_errors=True)
        report.run(ReportConfig(run=run_directory, out=tmp_path / "site"))
        page = (tmp_path / "site" / "report.html").read_text(encoding="utf-8")
        assert str(tmp_path) not in page
        assert f"groundup run {place}/recipe.toml" in page


def test_replaced_outputs_are_not_reported(run_directory: Path) -> None:
    shutil.copytree(run_directory / "corpus", run_directory / "corpus.replaced-20260101-000000")
    assert report.run(ReportConfig(run=run_directory)).facts["stages"] == ["collect"]


def test_as_the_last_stage_of_a_recipe_it_is_skipped_like_the_others(
    run_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The output is the directory of the run. A second run of the recipe must skip the report."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.toml").write_text(
        'name = "small"\n[collect]\nsources = [{ kind = "folder", path = "texts" }]\n[report]\n', encoding="utf-8"
    )
    stages = {
        "collect": Stage("collect", "gather", "", directory="corpus"),
        "report": Stage("report", "draw", "", directory="."),
    }
    said = []
    for _ in range(2):
        stream = io.StringIO()
        made = run(RunConfig(recipe=tmp_path / "small.toml"), console=Console(stream=stream), stages=stages)
        said.append(stream.getvalue())
    assert (Path("runs/small") / "report.html").is_file()
    assert made.artifacts["report"].stage == "report"
    assert [text.count("done earlier") for text in said] == [0, 2]
    assert "runs" not in (tmp_path / "runs" / "small" / "recipe.toml").read_text(encoding="utf-8")


def test_errors_have_a_fix(run_directory: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="groundup report"):
        report.run(ReportConfig())
    with pytest.raises(DataError, match="directory not found"):
        report.run(ReportConfig(run=tmp_path / "nowhere"))
    with pytest.raises(DataError, match="no finished stage"):
        report.run(ReportConfig(run=tmp_path / "empty"))
    with pytest.raises(DataError, match="no finished stage"):
        report.run(ReportConfig(run=run_directory / "corpus"))
    report.run(ReportConfig(run=run_directory))
    with pytest.raises(DataError, match="no finished stage"):  # the parent directory of all runs is not a run
        report.run(ReportConfig(run=run_directory.parent))
    assert not (run_directory / "corpus" / "report.html").exists()


@pytest.mark.parametrize("damage", ["{", "[]", '{"stage": "collect"}', '{"finished_at": 3}'])
def test_a_damaged_record_is_an_error(run_directory: Path, damage: str) -> None:
    path = run_directory / "corpus" / "artifact.json"
    whole = json.loads(path.read_text(encoding="utf-8"))
    partly = damage == '{"finished_at": 3}'
    path.write_text(json.dumps(whole | {"finished_at": "yesterday"}) if partly else damage, encoding="utf-8")
    with pytest.raises(FormatError, match="corpus"):
        report.run(ReportConfig(run=run_directory))
