"""The same tasks on Ray: on a cluster that is there already, or on one that is started on this machine for the while.

Tasks hand files on to each other, so a cluster of several machines needs sources and output on a disk that all of
them see. A task whose worker or machine dies is run again elsewhere; its result is a file that is whole or absent.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from groundup.core.errors import ConfigError
from groundup.core.telemetry import disable_telemetry
from groundup.corpus.executor import ATTEMPTS, TaskT, run_task, worker_died, worker_error

_QUIETLY: Any = {"log_to_driver": False, "logging_level": logging.ERROR}
_IN_FLIGHT = 4  # tasks handed to Ray at a time for each of its processors: asking it about many costs time


@dataclass(frozen=True, slots=True)
class RayCluster:
    """Runs tasks on Ray: on the cluster that RAY_ADDRESS names or that runs here, else on one of `workers` processes.

    Raises:
        ConfigError: Ray is not installed.
    """

    workers: int

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if ray := sys.modules.get("ray"):
            ray.shutdown()

    def __call__(self, tasks: Sequence[TaskT], on_done: Callable[[TaskT], None]) -> None:
        """Run all tasks that are not done yet; see `executor.ProcessPool`.

        Raises:
            ResourceError: a task's worker died every time.
        """
        waiting = [task for task in tasks if not task.done()]
        if not waiting:
            return
        ray = self._connected()
        remote = ray.remote(num_cpus=1, max_retries=ATTEMPTS - 1)(run_task)
        most = _IN_FLIGHT * max(1, int(ray.cluster_resources().get("CPU", 1)))
        queue = list(reversed(waiting))
        running: dict[Any, TaskT] = {}
        try:
            while queue or running:
                while queue and len(running) < most:
                    task = queue.pop()
                    running[remote.remote(task)] = task
                finished, _ = ray.wait(list(running), num_returns=1)
                for reference in finished:
                    task = running.pop(reference)
                    try:
                        failed = ray.get(reference)
                    except ray.exceptions.WorkerCrashedError as error:
                        raise worker_died(task) from error
                    if failed:
                        raise worker_error(failed)
                    on_done(task)
        finally:
            for reference in running:
                ray.cancel(reference, force=True)

    def _connected(self) -> Any:
        disable_telemetry()
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # a warning about a change of its own to come
        try:
            import ray
        except ImportError as error:
            raise ConfigError(
                'engine = "ray": Ray is not installed',
                rule="the engine must be installed",
                fix='Run pip install "groundup[ray]", or leave the engine out: processes of this machine do the work.',
            ) from error
        if not ray.is_initialized():
            try:
                ray.init("auto", log_to_driver=False, logging_level=logging.ERROR)
            except ConnectionError:
                ray.init(
                    num_cpus=self.workers, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
                )
        return ray
