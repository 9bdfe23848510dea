// One answer as it comes: its text, and behind each token what else the model might have said.
import { stream } from "./api.js";
import { el } from "./dom.js";
import { tell, token, untell, walk } from "./tokens.js";

const ALTERNATIVES = 5;

// Ask a model to answer, or to write on where it has no chat template.
export function request(model, messages, sampling) {
  const shared = { model: model.name, stream: true, ...sampling };
  if (model.chats) {
    return ["/v1/chat/completions", { ...shared, messages, logprobs: true, top_logprobs: ALTERNATIVES }];
  }
  // As in `groundup chat`: the model continues right after what was typed, and what is typed next begins a line.
  const prompt = messages.filter((message) => message.role !== "system")
    .map((message) => message.content + (message.role === "assistant" ? "\n" : "")).join("");
  return ["/v1/completions", { ...shared, prompt, logprobs: ALTERNATIVES }];
}

export class Answer {
  constructor(model) {
    this.model = model.name;
    this.text = "";
    this.reason = null;
    this.failed = false;
    this.pieces = [];
    this.decoder = new TextDecoder();
    this.body = el("p", { class: "answer-text", dir: "auto" });
    this.foot = el("p", { class: "answer-foot" }, "waiting …");
    walk(this.body, (span) => this.#tell(this.pieces[Number(span.dataset.token)], span));
  }

  async run(path, body, signal) {
    const started = performance.now();
    try {
      for await (const event of stream(path, body, signal)) this.#take(event.choices[0]);
    } catch (problem) {
      this.fail(problem);
      throw problem;
    } finally {
      this.#flush();
      const seconds = (performance.now() - started) / 1000;
      const speed = this.pieces.length > 1 ? `, ${(this.pieces.length / seconds).toFixed(1)} tokens/s` : "";
      const why = { length: "; it reached its limit", stopped: "; stopped" }[this.reason] || "";
      if (!this.failed) this.foot.textContent = `${this.pieces.length} tokens in ${seconds.toFixed(1)} s${speed}${why}`;
    }
  }

  // Whether it is a part of what is said before the next question.
  get counts() {
    return Boolean(this.text) && !this.failed;
  }

  fail(problem) {
    if (problem.name === "AbortError") {
      this.reason = "stopped";
      return;
    }
    this.failed = true;
    this.foot.textContent = `Failed: ${problem.message} Later messages are sent without this turn.`;
  }

  #take(choice) {
    if (!choice) return;
    this.reason = choice.finish_reason || this.reason;
    this.text += choice.delta ? choice.delta.content ?? "" : choice.text ?? "";
    for (const piece of pieces(choice)) this.#add(piece);
    if (this.pieces.length) this.foot.textContent = `${this.pieces.length} tokens …`;
  }

  // A character may be of several tokens: what is not yet whole waits for the next one.
  #add(piece) {
    let shown = piece.bytes ? this.decoder.decode(new Uint8Array(piece.bytes), { stream: true }) : piece.text;
    if (!this.pieces.length && shown.startsWith(" ") && !this.text.startsWith(" ")) shown = shown.slice(1);
    const at = this.pieces.push(piece) - 1;
    this.body.append(token(shown, { first: at === 0, heat: 1 - Math.exp(piece.logprob), "data-token": String(at) }));
  }

  #flush() {
    const rest = this.decoder.decode();
    if (rest) this.body.append(rest);
  }

  #tell(piece, span) {
    if (!piece) return untell();
    const chosen = piece.top.some((other) => other.text === piece.text);
    const rows = piece.top.map((other) => [other.text, Math.exp(other.logprob), other.text === piece.text]);
    if (!chosen) rows.push([piece.text, Math.exp(piece.logprob), true]);
    tell(span, "What it might have said here", rows, "marked: what it said");
  }
}

function pieces(choice) {
  const told = choice.logprobs;
  if (!told) return [];
  if (told.content) {
    return told.content.map((each) => ({
      text: each.token, bytes: each.bytes, logprob: each.logprob,
      top: each.top_logprobs.map((other) => ({ text: other.token, logprob: other.logprob })),
    }));
  }
  return told.tokens.map((text, at) => ({
    text: plain(text), bytes: bytesOf(text), logprob: told.token_logprobs[at],
    top: Object.entries(told.top_logprobs[at]).map(([other, logprob]) => ({ text: plain(other), logprob })).sort((a, b) => b.logprob - a.logprob),
  }));
}

// Parts of characters come as "bytes:\xe2\x80".
const bytesOf = (text) => (text.startsWith("bytes:\\x")
  ? text.slice(8).split("\\x").map((pair) => parseInt(pair, 16))
  : [...new TextEncoder().encode(text)]);
const plain = (text) => (text.startsWith("bytes:\\x") ? "�" : text);
