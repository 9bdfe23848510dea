"""Teachers: models that are trained first, with other seeds, and whose mean probabilities the model of a run learns.

If a text is too small for the time, more epochs or a larger model would overfit. The mean of several models is much
better than each of them, and one model can learn most of it (Kim et al. 2025, arXiv:2509.14786).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from groundup.core.errors import ConfigError
from groundup.hub import load_model, save_model
from groundup.hub.directory import read_full_config
from groundup.hub.resolve import base_identity, resolve_model
from groundup.kernels import Machine, prepare_model
from groundup.model import Transformer
from groundup.train.initial_model import InitialModel, find_base
from groundup.train.objectives import Distillation, NextToken, Objective
from groundup.train.planner import Plan, micro_batches_per_rank
from groundup.train.planner.forecast import distillation_runs
from groundup.train.planner.plan import planned_token_dropout
from groundup.train.pretraining_data import PretrainingData
from groundup.train.run import CHECKPOINTS, TrainingRun, training_run
from groundup.train.settings import PretrainingSettings
from groundup.train.trainer import Trainer, TrainingSteps

_DIRECTORY = "teachers"  # in the directory of checkpoints, which is deleted when the run has finished


def teacher_identities(teachers: Sequence[Path], tokenizer_directory: Path) -> dict[str, str]:
    """Return the digests of the teachers' files, by a name for each teacher.

    Args:
        teachers: Model directories, or runs.
        tokenizer_directory: Directory of the tokenizer that encoded the training tokens.

    Raises:
        DataError: A directory does not contain a model.
        ConfigError: A teacher has another vocabulary than the training tokens.
    """
    found = {}
    for number, path in enumerate(teachers, 1):
        teacher = find_base(path, tokenizer_directory)
        if teacher.pieces or read_full_config(teacher.directory).vocab_size != teacher.config.vocab_size:
            raise ConfigError(
                f"teachers: {path} has another vocabulary than the training tokens",
                fix="Tokenize the text with the tokenizer of the teacher, groundup tokenize --tokenizer.",
            )
        found[f"teacher {number}"] = base_identity(path)
    return found


def objective_for(settings: PretrainingSettings, teachers: Sequence[Path], machine: Machine) -> Objective[Any]:
    """Return next-token prediction or, if there are teachers, distillation with the teachers on the machine's device.

    Args:
        settings: Settings of the run.
        teachers: Model directories, or runs.
        machine: Machine of this rank.
    """
    if not teachers:
        return NextToken(settings.z_loss)
    models = [load_model(resolve_model(path)) for path in teachers]
    for model in models:
        prepare_model(model, replace(machine, compile=False))
    return Distillation(models, settings.teacher_weight, settings.z_loss)


def train_teachers(
    settings: PretrainingSettings,
    run: TrainingRun,
    data: PretrainingData,
    start: InitialModel,
    machine: Machine,
    plan: Plan,
) -> list[Path]:
    """Train the teachers of a plan, or resume their training, and return their model directories.

    Each teacher has the plan of the run and another seed. If there is a time limit, the remaining time is divided among
    the remaining models, so the model gets its part of it also if training is slower than planned.

    Raises:
        ConfigError: Several ranks train together.
        TrainingError: Training diverged.
    """
    if plan.num_teachers and run.ranks.size > 1:
        raise ConfigError(
            f"num_teachers = {plan.num_teachers} on {run.ranks.size} ranks",
            fix="Train the teachers in runs of their own, and name their directories in the setting teachers.",
        )
    found = []
    keys = {"model": plan.model.to_json(), "rows": plan.rows, "steps": plan.total_steps}
    for number in range(1, plan.num_teachers + 1):
        directory = run.directory / CHECKPOINTS / _DIRECTORY / str(number)
        own = settings.model_copy(update={"seed": settings.seed + number})
        left = plan.num_teachers + 1 - number
        limit = plan.seconds and (plan.seconds - run.work.seconds) / distillation_runs(left)
        with training_run(directory, "teacher", keys | {"seed": own.seed}, {}, run.console) as teacher:
            if not teacher.finished:
                label = f"teacher {number} of {plan.num_teachers}"
                model = start.build(plan.model, own.seed)
                trainer = Trainer(model, NextToken(own.z_loss), own, teacher, machine=machine, label=label)
                _train_teacher(trainer, own, data, plan, limit)
                run.work.save_time()
        found.append(directory)
    return found


def _train_teacher(
    trainer: Trainer[Transformer, Any],
    settings: PretrainingSettings,
    data: PretrainingData,
    plan: Plan,
    seconds: float | None,
) -> None:
    """Train a teacher and write its model directory. It learns from the text alone, so it has token dropout.

    Args:
        trainer: Trainer with the initial model.
        settings: Settings of the teacher.
        data: Training text.
        plan: Plan of the run.
        seconds: Time limit of the teacher in seconds, or None.
    """
    given, run, tokenizer = settings.token_dropout, trainer.run, data.tokenizer
    trainer.model.set_dropout(plan.dropout, planned_token_dropout(plan) if given is None else given)
    rows, _ = micro_batches_per_rank(plan.rows, plan.micro_batch_size, run.ranks.size)
    loader = data.loader(settings.seed, run.ranks, plan.model.context_length, rows, trainer.machine)
    # A teacher that resumes may have another time limit, which is not part of the fingerprint of its steps.
    steps = replace(TrainingSteps.of(plan, run.ranks), seconds=seconds)
    trainer.train(loader.batch, steps)
    saved = save_model(run.directory, trainer.model, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id)
    run.work.finish(trainer.facts(), [*saved, *tokenizer.save(run.directory)])
