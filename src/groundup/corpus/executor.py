"""Run independent tasks in a process pool that survives killed workers.

A task is a picklable value. `run()` writes its result as a file atomically, and `done()` checks for that file. A task
can therefore run again after a crash, and another executor (such as a cluster) can run the same tasks.
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
        """A description of the task for messages."""
        ...

    def done(self) -> bool:
        """Return whether the result file of the task exists."""
        ...

    def run(self) -> None:
        """Compute the result and write it to a file atomically."""
        ...


TaskT = TypeVar("TaskT", bound=Task)


class Executor(Protocol):
    """Runs the unfinished tasks, and calls `on_done` in this process after each task."""

    def __call__(self, tasks: Sequence[TaskT], on_done: Callable[[TaskT], None]) -> None:
        """Run all tasks, and raise the first exception that a task raises."""
        ...


class ProcessPool:
    """Runs tasks in local processes, which are reused until the `with` block ends.

    If a task raises an exception or the user presses Ctrl-C, all tasks stop immediately and the call raises the
    exception. If a worker is killed, for example because memory ran out, the unfinished tasks run again in new
    processes. In the last attempt, only one task runs at a time, to identify the task whose worker is killed.

    Args:
        workers: Number of processes. If there is only one worker, the tasks run in this process.
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
            on_done: Function that is called in this process after each task.

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
        """Run tasks. If a worker was killed, return the tasks that are not finished."""
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
            self._end()  # stops the running tasks, because they may take minutes and write their results atomically
            raise
        return unfinished

    def _end(self) -> None:
        if self._processes is not None:
            self._processes.end()
            self._processes = None


class _Processes:
    """A process pool whose workers exit immediately when the pool or this process ends."""

    def __init__(self, workers: int) -> None:
        # Forking would copy locks that other threads hold, such as locks of the progress bar.
        context = multiprocessing.get_context("spawn")
        self._stop_receiver, self._stop = context.Pipe(duplex=False)
        initargs = (self._stop_receiver,)
        self.pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_prepare_worker, initargs=initargs)

    def end(self) -> None:
        """Stop all worker processes immediately."""
        self._stop.close()
        self.pool.shutdown(wait=True, cancel_futures=True)
        self._stop_receiver.close()


def worker_killed(task: Task) -> ResourceError:
    """Return the error for a task whose worker was killed in every attempt."""
    return ResourceError(
        f"{task.label}: the worker process was killed {ATTEMPTS} times",
        fix="If memory ran out, close other programs or set workers = 1. In a Python script, call the function under "
        '`if __name__ == "__main__":`.',
    )


Failure = tuple[type[GroundupError], str, str, str]


def run_task(task: Task) -> Failure | None:
    """Run a task, and return None or the parts of a `GroundupError`, which cannot be pickled as an exception."""
    try:
        task.run()
    except GroundupError as error:
        return type(error), error.value, error.rule, error.fix
    finally:
        _release_memory()
    return None


def _release_memory() -> None:
    """Return freed memory to the system.

    Without this call, a worker process keeps the memory that its largest document needed.
    """
    import pyarrow as pa

    pa.default_memory_pool().release_unused()
    release_free_memory()


def worker_error(parts: Failure) -> GroundupError:
    """Rebuild the error from the parts that a worker sent."""
    kind, value, rule, fix = parts
    return kind(value, rule=rule, fix=fix)


def _prepare_worker(stop_receiver: Connection) -> None:
    """Make this worker exit when the pool ends or the parent process is killed.

    A worker that continues could write files while a new run is in progress.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C sends SIGINT to all processes, but only the parent handles it

    def watch() -> None:
        wait([parent.sentinel, stop_receiver])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
