"""`groundup collect` is skipped if nothing has changed, and runs again if a file has changed."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from groundup.commands.collect import CollectConfig, run
from groundup.core.config import load
from groundup.core.console import Console
from groundup.core.errors import ConfigError
from groundup.corpus import PackageSource, read_documents
from groundup.recipes import bundled

QUIET = Console(quiet=True)


@pytest.fixture
def notes(tmp_path: Path, real_documents: list[str]) -> Path:
    root = tmp_path / "notes"
    root.mkdir()
    for number, text in enumerate(real_documents[:30]):
        (root / f"{number}.md").write_text(text, encoding="utf-8")
    return root


def _config(notes: Path, tmp_path: Path, **more: object) -> CollectConfig:
    return CollectConfig(folder=notes, out=tmp_path / "corpus", **{"workers": 1, "min_bytes": 100, **more})


def test_skipped_if_nothing_changed(notes: Path, tmp_path: Path) -> None:
    first = run(_config(notes, tmp_path), console=QUIET)
    assert first.facts["train"]["documents"] > 0
    assert set(first.outputs) == {
        "train-00000.parquet", "validation-00000.parquet", "card.html", "card.json", "card.md",
        "drop_log/00000.parquet", "manifest/00000.parquet",
    }  # fmt: skip
    again = run(_config(notes, tmp_path, workers=2), console=QUIET)
    assert again == first


def test_a_changed_file_causes_a_new_run(notes: Path, tmp_path: Path) -> None:
    """Otherwise, training would use the text of the old file."""
    first = run(_config(notes, tmp_path), console=QUIET)
    (notes / "new.md").write_text("An entirely new page, which says what no other page before it has ever said.")
    second = run(_config(notes, tmp_path), console=QUIET)
    assert second.fingerprint != first.fingerprint
    documents = [
        *read_documents(tmp_path / "corpus", "train"),
        *read_documents(tmp_path / "corpus", "validation"),
    ]
    assert "new.md" in {document.origin for document in documents}


def test_a_changed_setting_causes_a_new_run(notes: Path, tmp_path: Path) -> None:
    first = run(_config(notes, tmp_path), console=QUIET)
    second = run(_config(notes, tmp_path, min_document_bytes=500), console=QUIET)
    assert second.fingerprint != first.fingerprint


def test_moved_folder_keeps_the_fingerprint(notes: Path, tmp_path: Path) -> None:
    """The fingerprint does not contain paths, so a project can be moved to another disk."""
    first = run(_config(notes, tmp_path), console=QUIET)
    (tmp_path / "elsewhere").mkdir()
    moved = notes.rename(tmp_path / "elsewhere" / "notes")
    assert run(_config(moved, tmp_path), console=QUIET) == first


def test_a_skipped_run_shows_the_same_summary(notes: Path, tmp_path: Path) -> None:
    """In an earlier release, a skipped run printed nothing."""
    (notes / "short.md").write_text("hi")
    (notes / "rows.jsonl").write_text('{"summary": "A record that tells in a few words what there is to be told."}')
    said = []
    for _ in range(2):
        shown = io.StringIO()
        facts = run(_config(notes, tmp_path), console=Console(stream=shown)).facts
        said.append(shown.getvalue().splitlines())
    documents = sum(facts[split]["documents"] for split in ("train", "validation"))
    assert said[1][-1] == said[0][-1]
    assert said[0][-1].startswith(f"{tmp_path / 'corpus'}: {documents} documents, ")
    assert "2 too short" in said[0][-1]
    assert said[0][-1].endswith("card.html")
    assert "text read from {summary} (1 record)" in "\n".join(said[0])


def test_an_empty_folder_name(tmp_path: Path) -> None:
    """If a shell variable is empty, as in --folder "$NOTES", the folder must not become the current directory."""
    with pytest.raises(ConfigError, match="the current directory is"):
        load(CollectConfig, {"folder": "", "out": str(tmp_path)})


def test_output_inside_its_own_source(notes: Path) -> None:
    with pytest.raises(ConfigError, match="is inside the source folder"):
        run(CollectConfig(folder=notes, out=notes / "runs" / "corpus"), console=QUIET)


def test_no_sources(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least one source"):
        run(CollectConfig(out=tmp_path / "corpus"), console=QUIET)


def test_an_old_setting_names_the_new_one() -> None:
    with pytest.raises(ConfigError, match="perplexity_model"):
        load(CollectConfig, {"out": "corpus", "judge": "model"})


def test_the_quickstart_recipe_is_valid(tmp_path: Path) -> None:
    import tomllib

    recipe = tomllib.loads(bundled()["quickstart"].read_text(encoding="utf-8"))
    config = CollectConfig(**recipe["collect"], out=tmp_path)
    assert len({source.genre for source in config.sources}) >= 3
    for source in config.sources:
        assert isinstance(source, PackageSource)
        assert source.hash
        assert source.license not in ("", "unknown")


def test_import_is_light() -> None:
    """The --help option of every command imports this module."""
    heavy = "{'torch', 'pyarrow', 'sklearn'}"
    code = f"import sys, groundup.commands.collect; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
