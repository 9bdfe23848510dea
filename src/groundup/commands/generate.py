"""`groundup generate`: generate text with a model and print it as it is generated."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from groundup.core.config import Config, setting
from groundup.core.console import Console
from groundup.core.types import InferenceDtype

if TYPE_CHECKING:
    from groundup.hub.loading import OpenedModel
    from groundup.inference import Completion

EXAMPLE = 'groundup generate runs/quickstart/base "Once upon a time" --max-tokens 100'


class GenerateConfig(Config):
    """Settings of `groundup generate`."""

    model: Path = setting(help="model directory, GGUF file, or a run (its newest fine-tuned model)", positional=True)
    prompt: str = setting("", help="text to continue; default: generate a new document", positional=True)
    max_tokens: int | None = setting(200, help="maximum number of tokens to generate", flag=True, gt=0)
    temperature: float = setting(0.8, help="sampling temperature; 0: greedy", flag=True)
    top_k: int | None = setting(None, help="sample from the k most likely tokens only", flag=True)
    top_p: float = setting(0.95, help="nucleus sampling: total probability", flag=True)
    min_p: float = setting(0.0, help="minimum of probability / highest probability", flag=True)
    repetition_penalty: float = setting(1.0, help="above 1: penalty on earlier tokens", flag=True)
    stop: tuple[str, ...] = setting((), help="text that ends the output", flag=True)
    json_schema: Path | None = setting(None, help="file with a JSON schema of the output", flag=True)
    regex: str | None = setting(None, help="regular expression of the whole output", flag=True)
    choice: tuple[str, ...] = setting((), help="allowed output", flag=True)
    grammar: Path | None = setting(None, help="file with a Lark or GBNF grammar", flag=True)
    seed: int | None = setting(None, help="random seed, for reproducible output", flag=True)
    base: Path | None = setting(None, help="base model of an adapter, if it was moved", flag=True)
    device: str | None = setting(None, help="device, such as cpu or cuda; default: a GPU if available", flag=True)
    dtype: InferenceDtype = setting("auto", help="Weight format; auto: bfloat16 if possible", flag=True)
    quality: bool = setting(True, help="Print the quality of int8 and int4 weights, measured once per model")


def run(
    config: GenerateConfig,
    *,
    console: Console | None = None,
    on_text: Callable[[str], None] | None = None,
) -> Completion:
    """Generate a completion.

    Args:
        config: Settings of the command.
        console: Console that prints notes and warnings.
        on_text: Callback that receives each piece of text as soon as it is generated.

    Returns:
        The completion.

    Raises:
        DataError: The model does not exist.
        ConfigError: A setting is out of range, the prompt is longer than the context length, or the grammar is not
            supported.
    """
    from groundup.hub.loading import open_model
    from groundup.inference import Engine, GenerationRequest, Sampling
    from groundup.inference.grammar import one_grammar

    request = GenerationRequest(
        prompt=config.prompt,
        sampling=Sampling(
            temperature=config.temperature,
            top_k=config.top_k,
            top_p=config.top_p,
            min_p=config.min_p,
            repetition_penalty=config.repetition_penalty,
        ),
        max_tokens=config.max_tokens,
        stop=config.stop,
        seed=config.seed,
    )
    console = console or Console()
    opened = open_model(config.model, device=config.device, base=config.base, as_stored=True)
    _explain_model(config.model, opened, console)
    grammar = one_grammar(
        opened.tokenizer, schema=config.json_schema, regex=config.regex, choices=config.choice, lark=config.grammar
    )
    with Engine.of(opened, config.dtype) as engine:
        completion = engine.complete(replace(request, grammar=grammar), on_text=on_text)
        # After the answer, because the first measurement of a model takes about 2 s.
        if config.quality and config.dtype in ("int8", "int4") and not console.quiet:
            from groundup.evaluation.quantization import quality_note

            console.note(f"\n{quality_note(opened, engine.runner)}")
    if not completion.text.strip():
        console.warn(_no_text(config, completion, opened))
    return completion


def _explain_model(path: Path, opened: OpenedModel, console: Console) -> None:
    """Print which model of a run was opened, and a note if it is a chat model that should be used with `chat`."""
    from groundup.hub.resolve import is_base

    if opened.note:
        console.note(opened.note)
    if opened.directory != path:
        kind = (
            "base model, because it does not contain a fine-tuned model"
            if is_base(opened.directory)
            else "fine-tuned model"
        )
        console.note(f"{path}: opened {opened.directory.name}, its newest {kind}.")
    if opened.tokenizer.chat_template is not None:
        console.note(
            f"{opened.directory} is a chat model. generate does not use its chat template, so the model continues the "
            f"prompt as raw text and may stop immediately. {_instead(opened)}"
        )


def _instead(opened: OpenedModel) -> str:
    """Return advice on which commands to use with a chat model instead of `generate`."""
    from groundup.hub.resolve import stage_output

    base, here = stage_output(opened.directory, "pretrain"), Path.cwd()
    if base is not None and base.is_relative_to(here):
        base = base.relative_to(here)
    advice = f"To chat with it: groundup chat {shlex.quote(str(opened.directory))}."
    return advice + (f" To continue text: groundup generate {shlex.quote(str(base))}." if base else "")


def _no_text(config: GenerateConfig, completion: Completion, opened: OpenedModel) -> str:
    """Return a message that explains why a completion is empty and what the user can try."""
    tokens = len(completion.token_ids)
    if completion.finish_reason != "stop":
        why, instead = f"{tokens:,} tokens without visible text", "Increase --max-tokens."
    elif completion.token_ids[-1] not in opened.stop_ids:
        why, instead = "the output started with a --stop text", "Omit --stop, or change it."
    else:
        why = "it generated the end-of-text token" + (" first" if tokens == 1 else "")
        instead = "Try a higher --temperature." if config.temperature == 0 else "Try another --seed or prompt."
        if opened.tokenizer.chat_template is not None:
            instead = _instead(opened)
    return f"The model generated no text: {why} (finish_reason: {completion.finish_reason}). {instead}"
