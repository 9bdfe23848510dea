"""The score of a model on an application, shown when the application is used."""

from __future__ import annotations

from pathlib import Path

from groundup.apps.catalog import CatalogEntry
from groundup.apps.classifier_runner import ClassifierRunner
from groundup.apps.runner import AppRunner
from groundup.apps.scores import no_score_note, save_scores, score_of, stored_score, warning_of
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
    directory = runner.directory
    if found.app.test is None or directory is None:
        return
    score = stored_score(directory, found)
    if score is None:
        if runner.num_parameters > _MAX_PARAMETERS:
            console.note(no_score_note(found, model))
            return
        label = f"first use of {found.app.name} with this model: testing it"
        with console.progress(label, len(found.test_rows()), "examples") as bar:
            score = score_of(run_test_set(runner, found, advance=bar.advance), found)
        try:
            save_scores(directory, {found.app.name: score})
        except (GroundupError, OSError) as error:  # The directory can be read-only. The score is shown all the same.
            console.warn(f"the score was not stored: {error}")
    warning = warning_of(found, score)
    if warning is not None:
        console.warn(f"{found.app.name}: {warning}")
