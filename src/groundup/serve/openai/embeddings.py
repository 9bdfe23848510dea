"""Embeddings of texts: conversion of request bodies to jobs, and responses of the endpoint `/v1/embeddings`."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence

from torch import Tensor

from groundup.inference import GenerationRequest, TokenEvent
from groundup.serve.models.model import Job, ServedModel
from groundup.serve.openai.answers import Json
from groundup.serve.openai.errors import ApiError
from groundup.serve.openai.schema import EmbeddingBody

_PART_SIZE = 16  # inputs that are queued at a time, so that a long list does not fill the queue


def embedding_job(model: ServedModel, body: EmbeddingBody) -> Job:
    """Convert the body of a request for embeddings to a job with one request per input.

    Args:
        model: Model that computes the embeddings.
        body: Body of the request.

    Raises:
        ApiError: The status is 400 if an input is too long, a token ID is unknown, or the number of dimensions differs
            from the size of the embeddings.
    """
    size = model.engine.model.config.dim
    if body.dimensions not in (None, size):
        raise ApiError(
            400,
            f"dimensions = {body.dimensions}",
            rule=f"the embeddings of this model have {size} dimensions, and a part of them is not an embedding",
            fix="Omit dimensions.",
            param="dimensions",
            code="invalid_value",
        )
    prompts = [model.prompt_ids(each, "input", output=False) for each in body.input]
    client = () if body.end_user is None else (body.end_user,)
    requests = tuple(
        GenerationRequest(prompt=tuple(ids), max_tokens=0, embedding=True, client=client) for ids in prompts
    )
    return Job(requests, sum(map(len, prompts)), body.ignored)


def parts(job: Job) -> Iterator[Job]:
    """Split a job into jobs that are submitted one after the other.

    Args:
        job: Job with any number of requests.
    """
    for begin in range(0, len(job.requests), _PART_SIZE):
        requests = job.requests[begin : begin + _PART_SIZE]
        yield Job(requests, sum(len(request.prompt) for request in requests))


def embedding_response(model: ServedModel, job: Job, body: EmbeddingBody, outputs: Sequence[TokenEvent]) -> Json:
    """Return the response to a request for embeddings.

    Args:
        model: Model that has computed the embeddings.
        job: Job of the request.
        body: Body of the request.
        outputs: Last event of each input.
    """
    data = []
    for index, event in enumerate(outputs):
        assert event.embedding is not None, "the last event of the request has the embedding"
        embedding = _base64(event.embedding) if body.encoding_format == "base64" else event.embedding.tolist()
        data.append({"object": "embedding", "index": index, "embedding": embedding})
    usage = {"prompt_tokens": job.prompt_tokens, "total_tokens": job.prompt_tokens}
    return {"object": "list", "data": data, "model": model.name, "usage": usage}


def _base64(embedding_D: Tensor) -> str:
    """Return the bytes of little-endian 32-bit floats in base64."""
    return base64.b64encode(embedding_D.numpy().astype("<f4").tobytes()).decode()
