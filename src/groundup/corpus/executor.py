"""Run independent tasks in a process pool that survives killed workers.

A task is a picklable value. `run()` writes its result as a file atomically, and `done()` checks for that file. A
task can therefore run again after a crash, and other executors (a cluster) can replace this one.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection, wait
from typing import Protocol, Self, TypeVar

from groundup.core.errors import GroundupError, ResourceError
from groundup.core.glibc import release_free_memory

ATTEMPTS = 3


class Task(Protocol):
    """A unit of work that is safe to repeat."""

    @property
    def label(self) -> str:
        """A description for messages."""
        ...

    def done(self) -> bool:
        """Return whether the result exists."""
        ...

    def run(self) -> None:
        """Write the result as a file, atomically."""
        ...


TaskT = TypeVar("TaskT", bound=Task)


class Executor(Protocol):
    """Runs unfinished tasks and calls `on_done` in this process after each."""

    def __call__(self, tasks: Sequence[TaskT], on_done: Callable[[TaskT], None]) -> None:
        """Run all tasks, and raise the first exception of a task."""
        ...


class ProcessPool:
    """Runs tasks in local processes, which are reused until the `with` block ends.

    An exception of a task, or Ctrl-C, stops all tasks immediately and is raised by the call. If a worker is killed,
    for example because memory ran out, the unfinished tasks run again in new processes. The last attempt runs one task
    at a time, to identify the task that kills its worker.

    Args:
        workers: Number of processes; 1 runs the tasks in this process.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._processes: _Processes | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def __call__(self, tasks: Sequence[TaskT], on_done: Callable[[TaskT], None]) -> None:
        """Run the unfinished tasks.

        Args:
            tasks: The tasks.
            on_done: Called in this process after each task.

        Raises:
            ResourceError: The worker of a task was killed in every attempt.
        """
        unfinished = [task for task in tasks if not task.done()]
        if self.workers <= 1 or len(unfinished) <= 1:
            for task in unfinished:
                task.run()
                on_done(task)
            return
        for _ in range(ATTEMPTS - 1):
            if not (unfinished := self._attempt(unfinished, on_done)):
                return
        with ProcessPool(self.workers) as last:
            last._processes = _Processes(1)
            if unfinished := last._attempt(unfinished, on_done):
                raise worker_killed(unfinished[0])

    def _attempt(self, tasks: Sequence[TaskT], on_done: Callable[[TaskT], None]) -> list[TaskT]:
        """Run tasks, and return the unfinished ones if a worker was killed."""
        unfinished = list(tasks)
        self._processes = self._processes or _Processes(self.workers)
        try:
            futures = {self._processes.pool.submit(run_task, task): task for task in tasks}
            for future in as_completed(futures):
                if failed := future.result():
                    raise worker_error(failed)
                task = futures[future]
                unfinished.remove(task)
                on_done(task)
        except BrokenProcessPool:
            self._end()
            for task in [task for task in unfinished if task.done()]:
                unfinished.remove(task)
                on_done(task)
        except BaseException:
            self._end()  # running tasks may take minutes, and their results are atomic
            raise
        return unfinished

    def _end(self) -> None:
        if self._processes is not None:
            self._processes.end()
            self._processes = None


class _Processes:
    """A process pool whose workers exit immediately when it ends or when this process exits."""

    def __init__(self, workers: int) -> None:
        context = multiprocessing.get_context("spawn")  # fork would copy locks held by other threads (progress, Arrow)
        self._stop_receiver, self._stop = context.Pipe(duplex=False)
        initargs = (self._stop_receiver,)
        self.pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_prepare_worker, initargs=initargs)

    def end(self) -> None:
        """Stop the workers immediately."""
        self._stop.close()
        self.pool.shutdown(wait=True, cancel_futures=True)
        self._stop_receiver.close()


def worker_killed(task: Task) -> ResourceError:
    """Return the error for a task whose worker was killed in every attempt."""
    return ResourceError(
        f"{task.label}: the worker process was killed {ATTEMPTS} times",
        fix="If memory ran out, close other programs or set workers = 1. In a Python script, call it under "
        '`if __name__ == "__main__":`.',
    )


Failure = tuple[type[GroundupError], str, str, str]


def run_task(task: Task) -> Failure | None:
    """Run a task, and return a `GroundupError` as its parts, because its keyword arguments do not pickle."""
    try:
        task.run()
    except GroundupError as error:
        return type(error), error.value, error.rule, error.fix
    finally:
        _release_memory()
    return None


def _release_memory() -> None:
    """Return freed memory to the system. Otherwise workers keep the memory of their largest document."""
    import pyarrow as pa

    pa.default_memory_pool().release_unused()
    release_free_memory()


def worker_error(parts: Failure) -> GroundupError:
    """Rebuild the error from the parts that a worker sent."""
    kind, value, rule, fix = parts
    return kind(value, rule=rule, fix=fix)


def _prepare_worker(stop_receiver: Connection) -> None:
    """Exit when the pool ends or the parent is killed. Otherwise the worker would write next to a new run."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent handles it

    def watch() -> None:
        wait([parent.sentinel, stop_receiver])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
