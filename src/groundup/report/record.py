"""The records of a run: the artifacts, results and training curves of its stages, in pipeline order."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from groundup.core.artifact import Artifact, outputs_in
from groundup.core.errors import DataError
from groundup.core.facts import Facts
from groundup.core.files import file_digest, read_json
from groundup.corpus import read_card, read_documents, shard_paths
from groundup.report.curves import Curve, read_curve
from groundup.tokenizer import Tokenizer

COLLECT, TOKENIZE, PRETRAIN, EVALUATE = "collect", "tokenize", "pretrain", "evaluate"
INSTRUCT, CLASSIFY, COMPARE = "finetune.instruct", "finetune.classify", "compare"
_STAGE_ORDER = (COLLECT, TOKENIZE, PRETRAIN, INSTRUCT, CLASSIFY, EVALUATE, COMPARE)
# The field "source" of an evaluation has this value if the text was the run's validation set. Otherwise, "source" is
# the path of the text file.
HELD_OUT_TEXT = "held-out text"
_REPORT_STAGE = "report"  # The record of this stage is in the run directory itself and is not a stage output.
_EXAMPLE_CHARS = 280


@dataclass(frozen=True, slots=True)
class StageOutput:
    """The output of one stage.

    Attributes:
        directory: Output directory of the stage.
        artifact: The record `artifact.json` of the output.
        stage: Name of the stage in a recipe.
        facts: The results that the record contains.
        curve: Training metrics. The value is None if the stage does not train a model.
    """

    directory: Path
    artifact: Artifact
    stage: str
    facts: Facts
    curve: Curve | None


@dataclass(frozen=True, slots=True)
class RunRecord:
    """The records of a run.

    Attributes:
        name: Name of the run directory.
        display_path: Path of the run directory that the report prints in commands. The path is relative to the working
            directory. If the run is not below the working directory, the path is only the name of the run. An absolute
            path could be private, and users share reports.
        outputs: Outputs in pipeline order. Outputs of the same stage are sorted from oldest to newest.
        digests: Mapping from the directory name of each output to the digest of its record. If no digest has changed,
            the report is up to date.
        has_recipe: Whether the directory contains `recipe.toml`.
    """

    name: str
    display_path: str
    outputs: tuple[StageOutput, ...]
    digests: Mapping[str, str]
    has_recipe: bool

    def stage(self, name: str) -> StageOutput | None:
        """Return the newest output of a stage, or None if the stage has not run.

        Of the evaluations, only those on the run's validation set count, and evaluations of the base model are
        preferred.
        """
        outputs = [output for output in self.outputs if output.stage == name]
        if name == EVALUATE:
            outputs = [output for output in outputs if output.facts.words("source") == HELD_OUT_TEXT]
            of_base = [output for output in outputs if self._evaluates_base(output)]
            outputs = of_base or outputs
        return outputs[-1] if outputs else None

    def evaluated_output(self, evaluation: StageOutput) -> StageOutput | None:
        """Return the output that contains the evaluated model, or None if this model is not part of the run."""
        return self.output_with_digest(evaluation.artifact.inputs.get("model", ""))

    def output_with_digest(self, digest: str) -> StageOutput | None:
        """Return the output that has this digest. Stages record the digests of their inputs."""
        return next((output for output in self.outputs if output.artifact.digest == digest), None)

    def _evaluates_base(self, evaluation: StageOutput) -> bool:
        evaluated = self.evaluated_output(evaluation)
        return evaluated is not None and evaluated.stage == PRETRAIN

    def card(self) -> Facts:
        """Return the data card of the corpus, which is empty if the run does not contain a corpus."""
        corpus = self.stage(COLLECT)
        return Facts(read_card(corpus.directory)) if corpus else Facts(None)

    def evaluation(self) -> Facts:
        """Return all results of the evaluation, which are empty if the model has not been evaluated."""
        output = self.stage(EVALUATE)
        path = output.directory / "report.json" if output else None
        return Facts(read_json(path)) if path and path.is_file() else Facts(None)

    def tokenized_example(self) -> list[bytes]:
        """Return the first tokens of the first validation document, as bytes.

        The result is empty if the run does not contain a corpus and a tokenizer. The first document is an arbitrary
        choice, because documents are sorted by their hash.
        """
        corpus, tokens = self.stage(COLLECT), self.stage(TOKENIZE)
        if not (corpus and tokens and shard_paths(corpus.directory, "validation")):
            return []
        document = next(read_documents(corpus.directory, "validation"), None)
        if document is None:
            return []
        tokenizer = Tokenizer.load(tokens.directory / "tokenizer")
        return [tokenizer.token_bytes(token) for token in tokenizer.encode(document.text[:_EXAMPLE_CHARS])]


def read_run(directory: Path) -> RunRecord:
    """Read the records of all finished stages of a run.

    Args:
        directory: Run directory.

    Returns:
        The records. Model weights are not loaded.

    Raises:
        DataError: `directory` is not a directory or does not contain a finished stage.
        FormatError: A record is damaged.
    """
    if not directory.is_dir():
        raise DataError(
            str(directory),
            rule="not a directory" if directory.exists() else "directory not found",
            fix="Give the directory of a run, such as runs/quickstart.",
        )
    artifacts = {path: made for path, made in outputs_in(directory).items() if made.stage != _REPORT_STAGE}
    if not artifacts:
        raise DataError(
            str(directory),
            rule="this directory has no finished stage",
            fix="Give the run directory, not the directory of a stage, or wait until a stage has finished.",
        )
    outputs = [
        StageOutput(path, made, stage_name(made.stage), Facts(made.facts), read_curve(path / "metrics.jsonl"))
        for path, made in artifacts.items()
    ]
    order = {stage: index for index, stage in enumerate(_STAGE_ORDER)}
    outputs.sort(key=lambda output: order.get(output.stage, len(order)))
    return RunRecord(
        name=directory.resolve().name,
        display_path=_display_path(directory.resolve()),
        outputs=tuple(outputs),
        digests={path.name: file_digest(path / "artifact.json") for path in artifacts},
        has_recipe=(directory / "recipe.toml").is_file(),
    )


def _display_path(directory: Path) -> str:
    cwd = Path.cwd()
    return str(directory.relative_to(cwd)) if directory.is_relative_to(cwd) else directory.name


def stage_name(recorded: str) -> str:
    """Return the name that a stage has in recipes.

    For example, the name of "finetune_instruct" and of "finetune instruct" is "finetune.instruct".
    """
    return re.sub(r"[_ ]", ".", recorded)
