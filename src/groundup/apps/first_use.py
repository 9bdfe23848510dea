"""The score of a model on an application, shown when the application is used."""

from __future__ import annotations

from pathlib import Path

from groundup.apps.catalog import CatalogEntry
from groundup.apps.classifier_runner import ClassifierRunner
from groundup.apps.runner import AppRunner
from groundup.apps.scores import AppScore, no_score_note, save_scores, score_of, stored_score, warning_of
from groundup.apps.test_set import run_test_set
from groundup.core.console import Console
from groundup.core.errors import GroundupError

# A model of this size takes seconds for a test set on a CPU. Larger models are tested by `groundup apps evaluate`.
_MAX_PARAMETERS = 20_000_000


def show_score(runner: AppRunner | ClassifierRunner, found: CatalogEntry, model: Path, console: Console) -> None:
    """Print a warning if the model is not better than the baseline of the application.

    If no score is stored with the model, a small model is tested now, and the score is stored. For a large model, a
    note shows the command that tests it.

    Args:
        runner: Runner that holds the model.
        found: Application to be used.
        model: Model that the user gave, for the command in the note.
        console: Console for messages and progress.
    """
    if found.app.test is None or runner.directory is None:
        return
    try:
        stored = stored_score(runner.directory, found)
        if stored is None and runner.num_parameters > _MAX_PARAMETERS:
            console.note(no_score_note(found, model))
            return
        score = stored or _tested(runner, found, console)
        if (warning := warning_of(found, score)) is not None:
            console.warn(f"{found.app.name}: {warning}")
        if stored is None:
            save_scores(runner.directory, {found.app.name: score})
    except (GroundupError, OSError) as error:
        # The context can be too short for the test set, or the directory can be read-only. The application runs anyway.
        console.warn(f"no score of {found.app.name} was stored: {error}")


def _tested(runner: AppRunner | ClassifierRunner, found: CatalogEntry, console: Console) -> AppScore:
    label = f"first use of {found.app.name} with this model: testing it"
    with console.progress(label, len(found.test_rows()), "examples") as bar:
        return score_of(run_test_set(runner, found, advance=bar.advance), found)
