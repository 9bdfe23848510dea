"""Grammars that are compiled for the vocabulary of a tokenizer."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from groundup.core.errors import ConfigError
from groundup.inference.grammar.guide import MAX_COMPLETION, Guide
from groundup.inference.grammar.search import CompletionSearch, CpuLimit, JsonState
from groundup.inference.grammar.sources import (
    GrammarSource,
    from_choices,
    from_lark,
    from_regex,
    from_schema,
    from_spans,
)
from groundup.inference.grammar.vocabulary import GrammarVocabulary, vocabulary_of
from groundup.tokenizer import Tokenizer

_MAX_SECONDS = 1.0  # CPU time of the search for a valid output
_MAX_CACHED = 64  # maximum number of compiled grammars that are cached per vocabulary


class Grammar:
    """A grammar that is compiled for the vocabulary of a tokenizer. Make one with the methods `of_...`.

    Attributes:
        kind: Name of the format, such as "JSON schema".
        min_tokens: Number of tokens of a short valid output. `max_tokens` of a request must be at least this number.
    """

    def __init__(self, source: GrammarSource, vocabulary: GrammarVocabulary, cancelled: threading.Event) -> None:
        self.kind = source.kind
        self._is_json, self._ends_in_json = source.is_json, source.ends_in_json
        self._vocabulary = vocabulary
        self._matcher = vocabulary.matcher(source, cancelled)
        self._search = CompletionSearch(vocabulary, source)
        limit = CpuLimit(_MAX_SECONDS, cancelled)
        completion = self._search.find(self._matcher, JsonState(), (), MAX_COMPLETION, limit, thorough=True)
        if completion is None:
            vocabulary.check(self._matcher, source)
            raise ConfigError(
                source.kind,
                rule=f"no valid output of at most {MAX_COMPLETION:,} tokens was found",
                fix="Decrease minimum lengths and repeat counts, simplify patterns, and make recursion optional.",
            )
        self.min_tokens = len(completion)
        self._completion = completion

    @classmethod
    def of_schema(
        cls, schema: Mapping[str, Any], tokenizer: Tokenizer, cancelled: threading.Event | None = None
    ) -> Grammar:
        """Return the compiled grammar of a JSON schema. Compiled grammars are cached.

        Args:
            schema: JSON schema to compile.
            tokenizer: Tokenizer whose vocabulary the grammar is compiled for.
            cancelled: Set by another thread when the grammar is not needed any more.

        Returns:
            The compiled grammar.

        Raises:
            ConfigError: The schema is invalid or too large, refers to other documents, or uses unsupported keywords.
            CancelledError: `cancelled` was set.
        """
        return _compiled(tokenizer, from_schema(schema), cancelled)

    @classmethod
    def of_regex(cls, pattern: str, tokenizer: Tokenizer, cancelled: threading.Event | None = None) -> Grammar:
        """Return the compiled grammar of a regex that the whole output must match.

        Args:
            pattern: Regex in the syntax of Rust's regex crate, without look-around.
            tokenizer: Tokenizer whose vocabulary the grammar is compiled for.
            cancelled: Set by another thread when the grammar is not needed any more.

        Returns:
            The compiled grammar.

        Raises:
            ConfigError: The regex is invalid, too large or too complex.
            CancelledError: `cancelled` was set.
        """
        return _compiled(tokenizer, from_regex(pattern), cancelled)

    @classmethod
    def of_choice(
        cls, choices: Sequence[str], tokenizer: Tokenizer, cancelled: threading.Event | None = None
    ) -> Grammar:
        """Return the compiled grammar of a list of texts. The output is one of them.

        Args:
            choices: The texts.
            tokenizer: Tokenizer whose vocabulary the grammar is compiled for.
            cancelled: Set by another thread when the grammar is not needed any more.

        Returns:
            The compiled grammar.

        Raises:
            ConfigError: There are no choices, or they are too large.
            CancelledError: `cancelled` was set.
        """
        return _compiled(tokenizer, from_choices(choices), cancelled)

    @classmethod
    def of_spans(cls, text: str, tokenizer: Tokenizer, others: Sequence[str] = ()) -> Grammar:
        """Return the compiled grammar of the spans of a text. The output consists of consecutive words of the text.

        Args:
            text: Text to copy from.
            tokenizer: Tokenizer whose vocabulary the grammar is compiled for.
            others: Outputs that are allowed in addition.

        Returns:
            The compiled grammar.

        Raises:
            ConfigError: The text is empty or too large.
        """
        return _compiled(tokenizer, from_spans(text, others), None)

    @classmethod
    def of_lark(
        cls,
        grammar: str,
        tokenizer: Tokenizer,
        cancelled: threading.Event | None = None,
        *,
        ends_in_json: bool = False,
    ) -> Grammar:
        r"""Return a compiled context-free grammar.

        The syntax is llguidance's variant of Lark, whose first rule is `start`, or GBNF, whose first rule is `root`. In
        Lark, `%json {...}` is a rule that matches a JSON schema, and `<[42]>` is the token with ID 42. A rule with
        `[lazy]` ends at its first match. This grammar allows free text with any number of tool calls. After the marker,
        the JSON is enforced. The end of the text is optional, so the minimum output is empty:

        ```
        %llguidance {}
        start: call* TEXT
        call: begin %json {"type": "object"} "\n</tool_call>"
        begin[lazy]: TEXT "<tool_call>\n"
        TEXT: /(.|\n)*/
        ```

        If the marker is a special token, use `call: TEXT <[42]> "\n" %json ...` and no lazy rule. For at least one
        call, write `call+`; for only calls, omit `TEXT`.

        Args:
            grammar: The grammar.
            tokenizer: Tokenizer whose vocabulary the grammar is compiled for.
            cancelled: Set by another thread when the grammar is not needed any more.
            ends_in_json: Whether the output is optional free text and then JSON, such as tool calls. Completions of
                such an output are found faster.

        Returns:
            The compiled grammar.

        Raises:
            ConfigError: The grammar is invalid, too large or too complex.
            CancelledError: `cancelled` was set.
        """
        return _compiled(tokenizer, from_lark(grammar, ends_in_json=ends_in_json), cancelled)

    def check_max_tokens(self, max_tokens: int) -> None:
        """Raise an error if `max_tokens` is too small for a valid output.

        Args:
            max_tokens: Maximum number of output tokens.

        Raises:
            ConfigError: `max_tokens` is less than `min_tokens`.
        """
        if max_tokens < self.min_tokens:
            raise ConfigError(
                f"max_tokens = {max_tokens}",
                rule=f"output for this {self.kind} may need {self.min_tokens} tokens",
                fix=f"Set max_tokens >= {self.min_tokens}, shorten the prompt, or use a smaller {self.kind}.",
            )

    def start(self, max_tokens: int, stop_ids: Collection[int]) -> Guide:
        """Return a guide for the generation of one output.

        Args:
            max_tokens: Maximum number of output tokens, including the stop token.
            stop_ids: IDs of stop tokens that may follow the complete output, in addition to EOS.

        Returns:
            A guide in its initial state, before the first token.

        Raises:
            ConfigError: `max_tokens` is less than `min_tokens`.
        """
        self.check_max_tokens(max_tokens)
        return Guide(
            self._matcher.deep_copy(),
            self._vocabulary,
            self._search,
            self._completion,
            remaining=max_tokens,
            stop_ids=stop_ids,
            is_json=self._is_json,
            ends_in_json=self._ends_in_json,
        )


_grammars: weakref.WeakKeyDictionary[Tokenizer, dict[str, Grammar]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def _compiled(tokenizer: Tokenizer, source: GrammarSource, cancelled: threading.Event | None) -> Grammar:
    """Return a grammar from the cache, or compile it."""
    with _lock:
        cached = _grammars.setdefault(tokenizer, {})
        found = cached.pop(source.text, None)
    if found is None:
        found = Grammar(source, vocabulary_of(tokenizer), cancelled or threading.Event())
    with _lock:
        cached[source.text] = found
        while len(cached) > _MAX_CACHED:
            del cached[next(iter(cached))]
    return found
