"""The OpenAPI document of the API, and a page that shows it without JavaScript and without other servers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any, TypeVar

import jinja2
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from groundup.serve.openai.body import Body

Json = dict[str, Any]
Handler = TypeVar("Handler", bound=Callable[..., Any])
_REF = "#/components/schemas/{model}"
_ERROR_SCHEMA: Json = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
            "required": ["message", "type", "param", "code"],
        }
    },
    "required": ["error"],
}


@dataclass(frozen=True, slots=True)
class Description:
    """Description of an endpoint.

    Attributes:
        summary: Summary of one line.
        body: Class of the request body, or None for an endpoint without a body.
    """

    summary: str
    body: type[Body] | None = None


def describes(summary: str, body: type[Body] | None = None) -> Callable[[Handler], Handler]:
    """Return a decorator that adds an endpoint to the OpenAPI document.

    Args:
        summary: Summary of one line.
        body: Class of the request body, or None for an endpoint without a body.
    """

    def describe(handler: Handler) -> Handler:
        handler.operation = Description(summary, body)  # type: ignore[attr-defined]
        return handler

    return describe


def openapi_document(routes: Sequence[BaseRoute]) -> Json:
    """Return the OpenAPI document of all routes whose endpoints have a description.

    Args:
        routes: Routes of the application.
    """
    described = [
        (route, operation)
        for route in routes
        if isinstance(route, Route) and (operation := getattr(route.endpoint, "operation", None)) is not None
    ]
    bodies = dict.fromkeys(operation.body for _, operation in described if operation.body is not None)
    refs, schemas = models_json_schema([(body, "validation") for body in bodies], ref_template=_REF)
    paths: Json = {}
    for route, operation in described:
        method = next(iter(sorted((route.methods or {"GET"}) - {"HEAD"}))).lower()
        schema = None if operation.body is None else refs[operation.body, "validation"]
        paths.setdefault(route.path_format, {})[method] = _operation(route, operation, schema)
    return {
        "openapi": "3.1.0",
        "info": {"title": "groundup", "version": version("groundup"), "description": "OpenAI-compatible API."},
        "paths": paths,
        "components": {
            "schemas": {**schemas.get("$defs", {}), "Error": _ERROR_SCHEMA},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def document_routes(routes: Sequence[BaseRoute]) -> list[Route]:
    """Return the routes `/openapi.json` and `/docs`, which describe the other routes.

    Args:
        routes: The other routes.
    """

    @cache
    def described() -> Json:
        return openapi_document(routes)

    async def document(request: Request) -> Response:
        return JSONResponse(described())

    async def page(request: Request) -> Response:
        source = files("groundup.serve").joinpath("docs.html").read_text(encoding="utf-8")
        template = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(source)
        headers = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"}
        return HTMLResponse(template.render(document=described(), type_of=_type_of), headers=headers)

    return [Route("/openapi.json", document, methods=["GET"]), Route("/docs", page, methods=["GET"])]


def _operation(route: Route, operation: Description, schema: Json | None) -> Json:
    ok: Json = {"application/json": {"schema": {"type": "object"}}}
    if operation.body is not None and "stream" in operation.body.model_fields:
        ok["text/event-stream"] = {"schema": {"type": "string"}}
    if route.path == "/metrics":
        ok = {"text/plain": {"schema": {"type": "string"}}}
    error = {"description": "Error", "content": {"application/json": {"schema": {"$ref": _REF.format(model="Error")}}}}
    described: Json = {
        "summary": operation.summary,
        "operationId": route.name,
        "responses": {"200": {"description": "Success", "content": ok}, "default": error},
    }
    if route.param_convertors:
        described["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in route.param_convertors
        ]
    if schema is not None:
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return described


def _type_of(schema: Mapping[str, Any]) -> str:
    """Return a short description of a JSON schema for the page."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(_type_of(each) for each in schema[key]))
    if "enum" in schema or "const" in schema:
        return " or ".join(repr(each) for each in schema.get("enum", [schema.get("const")]))
    kind = str(schema.get("type", "any"))
    return f"list of {_type_of(schema['items'])}" if kind == "array" and "items" in schema else kind
