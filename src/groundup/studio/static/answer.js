// Shows an answer while it is streamed from the server, with the most likely alternatives to each token.
import { stream } from "./api.js";
import { el } from "./dom.js";
import { hideTooltip, navigateTokens, showTooltip, tokenElement } from "./tokens.js";

const NUM_ALTERNATIVES = 5;

// Returns the endpoint and the body of a completion request. If the model has a chat template, the request is a chat
// completion, otherwise a text completion.
export function completionRequest(model, messages, sampling) {
  const shared = { model: model.name, stream: true, ...sampling };
  if (model.has_chat_template) {
    return ["/v1/chat/completions", { ...shared, messages, logprobs: true, top_logprobs: NUM_ALTERNATIVES }];
  }
  // The completion directly follows the prompt, and the next prompt starts on a new line, as in `groundup chat`.
  const prompt = messages.filter((message) => message.role !== "system")
    .map((message) => message.content + (message.role === "assistant" ? "\n" : "")).join("");
  return ["/v1/completions", { ...shared, prompt, logprobs: NUM_ALTERNATIVES }];
}

export class Answer {
  constructor(model) {
    this.model = model.name;
    this.text = "";
    this.finishReason = null;
    this.failed = false;
    this.tokens = [];
    this.decoder = new TextDecoder();
    this.body = el("p", { class: "answer-text", dir: "auto" });
    this.status = el("p", { class: "answer-status" }, "Waiting …");
    navigateTokens(this.body, (span) => this.#showAlternatives(this.tokens[Number(span.dataset.token)], span));
  }

  async run(path, body, signal) {
    const started = performance.now();
    try {
      for await (const event of stream(path, body, signal)) this.#receive(event.choices[0]);
    } catch (error) {
      this.fail(error);
      throw error;
    } finally {
      this.#flush();
      const seconds = (performance.now() - started) / 1000;
      const speed = this.tokens.length > 1 ? `, ${(this.tokens.length / seconds).toFixed(1)} tokens/s` : "";
      const reason = { length: ", max tokens reached", stopped: ", stopped" }[this.finishReason] || "";
      if (!this.failed) this.status.textContent = `${this.tokens.length} tokens in ${seconds.toFixed(1)} s${speed}${reason}`;
    }
  }

  // Whether the answer is sent to the model as part of the conversation.
  get isComplete() {
    return Boolean(this.text) && !this.failed;
  }

  fail(error) {
    if (error.name === "AbortError") {
      this.finishReason = "stopped";
      return;
    }
    this.failed = true;
    this.status.textContent = `Failed: ${error.message} Later messages omit this turn.`;
  }

  #receive(choice) {
    if (!choice) return;
    this.finishReason = choice.finish_reason || this.finishReason;
    this.text += choice.delta ? choice.delta.content ?? "" : choice.text ?? "";
    for (const token of tokensOf(choice)) this.#add(token);
    if (this.tokens.length) this.status.textContent = `${this.tokens.length} tokens …`;
  }

  // A character may span several tokens, so the decoder keeps incomplete bytes until the next token.
  #add(token) {
    let shown = token.bytes ? this.decoder.decode(new Uint8Array(token.bytes), { stream: true }) : token.text;
    if (!this.tokens.length && shown.startsWith(" ") && !this.text.startsWith(" ")) shown = shown.slice(1);
    const index = this.tokens.push(token) - 1;
    this.body.append(tokenElement(shown, { first: index === 0, heat: 1 - Math.exp(token.logprob), "data-token": String(index) }));
  }

  #flush() {
    const rest = this.decoder.decode();
    if (rest) this.body.append(rest);
  }

  #showAlternatives(token, span) {
    if (!token) return hideTooltip();
    const isListed = token.top.some((other) => other.text === token.text);
    const rows = token.top.map((other) => [other.text, Math.exp(other.logprob), other.text === token.text]);
    if (!isListed) rows.push([token.text, Math.exp(token.logprob), true]);
    showTooltip(span, "Most likely tokens", rows, "The sampled token is bold.");
  }
}

function tokensOf(choice) {
  const { logprobs } = choice;
  if (!logprobs) return [];
  if (logprobs.content) {
    return logprobs.content.map((each) => ({
      text: each.token, bytes: each.bytes, logprob: each.logprob,
      top: each.top_logprobs.map((other) => ({ text: other.token, logprob: other.logprob })),
    }));
  }
  return logprobs.tokens.map((text, index) => ({
    text: plainText(text), bytes: bytesOf(text), logprob: logprobs.token_logprobs[index],
    top: Object.entries(logprobs.top_logprobs[index]).map(([other, logprob]) => ({ text: plainText(other), logprob })).sort((a, b) => b.logprob - a.logprob),
  }));
}

// The server sends the bytes of an incomplete character as "bytes:\xe2\x80".
const bytesOf = (text) => (text.startsWith("bytes:\\x")
  ? text.slice(8).split("\\x").map((pair) => parseInt(pair, 16))
  : [...new TextEncoder().encode(text)]);
const plainText = (text) => (text.startsWith("bytes:\\x") ? "�" : text);
