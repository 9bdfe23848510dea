"""Runs independent tasks in a pool of processes; a worker that is killed loses nothing and hangs nothing.

A task is a picklable value with a `run()` whose result is a file that is whole or absent, and `done()` that
looks for it. So a task may be run again after any accident, and another executor (a cluster) can take this
one's place.
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
    """One piece of work."""

    @property
    def label(self) -> str:
        """What the work is on, for messages."""
        ...

    def done(self) -> bool:
        """Whether the result is there."""
        ...

    def run(self) -> None:
        """Do the work and leave the result as a file, atomically."""
        ...


TaskT = TypeVar("TaskT", bound=Task)


class Executor(Protocol):
    """Runs all tasks that are not done yet, somewhere, and calls `on_done` here for each when it is."""

    def __call__(self, tasks: Sequence[TaskT], on_done: Callable[[TaskT], None]) -> None:
        """Return when all are done; the first exception of a task is raised."""
        ...


class ProcessPool:
    """Runs tasks in processes of this machine, which stay for the next tasks until the `with` block ends.

    An exception of a task, or Ctrl-C, ends a call at once and is raised there; other tasks are cut off. When a worker
    dies (killed, out of memory), the unfinished tasks are run again in new processes, the last time one at a time so
    that the task that kills its worker is known.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._processes: _Processes | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def __call__(self, tasks: Sequence[TaskT], on_done: Callable[[TaskT], None]) -> None:
        """Run all tasks that are not done yet; `on_done` is called here for each when it is.

        Raises:
            ResourceError: a task's worker died every time.
        """
        waiting = [task for task in tasks if not task.done()]
        if self.workers <= 1 or len(waiting) <= 1:
            for task in waiting:
                task.run()
                on_done(task)
            return
        for _ in range(ATTEMPTS - 1):
            if not (waiting := self._attempt(waiting, on_done)):
                return
        with ProcessPool(self.workers) as last:
            last._processes = _Processes(1)
            if waiting := last._attempt(waiting, on_done):
                raise worker_died(waiting[0])

    def _attempt(self, tasks: Sequence[TaskT], on_done: Callable[[TaskT], None]) -> list[TaskT]:
        """Run tasks; return those left over when a worker died."""
        left = list(tasks)
        self._processes = self._processes or _Processes(self.workers)
        try:
            futures = {self._processes.pool.submit(run_task, task): task for task in tasks}
            for future in as_completed(futures):
                if failed := future.result():
                    raise worker_error(failed)
                task = futures[future]
                left.remove(task)
                on_done(task)
        except BrokenProcessPool:
            self._end()
            for task in [task for task in left if task.done()]:
                left.remove(task)
                on_done(task)
        except BaseException:
            self._end()  # what the workers were at may take minutes, and leaves nothing half done
            raise
        return left

    def _end(self) -> None:
        if self._processes is not None:
            self._processes.end()
            self._processes = None


class _Processes:
    """A pool whose workers end with it, or with this process, at once."""

    def __init__(self, workers: int) -> None:
        context = multiprocessing.get_context("spawn")  # fork would copy the locks of our threads (progress, Arrow)
        self._stop_seen, self._stop = context.Pipe(duplex=False)
        prepared = (self._stop_seen,)
        self.pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_prepare_worker, initargs=prepared)

    def end(self) -> None:
        """Stop the workers, whatever they are at."""
        self._stop.close()
        self.pool.shutdown(wait=True, cancel_futures=True)
        self._stop_seen.close()


def worker_died(task: Task) -> ResourceError:
    """The error for a task that no worker survives."""
    return ResourceError(
        f"{task.label}: the process that worked on it died {ATTEMPTS} times",
        rule="a worker process must live until its task is done",
        fix="Perhaps memory ran out: close other programs, or set workers = 1. In a script of your own, call "
        'under `if __name__ == "__main__":`.',
    )


Failure = tuple[type[GroundupError], str, str, str]


def run_task(task: Task) -> Failure | None:
    """Run a task; our own errors come back as parts: with their keyword arguments they do not pickle."""
    try:
        task.run()
    except GroundupError as error:
        return type(error), error.value, error.rule, error.fix
    finally:
        _forget()
    return None


def _forget() -> None:
    """Give back what the largest document of a task took: workers that keep it grow with the input."""
    import pyarrow as pa

    pa.default_memory_pool().release_unused()
    release_free_memory()


def worker_error(parts: Failure) -> GroundupError:
    """The error whose parts a worker sent."""
    kind, value, rule, fix = parts
    return kind(value, rule=rule, fix=fix)


def _prepare_worker(stop_seen: Connection) -> None:
    """End this worker when it is told to, or its parent is killed: else it would go on and write beside a new run."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the parent decides

    def watch() -> None:
        wait([parent.sentinel, stop_seen])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
