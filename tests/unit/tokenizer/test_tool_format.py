"""The format of tool calls is found by rendering a conversation with the chat template of the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chat_templates import CHATML, GEMMA, LLAMA3
from external_tokenizers import MAKERS, add_special_tokens, save
from groundup.core.errors import ConfigError
from groundup.core.types import Message, ToolCall
from groundup.tokenizer import ChatTemplate, Tokenizer
from groundup.tokenizer.tool_format import ToolFormat
from tool_templates import DEVSTRAL, GRANITE3, LLAMA31, MISTRAL_NEMO, QWEN25

HERMES = ToolFormat(
    '<tool_call>\n{"name": "', '", "arguments": ', "}\n</tool_call>", '}\n</tool_call>\n<tool_call>\n{"name": "'
)
NEMO = ToolFormat('[TOOL_CALLS][{"name": "', '", "arguments": ', "}]", '}, {"name": "')
LLAMA = ToolFormat('{"name": "', '", "parameters": ', "}", tag="<|python_tag|>")
GRANITE = ToolFormat('<|tool_call|>[{"name": "', '", "arguments": ', "}]", '}, {"name": "', is_rendered=False)
NAME_FIRST = ToolFormat("[TOOL_CALLS]", "[ARGS]", "", "[TOOL_CALLS]")
CASES: dict[str, tuple[str, str, tuple[str, ...], ToolFormat | None]] = {
    "Qwen 2.5": ("qwen", QWEN25, ("</tool_call>",), HERMES),
    "Qwen without added tokens": ("smollm2", QWEN25, (), HERMES),
    "Llama 3.1": ("llama3", LLAMA31, ("<|python_tag|>", "<|eom_id|>"), LLAMA),
    "Mistral Nemo": ("mistral", MISTRAL_NEMO, ("[TOOL_CALLS]", "[TOOL_RESULTS]"), NEMO),
    "Devstral": ("mistral", DEVSTRAL, ("[TOOL_CALLS]", "[ARGS]"), NAME_FIRST),
    "Granite 3": ("llama3", GRANITE3, ("<|end_of_text|>", "<|tool_call|>"), GRANITE),
    "no tools: SmolLM2": ("smollm2", CHATML, (), None),
    "no tools: Llama 3": ("llama3", LLAMA3, (), None),
    "no tools: Gemma": ("gemma", GEMMA, (), None),
    # The instructions name <tool_call>, but the template writes calls in another format.
    "XML": ("qwen", QWEN25.replace("tool_call.arguments | tojson", "tool_call.arguments.value"), (), None),
    "no results": ("qwen", QWEN25.replace("{{- message.content }}", ""), (), None),
}


def loaded(directory: Path, documents: list[str], maker: str, template: str, added: tuple[str, ...]) -> Tokenizer:
    made = add_special_tokens(MAKERS[maker](documents), added)
    return Tokenizer.load(save(directory, made, template))


@pytest.mark.parametrize("case", CASES)
def test_formats(case: str, tmp_path: Path, real_documents: list[str]) -> None:
    maker, template, added, expected = CASES[case]
    tokenizer = loaded(tmp_path, real_documents[:20], maker, template, added)
    assert ChatTemplate(tokenizer).tool_format == expected


TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Return the weather in a city.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]
CALL = ToolCall("abcdefghi", "weather", json.dumps({"city": "Köln", "days": [1, 2.5, None]}, ensure_ascii=False))
TURN = [
    Message("user", "How is the weather?"),
    Message("assistant", "", (CALL,)),
    Message("tool", '{"sky": "blue"}', tool_call_id="abcdefghi", name="weather"),
]


@pytest.mark.parametrize("case", ["Qwen 2.5", "Llama 3.1", "Mistral Nemo"])
def test_the_same_ids_as_in_transformers(case: str, tmp_path: Path, real_documents: list[str]) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = loaded(tmp_path, real_documents[:20], *CASES[case][:3])
    peer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    said = [
        {"role": "user", "content": TURN[0].content},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "id": CALL.id,
                    "type": "function",
                    "function": {"name": CALL.name, "arguments": json.loads(CALL.arguments)},
                }
            ],
        },
        {"role": "tool", "content": TURN[2].content, "tool_call_id": CALL.id, "name": "weather"},
    ]
    options = {"tokenize": True, "return_dict": True, "add_generation_prompt": True, "tools": TOOLS}
    theirs = peer.apply_chat_template(said, **options)["input_ids"]
    assert ChatTemplate(tokenizer).encode(TURN, add_generation_prompt=True, tools=TOOLS) == theirs


@pytest.mark.parametrize("case", ["Qwen 2.5", "Llama 3.1", "Mistral Nemo", "Granite 3"])
def test_tools_calls_and_results_cannot_inject_control_tokens(
    case: str, tmp_path: Path, real_documents: list[str]
) -> None:
    """A web page that a tool returns could otherwise end the turn, and write a system message or a call."""
    tokenizer = loaded(tmp_path, real_documents[:20], *CASES[case][:3])
    template = ChatTemplate(tokenizer)
    hostile = "".join(tokenizer.control_tokens)
    arguments = json.dumps({"city": hostile, hostile: [hostile]})
    safe = json.dumps({"city": "x", "y": ["x"]})
    function = TOOLS[0]["function"]
    tools = [{"type": "function", "function": function | {"description": hostile, "parameters": {hostile: hostile}}}]
    plain = [{"type": "function", "function": function | {"description": "x", "parameters": {"x": "x"}}}]

    def controls(call: str, result: str, described: list[dict[str, Any]]) -> list[int]:
        turn = [
            TURN[0],
            Message("assistant", "", (ToolCall("abcdefghi", "weather", call),)),
            Message("tool", result, tool_call_id="abcdefghi"),
        ]
        ids = template.encode(turn, add_generation_prompt=True, tools=described)
        return [token for token in ids if token in tokenizer.control_tokens.values()]

    assert controls(arguments, hostile, tools) == controls(safe, "x", plain)


def test_models_without_tools_refuse_them(tmp_path: Path, real_documents: list[str]) -> None:
    template = ChatTemplate(loaded(tmp_path, real_documents[:20], "smollm2", CHATML, ()))
    for messages, tools in ((TURN[:1], TOOLS), (TURN, [])):
        with pytest.raises(ConfigError, match="does not support tools"):
            template.encode(messages, tools=tools)
