"""Rendering of Jinja chat templates as in transformers, in a sandbox with limits.

Templates of imported models are untrusted code. A template has access only to the messages and the special token names.
The length of the text, the number of loop iterations and function calls, and the time are limited.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime
from functools import wraps
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from groundup.core.errors import ConfigError, FormatError

_MAX_TEMPLATE_CHARS = 300_000  # ten times the size of the largest known template

# The cost of rendering is about the number of characters that are computed. A conversation that fills a long context
# has a cost of about 10^7.
_MAX_COST = 300_000_000
_MAX_SECONDS = 5.0
_STEP_COST = 300  # cost of a loop iteration or a function call
_MAX_ARGUMENT = 10_000_000  # maximum integer argument of a function, such as a width or a count
_GIVEN = frozenset(("messages", "tools", "documents", "add_generation_prompt"))  # variables that all templates can use
_WIDE = re.compile(r"\d{5,}|%[-+ #0-9.]*\*")  # a width of at least five digits, or a variable width, in a format string


class TemplateRefusalError(ConfigError):
    """The template called `raise_exception`, because it does not accept the conversation."""


class JinjaTemplate:
    """A chat template in Jinja syntax.

    Args:
        text: The template.
        variables: Values of fixed variables such as `bos_token` and `eos_token`.

    Attributes:
        variable_names: Names of optional variables that the template uses, such as `enable_thinking`.

    Raises:
        FormatError: The template is too long or has invalid Jinja syntax.
    """

    def __init__(self, text: str, variables: Mapping[str, Any]) -> None:
        if len(text) > _MAX_TEMPLATE_CHARS:
            raise _damaged(f"{len(text):,} characters; the maximum is {_MAX_TEMPLATE_CHARS:,}")
        self.text = text
        self._variables = dict(variables)
        environment = _Environment(len(text))
        try:
            with _Budget():
                self._template = environment.from_string(text)
                named = meta.find_undeclared_variables(environment.parse(text))
        except (jinja2.TemplateError, SyntaxError, RecursionError, MemoryError, _LimitError) as error:
            raise _damaged(_message(error)) from error
        # An early template of SmolLM3 has the variable xml_tools instead of tools.
        self._tools_variable = "tools" if "tools" in named or "xml_tools" not in named else "xml_tools"
        self.variable_names = frozenset(named - _GIVEN - environment.globals.keys() - variables.keys())

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = False,
        variables: Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        """Return the rendered text of a conversation, which contains special token names such as `<|im_end|>`.

        Args:
            messages: The messages. Each message has the keys "role" and "content". Messages with tool calls or with
                their results have additional keys, as in OpenAI's API.
            add_generation_prompt: Whether to append the start of an assistant turn.
            variables: Values of optional variables, keyed by a name from `variable_names`.
            tools: Descriptions of the functions that the model may call, in the format of OpenAI's API.

        Raises:
            TemplateRefusalError: The template called `raise_exception`. `rule` contains the message of the template.
            FormatError: The template raised another error or exceeded a limit.
        """
        given = {"messages": [dict(message) for message in messages], "tools": None, "documents": None}
        given |= {self._tools_variable: [dict(tool) for tool in tools]} if tools else {}
        try:
            with _Budget():
                values = {**(variables or {}), **given, **self._variables}
                values["add_generation_prompt"] = add_generation_prompt
                return "".join(self._template.generate(values))
        except _RaisedError as error:
            raise TemplateRefusalError(
                f"a conversation of {', '.join(message['role'] for message in messages)}",
                rule=f"the model's chat template does not accept it: {_message(error)}",
                fix="Alternate user and assistant messages, starting with the user.",
            ) from error
        except Exception as error:  # A template can raise any exception.
            raise _damaged(_message(error)) from error


class _RaisedError(jinja2.TemplateError):
    """The error that `raise_exception` raises inside a template."""


class _LimitError(Exception):
    """A template exceeded a limit."""


class _Budget:
    """The remaining cost and time for compiling or rendering a template."""

    def __enter__(self) -> _Budget:
        self.remaining = _MAX_COST
        self.deadline = time.monotonic() + _MAX_SECONDS
        self._outer = _budget.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _budget.reset(self._outer)

    def spend(self, amount: int) -> None:
        self.remaining -= amount
        if self.remaining < 0 or time.monotonic() > self.deadline:
            raise _LimitError("the template computes too much text or runs too long")


_budget: ContextVar[_Budget] = ContextVar("budget of a chat template")


def _size(value: object, known: dict[int, int] | None = None) -> int:
    """Return the approximate number of characters of a value when it is converted to text.

    A list that is contained twice in the value is counted twice. `known` caches the sizes of lists and dictionaries.
    """
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list | tuple | dict):
        known = {} if known is None else known
        if id(value) not in known:
            known[id(value)] = 8  # preliminary size, which is used if the list contains itself
            items = [*value.keys(), *value.values()] if isinstance(value, dict) else value
            known[id(value)] = 8 + sum(8 + _size(item, known) for item in items)
        return known[id(value)]
    return value.bit_length() // 8 if isinstance(value, int) else 0


def _counted(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a filter so that its arguments are checked and the size of its result is added to the cost."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        _check_arguments(args, kwargs.values())
        if function.__name__ == "do_format":
            _check_format(args[0])
        if function.__name__ == "do_indent":
            width = kwargs.get("width", args[1] if len(args) > 1 else 4)
            each = width if isinstance(width, int) else _size(width)
            _budget.get().spend(str(args[0]).count("\n") * abs(each))
        made = function(*args, **kwargs)
        _budget.get().spend(_STEP_COST + _size(made))
        return made

    return call


def _check_arguments(*groups: Any) -> None:
    sizes = [0, 0]
    for value in (value for group in groups for value in group):
        if isinstance(value, int) and abs(value) > _MAX_ARGUMENT:
            raise _LimitError(f"the argument {value:.3e} is too large")
        sizes.append(_size(value))
    # In the worst case, the function replaces each character of one argument by the whole other argument.
    largest, second = sorted(sizes)[-1:-3:-1]
    if largest * second > _MAX_COST:
        raise _LimitError("the template computes too much text")


def _check_format(format: object) -> None:
    if _WIDE.search(str(format)):
        raise _LimitError(f"the format {str(format)[:40]!r} is too wide")


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(("*", "**", "+", "%"))

    def __init__(self, template_length: int) -> None:
        extensions = [_Generation, "jinja2.ext.loopcontrols"]
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=extensions, finalize=_shown)
        self._template_length = template_length
        self.filters["tojson"] = _to_json
        self.filters = {name: _counted(function) for name, function in self.filters.items()}
        self.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now, "namespace": _Namespace}
        del self.globals["lipsum"]

    def tick(self, amount: int) -> None:
        """Add the cost of a loop iteration."""
        _budget.get().spend(amount)

    def concatenated(self, *parts: object) -> str:
        """Return the concatenation of the operands of the operator `~`, and add its cost."""
        _budget.get().spend(_STEP_COST + sum(map(_size, parts)))
        return "".join(map(str, parts))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        numbers = isinstance(left, int) and isinstance(right, int)
        if operator == "%":
            if isinstance(left, str):
                _check_format(left)
        elif operator == "+":
            _budget.get().spend(_size(left) + _size(right))
        elif operator == "**" and numbers:
            if abs(right) > 1000 or left.bit_length() * abs(right) > 10_000:
                raise _LimitError(f"{left} ** {right} is too large")
        elif operator == "*":
            amount = _size(left) + _size(right) if numbers else max(_size(left), 1) * max(_size(right), 1)
            for one, other in ((left, right), (right, left)):
                if isinstance(one, int) and not isinstance(other, int | float):
                    amount = one * _size(other)
            _budget.get().spend(max(amount, 0))
        made = super().call_binop(context, operator, left, right)
        _budget.get().spend(_STEP_COST + _size(made))
        return made

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str):
            _check_arguments((owner,), args, kwargs.values())
        else:
            _check_arguments(args, kwargs.values())
        _budget.get().spend(__self._template_length if isinstance(__obj, Macro) else _STEP_COST)
        made = super().call(__context, __obj, *args, **kwargs)
        _budget.get().spend(_size(made))
        return made

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        if wrapped is not None:
            _check_format(value.__self__)
        return wrapped

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in tree.find_all(nodes.For):
            written = sum(len(data.data) for node in loop.body for data in node.find_all(nodes.TemplateData))
            tick = nodes.Call(nodes.EnvironmentAttribute("tick"), [nodes.Const(_STEP_COST + written)], [], None, None)
            loop.body.insert(0, nodes.ExprStmt(tick, lineno=loop.lineno))
        made: nodes.Template = _Concatenations().visit(tree)
        made.set_environment(self)
        return made


class _Concatenations(NodeTransformer):
    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        function = nodes.EnvironmentAttribute("concatenated")
        return nodes.Call(function, node.nodes, [], None, None, lineno=node.lineno)


class _Generation(Extension):
    """The tag `{% generation %}`, with which some templates mark text for the training loss. It renders its body."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class _Namespace(jinja2.utils.Namespace):
    """A Jinja namespace that does not allow attributes whose name starts with an underscore."""

    def __setitem__(self, name: str, value: Any) -> None:
        if str(name).startswith("_"):
            raise SecurityError(f"the attribute {name!r} of a namespace")
        super().__setitem__(name, value)


def _shown(value: Any) -> Any:
    # This function is Jinja's finalize hook, which is called for each rendered value.
    _budget.get().spend(_size(value))
    return value


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    # The built-in filter of Jinja is not used, because it escapes "<" and "&" for HTML.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: object = "") -> None:
    raise _RaisedError(str(message))


def _strftime_now(format: str) -> str:
    _check_format(format)
    return datetime.now().strftime(format)


def _message(error: BaseException) -> str:
    return f"{str(error)[:300] or type(error).__name__}"


def _damaged(found: str) -> FormatError:
    return FormatError(
        f"the model's chat template: {found}",
        rule="the template is not a valid chat template, or it exceeds a limit",
        fix="Copy the model's tokenizer_config.json (or chat_template.jinja) again from its source.",
    )
