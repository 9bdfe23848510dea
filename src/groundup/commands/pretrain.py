"""`groundup pretrain`: train a base model on token shards, from random weights or from an existing model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import model_validator

from groundup.core.artifact import Artifact, read
from groundup.core.config import setting
from groundup.core.console import Console
from groundup.core.pipeline import read_output
from groundup.train.initial_model import find_base, require_one_shape
from groundup.train.run import TrainingRun, drop_checkpoints, training_run
from groundup.train.settings import NOT_IN_FINGERPRINT, PretrainingSettings

if TYPE_CHECKING:
    from groundup.train.initial_model import Base

EXAMPLE = "groundup pretrain runs/notes/tokens --out runs/notes/base --minutes 5"


class PretrainConfig(PretrainingSettings):
    """Settings of `groundup pretrain`. Exactly one of `minutes`, `tokens` and `depth` must be set."""

    token_shards: Path = setting(help="output directory of groundup tokenize", positional=True)
    out: Path = setting(help="output directory for the model", flag=True)
    model: Path | None = setting(None, help="model to continue pretraining: a model or run directory", flag=True)
    num_evaluations: int = setting(8, help="number of evaluations and generated samples during training", ge=0)
    sample_prompt: str = setting("", help="prompt of the generated samples")

    @model_validator(mode="after")
    def _one_size(self) -> PretrainConfig:
        from groundup.train.planner import Budget

        Budget(self.minutes, self.tokens, self.depth)
        require_one_shape(self.shape, self.model, self.depth)
        return self


def run(config: PretrainConfig, *, console: Console | None = None) -> Artifact:
    """Pretrain a model, or resume an interrupted run with the same settings from its last checkpoint.

    Raises:
        DataError: The token shards or the base model do not exist.
        ConfigError: The architecture settings are inconsistent, or the base model or a teacher has another vocabulary.
        ResourceError: The model does not fit into memory.
        TrainingError: Training diverged.
    """
    from groundup.hub.resolve import base_identity
    from groundup.train.teachers import teacher_identities

    keys = config.model_dump(mode="json", exclude={"token_shards", "model", "teachers", *NOT_IN_FINGERPRINT})
    inputs = {"tokens": read_output(config.token_shards, "tokenize").digest}
    base = None
    if config.model:  # validated before `training_run` moves an earlier output to another path
        inputs["model"] = base_identity(config.model)
        base = find_base(config.model, config.token_shards / "tokenizer")
    inputs |= teacher_identities(config.teachers, config.token_shards / "tokenizer")
    with training_run(config.out, "pretrain", keys, inputs, console) as training:
        if not training.finished:
            _train(config, base, training)
        if training.ranks.first:
            drop_checkpoints(config.out)
    return read(config.out)


def _train(config: PretrainConfig, base: Base | None, run: TrainingRun) -> None:
    """Plan the run, train the model, and write the model directory with `artifact.json`."""
    from groundup.evaluation.during_training import comparison_facts, scored_tokens, show_text, text_score
    from groundup.train import Evaluation
    from groundup.train.pretraining import prepare_pretraining, pretrain, write_pretrained
    from groundup.train.pretraining_data import PretrainingData

    data = PretrainingData.open(config.token_shards, run.ranks)
    planned = prepare_pretraining(config, run, data, base)
    rows, num_tokens = planned.plan.micro_batch_size, scored_tokens(planned.plan.total_tokens)
    during, final = (text_score(data.validation, planned.model, each, rows) for each in num_tokens)
    show = show_text(planned.model, data.tokenizer, during, config.sample_prompt, run)
    after, before, facts = pretrain(planned, final, Evaluation(show, config.num_evaluations))
    write_pretrained(planned, facts | comparison_facts(after, before, str(config.model), run.console))
