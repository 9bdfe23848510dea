"""The table of commands: their names, summaries and inputs in a recipe.

To add a command, add its module (with its config, example and `run`) and an entry in this table. Importing the table
imports no command, so `groundup --help` is fast.
"""

from __future__ import annotations

from groundup.core.recipe import Stage

STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage("collect", "Collect clean text from folders, packages, crawls, links and dumps", directory="corpus"),
        Stage(
            "tokenize",
            "Train a tokenizer and write token shards",
            directory="tokens",
            inputs={"corpus": "collect"},
        ),
        Stage(
            "pretrain",
            "Pretrain a language model",
            directory="base",
            distributed=True,
            inputs={"token_shards": "tokenize"},
            then=('groundup generate {out} "Once upon a time"',),
        ),
        Stage("plan", "Estimate size, time, memory, cost and quality of a training run", streams=True),
        Stage(
            "import",
            "Import a model: Hugging Face directory, GGUF file, archive or package",
            directory="model",
            filename="import_model",
        ),
        Stage(
            "index",
            "Index the documents of a folder or a corpus, for groundup ask",
            directory="index",
            inputs={"source": "collect"},
            then=('groundup ask "..." --index {out}',),
        ),
        Stage(
            "examples.write",
            "Write questions and answers to documents, to fine-tune a reader on them",
            directory="examples",
            inputs={"source": ("index", "collect"), "model": ("import", "pretrain")},
        ),
        Stage(
            "finetune.instruct",
            "Fine-tune a model on instructions and conversations (SFT)",
            directory="chat",
            distributed=True,
            inputs={
                "model": ("import", "pretrain"),
                "replay": "collect",
                "data": "examples.write/train.jsonl",
                "test": "examples.write/test.jsonl",
            },
            then=("groundup chat {run}", "groundup serve {run}"),
        ),
        Stage(
            "finetune.classify",
            "Fine-tune a text classifier on a table of labeled examples",
            directory="classifier",
            distributed=True,
            inputs={"model": ("import", "pretrain")},
            then=('groundup classify {run} "Some text"',),
        ),
        Stage(
            "evaluate",
            "Evaluate a model in bits per byte, compared with compressors",
            directory="report",
            inputs={"model": "pretrain", "tokens": "tokenize", "corpus": "collect"},
            then=("groundup evaluate {run} --data FILE.txt",),
        ),
        Stage(
            "compare",
            "Compare a fine-tuned model with its base model",
            directory="compare",
            inputs={
                "base": ("import", "pretrain"),
                "fine_tuned": ("finetune.instruct", "finetune.classify"),
                "general": "collect",
                "data": "examples.write/test.jsonl",
                "index": "index/",
            },
            shared={
                "data": tuple(
                    f"finetune.{kind}.{key}" for kind in ("instruct", "classify") for key in ("test", "data")
                ),
                "train": ("finetune.instruct.data", "finetune.classify.data"),
            },
        ),
        Stage("compare-recipes", "Compare two training recipes by at least three seeds each"),
        Stage("merge", "Merge an adapter into its base model"),
        Stage("export.gguf", "Export a model to GGUF for llama.cpp and Ollama"),
        Stage("push", "Upload a model to the Hugging Face Hub", streams=True),
        Stage("report", "Write an HTML report of a run", directory="."),
        Stage("generate", "Generate text from a prompt", returns_text=True),
        Stage("ask", "Answer a question from indexed documents, with citations", streams=True),
        Stage("chat", "Chat with a model in the terminal", streams=True),
        Stage("apps.list", "List the applications, such as summarize and translate", streams=True),
        Stage("apps.run", "Run an application on a text, a file or a table", streams=True),
        Stage("apps.evaluate", "Evaluate applications on their test sets", streams=True),
        Stage("serve", "Serve models with an OpenAI-compatible HTTP API", streams=True),
        Stage("bench", "Measure the inference speed, memory and quality of a model", streams=True),
        Stage("studio", "Use, inspect and train models in the browser", streams=True),
        Stage("classify", "Classify texts with a fine-tuned classifier", streams=True),
        Stage("corpus.explain", "Show why documents were kept or dropped", streams=True),
        Stage("corpus.search", "Find the documents of a corpus that contain a string", streams=True),
        Stage("model.list", "List the model presets that can be trained", streams=True),
        Stage("model.show", "Show the size, compute, memory and provenance of a model", streams=True),
        Stage("model.verify", "Verify the checksums of a model or a run", streams=True),
        Stage("replaced", "List or delete outputs that newer ones replaced", streams=True),
    )
}
