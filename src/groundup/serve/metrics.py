"""Metrics of a server in the text format of Prometheus. The names follow vLLM's where both have the same metric."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from groundup.inference import TokenEvent
from groundup.inference.blocks import BlockPool
from groundup.inference.worker import RequestState, RequestTimeoutError, Worker
from groundup.serve.openapi import describes

_PREFIX = "groundup:"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metrics:
    """Metrics of one server. This class implements `groundup.inference.worker.WorkerObserver`.

    Each instance has its own registry, so that two servers in one process do not share counters.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._http_requests = Counter(
            "http_requests", "HTTP requests", ("method", "handler", "status"), registry=self._registry
        )
        self._running = self._gauge("num_requests_running", "Requests that are processed now")
        self._waiting = self._gauge("num_requests_waiting", "Requests in the queue")
        self._cache_usage = self._gauge("kv_cache_usage_perc", "Used part of the KV cache, from 0 to 1")
        self._prompt_tokens = self._counter("prompt_tokens", "Prompt tokens of requests that began to generate")
        self._generation_tokens = self._counter("generation_tokens", "Generated tokens")
        self._prefix_queries = self._counter("prefix_cache_queries", "Prompt tokens that were looked up")
        self._prefix_hits = self._counter("prefix_cache_hits", "Prompt tokens that the prefix cache contained")
        self._ended = Counter(
            _PREFIX + "request_success", "Finished requests", ("finished_reason",), registry=self._registry
        )
        self._first_token = self._histogram("time_to_first_token_seconds", "Time to the first token", _SECONDS)
        self._next_token = self._histogram("inter_token_latency_seconds", "Time between two tokens", _TOKEN_SECONDS)
        self._queue_time = self._histogram("request_queue_time_seconds", "Time in the queue", _SECONDS)
        self._latency = self._histogram("e2e_request_latency_seconds", "Time from arrival to the last token", _SECONDS)

    def watch(self, worker: Worker, pool: BlockPool) -> None:
        """Report the state of a worker and of its KV cache.

        Args:
            worker: Worker whose running and waiting requests are reported.
            pool: Memory of the KV cache.
        """
        self._running.set_function(lambda: worker.num_running)
        self._waiting.set_function(lambda: worker.num_waiting)
        self._cache_usage.set_function(lambda: pool.usage)

    @property
    def route(self) -> Route:
        """Route of the endpoint `/metrics`."""

        @describes("Metrics in the text format of Prometheus")
        async def metrics(request: Request) -> Response:
            encoder, media_type = choose_encoder(request.headers.get("accept", ""))
            return Response(encoder(self._registry), media_type=media_type)

        return Route("/metrics", metrics, methods=["GET"])

    def on_response(self, method: str, handler: str, status: int) -> None:
        """Count an HTTP response.

        Args:
            method: HTTP method.
            handler: Path of the route with placeholders, so that clients cannot create an unlimited number of labels.
            status: HTTP status code.
        """
        self._http_requests.labels(method, handler, str(status)).inc()

    def on_token(self, state: RequestState, now: float) -> None:
        """Count a sampled token and measure its latency."""
        self._generation_tokens.inc()
        if state.last_token is not None:
            self._next_token.observe(now - state.last_token)
            return
        self._first_token.observe(now - state.submitted)
        self._prompt_tokens.inc(len(state.ids))
        self._prefix_queries.inc(len(state.ids))
        self._prefix_hits.inc(0 if state.sequence is None else state.sequence.cached_tokens)

    def on_end(self, state: RequestState, now: float, result: TokenEvent | Exception) -> None:
        """Count the end of a request and measure its latency."""
        if isinstance(result, TokenEvent):
            reason = str(result.finish_reason)
        else:
            reason = "timeout" if isinstance(result, RequestTimeoutError) else "error"
        self._ended.labels(reason).inc()
        self._queue_time.observe((state.started or now) - state.submitted)
        self._latency.observe(now - state.submitted)

    def _counter(self, name: str, help: str) -> Counter:
        return Counter(_PREFIX + name, help, registry=self._registry)

    def _gauge(self, name: str, help: str) -> Gauge:
        return Gauge(_PREFIX + name, help, registry=self._registry)

    def _histogram(self, name: str, help: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(_PREFIX + name, help, buckets=buckets, registry=self._registry)
