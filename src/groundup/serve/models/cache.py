"""Models that are loaded when a request first uses them, and unloaded when others need their memory.

Loading runs in a thread of its own, one model at a time, while other models answer. A model that a request uses is
never unloaded. If a model does not fit, the requests for it wait until the least recently used model is idle. New
requests for that model wait for their turn, so that a busy model does not block others forever.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from groundup.core.errors import GroundupError, ResourceError
from groundup.core.glibc import release_free_memory
from groundup.core.types import InferenceDtype
from groundup.hub import read_config
from groundup.hub.loading import OpenedModel
from groundup.hub.resolve import finished, has_chat_template
from groundup.hub.weight_files import weight_files
from groundup.inference import Engine
from groundup.inference.blocks import BlockPool
from groundup.inference.worker import Worker
from groundup.kernels.machine import usable_device
from groundup.kernels.memory import CleanFilePages, memory_bytes
from groundup.serve.models.catalog import model_object
from groundup.serve.models.model import ServedModel
from groundup.serve.openai.errors import ApiError, overloaded, shutting_down, unknown_model
from groundup.tokenizer import ChatTemplate

_RETRY_SECONDS = 5


@dataclass(frozen=True, slots=True, eq=False)
class ModelSource:
    """A model that can be loaded.

    Attributes:
        name: Name of the model in the API.
        directory: Model directory or model file.
        open: Function that loads the model and its chat template. The argument is the opened base model, see `base`.
        digest: Function that returns a digest of the files that outputs depend on. Prefixes in the KV cache are found
            again by a model with the same digest. If it is None, they are dropped with the model.
        base: Name of the model whose weights this one shares, and which is loaded first.
        version: A loaded model with another version is loaded again as soon as it is idle.
    """

    name: str
    directory: Path
    open: Callable[[OpenedModel | None], tuple[OpenedModel, ChatTemplate | None]]
    digest: Callable[[], bytes] | None = None
    base: str | None = None
    version: Hashable = None


class ModelSources(Protocol):
    """The models that can be loaded. Methods may read files."""

    def find(self, name: str) -> ModelSource | None:
        """Return the model with the given name in the API, or None if it does not exist."""
        ...

    def all(self) -> Sequence[ModelSource]:
        """Return all models."""
        ...


@dataclass(slots=True, eq=False, weakref_slot=True)
class LoadedModel:
    """A model in memory.

    Attributes:
        source: The model's source.
        opened: The model's weights and tokenizer.
        served: The model with its engine.
        base: The loaded model whose weights this one shares.
        nbytes: Bytes of the weights, without the weights of `base`.
        num_uses: Number of requests that use the model, and of loaded models that share its weights.
    """

    source: ModelSource
    opened: OpenedModel
    served: ServedModel
    base: LoadedModel | None
    nbytes: int
    num_uses: int = 0


class ModelsBusyError(ResourceError):
    """A model cannot be loaded now, because other models use the memory or are loaded first."""


@dataclass(slots=True, eq=False)
class _Load:
    """A model that is being loaded, and the number of requests that wait for it."""

    task: asyncio.Task[LoadedModel]
    num_waiting: int = 0


class ModelCache:
    """Models that are loaded on demand. This class implements `Models`, for one event loop at a time.

    Args:
        sources: The models that can be loaded.
        worker: The thread that runs all models; `close` closes it.
        pool: Memory of the KV cache of all models.
        dtype: Weight format.
        max_models: Maximum number of loaded models without adapters, or None for no limit.
        max_bytes: Maximum bytes of the weights of loaded models, or None for no limit.
        wait_seconds: Maximum number of seconds that a request waits until it is the turn of its model.
        explain: Function that returns the response to the error of a model that cannot be loaded.

    Attributes:
        sources: The models that can be loaded.
    """

    def __init__(
        self,
        sources: ModelSources,
        worker: Worker,
        pool: BlockPool,
        *,
        dtype: InferenceDtype = "auto",
        max_models: int | None = None,
        max_bytes: int | None = None,
        wait_seconds: float = 60.0,
        explain: Callable[[str, GroundupError], ApiError],
    ) -> None:
        self.sources = sources
        self._worker = worker
        self._pool = pool
        self.dtype: InferenceDtype = dtype
        self._max_models = max_models
        self._max_bytes = max_bytes
        self._wait_seconds = wait_seconds
        self._explain = explain
        self._loaded: OrderedDict[str, LoadedModel] = OrderedDict()  # the least recently used one first
        self._loads: dict[str, _Load] = {}
        self._sizes: dict[tuple[str, Hashable], int] = {}  # bytes of models that were loaded, by name and version
        self._turn = asyncio.Lock()  # of the model that is loaded now
        self._wanted: LoadedModel | None = None  # new requests for it wait, because its memory is needed
        self._released = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "groundup-load")

    @asynccontextmanager
    async def use(self, name: str) -> AsyncIterator[ServedModel]:
        """Return a context in which a model stays loaded; see `load`."""
        async with self.load(name) as loaded:
            yield loaded.served

    @asynccontextmanager
    async def load(self, name: str) -> AsyncIterator[LoadedModel]:
        """Return a context in which a model stays loaded.

        Args:
            name: Name of the model in the API.

        Raises:
            ApiError: The status is 404 if the model does not exist, and 429 if other models use the memory for too
                long. `explain` returns the error of a model that cannot be loaded.
        """
        source = await asyncio.to_thread(self.sources.find, name)
        if source is None:
            raise unknown_model(name, [each.name for each in await asyncio.to_thread(self.sources.all)])
        try:
            loaded = await self._acquire(source)
        except ModelsBusyError as error:
            raise overloaded(error, _RETRY_SECONDS) from error
        except GroundupError as error:
            raise self._explain(name, error) from error
        try:
            yield loaded
        finally:
            self._release(loaded)

    async def load_all(self, names: Iterable[str]) -> None:
        """Load models before the first request.

        Args:
            names: Names of the models in the API.

        Raises:
            GroundupError: A model cannot be loaded, or the models do not fit into the memory together.
        """
        held = []
        try:
            for name in names:
                source = self.sources.find(name)
                assert source is not None, "the sources contain the name"
                held.append(self._used(await self._load(source, deadline=0.0)))
        finally:
            for loaded in held:
                self._release(loaded)

    def list_models(self) -> list[dict[str, Any]]:
        """Return descriptions of all models in the format of the API."""
        return [self._described(source) for source in self.sources.all()]

    def loaded_names(self) -> list[str]:
        """Return the names of the loaded models. The least recently used model is first."""
        return list(self._loaded)

    def close(self) -> None:
        """Cancel all requests and loads, and stop the threads. Call it in the thread of the event loop."""
        for load in self._loads.values():
            if not load.task.done():
                load.task.cancel()
        self._worker.close()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _acquire(self, source: ModelSource) -> LoadedModel:
        """Return a loaded model, and count its use."""
        if self._worker.closed:
            raise shutting_down()
        if (loaded := self._usable(source)) is not None and loaded is not self._wanted:
            return self._used(loaded)
        load = self._loads.get(source.name)
        if load is None:
            load = self._loads[source.name] = _Load(asyncio.create_task(self._load_in_turn(source)))
            load.task.add_done_callback(lambda _: self._forget_load(source.name))
        load.num_waiting += 1
        try:
            # The load continues if this request is cancelled, because other requests may wait for it.
            return self._used(await asyncio.shield(load.task))
        except asyncio.CancelledError:
            if load.task.cancelled():
                raise shutting_down() from None
            raise
        finally:
            load.num_waiting -= 1
            self._forget_load(source.name)

    def _forget_load(self, name: str) -> None:
        """Forget a load that is complete and for which no request waits. Until then, the model is not unloaded."""
        load = self._loads.get(name)
        if load is not None and load.task.done() and not load.num_waiting:
            del self._loads[name]
            self._released.set()
            if not load.task.cancelled():
                load.task.exception()  # asyncio logs an exception that is not retrieved

    def _usable(self, source: ModelSource) -> LoadedModel | None:
        """Return the loaded model of a source. An old version of it is used as long as it is in use."""
        loaded = self._loaded.get(source.name)
        if loaded is None or (loaded.source.version != source.version and self._is_idle(loaded)):
            return None
        return loaded

    def _is_idle(self, loaded: LoadedModel) -> bool:
        load = self._loads.get(loaded.source.name)
        return not loaded.num_uses and (load is None or not load.task.done())

    def _used(self, loaded: LoadedModel) -> LoadedModel:
        loaded.num_uses += 1
        self._loaded.move_to_end(loaded.source.name)
        return loaded

    def _release(self, loaded: LoadedModel) -> None:
        loaded.num_uses -= 1
        self._released.set()

    async def _load_in_turn(self, source: ModelSource) -> LoadedModel:
        """Load a model when it is its turn."""
        deadline = asyncio.get_running_loop().time() + self._wait_seconds
        try:
            await asyncio.wait_for(self._turn.acquire(), self._wait_seconds)
        except TimeoutError:
            raise self._busy(source.name, "other models are loaded first") from None
        try:
            return await self._load(source, deadline)
        finally:
            self._turn.release()

    async def _load(self, source: ModelSource, deadline: float) -> LoadedModel:
        """Return a model that is loaded, or load it and its base model."""
        old = self._loaded.get(source.name)
        if old is not None:
            if old.source.version == source.version or old.num_uses:
                return old
            await self._unload(old)
            del old  # its memory is free from here
        base = await self._load_base(source, deadline)
        try:
            return await self._load_adapter_or_model(source, base, deadline)
        except BaseException:
            if base is not None:
                self._release(base)
            raise

    async def _load_adapter_or_model(
        self, source: ModelSource, base: LoadedModel | None, deadline: float
    ) -> LoadedModel:
        key = source.name, source.version
        size = self._sizes.get(key)
        if size is None:
            # Only an estimate: packed weights may be smaller than the files, so a model is not refused because of it.
            size = min(await asyncio.to_thread(_file_bytes, source), self._max_bytes or 0)
        await self._make_room(source.name, base, size, deadline)
        loaded = await asyncio.get_running_loop().run_in_executor(self._thread, self._open, source, base)
        self._sizes[key] = loaded.nbytes
        try:
            await self._make_room(source.name, base, loaded.nbytes, deadline)
        except BaseException:
            loaded.served.engine.close()
            raise
        self._loaded[source.name] = loaded
        return loaded

    async def _load_base(self, source: ModelSource, deadline: float) -> LoadedModel | None:
        if source.base is None:
            return None
        base = await asyncio.to_thread(self.sources.find, source.base)
        assert base is not None, "the base model of an adapter has a source"
        return self._used(await self._load(base, deadline))

    def _open(self, source: ModelSource, base: LoadedModel | None) -> LoadedModel:
        """Load a model, in the thread for loading."""
        release_free_memory()  # of models that were unloaded for it
        before = None if source.digest is None else source.digest()
        opened, template = source.open(None if base is None else base.opened)
        # If the files changed while they were read, the digest does not identify the weights.
        identity = before if source.digest is not None and source.digest() == before else None
        if base is not None:
            engine = base.served.engine.share_worker(
                opened.model, opened.tokenizer, stop_ids=opened.stop_ids, identity=identity
            )
        else:
            engine = Engine.of(opened, self.dtype, pool=self._pool, identity=identity, worker=self._worker)
        served = ServedModel(source.name, engine, template, _created(source), source.directory)
        nbytes = _tensor_bytes(opened.model, None if base is None else base.opened.model) + engine.packed_bytes
        return LoadedModel(source, opened, served, base, nbytes)

    async def _make_room(self, name: str, base: LoadedModel | None, nbytes: int, deadline: float) -> None:
        """Unload models until another one fits, and wait for models that are in use.

        Raises:
            ResourceError: The model is too large.
            ModelsBusyError: The other models are in use until the deadline.
        """
        while not self._fits(base, nbytes):
            bases = {id(loaded.base) for loaded in self._loaded.values()} | {id(base)}
            candidates = [loaded for loaded in self._loaded.values() if id(loaded) not in bases]
            if not candidates:
                raise ResourceError(
                    f"model {name!r}: {nbytes:,} bytes",
                    rule=f"model_bytes is {self._max_bytes:,}",
                    fix="Increase model_bytes, or use a smaller model or weight format.",
                )
            idle = next((loaded for loaded in candidates if self._is_idle(loaded)), None)
            if idle is not None:
                await self._unload(idle)
                continue
            self._wanted = candidates[0]
            self._released.clear()
            remaining = deadline - asyncio.get_running_loop().time()
            try:
                await asyncio.wait_for(self._released.wait(), remaining)
            except TimeoutError:
                raise self._busy(name, "the loaded models are in use") from None
            finally:
                self._wanted = None

    def _fits(self, base: LoadedModel | None, nbytes: int) -> bool:
        num_models = sum(loaded.base is None for loaded in self._loaded.values())
        if base is None and self._max_models is not None and num_models >= self._max_models:
            return False
        total = nbytes + sum(loaded.nbytes for loaded in self._loaded.values())
        return self._max_bytes is None or total <= self._max_bytes

    def _busy(self, name: str, rule: str) -> ModelsBusyError:
        limits = {"max_models": self._max_models, "model_bytes": self._max_bytes}
        known = ", ".join(f"{key} is {value:,}" for key, value in limits.items() if value is not None)
        fix = "Try again later, or increase the limit."
        return ModelsBusyError(f"model {name!r} cannot be loaded now", rule=f"{rule}, and {known}", fix=fix)

    async def _unload(self, loaded: LoadedModel) -> None:
        del self._loaded[loaded.source.name]
        # A request that was cancelled may run until the end of a forward pass.
        await asyncio.to_thread(loaded.served.engine.close)
        if loaded.base is not None:
            self._release(loaded.base)

    def _described(self, source: ModelSource) -> dict[str, Any]:
        loaded, created = self._loaded.get(source.name), _created(source)
        if loaded is not None:
            length, chats = loaded.served.context_length, loaded.served.template is not None
        else:
            try:
                length, chats = _read_description(source.directory, created)
            except (GroundupError, OSError):  # The error is reported when a request loads the model.
                length, chats = 0, False
        return model_object(source.name, created=created, context_length=length, chats=chats, loaded=loaded is not None)


@lru_cache(maxsize=1024)
def _read_description(directory: Path, created: int) -> tuple[int, bool]:
    """Return the context length of a model, and whether it has a chat template. `created` invalidates the cache."""
    return read_config(directory).context_length, has_chat_template(directory)


def default_model_bytes(device: str | None) -> int | None:
    """Return the default limit for the weights of loaded models: three quarters of the memory, None if unknown.

    Args:
        device: Device of the weights. Default: a GPU if available.
    """
    total = memory_bytes(usable_device(device).partition(":")[0])
    return None if total is None else total * 3 // 4


def _created(source: ModelSource) -> int:
    """Return the time at which a model was finished, or 0 if it is not known."""
    try:
        return int(finished(source.directory))
    except (GroundupError, OSError):
        return 0


def _file_bytes(source: ModelSource) -> int:
    """Return the size of a model's weight files, a first estimate of its memory."""
    files = [source.directory] if source.directory.is_file() else weight_files(source.directory)
    return sum(path.stat().st_size for path in files)


def _tensor_bytes(model: nn.Module, base: nn.Module | None) -> int:
    """Return the bytes of a model's tensors that are neither tensors of another model nor memory-mapped from files."""
    mapped = CleanFilePages()

    def storages(module: nn.Module) -> dict[int, int]:
        tensors: list[Tensor] = [*module.parameters(), *module.buffers()]
        found = [tensor.untyped_storage() for tensor in tensors if not mapped.contain(tensor)]
        return {storage.data_ptr(): storage.nbytes() for storage in found}

    known = {} if base is None else storages(base)
    return sum(size for address, size in storages(model).items() if address not in known)
