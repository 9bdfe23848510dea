"""Constrained decoding: the output matches a JSON schema, a regex, a list of choices or a context-free grammar.

The library llguidance computes the mask of allowed tokens from the grammar and the vocabulary. In addition, a `Guide`
stores a completion: a sequence of tokens that would end the current output validly. A sampled token is accepted only if
the output can be completed after it within the remaining tokens. Otherwise the guide emits the next token of the stored
completion. The output is therefore valid for any sampled tokens and any token limit.

Shape suffix in variable names: V is the vocabulary size.
"""

from groundup.inference.grammar.files import one_grammar
from groundup.inference.grammar.grammar import Grammar
from groundup.inference.grammar.guide import Guide
from groundup.inference.grammar.schemas import checked_schema
from groundup.inference.grammar.sources import JSON_STYLE

__all__ = ["JSON_STYLE", "Grammar", "Guide", "checked_schema", "one_grammar"]
