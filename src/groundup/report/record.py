"""The records of a run: artifacts, facts and training curves of its stages, in pipeline order."""

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
HELD_OUT_TEXT = "held-out text"  # "source" of an evaluation on the run's validation set; otherwise a path
_REPORT_STAGE = "report"  # its record is in the run directory itself, so it is not an output of the run
_EXAMPLE_CHARS = 280


@dataclass(frozen=True, slots=True)
class StageOutput:
    """The output of one stage.

    Attributes:
        directory: Output directory.
        artifact: Its record.
        stage: Name of the stage in a recipe.
        facts: The results in its record.
        curve: Training metrics; None for other stages.
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
        display_path: Path for commands, relative to the working directory or to the parent. A report is shared, so it
            must not contain a private absolute path.
        outputs: Outputs in pipeline order, and by age within a stage.
        digests: Digest of each output's record by directory name. It changes whenever the report changes.
        has_recipe: Whether the directory contains `recipe.toml`.
    """

    name: str
    display_path: str
    outputs: tuple[StageOutput, ...]
    digests: Mapping[str, str]
    has_recipe: bool

    def stage(self, name: str) -> StageOutput | None:
        """Return the newest output of a stage.

        An evaluation of the base model on the run's validation set is preferred.
        """
        outputs = [output for output in self.outputs if output.stage == name]
        if name == EVALUATE:
            outputs = [output for output in outputs if output.facts.words("source") == HELD_OUT_TEXT]
            of_base = [output for output in outputs if self._evaluates_base(output)]
            outputs = of_base or outputs
        return outputs[-1] if outputs else None

    def evaluated_output(self, evaluation: StageOutput) -> StageOutput | None:
        """Return the output with the model of an evaluation; None if that model is not in this run."""
        return self.output_with_digest(evaluation.artifact.inputs.get("model", ""))

    def output_with_digest(self, digest: str) -> StageOutput | None:
        """Return the output with this digest, which other stages record as their input."""
        return next((output for output in self.outputs if output.artifact.digest == digest), None)

    def _evaluates_base(self, evaluation: StageOutput) -> bool:
        evaluated = self.evaluated_output(evaluation)
        return evaluated is not None and evaluated.stage == PRETRAIN

    def card(self) -> Facts:
        """Return the data card; empty without a corpus."""
        corpus = self.stage(COLLECT)
        return Facts(read_card(corpus.directory)) if corpus else Facts(None)

    def evaluation(self) -> Facts:
        """Return the full evaluation; empty without one."""
        output = self.stage(EVALUATE)
        path = output.directory / "report.json" if output else None
        return Facts(read_json(path)) if path and path.is_file() else Facts(None)

    def tokenized_example(self) -> list[bytes]:
        """Return the first tokens of the first validation document, as bytes.

        The result is empty without a corpus or a tokenizer. Documents are ordered by their hash, so the choice is
        arbitrary.
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
        The records, without model weights.

    Raises:
        DataError: Not a directory, or no finished stage.
        FormatError: A damaged record.
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
            rule="no finished stage in this directory",
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
    """Return the recipe name of a stage, such as "finetune.instruct" for "finetune_instruct" or "finetune instruct"."""
    return re.sub(r"[_ ]", ".", recorded)
