"""A served model, and the conversion of request bodies to generation requests for the engine."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import NoReturn

from groundup.core.errors import FormatError, GroundupError
from groundup.core.types import Message
from groundup.inference import Engine, GenerationRequest, Grammar, Sampling
from groundup.inference.event_queue import EventStream
from groundup.inference.sampling import MAX_BIAS
from groundup.serve.openai.conversation import ConversationBody
from groundup.serve.openai.errors import ApiError, from_groundup, shutting_down
from groundup.serve.openai.schema import CompletionBody, GenerationBody
from groundup.serve.openai.tool_grammar import CallableFunction, special_ids, tool_grammar
from groundup.serve.openai.tool_parser import ToolCallParser
from groundup.tokenizer import Tokenizer
from groundup.tokenizer.chat import ChatTemplate

_NUM_SEEDS = 2**63
_SHOWN_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Job:
    """The generation requests that answer one API call.

    Attributes:
        requests: Generation requests, one per choice.
        prompt_tokens: Number of prompt tokens. A prompt with several choices counts once.
        ignored: Names of the parameters that have no effect.
        num_choices: Number of consecutive requests that have the same prompt.
        new_parser: Function that returns a parser for the text of one request.
    """

    requests: tuple[GenerationRequest, ...]
    prompt_tokens: int
    ignored: tuple[str, ...] = ()
    num_choices: int = 1
    new_parser: Callable[[], ToolCallParser] = ToolCallParser


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A model that the server offers under a name.

    Attributes:
        name: Name of the model in the API.
        engine: Inference engine of the model.
        template: Chat template, or None for a base model. A base model can only complete text.
        created: Creation time of the model in seconds since the Unix epoch.
        directory: Model directory or model file. None for a model that has no files.
    """

    name: str
    engine: Engine
    template: ChatTemplate | None
    created: int
    directory: Path | None = None

    @property
    def tokenizer(self) -> Tokenizer:
        """Tokenizer of the model."""
        return self.engine.tokenizer

    @property
    def context_length(self) -> int:
        """Context length in tokens."""
        return self.engine.model.config.context_length

    def chat(self, body: ConversationBody, cancelled: threading.Event | None = None) -> Job:
        """Convert the body of a request for the next message of a conversation to a job.

        Args:
            body: Body of the request.
            cancelled: Set when the client has disconnected, which stops the compilation of a grammar.

        Raises:
            ApiError: The status is 400 if the model has no chat template or does not support tools, the conversation is
                too long, the grammar is not supported, or a token ID is unknown.
        """
        if self.template is None:
            raise ApiError(
                400,
                f"model {self.name!r} has no chat template",
                fix="Send a prompt to /v1/completions, or serve a model from groundup finetune instruct.",
                param="model",
                code="no_chat_template",
            )
        messages, tools = body.conversation, [function.described for function in body.prompt_functions]
        has_tools = bool(tools) or any(message.role == "tool" or message.tool_calls for message in messages)
        if has_tools and self.template.tool_format is None:
            raise self._no_tools("tools" if tools else body.conversation_param)
        self._require_encodable("".join(map(_text, messages)), body.conversation_param)
        self._require_encodable(json.dumps(tools, ensure_ascii=False), "tools")
        given = body.template_variables
        variables = {name: value for name, (_, value) in given.items() if name in self.template.variable_names}
        ignored = tuple(param for name, (param, _) in given.items() if name not in variables)
        try:
            ids = self.template.encode(messages, add_generation_prompt=True, variables=variables, tools=tools)
        except FormatError as error:
            if not (variables or has_tools):
                raise from_groundup(error) from error
            raise _refused_by_template(error, "chat_template_kwargs" if variables else "tools") from error
        except GroundupError as error:
            raise from_groundup(error) from error
        self._require_space(ids, body.conversation_param)
        grammar = self._grammar(body, [ids], cancelled)
        requests = self._requests(
            [ids], body, body.num_logprobs, self.template.stop_ids, is_reply=True, grammar=grammar
        )
        job = Job(requests, len(ids), (*body.ignored, *ignored), body.num_candidates)
        if not body.callable_functions:
            return job
        format = self.template.tool_format
        assert format is not None, "checked above"
        shown_ids = special_ids(format, self.tokenizer)
        requests = tuple(replace(request, shown_ids=shown_ids) for request in requests)
        return replace(
            job, requests=requests, new_parser=partial(ToolCallParser, format, after_text=not body.constraint)
        )

    def complete(self, body: CompletionBody, cancelled: threading.Event | None = None) -> Job:
        """Convert the body of a completion request to a job.

        Args:
            body: Body of the request.
            cancelled: Set when the client has disconnected, which stops the compilation of a grammar.

        Raises:
            ApiError: The status is 400 if the prompt is too long, the grammar is not supported, or a token ID is
                unknown.
        """
        prompts = [self.prompt_ids(prompt, "prompt", output=body.max_tokens != 0) for prompt in body.prompt]
        requests = self._requests(
            prompts, body, body.logprobs or 0, None, grammar=self._grammar(body, prompts, cancelled)
        )
        if body.echo:
            requests = tuple(replace(request, prompt_logprobs=body.logprobs) for request in requests)
        return Job(requests, sum(len(ids) for ids in prompts), body.ignored, body.num_candidates)

    def prompt_ids(self, prompt: str | list[int], param: str, *, output: bool) -> list[int]:
        """Return the token IDs of a text or of a list of token IDs, which is checked.

        Args:
            prompt: Text or token IDs.
            param: Name of the request parameter that contains the prompt.
            output: Whether at least one token is generated after the prompt.

        Raises:
            ApiError: The status is 400 if the prompt is too long or a token ID is unknown.
        """
        if isinstance(prompt, str):
            self._require_encodable(prompt, param)
            ids = self.tokenizer.encode_prompt(prompt)
        else:
            ids = prompt
            self.require_known_ids(ids, param)
        self._require_space(ids, param, output=output)
        return ids

    def require_known_ids(self, ids: Sequence[int], param: str) -> None:
        """Check that the vocabulary has token IDs.

        Args:
            ids: Token IDs.
            param: Name of the request parameter that contains the token IDs.

        Raises:
            ApiError: The status is 400 if a token ID is unknown.
        """
        unknown = [token for token in ids if not 0 <= token < self.engine.vocab_size]
        if unknown:
            raise ApiError(
                400,
                f"{param}: unknown token ID {unknown[0]}",
                rule=f"this model has the IDs 0 to {self.engine.vocab_size - 1}",
                fix="Encode with this model's tokenizer, or send text.",
                param=param,
                code="invalid_value",
            )

    def submit(self, job: Job, *, address: str = "", timeout: float | None = None) -> list[EventStream]:
        """Submit all requests of a job to the engine. If the engine cannot accept all requests, it accepts no request.

        Args:
            job: Job with the requests.
            address: Network address of the client. Addresses, and the users of an address, share the engine equally.
            timeout: Number of seconds after which the requests fail, including the time in the queue.

        Returns:
            One stream of events per request.

        Raises:
            ApiError: The status is 429 if too many requests are waiting, and 503 if the engine is closed.
        """
        requests = [replace(each, client=(address, *each.client), timeout=timeout) for each in job.requests]
        try:
            return [self.engine.submit(request) for request in requests]
        except GroundupError as error:
            self.cancel(job)
            raise shutting_down() if self.engine.closed else from_groundup(error) from error

    def cancel(self, job: Job) -> None:
        """Cancel all requests of a job."""
        for request in job.requests:
            self.engine.cancel(request.id)

    def _grammar(
        self, body: GenerationBody, prompts: Sequence[Sequence[int]], cancelled: threading.Event | None
    ) -> Grammar | None:
        """Return the grammar that the output must match, or None if the output is text."""
        if isinstance(body, ConversationBody) and body.callable_functions:
            grammar = self._tool_grammar(body, cancelled)
        elif (constraint := body.constraint) is not None:
            try:
                grammar = constraint.compile(constraint.value, self.tokenizer, cancelled)
            except GroundupError as error:
                code = "invalid_grammar" if constraint.schema is None else "invalid_json_schema"
                raise from_groundup(error, param=constraint.param, code=code) from error
        else:
            return None
        available = self.context_length - max(map(len, prompts))
        try:
            grammar.check_max_tokens(available if body.limit is None else min(available, body.limit))
        except GroundupError as error:
            limit = "max_tokens" if body.max_tokens is not None else body.limit_param
            raise from_groundup(error, param=limit) from error
        return grammar

    def _tool_grammar(self, body: ConversationBody, cancelled: threading.Event | None) -> Grammar:
        """Return the grammar of an answer that may call functions."""
        assert self.template is not None and self.template.tool_format is not None, "`chat` checks this"
        functions = [CallableFunction(f.name, f.parameters, strict=f.strict) for f in body.callable_functions]
        try:
            return tool_grammar(
                self.template.tool_format,
                functions,
                self.tokenizer,
                cancelled,
                required=body.requires_call,
                parallel=body.allows_several_calls,
                answer_schema=None if body.constraint is None else body.constraint.schema,
            )
        except GroundupError as error:
            raise from_groundup(error, param="tools", code="invalid_json_schema") from error

    @cached_property
    def _max_bytes(self) -> int:
        """Maximum size of a text that can fit into the context, in bytes. The factor 4 covers Unicode normalization."""
        return 4 * self.tokenizer.longest_token * self.context_length

    def _require_known_biases(self, biases: Mapping[int, float]) -> None:
        size = self.engine.vocab_size
        if (last := max(biases, default=0)) >= size:
            self._refuse_bias(f"logit_bias: unknown token ID {last}", f"this model has the IDs 0 to {size - 1}")
        if len(biases) == size and max(biases.values()) <= -MAX_BIAS:
            self._refuse_bias(
                f"logit_bias: -{MAX_BIAS:g} for all {size} tokens", "at least one token must remain possible"
            )

    def _refuse_bias(self, found: str, rule: str) -> NoReturn:
        fix = "Use token IDs of this model's tokenizer."
        raise ApiError(400, found, rule=rule, fix=fix, param="logit_bias", code="invalid_value")

    def _require_encodable(self, text: str, param: str) -> None:
        """Reject a text that cannot fit into the context before tokenization, which takes seconds per megabyte."""
        size = len(text.encode())
        if size > self._max_bytes:
            self._refuse_length(f"{param}: {size:,} bytes of text", param)

    def _require_space(self, ids: Sequence[int], param: str, *, output: bool = True) -> None:
        if len(ids) > self.context_length - output:
            self._refuse_length(f"{param}: {len(ids):,} tokens", param)

    def _refuse_length(self, found: str, param: str) -> NoReturn:
        raise ApiError(
            400,
            found,
            rule=f"prompt and output share the context of {self.context_length:,} tokens",
            fix=f"Shorten {param} to at most {self.context_length - 1:,} tokens.",
            param=param,
            code="context_length_exceeded",
        )

    def _no_tools(self, param: str) -> ApiError:
        return ApiError(
            400,
            f"model {self.name!r} does not support tools",
            rule="its chat template does not define how to write tools, calls and results",
            fix="Omit tools, or serve a model whose chat template defines them, such as Qwen 2.5 or Llama 3.1.",
            param=param,
            code="tools_not_supported",
        )

    def _requests(
        self,
        prompts: Sequence[Sequence[int]],
        body: GenerationBody,
        logprobs: int,
        stop_ids: tuple[int, ...] | None,
        *,
        is_reply: bool = False,
        grammar: Grammar | None = None,
    ) -> tuple[GenerationRequest, ...]:
        self._require_known_biases(body.logit_bias)
        sampling = Sampling(
            temperature=body.temperature,
            top_k=body.top_k,
            top_p=body.top_p,
            min_p=body.min_p,
            repetition_penalty=body.repetition_penalty,
            frequency_penalty=body.frequency_penalty,
            presence_penalty=body.presence_penalty,
            logit_bias=tuple(body.logit_bias.items()),
        )
        return tuple(
            GenerationRequest(
                prompt=tuple(ids),
                is_reply=is_reply,
                sampling=sampling,
                max_tokens=body.limit,
                stop=tuple(body.stop),
                stop_ids=stop_ids,
                # Choices of a prompt must differ, so each choice has another seed. The first choice is the same as for
                # n = 1.
                seed=None if body.seed is None else (body.seed + choice) % _NUM_SEEDS,
                logprobs=logprobs,
                grammar=grammar,
                client=() if body.end_user is None else (body.end_user,),
            )
            for ids in prompts
            for choice in range(body.num_candidates)
        )


def _refused_by_template(error: FormatError, param: str) -> ApiError:
    return ApiError(
        400,
        f"{param}: {error.value}"[:_SHOWN_CHARACTERS],
        rule="the model's chat template fails with these values",
        fix="Give valid values, or omit them.",
        param=param,
        code="invalid_value",
    )


def _text(message: Message) -> str:
    return message.content + "".join(call.arguments for call in message.tool_calls)
