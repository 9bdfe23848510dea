"""Real text and a real tokenizer for every room's tests."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import pytest
import torch

from groundup.model import ModelConfig, Transformer
from groundup.tokenizer import Tokenizer, train_tokenizer
from python_topics import TOPICS

# A shell without job control starts `make test &` with SIGINT ignored, and processes inherit that: a program that a
# test starts would never see its Ctrl-C. A handler of Python's is reset to the default in each of them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says how busy the machine is, and nothing about the code.
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")


BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@pytest.fixture(scope="session")
def real_documents() -> list[str]:
    """The topics of Python's language reference: 0.5 MB of prose and code."""
    return list(TOPICS.values())


@pytest.fixture(scope="session")
def tokenizer(real_documents: list[str]) -> Tokenizer:
    """1,024 ids, trained on the real documents."""
    return train_tokenizer(real_documents, 1024)


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., Transformer]:
    """Makes a model of a vocabulary, with random weights: what it writes is nonsense, and the same each time."""

    def make(vocab_size: int, **changes: Any) -> Transformer:
        torch.manual_seed(0)
        shape = {"family": "qwen3", "dim": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "head_dim": 8}
        sizes = {"ffn_dim": 64, "context_length": 64, "tie_embeddings": False, "vocab_size": vocab_size}
        return Transformer(ModelConfig(**shape | sizes | changes)).eval().requires_grad_(False)

    return make


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A Chromium of this machine, driven by Playwright, of which a process can have but one."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"needs a browser: none of {', '.join(BROWSERS)} is on the path")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()
