"""Measure the machine on the first rank, and use the same execution settings on all ranks and in resumed runs."""

from __future__ import annotations

from groundup.distributed.ranks import Ranks
from groundup.kernels import Machine, measure_machine, with_kernels
from groundup.model import ModelConfig
from groundup.train.run import TrainingRun
from groundup.train.settings import TrainingSettings


def measured_machine(
    settings: TrainingSettings,
    run: TrainingRun,
    *,
    native: bool = True,
    compile: bool = True,
    fp8: bool = False,
    frozen: bool = False,
) -> Machine:
    """Measure the machine on the first rank and broadcast the result to all ranks.

    The arguments are described in `groundup.kernels.measure_machine`.
    """
    here = None
    if run.ranks.first:
        measured = measure_machine(
            threads=settings.threads, native=native, compile=compile, fp8=fp8, dtype=settings.dtype, frozen=frozen
        )
        if compile and not (measured.native or measured.compile):
            run.console.warn("No working C++ compiler: training runs uncompiled, at less than half the speed.")
        here = measured.to_json()
    return Machine.from_json(run.ranks.broadcast_object(here))


def with_measured_kernels(machine: Machine, config: ModelConfig, ranks: Ranks) -> Machine:
    """Time the C++ kernels for a model on the first rank, and return the machine with the fastest kernels on all ranks.

    Args:
        machine: The machine, which is returned unchanged if it does not use the C++ kernels.
        config: Architecture of a model whose weights are all trained.
        ranks: Ranks of the run.
    """
    here = with_kernels(machine, config).to_json() if ranks.first else None
    return Machine.from_json(ranks.broadcast_object(here))


def machine_of_run(
    run: TrainingRun, settings: TrainingSettings, trained: ModelConfig | None, *, compile: bool = True
) -> Machine:
    """Return the saved machine of a run. If the run is new, measure the machine and save it.

    Args:
        run: The training run.
        settings: Settings of the run.
        trained: Architecture of the model, for which the fastest kernels are chosen, if all its weights are trained;
            otherwise None.
        compile: Whether the model may be compiled.
    """
    if saved := run.saved_machine():
        return saved
    machine = measured_machine(settings, run, compile=compile, frozen=trained is None)
    if trained is not None:
        machine = with_measured_kernels(machine, trained, run.ranks)
    run.save_plan(machine=machine.to_json())
    return machine
