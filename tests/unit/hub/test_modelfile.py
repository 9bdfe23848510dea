"""Ollama's template renders the same as the model's chat template, or is omitted."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from groundup.core.errors import DataError
from groundup.core.types import Message
from groundup.hub.modelfile import Render, find_turns, modelfile
from groundup.tokenizer import ChatTemplate, Tokenizer

jinja2 = pytest.importorskip("jinja2", reason="the templates of others are Jinja: pip install '.[dev]'")

# Similar to real families: a default system message, none, one inside the first user turn, no special tokens.
TEMPLATES = {
    "default system": """{% for m in messages %}{% if loop.first and m.role != 'system' %}<|im_start|>system
Be "kind" {{ '{{' }} always<|im_end|>
{% endif %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}""",
    "no system": """{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}
{% endif %}[{{ 'INST' if m.role == 'user' else 'SAID' }}] {{ m.content | trim }}{{ eos_token }}{% endfor %}""",
    "system in the first turn": """{{ bos_token }}{% set ns = namespace(told='') %}{% for m in messages %}
{%- if m.role == 'system' %}{% set ns.told = m.content + '\n\n' %}{% else %}<start_of_turn>
{{- 'model' if m.role == 'assistant' else m.role }}
{% if m.role == 'user' %}{{ ns.told }}{% set ns.told = '' %}{% endif %}{{ m.content | trim }}<end_of_turn>
{% endif %}{% endfor %}{% if add_generation_prompt %}<start_of_turn>model
{% endif %}""",
}
# Only the last question has its marker, so the text around a turn depends on later turns.
BEYOND = """{% for m in messages %}{{ m.role }}{{ '!' if loop.last }}: {{ m.content }}
{% endfor %}"""

CONVERSATIONS = [
    [Message("user", "Why?")],
    [Message("system", "Answer in verse."), Message("user", 'Say "{{ .System }}"\nand\\n')],
    [Message("user", "1"), Message("assistant", "one"), Message("user", "2")],
    [Message("system", "Count."), *(Message(role, role) for role in ("user", "assistant", "user"))],
]


def rendering(template: str) -> Render:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(problem: str) -> None:
        raise DataError(problem, rule="", fix="")

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = refuse
    compiled = environment.from_string(template)

    def render(messages: Sequence[Message], answer: bool) -> str:
        given = [{"role": message.role, "content": message.content} for message in messages]
        return compiled.render(messages=given, add_generation_prompt=answer, bos_token="<s>", eos_token="</s>")

    return render


@pytest.mark.parametrize("name", TEMPLATES)
def test_turns_render_like_the_template_without_a_second_bos(name: str) -> None:
    render = rendering(TEMPLATES[name])
    turns = find_turns(render, bos="<s>")
    assert turns is not None
    for messages in CONVERSATIONS:
        if name == "no system" and messages[0].role == "system":
            continue
        assert turns.text(messages) == render(messages, True).removeprefix("<s>")


def test_the_default_template_is_converted(tokenizer: Tokenizer) -> None:
    template = ChatTemplate(tokenizer)

    def render(messages: Sequence[Message], answer: bool) -> str:
        ids = template.encode(messages, add_generation_prompt=answer)
        return tokenizer.decode(ids, skip_special_tokens=False)

    turns = find_turns(render, bos=tokenizer.decode([tokenizer.bos_id], skip_special_tokens=False))
    assert turns is not None
    assert turns.text(CONVERSATIONS[0]) == "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"


def test_complex_templates_are_not_converted() -> None:
    assert find_turns(rendering(BEYOND)) is None
    text = modelfile("m.gguf", turns=None, has_template=True, stops=[], context_length=64, written_by="a test")
    assert "TEMPLATE" not in text.replace("# No TEMPLATE", "")


def test_a_base_model_gets_only_the_prompt() -> None:
    text = modelfile(
        "m.gguf", turns=None, has_template=False, stops=["<|end|>"], context_length=64, written_by="a test"
    )
    assert text.splitlines()[2:] == [
        "FROM ./m.gguf",
        'TEMPLATE """{{ .Prompt }}"""',
        'PARAMETER stop "<|end|>"',
        "PARAMETER num_ctx 64",
    ]


# What Ollama's `template` package does: collect system messages, then execute the template.
PROGRAM = """
package main

import ("encoding/json"; "os"; "strings"; "text/template")

type message struct { Role, Content string }

func main() {
	var given struct { Template string; Conversations [][]message }
	if err := json.NewDecoder(os.Stdin).Decode(&given); err != nil { panic(err) }
	parsed := template.Must(template.New("").Parse(given.Template))
	var rendered []string
	for _, messages := range given.Conversations {
		var system []string
		for _, m := range messages { if m.Role == "system" { system = append(system, m.Content) } }
		var out strings.Builder
		values := map[string]any{"System": strings.Join(system, "\\n\\n"), "Messages": messages}
		if err := parsed.Execute(&out, values); err != nil { panic(err) }
		rendered = append(rendered, out.String())
	}
	json.NewEncoder(os.Stdout).Encode(rendered)
}
"""


@pytest.mark.interop
@pytest.mark.skipif(shutil.which("go") is None, reason="Ollama's templates are Go's: needs the go command")
def test_go_renders_like_the_chat_template(tmp_path: Path) -> None:
    (tmp_path / "main.go").write_text(PROGRAM, encoding="utf-8")
    subprocess.run(["go", "build", "-o", "render", "main.go"], cwd=tmp_path, check=True)
    for name, template in TEMPLATES.items():
        render = rendering(template)
        turns = find_turns(render, bos="<s>")
        assert turns is not None
        text = modelfile("m.gguf", turns=turns, has_template=True, stops=[], context_length=64, written_by="a test")
        go = text.split('TEMPLATE """')[1].split('"""')[0]
        conversations = [c for c in CONVERSATIONS if name != "no system" or c[0].role != "system"]
        messages = [[{"Role": m.role, "Content": m.content} for m in each] for each in conversations]
        done = subprocess.run(
            [tmp_path / "render"],
            input=json.dumps({"Template": go, "Conversations": messages}),
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(done.stdout) == [render(each, True).removeprefix("<s>") for each in conversations]
