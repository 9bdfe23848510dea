"""Models are loaded on demand, once, and unloaded only while they are idle; prefixes in the KV cache survive."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
import torch

from family_shapes import small
from groundup.core.console import Console
from groundup.core.errors import ConfigError, DataError, GroundupError
from groundup.hub import load_model, save_model
from groundup.hub.adapted import save_adapted
from groundup.hub.loading import OpenedModel
from groundup.inference import GenerationRequest, Sampling
from groundup.inference.runner import make_pool
from groundup.inference.worker import Worker
from groundup.kernels.native_library import native_library
from groundup.model import Transformer
from groundup.model.lora import LoRA, add_lora, lora_layers
from groundup.serve import ServedModel, build_app
from groundup.serve.models.cache import ModelCache, ModelSource
from groundup.serve.models.sources import Opening, open_sources
from groundup.serve.openai.errors import ApiError, cannot_load
from groundup.tokenizer import TEMPLATE_FILE, ChatTemplate, Tokenizer

GREEDY = Sampling(temperature=0)
needs_kernels = pytest.mark.skipif(native_library() is None, reason="no C++ kernels on this machine")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """Three models that the kernels can compute, with different numbers of layers, and two adapters of the first."""
    root = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("one", "two", "three")):
        torch.manual_seed(seed)
        config = small("qwen3", vocab_size=tokenizer.vocab_size, context_length=1024, n_layers=seed + 1)
        model = Transformer(config).eval()
        for parameter in model.parameters():
            parameter.data *= 4 if parameter.dim() == 2 else 1
        save_model(root / name, model, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id)
        tokenizer.save(root / name)
        (root / name / TEMPLATE_FILE).write_text(ChatTemplate(tokenizer).jinja)
    for seed, name in enumerate(("law", "bank")):
        model = load_model(root / "one")
        add_lora(model, LoRA(rank=4), seed=seed)
        generator = torch.Generator().manual_seed(seed)
        for layer in lora_layers(model).values():
            layer.lora_B.data.normal_(0, 0.3, generator=generator)
        save_adapted(root.parent / f"{root.name}-adapters" / name, model, root / "one")
    return root


@pytest.fixture
def adapters(folder: Path) -> list[str]:
    return [str(folder.parent / f"{folder.name}-adapters" / name) for name in ("law", "bank")]


class CountedSources:
    """Sources that count loads, and wait before each load until they may continue."""

    def __init__(self, sources: Any) -> None:
        self._sources = sources
        self.opened: list[str] = []
        self.may_open = threading.Event()
        self.may_open.set()

    def find(self, name: str) -> ModelSource | None:
        return next((source for source in self.all() if source.name == name), None)

    def all(self) -> Sequence[ModelSource]:
        return [self._counted(source) for source in self._sources.all()]

    def _counted(self, source: ModelSource) -> ModelSource:
        def open_counted(base: OpenedModel | None) -> tuple[OpenedModel, ChatTemplate | None]:
            self.opened.append(source.name)
            assert self.may_open.wait(20)
            return source.open(base)

        return ModelSource(source.name, source.directory, open_counted, source.digest, source.base, source.version)


@contextmanager
def cached(
    models: Sequence[str] = (), adapters: Sequence[str] = (), folder: Path | None = None, **limits: Any
) -> Iterator[tuple[ModelCache, CountedSources]]:
    opening = Opening("cpu", None, Console())
    sources = CountedSources(open_sources(models, adapters, folder, opening)[1])
    cache_bytes = limits.pop("cache_bytes", 2**26)

    def explain(name: str, error: GroundupError) -> ApiError:
        return cannot_load(name, error, warn=lambda _: None)

    cache = ModelCache(sources, Worker(8, 64), make_pool(cache_bytes), explain=explain, **limits)
    try:
        yield cache, sources
    finally:
        cache.close()


async def generate(served: ServedModel, prompt: tuple[int, ...], max_tokens: int = 4) -> tuple[tuple[int, ...], int]:
    """Return the generated tokens and the number of cached prompt tokens."""
    request = GenerationRequest(prompt=prompt, sampling=GREEDY, max_tokens=max_tokens, stop_ids=())
    events = [event async for event in served.engine.submit(request)]
    return tuple(event.token_id for event in events if event.token_id is not None), events[0].cached_tokens


async def ask(cache: ModelCache, name: str, prompt: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    async with cache.use(name) as served:
        return await generate(served, prompt)


def test_a_model_is_loaded_once_and_the_least_recently_used_one_is_unloaded(folder: Path) -> None:
    async def run() -> None:
        with cached(folder=folder, max_models=2) as (cache, sources):
            assert [model["loaded"] for model in cache.list_models()] == [False] * 3
            await asyncio.gather(*(ask(cache, "one", (5,)) for _ in range(5)))
            await ask(cache, "two", (5,))
            await ask(cache, "one", (5,))
            assert sources.opened == ["one", "two"]
            await ask(cache, "three", (5,))
            assert cache.loaded_names() == ["one", "three"]
            assert {model["id"]: model["loaded"] for model in cache.list_models()}["two"] is False

    asyncio.run(run())


def test_other_models_answer_while_a_model_is_loaded(folder: Path) -> None:
    async def run() -> None:
        with cached(folder=folder) as (cache, sources):
            await ask(cache, "one", (5,))
            sources.may_open.clear()
            loading = asyncio.create_task(ask(cache, "two", (5,)))
            while sources.opened[-1] != "two":
                await asyncio.sleep(0.01)
            for _ in range(3):
                assert len((await ask(cache, "one", (5, 6)))[0]) == 4
            assert not loading.done()
            sources.may_open.set()
            assert len((await loading)[0]) == 4

    asyncio.run(run())


def test_a_model_in_use_is_not_unloaded_and_requests_take_turns(folder: Path) -> None:
    """A request for a second model waits for the first one. New requests for the first one then wait for the second."""
    order: list[str] = []

    async def run() -> None:
        with cached(folder=folder, max_models=1, wait_seconds=20) as (cache, sources):

            async def use(name: str, label: str) -> None:
                async with cache.use(name) as served:
                    order.append(label)
                    await generate(served, (5,))

            async with cache.use("one") as served:
                waiting = [asyncio.create_task(use("two", "second"))]
                await asyncio.sleep(0.2)
                waiting.append(asyncio.create_task(use("one", "third")))
                await asyncio.sleep(0.2)
                assert order == [] and cache.loaded_names() == ["one"]
                assert len((await generate(served, (5, 6)))[0]) == 4
            await asyncio.gather(*waiting)
            assert order == ["second", "third"]
            assert sources.opened == ["one", "two", "one"]

    asyncio.run(run())


def test_a_request_that_waits_too_long_gets_429(folder: Path) -> None:
    async def run() -> None:
        with cached(folder=folder, max_models=1, wait_seconds=0.2) as (cache, _):
            async with cache.use("one"):
                with pytest.raises(ApiError) as refused:
                    await ask(cache, "two", (5,))
                assert (refused.value.status, refused.value.code) == (429, "overloaded")
                assert refused.value.headers is not None and "Retry-After" in refused.value.headers
                assert len((await ask(cache, "one", (5,)))[0]) == 4
            assert len((await ask(cache, "two", (5,)))[0]) == 4

    asyncio.run(run())


def test_a_cancelled_request_does_not_keep_a_model(folder: Path) -> None:
    async def run() -> None:
        with cached(folder=folder, max_models=1) as (cache, sources):
            sources.may_open.clear()
            task = asyncio.create_task(ask(cache, "one", (5,)))
            await asyncio.sleep(0.2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            sources.may_open.set()
            await ask(cache, "two", (5,))
            assert cache.loaded_names() == ["two"]

    asyncio.run(run())


def test_the_limit_in_bytes_holds_and_a_larger_model_is_refused(folder: Path) -> None:
    async def sizes() -> dict[str, int]:
        with cached(folder=folder) as (cache, _):
            found = {}
            for name in ("one", "two", "three"):
                async with cache.load(name) as loaded:
                    found[name] = loaded.nbytes
            return found

    size = asyncio.run(sizes())
    assert size["one"] < size["two"] < size["three"]

    async def run() -> None:
        with cached(folder=folder, max_bytes=size["one"] + size["two"]) as (cache, sources):
            for name in ("one", "two", "one"):  # the first load of a model may unload others for its estimated size
                await ask(cache, name, (5,))
            opened = len(sources.opened)
            for name in ("two", "one", "two"):
                await ask(cache, name, (5,))
            assert len(sources.opened) == opened and sorted(cache.loaded_names()) == ["one", "two"]
            for name in ("three", "one"):
                await ask(cache, name, (5,))
                assert cache.loaded_names() == [name]
        with cached(folder=folder, max_bytes=size["three"] - 1) as (cache, sources):
            await ask(cache, "one", (5,))
            for _ in range(2):
                with pytest.raises(ApiError, match="cannot be loaded") as refused:
                    await ask(cache, "three", (5,))
                assert refused.value.status == 400
            assert sources.opened.count("three") == 1, "its size is known after the first attempt"
            await ask(cache, "one", (5,))

    asyncio.run(run())


def test_a_broken_model_fails_alone(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in (folder / "one").iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])

    async def run() -> None:
        with cached([str(broken), str(folder / "two")]) as (cache, _):
            answers = await asyncio.gather(
                *(ask(cache, name, (5,)) for name in ("broken", "two", "broken", "two")), return_exceptions=True
            )
            assert all(isinstance(answers[index], ApiError) for index in (0, 2))
            assert str(tmp_path) not in str(answers[0])
            assert answers[1] == answers[3] and not isinstance(answers[1], BaseException)

    asyncio.run(run())


def test_a_folder_offers_models_that_are_added_and_replaced(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "models"
    (root / "empty").mkdir(parents=True)
    (root / "notes.txt").write_text("not a model")
    (root / "one").symlink_to(folder / "one")

    async def run() -> None:
        with cached(folder=root) as (cache, sources):
            assert [model["id"] for model in cache.list_models()] == ["one"]
            before = (await ask(cache, "one", (5, 6, 7)))[0]
            for name in ("two", "../models/one", "", ".", "empty", "one/", "a" * 5000, "\0"):
                with pytest.raises(ApiError, match="unknown model"):
                    await ask(cache, name, (5,))
            (root / "two").symlink_to(folder / "two")
            (root / "one").unlink()
            (root / "one").symlink_to(folder / "three")
            sources._sources._known.clear()
            assert len((await ask(cache, "two", (5,)))[0]) == 4
            assert (await ask(cache, "one", (5, 6, 7)))[0] != before
            assert sources.opened == ["one", "two", "one"]

    asyncio.run(run())


def test_an_adapter_finds_its_base_among_several_models(folder: Path, adapters: list[str]) -> None:
    models = [str(folder / "two"), f"base={folder / 'one'}"]

    async def run() -> None:
        with cached(models, adapters, max_models=1) as (cache, sources):
            await ask(cache, "law", (5,))
            await ask(cache, "bank", (5,))
            assert sources.opened == ["base", "law", "bank"]
            assert sorted(cache.loaded_names()) == ["bank", "base", "law"]
            await ask(cache, "two", (5,))
            assert cache.loaded_names() == ["two"], "a base model is unloaded after its adapters"

    asyncio.run(run())
    with (
        pytest.raises(ConfigError, match="not an adapter of two, three"),
        cached([str(folder / "two"), str(folder / "three")], adapters),
    ):
        pass


@needs_kernels
def test_prefixes_survive_the_switch_between_models_and_adapters(folder: Path, adapters: list[str]) -> None:
    """A prefix of one model must never be found by another one: the tokens would be wrong."""
    models = [str(folder / name) for name in ("one", "two")]
    names = ["one", "two", "law", "bank"]
    random = Random(0)
    system = tuple(random.randrange(300, 500) for _ in range(100))
    prompts = [(*system, *(random.randrange(300, 500) for _ in range(random.randrange(1, 60)))) for _ in range(4)]

    async def alone(name: str, prompt: tuple[int, ...]) -> tuple[int, ...]:
        with cached(models, adapters) as (cache, _):
            return (await ask(cache, name, prompt))[0]

    expected = {(name, prompt): asyncio.run(alone(name, prompt)) for name in names for prompt in prompts}
    assert len({expected[name, prompts[0]] for name in names}) == 4

    async def run() -> None:
        with cached(models, adapters, max_models=1) as (cache, sources):
            assert (await ask(cache, "one", prompts[0]))[1] == 0
            for name in ("two", "law", "bank"):
                assert (await ask(cache, name, prompts[0]))[1] == 0
            for name in names:  # loaded again
                tokens, num_cached = await ask(cache, name, prompts[0])
                assert (tokens, num_cached) == (expected[name, prompts[0]], (len(prompts[0]) - 1) // 16 * 16)
            assert sources.opened.count("one") > 1
        for cache_bytes in (2**26, 0):  # 0: one sequence of the full context length
            with cached(models, adapters, max_models=1, cache_bytes=cache_bytes) as (cache, _):
                calls = [(random.choice(names), random.choice(prompts)) for _ in range(40)]
                found = await asyncio.gather(*(ask(cache, *call) for call in calls))
                assert [tokens for tokens, _ in found] == [expected[call] for call in calls]
                assert cache._pool.nbytes <= cache._pool.max_bytes

    asyncio.run(run())


@needs_kernels
def test_a_changed_model_does_not_find_prefixes_of_the_old_one(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "models" / "same"
    root.mkdir(parents=True)

    def write(source: str) -> None:
        for path in (folder / source).iterdir():
            (root / path.name).write_bytes(path.read_bytes())

    async def run() -> None:
        prompt = tuple(range(300, 360))
        with cached([str(root), str(folder / "two")], max_models=1) as (cache, _):
            assert (await ask(cache, "same", prompt))[1] == 0
            await ask(cache, "two", prompt)
            write("three")
            assert (await ask(cache, "same", prompt))[1] == 0

    write("one")
    asyncio.run(run())


@asynccontextmanager
async def http(cache: ModelCache) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=build_app(cache))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=60) as client:
        yield client


@needs_kernels
@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_computes_only_new_tokens_and_the_previous_answer(folder: Path, stream: bool) -> None:
    """Ten turns through the API. In between, another model answers, for which the first one is unloaded."""
    models = [str(folder / "one"), str(folder / "two")]

    async def chat(client: httpx.AsyncClient, name: str, messages: list[dict[str, str]]) -> tuple[str, dict[str, Any]]:
        options = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
        body = {"model": name, "messages": messages, "temperature": 0, "max_tokens": 12, **options}
        answer = await client.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        if not stream:
            return answer.json()["choices"][0]["message"]["content"], answer.json()["usage"]
        chunks = [httpx.Response(200, content=line[6:]).json() for line in answer.text.split("\n\n")[:-2]]
        texts = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks[:-1]]
        return "".join(texts), chunks[-1]["usage"]

    async def run() -> None:
        with cached(models, max_models=1) as (cache, sources):
            async with http(cache) as client:
                messages = [{"role": "system", "content": "Answer about the weather in one sentence. " * 3}]
                known = answered = 0
                for turn in range(10):
                    messages.append({"role": "user", "content": f"Question {turn}: what about the wind and the rain?"})
                    text, usage = await chat(client, "one", messages)
                    messages.append({"role": "assistant", "content": text})
                    computed = usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"]
                    new = usage["prompt_tokens"] - known - answered
                    # Less than a block, and one token if a line break at the start of the answer joins its header.
                    assert computed <= new + answered + 16, f"turn {turn}"
                    known, answered = usage["prompt_tokens"], usage["completion_tokens"]
                    if turn % 3 == 2:
                        await chat(client, "two", messages[-2:-1])
                assert sources.opened == ["one", "two"] * 3 + ["one"]
                # Another client with the same system prompt
                _, usage = await chat(client, "one", [messages[0], {"role": "user", "content": "Hello!"}])
                assert usage["prompt_tokens_details"]["cached_tokens"] >= 32

    asyncio.run(run())


def test_invalid_arguments_are_errors(folder: Path, tmp_path: Path) -> None:
    opening = Opening("cpu", None, Console())
    with pytest.raises(ConfigError, match="no model to serve"):
        open_sources((), (), None, opening)
    with pytest.raises(DataError, match="no such directory"):
        open_sources((), (), tmp_path / "none", opening)
    with pytest.raises(ConfigError, match="two models have the name 'one'"):
        open_sources((str(folder / "one"), f"one={folder / 'two'}"), (), None, opening)
    with pytest.raises(ConfigError, match="names one of 2 models"):
        open_sources((str(folder / "one"), str(folder / "two")), (), None, opening, name="x")
