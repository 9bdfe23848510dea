"""Fixtures for all tests: real text, a tokenizer trained on it, tiny models and a browser."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch

from groundup.model import ModelConfig, Transformer
from groundup.tokenizer import Tokenizer, train_tokenizer
from python_topics import TOPICS

# Tests must not change the cache of the user: for example, its history of predictions corrects later estimates. The
# directory is kept between test runs, because it contains compiled kernels.
CACHE = Path(__file__).resolve().parents[1] / ".pytest_cache" / "user-cache"
os.environ["XDG_CACHE_HOME"] = str(CACHE)

# A shell without job control starts `make test &` with SIGINT ignored. Subprocesses inherit this, so tests could not
# interrupt them. With a Python handler, they start with the default action.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The time of an example depends on the load of the machine, not on the code.
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")


def pytest_configure(config: pytest.Config) -> None:
    """Delete the histories of earlier test runs, once per run and not in each worker process."""
    if not hasattr(config, "workerinput"):
        for name in ("speed", "training", "trainings"):
            shutil.rmtree(CACHE / "groundup" / name, ignore_errors=True)


BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@pytest.fixture(scope="session")
def real_documents() -> list[str]:
    """Return the topics of the Python language reference: 0.5 MB of prose and code."""
    return list(TOPICS.values())


@pytest.fixture(scope="session")
def tokenizer(real_documents: list[str]) -> Tokenizer:
    """Return a tokenizer with a vocabulary of 1,024, trained on `real_documents`."""
    return train_tokenizer(real_documents, 1024)


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., Transformer]:
    """Return a function that creates a tiny model with reproducible random weights."""

    def make(vocab_size: int, **changes: Any) -> Transformer:
        torch.manual_seed(0)
        shape = {"family": "qwen3", "dim": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "head_dim": 8}
        sizes = {"ffn_dim": 64, "context_length": 64, "tie_embeddings": False, "vocab_size": vocab_size}
        return Transformer(ModelConfig(**shape | sizes | changes)).eval().requires_grad_(False)

    return make


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Yield an installed Chromium. A process can run only one Playwright, so the fixture is shared."""
    playwright = pytest.importorskip("playwright.sync_api", reason="requires playwright: pip install playwright")
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"requires one of {', '.join(BROWSERS)} on the PATH")
    with playwright.sync_playwright() as driver:
        instance = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield instance
        instance.close()
