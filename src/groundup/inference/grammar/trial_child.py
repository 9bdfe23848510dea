"""Program of the child process that compiles grammars before the server does; see `trial.py`.

It imports only llguidance, so it starts quickly and needs little memory. The first line on stdin is the vocabulary, and
each further line is a grammar. For each grammar, it writes a line with the error, or with an empty text.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from contextlib import suppress
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

CPU_SECONDS = 1.0  # maximum CPU time of a grammar; real ones need less than 0.1 s
MEMORY_BYTES = 512 * 2**20  # maximum address space; 64 MiB of it are in use before the first grammar
_STACK_BYTES = 4 * 2**20  # half of the stack of a thread in the server, so that the server has a margin


class _Tokens:
    """The vocabulary in the form that llguidance expects. Text is encoded as bytes, which is valid but long."""

    def __init__(self, vocabulary: dict[str, Any]) -> None:
        self.tokens = [token.encode("latin-1") for token in vocabulary["tokens"]]
        self.special_token_ids = vocabulary["special"]
        self.eos_token_id = self.bos_token_id = vocabulary["eos"]
        self._bytes = {token[0]: number for number, token in enumerate(self.tokens) if len(token) == 1}

    def __call__(self, text: bytes) -> list[int]:
        return [self._bytes[byte] for byte in text if byte in self._bytes]


def _compile(tokenizer: LLTokenizer, grammar: str, limits: LLParserLimits) -> None:
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)  # SIGPROF ends the process
    matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=limits)
    error = matcher.get_error()
    matcher.compute_bitmask()
    signal.setitimer(signal.ITIMER_PROF, 0)
    sys.stdout.write(json.dumps(error) + "\n")
    sys.stdout.flush()


def _serve() -> None:
    vocabulary = json.loads(sys.stdin.readline())
    tokenizer = LLTokenizer(TokenizerWrapper(_Tokens(vocabulary)))
    limits = LLParserLimits(**vocabulary["limits"])
    with suppress(ImportError, ValueError, OSError):  # not every system has a limit of the address space
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    for line in sys.stdin:
        _compile(tokenizer, json.loads(line), limits)


if __name__ == "__main__":
    threading.stack_size(_STACK_BYTES)
    thread = threading.Thread(target=_serve)
    thread.start()
    thread.join()
