"""A workspace with real models, and the Studio's server on a loopback port."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from groundup.apps import Catalog
from groundup.apps.serving import ServedApps
from groundup.core.artifact import begin
from groundup.hub import save_model
from groundup.hub.loading import OpenedModel, open_model
from groundup.model import Transformer
from groundup.serve import RequestGuard, Server, bind, url_of
from groundup.studio import Jobs, StudioModels, Workspace, build_studio
from groundup.tokenizer import ChatTemplate, Tokenizer


@dataclass(frozen=True)
class Studio:
    """A running server."""

    url: str
    workspace: Workspace
    models: StudioModels
    jobs: Jobs

    def http(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, trust_env=False, timeout=60, **options)


@pytest.fixture(scope="session")
def runs(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer, tiny_model: Callable[..., Transformer]
) -> Path:
    """Runs `one` and `two` with base models, and a model outside a run."""
    root = tmp_path_factory.mktemp("workspace") / "runs"
    for run, layers in (("one", 2), ("two", 3)):
        base = root / run / "base"
        work = begin(base, "pretrain", {}, {})
        model = tiny_model(tokenizer.vocab_size, n_layers=layers)
        files = save_model(base, model, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id)
        files += tokenizer.save(base)
        work.finish({"parameters": 12_345, "tokens_seen": 1000}, files)
    (root / "one" / "recipe.toml").write_text('name = "one"\n[tokenize]\n', encoding="utf-8")
    alone = root / "alone"
    save_model(alone, tiny_model(tokenizer.vocab_size), bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id)
    tokenizer.save(alone)
    return root


def opener(path: Path) -> tuple[OpenedModel, ChatTemplate | None]:
    return open_model(path, device="cpu"), None


@pytest.fixture(scope="session")
def studio(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    recipes = tmp_path_factory.mktemp("recipes")
    (recipes / "bad.toml").write_text('name = "bad"\n[tokenise]\n', encoding="utf-8")
    workspace = Workspace(runs, recipes)
    models, jobs = StudioModels(workspace, opener), Jobs(workspace.runs_directory)
    ready = threading.Event()
    guard = RequestGuard(
        build_studio(workspace, models, jobs, ServedApps(Catalog(None))),
        api_key=None,
        loopback_only=True,
        browser=True,
    )
    with bind("127.0.0.1", 0) as bound:
        server = Server(guard, grace_seconds=1, abort=models.close, on_ready=ready.set)
        thread = threading.Thread(target=server.run, args=([bound],))
        thread.start()
        assert ready.wait(30)
        try:
            yield Studio(url_of(bound), workspace, models, jobs)
        finally:
            server.should_exit = True
            thread.join(30)
            jobs.close()
            models.close()
