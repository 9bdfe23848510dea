"""Endpoints for the tokenizer of a model, in vLLM's format: `/tokenize`, `/detokenize` and `/tokenizer_info`.

Clients count tokens with them. lm-evaluation-harness uses them, so that it needs no copy of the tokenizer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, TypeVar

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from groundup.serve.http.transport import read_request
from groundup.serve.models.catalog import Models
from groundup.serve.models.leases import use_model
from groundup.serve.models.model import ServedModel
from groundup.serve.openai.answers import Json
from groundup.serve.openai.body import Lenient
from groundup.serve.openapi import describes

_MAX_CHARACTERS = 2**20  # tokenization takes seconds per megabyte

B = TypeVar("B", bound="_TokenizerBody")


class _TokenizerBody(Lenient):
    """Parameters of all endpoints for tokenizers. The default of `model` is the first model."""

    model: str | None = None


class TokenizeBody(_TokenizerBody):
    """Body of a request to `POST /tokenize`. As in vLLM, the names of special tokens are encoded as these tokens."""

    prompt: Annotated[str, Field(max_length=_MAX_CHARACTERS)]
    add_special_tokens: bool = True


class DetokenizeBody(_TokenizerBody):
    """Body of a request to `POST /detokenize`."""

    tokens: list[int]


def tokenizer_routes(models: Models) -> list[Route]:
    """Return the routes of the endpoints for tokenizers.

    Args:
        models: Models that the server serves.
    """

    async def find(request: Request, name: str | None) -> ServedModel:
        if name is None:
            name = next((each["id"] for each in await asyncio.to_thread(models.list_models)), "")
        return await use_model(request, models.use(name))

    def post(summary: str, body_type: type[B], answer: Callable[[ServedModel, B], Json]) -> Callable[[Request], object]:
        @describes(summary, body_type)
        async def endpoint(request: Request) -> Response:
            body = await read_request(request, body_type)
            model = await find(request, body.model)
            return JSONResponse(await asyncio.to_thread(answer, model, body))

        return endpoint

    @describes("Describe the tokenizer")
    async def info(request: Request) -> Response:
        return JSONResponse(_info(await find(request, request.query_params.get("model"))))

    return [
        Route("/tokenize", post("Convert a text to token IDs", TokenizeBody, _tokenize), methods=["POST"]),
        Route("/detokenize", post("Convert token IDs to a text", DetokenizeBody, _detokenize), methods=["POST"]),
        Route("/tokenizer_info", info, methods=["GET"]),
    ]


def _tokenize(model: ServedModel, body: TokenizeBody) -> Json:
    ids = model.tokenizer.encode_rendered(body.prompt)
    if body.add_special_tokens:
        ids = model.tokenizer.add_bos(ids)
    return {"count": len(ids), "max_model_len": model.context_length, "tokens": ids}


def _detokenize(model: ServedModel, body: DetokenizeBody) -> Json:
    model.require_known_ids(body.tokens, "tokens")
    return {"prompt": model.tokenizer.decode(body.tokens, skip_special_tokens=False)}


def _info(model: ServedModel) -> Json:
    """Return the parts of `tokenizer_config.json` that clients use."""
    tokenizer = model.tokenizer
    names = {name: tokenizer.token_bytes(token).decode() for name, token in tokenizer.text_ids.items()}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": model.context_length,
        "add_bos_token": tokenizer.adds_bos,
        "bos_token": names["bos_id"],
        "eos_token": names["eos_id"],
        "pad_token": names["pad_id"],
        "chat_template": tokenizer.chat_template,
    }
