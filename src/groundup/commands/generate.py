"""`groundup generate`: text from a model, written out as it comes."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from groundup.core.config import Config, setting
from groundup.core.console import Console

if TYPE_CHECKING:
    from groundup.hub.resolve import OpenedModel
    from groundup.inference import Completion

EXAMPLE = 'groundup generate runs/quickstart/base "Once upon a time" --max-tokens 100'


class GenerateConfig(Config):
    """What to go on with, and how."""

    model: Path = setting(help="model (e.g. runs/NAME/base), or a run (its newest fine-tuned model)", positional=True)
    prompt: str = setting("", help="the text to go on with; empty: a text from nothing", positional=True)
    max_tokens: int | None = setting(200, help="tokens to write at most", flag=True)
    temperature: float = setting(0.8, help="0 takes the likeliest token; 1 is as random as the text", flag=True)
    top_k: int | None = setting(None, help="draw from the k likeliest tokens only", flag=True)
    top_p: float = setting(0.95, help="draw from the likeliest tokens that make up this mass", flag=True)
    min_p: float = setting(0.0, help="draw tokens at least this likely, beside the likeliest", flag=True)
    repetition_penalty: float = setting(1.0, help="above 1 makes repeated tokens less likely", flag=True)
    stop: tuple[str, ...] = setting((), help="end before one of these texts", flag=True)
    seed: int | None = setting(None, help="the same seed gives the same text", flag=True)
    base: Path | None = setting(None, help="where an adapter's base lies now", flag=True)
    device: str | None = setting(None, help="cpu, cuda, ...; by default a GPU where there is one", flag=True)


def run(
    config: GenerateConfig,
    *,
    console: Console | None = None,
    on_text: Callable[[str], None] | None = None,
) -> Completion:
    """Generate; `on_text` receives each piece of text as soon as it is certain, and the whole is returned.

    Raises:
        DataError: no model there.
        ConfigError: a sampling option out of range, a prompt longer than the context.
    """
    from groundup.hub.resolve import open_model
    from groundup.inference import Engine, GenerationRequest, Sampling

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
    opened = open_model(config.model, device=config.device, base=config.base)
    _explain_model(config.model, opened, console)
    with Engine(opened.model, opened.tokenizer, stop_ids=opened.stop_ids) as engine:
        completion = engine.complete(request, on_text=on_text)
    if not completion.text.strip():
        console.warn(_no_text(config, completion, opened))
    return completion


def _explain_model(path: Path, opened: OpenedModel, console: Console) -> None:
    """Say which model of a run was opened, and what raw text means to a chat model."""
    from groundup.hub.resolve import is_base

    if opened.directory != path:
        kind = "base model; it has no fine-tuned one" if is_base(opened.directory) else "fine-tuned model"
        console.note(f"{path}: opened {opened.directory.name}, its newest {kind}.")
    if opened.tokenizer.chat_template is not None:
        console.note(
            f"{opened.directory} is a chat model. generate does not use its chat template: the model continues the "
            f"prompt as raw text, and may end at once. {_instead(opened)}"
        )


def _instead(opened: OpenedModel) -> str:
    """Commands that suit a chat model better than raw text."""
    from groundup.hub.resolve import stage_output

    base, here = stage_output(opened.directory, "pretrain"), Path.cwd()
    if base is not None and base.is_relative_to(here):
        base = base.relative_to(here)
    told = f"To talk to it: groundup chat {shlex.quote(str(opened.directory))}."
    return told + (f" To continue text: groundup generate {shlex.quote(str(base))}." if base else "")


def _no_text(config: GenerateConfig, completion: Completion, opened: OpenedModel) -> str:
    """Why a completion has no text, and what to try."""
    tokens = len(completion.token_ids)
    if completion.finish_reason != "stop":
        why, instead = f"{tokens:,} tokens gave nothing visible", "Raise --max-tokens."
    elif completion.token_ids[-1] not in opened.stop_ids:
        why, instead = "its text began with a --stop text", "Leave --stop out, or change it."
    else:
        why = "it predicted the end of the text" + (" at once" if tokens == 1 else "")
        instead = "Try a higher --temperature." if config.temperature == 0 else "Try another --seed or prompt."
        if opened.tokenizer.chat_template is not None:
            instead = _instead(opened)
    return f"The model wrote no text: {why} (finish_reason: {completion.finish_reason}). {instead}"
