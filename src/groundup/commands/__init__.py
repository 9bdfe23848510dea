"""The commands: what each is called, what it does, and how they are connected in a run.

Adding a command takes its module, which holds the config, the example and `run`, and one line of this table. Importing
the table imports no command, so `groundup --help` is fast.
"""

from __future__ import annotations

from groundup.core.recipe import Stage

STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage("collect", "gather clean text: folders, packages, crawls, links, dumps", directory="corpus"),
        Stage(
            "tokenize",
            "learn a vocabulary and turn the text into token ids",
            directory="tokens",
            inputs={"corpus": "collect"},
        ),
        Stage(
            "pretrain",
            "train a language model from scratch",
            directory="base",
            distributed=True,
            inputs={"token_shards": "tokenize"},
            then=('groundup generate {out} "Once upon a time"',),
        ),
        Stage(
            "import",
            "take a model in: Hugging Face directory, GGUF, archive, package",
            directory="model",
            filename="import_model",
        ),
        Stage(
            "finetune.instruct",
            "learn to answer from questions with answers",
            directory="chat",
            distributed=True,
            inputs={"model": ("import", "pretrain"), "replay": "collect"},
            then=("groundup chat {run}", "groundup serve {run}"),
        ),
        Stage(
            "finetune.classify",
            "learn to label texts from a table of examples",
            directory="classifier",
            distributed=True,
            inputs={"model": ("import", "pretrain")},
            then=('groundup classify {run} "a text of yours"',),
        ),
        Stage(
            "evaluate",
            "measure a model in bits per byte, beside compressors",
            directory="report",
            inputs={"model": "pretrain", "tokens": "tokenize", "corpus": "collect"},
            then=("groundup evaluate {run} --data FILE.txt",),
        ),
        Stage(
            "compare",
            "measure what tuning gained and what it cost",
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
        Stage("merge", "make one whole model of an adapter and its base"),
        Stage("export.gguf", "write a model as GGUF, for llama.cpp and Ollama"),
        Stage("report", "draw a run as one page that anybody can open", directory="."),
        Stage("generate", "write on from a prompt", returns_text=True),
        Stage("chat", "talk to a model in the terminal", streams=True),
        Stage("apps.list", "list the applications: summarize, translate, ...", streams=True),
        Stage("apps.run", "summarize, translate, write, label, ... a text", streams=True),
        Stage("apps.evaluate", "score the applications, base against tuned", streams=True),
        Stage("serve", "answer as OpenAI's HTTP interface does", streams=True),
        Stage("studio", "a page to use a model, look inside it, watch it learn", streams=True),
        Stage("classify", "label texts with a classifier", streams=True),
        Stage("corpus.explain", "tell why a document was kept or dropped", streams=True),
        Stage("corpus.search", "find where a string of a corpus came from", streams=True),
        Stage("model.list", "list the published shapes that can be trained", streams=True),
        Stage("model.show", "show what a model is: size, cost, memory, origin", streams=True),
        Stage("model.verify", "compare every file of a model or a run with its checksum", streams=True),
        Stage("replaced", "list or remove outputs that were replaced by newer ones", streams=True),
    )
}
