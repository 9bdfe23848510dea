"""Run tasks on Ray, either on an existing cluster or on a temporary local cluster.

Tasks exchange files, so the sources and the output directory must be on a shared file system if the cluster consists of
several machines. If a worker or a machine fails, its task runs again on another worker. Results are written atomically.
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
from groundup.corpus.executor import ATTEMPTS, TaskT, run_task, worker_error, worker_killed

_TASKS_PER_CPU = 4  # maximum number of submitted tasks per CPU, because `ray.wait` is slow for many tasks


@dataclass(frozen=True, slots=True)
class RayCluster:
    """An executor that runs tasks on Ray.

    The executor uses the cluster at RAY_ADDRESS if this variable is set, otherwise a local cluster that is already
    running. If there is no running cluster, the executor starts a local cluster.

    Args:
        workers: Number of worker processes, if a local cluster is started.
    """

    workers: int

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if ray := sys.modules.get("ray"):
            ray.shutdown()

    def __call__(self, tasks: Sequence[TaskT], on_done: Callable[[TaskT], None]) -> None:
        """Run the unfinished tasks, like `executor.ProcessPool`.

        Args:
            tasks: The tasks.
            on_done: Function that is called in this process when a task is finished.

        Raises:
            ConfigError: Ray is not installed.
            ResourceError: The worker of a task was killed in every attempt.
        """
        unfinished = [task for task in tasks if not task.done()]
        if not unfinished:
            return
        ray = self._connected()
        remote = ray.remote(num_cpus=1, max_retries=ATTEMPTS - 1)(run_task)
        max_running = _TASKS_PER_CPU * max(1, int(ray.cluster_resources().get("CPU", 1)))
        queue = list(reversed(unfinished))
        running: dict[Any, TaskT] = {}
        try:
            while queue or running:
                while queue and len(running) < max_running:
                    task = queue.pop()
                    running[remote.remote(task)] = task
                finished, _ = ray.wait(list(running), num_returns=1)
                for reference in finished:
                    task = running.pop(reference)
                    try:
                        failed = ray.get(reference)
                    except ray.exceptions.WorkerCrashedError as error:
                        raise worker_killed(task) from error
                    if failed:
                        raise worker_error(failed)
                    on_done(task)
        finally:
            for reference in running:
                ray.cancel(reference, force=True)

    def _connected(self) -> Any:
        disable_telemetry()
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # silences a deprecation warning
        try:
            import ray
        except ImportError as error:
            raise ConfigError(
                'engine = "ray": Ray is not installed',
                fix='Run pip install "groundup[ray]", or remove the engine setting to use local processes.',
            ) from error
        if not ray.is_initialized():
            try:
                ray.init("auto", log_to_driver=False, logging_level=logging.ERROR)
            except ConnectionError:
                ray.init(
                    num_cpus=self.workers, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
                )
        return ray
