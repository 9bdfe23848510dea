"""Chat templates are untrusted code: the sandbox and its limits."""

from __future__ import annotations

import resource
import time
from datetime import datetime

import pytest

from groundup.core.errors import ConfigError, FormatError
from groundup.tokenizer.jinja import JinjaTemplate

HI = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    "text",
    [
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
        "{% for i in range(10 ** 9) %}{% endfor %}",
        "{{ 'a' * 10 ** 10 }}",
        "{{ [1] * 10 ** 9 }}",
        "{{ 'a' * 100000 * 100000 }}",
        "{{ [[1] * 100000] * 100000 }}",  # small until it is rendered
        "{{ [[1] * 100000] * 100000 ~ '' }}",
        "{{ ('a\\n' * 1000) | indent(10 ** 7) }}",
        "{% set n = namespace(s='a') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}",
        "{% set n = namespace(s='a') %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}{{ n.s }}",
        "{% set n = namespace(s='a') %}{% for i in range(60) %}{% set n.s %}{{ n.s }}{{ n.s }}{% endset %}{% endfor %}",
        "{% set n = namespace(s=['a']) %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
        "{{ 'a' | center(10 ** 10) }}",
        "{{ 'a'.ljust(10 ** 10) }}",
        "{{ '%10000000000d' % 1 }}",
        "{{ '{:>10000000000}'.format(1) }}",
        "{{ '%10000000000d' | format(1) }}",
        "{{ ('a' * 10000000) | replace('a', 'a' * 10000000) }}",
        "{{ ('a' * 10000000).replace('a', 'a' * 10000000) }}",
        "{{ 10 ** (10 ** 10) }}",
        "{{ 7 ** (10 ** 6) }}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(200) }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ strftime_now('%9999999999d') }}",
        "{{ lipsum(n=10000) }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ raise_exception.__globals__['json'] }}",
        "{{ self.__init__.__globals__ }}",
        "{% include '/etc/passwd' %}",
        "{{ messages[0].content.nothing.at.all }}",
        "{{ 1 / 0 }}",
        "{% for %}",
        "{{",
        "x" * 400_000,
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    ],
)
def test_forbidden_templates_are_stopped_quickly(text: str) -> None:
    """A malicious template could fill the memory or read files."""
    started, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FormatError, match="chat template"):
        JinjaTemplate(text, {}).render(HI)
    assert time.process_time() - started < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000  # KB


def test_features_of_transformers() -> None:
    text = (
        "{{ bos_token }}{% for m in messages %}{%- generation %}{{ m | tojson }}{% endgeneration %}"
        "{% if loop.first %}{% continue %}{% endif %}{% break %}{% endfor %}{{ missing }}{{ strftime_now('%Y') }}"
        "{% if tools is none and not documents %}!{% endif %}"
    )
    made = JinjaTemplate(text, {"bos_token": "<s>"}).render([{"role": "user", "content": "<é>"}, *HI, *HI])
    assert made == ('<s>{"role": "user", "content": "<é>"}{"role": "user", "content": "hi"}' + f"{datetime.now():%Y}!")


def test_raise_exception_is_in_the_error() -> None:
    with pytest.raises(ConfigError, match="roles must alternate"):
        JinjaTemplate("{{ raise_exception('roles must alternate') }}", {}).render(HI)


def test_a_long_conversation_is_within_the_limits() -> None:
    template = JinjaTemplate("{% for m in messages %}{{ m.role ~ ': ' + m.content | trim ~ '\n' }}{% endfor %}", {})
    messages = [{"role": "user", "content": "word " * 1000}] * 1000
    assert len(template.render(messages)) > 4_000_000
