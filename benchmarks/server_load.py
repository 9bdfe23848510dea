"""`python -m benchmarks.server_load`: the server's throughput and its behavior under load; one JSON object last.

Part 1 compares the throughput through the server with the throughput of the engine without a server, for the same kind
of requests in the same run. Part 2 runs clients for some minutes: a tenth disconnects, a tenth sends garbage, and each
answer is compared with the answer of the same request alone. Part 3 sends SIGTERM while requests are running. Part 4
sends 100 requests at the same time. The clients run in another process and use raw sockets
(benchmarks/server_clients.py).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from groundup.core.console import Console
from groundup.hub.loading import open_chat_model
from groundup.inference import Engine, GenerationRequest, Sampling, make_runner

Json = dict[str, Any]
MODES = ("offline", "server", "stream")


class RunningServer:
    """A server process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        self.url = str(json.loads(process.stdout.readline())["url"])

    @property
    def rss_mb(self) -> float:
        """Resident memory in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@contextmanager
def server(options: argparse.Namespace, max_active: int) -> Iterator[RunningServer]:
    """Start `groundup serve` on a free port, and stop it at the end of the context."""
    command = [sys.executable, "-m", "groundup", "serve", options.model, "--name", "model", "--port", "0", "--json"]
    command += ["--dtype", options.dtype, "--set", f"max_active={max_active}"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield RunningServer(process)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(120)


def start_clients(call: str, **arguments: Any) -> subprocess.Popen[str]:
    """Start clients in another process."""
    pipes: Json = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.server_clients"], **pipes)
    assert process.stdin is not None
    process.stdin.write(json.dumps({"call": call, "arguments": arguments}))
    process.stdin.close()
    process.stdin = None
    return process


def result_of(process: subprocess.Popen[str]) -> Any:
    """Wait for clients and return their result."""
    output, _ = process.communicate()
    return json.loads(output.splitlines()[-1])


def body(numbers: random.Random, prompt_tokens: int, output_tokens: int, **options: Any) -> Json:
    """Return a request with a random prompt, which is not in the prefix cache."""
    prompt = [numbers.randrange(300, 40_000) for _ in range(prompt_tokens)]
    return {"model": "model", "prompt": prompt, "max_tokens": output_tokens, "temperature": 0, **options}


def offline(engine: Engine, bodies: list[Json]) -> float:
    """Return the tokens/s of the engine without a server."""
    requests = [
        GenerationRequest(prompt=tuple(each["prompt"]), sampling=Sampling(temperature=0), max_tokens=each["max_tokens"])
        for each in bodies
    ]
    started = time.perf_counter()
    streams = [engine.stream(request) for request in requests]
    tokens = sum(len(list(stream)) for stream in streams)
    return tokens / (time.perf_counter() - started)


def measure_throughput(options: argparse.Namespace) -> Json:
    """Return the best tokens/s of each mode by number of clients, and the CPU time of the clients."""
    opened, _ = open_chat_model(Path(options.model), "cpu", Console())
    figures: Json = {}
    for clients in options.clients:
        best: Json = dict.fromkeys(MODES, 0.0)
        numbers = random.Random(clients)
        runner = make_runner(opened.model, options.dtype)
        cpu: Json = {}
        with (
            Engine(
                opened.model, opened.tokenizer, runner=runner, stop_ids=opened.stop_ids, max_active=clients
            ) as engine,
            server(options, clients) as running,
        ):
            for number in range(options.rounds + 1):
                for mode in MODES if number % 2 else reversed(MODES):
                    extra = {"stream": True, "stream_options": {"include_usage": True}} if mode == "stream" else {}
                    size = options.prompt_tokens, options.output_tokens
                    bodies = [body(numbers, *size, **extra) for _ in range(clients)]
                    if mode == "offline":
                        speed = offline(engine, bodies)
                    else:
                        result = result_of(start_clients("throughput", url=running.url, bodies=bodies))
                        assert not result["failed"], result["failed"]
                        speed = result["tokens"] / result["seconds"]
                        cpu[mode] = result["cpu_seconds"] / result["seconds"]
                    if number:  # the first round warms up
                        best[mode] = max(best[mode], speed)
        figures[str(clients)] = {"tokens_per_second": best, "clients_cpu_share": cpu}
        print(clients, json.dumps(figures[str(clients)]), flush=True)
    return figures


def mixed_bodies(count: int) -> list[Json]:
    """Return requests of different lengths, one half greedy and one half with a seed."""
    numbers = random.Random(0)
    bodies = []
    for number in range(count):
        sampling = {"temperature": 0.8, "seed": number} if number % 2 else {}
        bodies.append(body(numbers, numbers.randrange(4, 300), numbers.randrange(1, 96), **sampling))
    return bodies


def measure_load(options: argparse.Namespace) -> Json:
    """Run the clients for some minutes, then send SIGTERM, then send 100 requests at the same time to a new server."""
    bodies, seconds, clients = mixed_bodies(options.requests), 60 * options.minutes, max(options.clients)
    found: Json = {}
    with server(options, max_active=32) as running:
        texts = result_of(start_clients("alone", url=running.url, bodies=bodies))
        call = {"url": running.url, "bodies": bodies, "texts": texts, "clients": clients}
        warm_up = result_of(start_clients("load", **call, seconds=seconds / 5, seed=1))
        found["rss_mb_warm"] = running.rss_mb
        probe = start_clients("health", url=running.url, seconds=seconds * 0.95)
        found["load"] = result_of(start_clients("load", **call, seconds=seconds, seed=2))
        found["load"] = {key: value + warm_up[key] for key, value in found["load"].items()}
        found["health"], found["rss_mb_end"] = result_of(probe), running.rss_mb
        found["drain"] = drain(running, bodies, texts)
    with server(options, max_active=32) as running:
        many = [bodies[number % len(bodies)] for number in range(100)]
        expected = [texts[number % len(texts)] for number in range(100)]
        found["at_once"] = result_of(start_clients("at_once", url=running.url, bodies=many, texts=expected))
    return found


def drain(running: RunningServer, bodies: list[Json], texts: list[str]) -> Json:
    """Send SIGTERM while requests are running, and new requests after it."""
    longest = [{**each, "max_tokens": each["max_tokens"]} for each in bodies[:64]]
    accepted = start_clients("at_once", url=running.url, bodies=longest, texts=texts[:64])
    deadline = time.monotonic() + 60
    while _num_unfinished(running) < len(longest) // 2 and time.monotonic() < deadline and accepted.poll() is None:
        time.sleep(0.02)
    running.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    new = result_of(start_clients("at_once", url=running.url, bodies=bodies[:8], texts=texts[:8]))
    result = {"accepted": result_of(accepted), "new": new}
    return result | {"exit_code": running.process.wait(120)}


def _num_unfinished(running: RunningServer) -> int:
    import urllib.request

    text = urllib.request.urlopen(f"{running.url}/metrics").read().decode()
    return int(sum(float(line.split()[1]) for line in text.splitlines() if line.startswith("groundup:num_requests")))


def main() -> None:
    """Measure and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=os.environ.get("MODEL"), help="model directory [$MODEL]")
    parser.add_argument("--dtype", default="int8", help="weight format [int8]")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads [2]")
    parser.add_argument("--clients", type=int, nargs="+", default=[8, 64], help="numbers of clients [8 64]")
    parser.add_argument("--prompt-tokens", type=int, default=64, help="tokens of a prompt [64]")
    parser.add_argument("--output-tokens", type=int, default=64, help="tokens of an output [64]")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each mode [3]")
    parser.add_argument("--requests", type=int, default=100, help="different requests of the load test [100]")
    parser.add_argument("--minutes", type=float, default=5, help="duration of the load test, 0 for none [5]")
    options = parser.parse_args()
    if not options.model:
        raise SystemExit("set MODEL to a model directory (benchmarks/README.md)")
    torch.set_num_threads(options.threads)
    figures = measure_throughput(options) if options.rounds else {}
    result: Json = {}
    for clients, each in figures.items():
        speeds = each["tokens_per_second"]
        result[f"server{clients}_vs_offline"] = speeds["server"] / speeds["offline"]
        result[f"stream{clients}_vs_offline"] = speeds["stream"] / speeds["offline"]
    if options.minutes:
        found = measure_load(options)
        figures["load"] = found
        wrong = sum(found["load"][key] for key in ("lost", "mixed", "truncated", "server_errors"))
        result["lost_answers"] = wrong + found["drain"]["accepted"]["wrong"] + found["at_once"]["wrong"]
    print(json.dumps(result | {"figures": figures}))


if __name__ == "__main__":
    main()
