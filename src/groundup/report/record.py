"""A run as the page sees it: what each stage left, read back and put in order."""

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
_ROAD = (COLLECT, TOKENIZE, PRETRAIN, INSTRUCT, CLASSIFY, EVALUATE, COMPARE)
OWN_TEXT = "held-out text"  # what `evaluate` calls the run's own, where a user's file has its path
_OWN_STAGE = "report"  # its record lies in a run's directory, so that the parent looks like a run
_EXAMPLE_CHARACTERS = 280


@dataclass(frozen=True, slots=True)
class StageOutput:
    """What one stage left.

    Attributes:
        stage: its name in a recipe.
        facts: what it found out, of its artifact.
        curve: of its training, if it was one.
    """

    directory: Path
    artifact: Artifact
    stage: str
    facts: Facts
    curve: Curve | None


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run's directory, read.

    Attributes:
        name: of the directory.
        place: how it may be called in a command, from the directory that the page was made in, or else from its parent:
            the full path may be private, and a page is made to be shown.
        outputs: in the order of the road; those of one stage, oldest first.
        digests: name of a directory -> digest of its record; changes when anything on the page does.
        recipe: whether the recipe lies there.
    """

    name: str
    place: str
    outputs: tuple[StageOutput, ...]
    digests: Mapping[str, str]
    recipe: bool

    def stage(self, name: str) -> StageOutput | None:
        """The newest output of a stage; of evaluations, that of the base model on the run's own held-out text."""
        found = [output for output in self.outputs if output.stage == name]
        if name == EVALUATE:
            found = [output for output in found if output.facts.words("source") == OWN_TEXT]
            of_base = [output for output in found if (made := self.measured(output)) and made.stage == PRETRAIN]
            found = of_base or found
        return found[-1] if found else None

    def measured(self, evaluation: StageOutput) -> StageOutput | None:
        """The output whose model an evaluation measured; None where it is not of this run, or is no longer there."""
        return self.made_by(evaluation.artifact.inputs.get("model", ""))

    def made_by(self, digest: str) -> StageOutput | None:
        """The output that another stage recorded as its input."""
        return next((output for output in self.outputs if output.artifact.digest == digest), None)

    def card(self) -> Facts:
        """The data card; empty where there is no corpus."""
        corpus = self.stage(COLLECT)
        return Facts(read_card(corpus.directory)) if corpus else Facts(None)

    def evaluation(self) -> Facts:
        """The evaluation in full; empty where there is none."""
        found = self.stage(EVALUATE)
        path = found.directory / "report.json" if found else None
        return Facts(read_json(path)) if path and path.is_file() else Facts(None)

    def tokenized_example(self) -> list[bytes]:
        """The beginning of the first held-out document, as the bytes of each token; empty without corpus or vocabulary.

        A corpus is in the order of its documents' hashes, so that the first is picked by nobody.
        """
        corpus, tokens = self.stage(COLLECT), self.stage(TOKENIZE)
        if not (corpus and tokens and shard_paths(corpus.directory, "validation")):
            return []
        document = next(read_documents(corpus.directory, "validation"), None)
        if document is None:
            return []
        tokenizer = Tokenizer.load(tokens.directory / "tokenizer")
        return [tokenizer.token_bytes(token) for token in tokenizer.encode(document.text[:_EXAMPLE_CHARACTERS])]


def read_run(directory: Path) -> RunRecord:
    """Read the records of all finished stages in a run's directory.

    Raises:
        DataError: no such directory, or no stage has finished in it.
        FormatError: a record is damaged.
    """
    if not directory.is_dir():
        raise DataError(
            f"{directory}: " + ("a file" if directory.exists() else "no such directory"),
            rule="RUN is a run's directory",
            fix="Give one that groundup run made, for example runs/quickstart.",
        )
    found = {path: made for path, made in outputs_in(directory).items() if made.stage != _OWN_STAGE}
    if not found:
        raise DataError(
            f"{directory}: no finished stage in it",
            rule="a run's directory holds the outputs of stages, each with an artifact.json",
            fix="Give the run's directory, not one of a stage; or wait until a stage has finished.",
        )
    outputs = [
        StageOutput(path, made, stage_name(made.stage), Facts(made.facts), read_curve(path / "metrics.jsonl"))
        for path, made in found.items()
    ]
    outputs.sort(key=lambda output: _ROAD.index(output.stage) if output.stage in _ROAD else len(_ROAD))
    return RunRecord(
        name=directory.resolve().name,
        place=_place(directory.resolve()),
        outputs=tuple(outputs),
        digests={path.name: file_digest(path / "artifact.json") for path in found},
        recipe=(directory / "recipe.toml").is_file(),
    )


def _place(directory: Path) -> str:
    here = Path.cwd()
    return str(directory.relative_to(here)) if directory.is_relative_to(here) else directory.name


def stage_name(recorded: str) -> str:
    """A stage's name in a recipe: "finetune_instruct", its module, and "finetune instruct", its command, are one."""
    return re.sub(r"[_ ]", ".", recorded)
