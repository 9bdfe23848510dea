"""`groundup ask`: answer a question from indexed documents, with citations."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from groundup.core.config import Config, setting
from groundup.core.console import Console, format_count, visible
from groundup.core.types import InferenceDtype

if TYPE_CHECKING:
    from groundup.retrieval import CitedAnswer

EXAMPLE = 'groundup ask "When is the office closed?" --index runs/notes/index --model models/smollm2'


class AskConfig(Config):
    """Settings of `groundup ask`."""

    question: str = setting(help="Question", positional=True)
    index: Path = setting(help="Output directory of groundup index", flag=True)
    model: Path | None = setting(
        None, help="Model directory, GGUF file or run; default: quote the best sentence, without a model", flag=True
    )
    passages: int = setting(5, help="Number of passages to find", flag=True, ge=1, le=50)
    max_tokens: int = setting(64, help="Maximum number of tokens of the answer", flag=True, ge=1)
    base: Path | None = setting(None, help="Base model of an adapter, if it was moved", flag=True)
    device: str | None = setting(None, help="Device, such as cpu or cuda; default: a GPU if available", flag=True)
    dtype: InferenceDtype = setting("auto", help="Weight format; auto: bfloat16 if possible", flag=True)


def run(
    config: AskConfig,
    *,
    console: Console | None = None,
    on_text: Callable[[str], object] | None = None,
    json_lines: bool = False,
) -> CitedAnswer:
    """Answer a question, or refuse it if the documents do not support an answer.

    Args:
        config: Settings of the command.
        console: Console for messages; by default they are written to standard error.
        on_text: Called with each part of the output; by default the answer is returned but not written.
        json_lines: Whether to write the answer as one line of JSON instead of text.

    Raises:
        DataError: The index or the model does not exist.
        FormatError: Another version of groundup wrote the index, or a file is damaged.
        ConfigError: The question has no words, or does not fit into the context of the model.
    """
    from groundup.retrieval import Index
    from groundup.retrieval.answering import Reader, answer_question

    console = console or Console()
    index = Index.open(config.index)
    with ExitStack() as stack:
        reader = None
        if config.model is not None:
            from groundup.hub.loading import open_chat_model
            from groundup.inference import Engine
            from groundup.inference.prompting import format_for

            opened, template = open_chat_model(config.model, config.device, console, base=config.base)
            engine = stack.enter_context(Engine.of(opened, config.dtype))
            reader = Reader(engine, format_for(opened.tokenizer, template, opened.stop_ids), config.max_tokens)
        answer = answer_question(index, config.question, reader, passages=config.passages)
    if on_text is not None:
        on_text(json.dumps(asdict(answer), ensure_ascii=False) + "\n" if json_lines else answer_text(answer))
    memory = f", {format_count(answer.memory_bytes, 'bytes')} peak memory" if answer.memory_bytes else ""
    console.note(f"{answer.search_seconds * 1000:.0f} ms search, {answer.seconds:.2f} s in total{memory}")
    return answer


def answer_text(answer: CitedAnswer) -> str:
    """Return an answer with its citations for the terminal. After a refusal, the best passages are listed."""
    lines = [answer.text + (f" ({answer.reason})" if answer.reason else "")]
    for citation in answer.citations:
        lines += ["", f"[{citation.number}] {citation.place}", f"    {' '.join(citation.quote.split())}"]
    if not answer.citations and answer.passages:
        lines += ["", "Nearest passages:"]
        lines += [f"  {each.place}: {' '.join(each.text.split())[:80]}..." for each in answer.passages[:3]]
    return visible("\n".join(lines) + "\n")
