// The Chat view, which shows one model, or two models next to each other, with the alternatives to each token.
import { Answer, completionRequest } from "./answer.js";
import { post } from "./api.js";
import { el, field, fill, notice, runWith, select, updateOptions } from "./dom.js";
import { findModel, languageModels, onChange } from "./store.js";

export function chat(section) {
  // A turn consists of a user message and, for each pane, an answer and the state of the context window.
  let turns = [];
  let running = null;

  const other = select([["", "None"]]);
  const system = el("textarea", { rows: "2", placeholder: "You are …" });
  const number = (value, min, max, step) => el("input", { type: "number", value, min, max, step, required: true });
  const temperature = number("0.7", "0", "2", "0.1");
  const topP = number("0.95", "0.05", "1", "0.05");
  const maxTokens = number("200", "1", "4096", "1");
  const seed = el("input", { type: "number", min: "0", step: "1", placeholder: "random" });
  const heat = el("input", { type: "checkbox", id: "heat" });
  const log = el("div", { class: "log" });
  const message = el("textarea", { rows: "3", class: "message", required: true });
  const send = el("button", { type: "submit", class: "main" }, "Send");
  const stop = el("button", { type: "button", hidden: true, on: { click: () => running?.abort() } }, "Stop");
  const clear = el("button", { type: "button", on: { click: () => { running?.abort(); turns = []; draw(); } } }, "Clear conversation");

  const composer = el("form", { class: "composer", on: { submit: (event) => { event.preventDefault(); submit(); } } },
    field("Your message", message), el("div", { class: "row" }, send, stop, clear));
  message.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      submit();
    }
  });
  heat.addEventListener("change", () => log.classList.toggle("heated", heat.checked));

  section.append(
    el("h2", {}, "Chat"),
    el("p", { class: "lead" }, "Chat with the model. Point at a token, or select a token with the arrow keys, to see its most likely alternatives."),
    el("div", { class: "split" },
      el("div", { class: "wide" }, log, composer),
      el("aside", { class: "settings", "aria-label": "Settings" },
        field("Compare with", other, "Sends each message to both models."),
        field("System prompt", system),
        el("div", { class: "pair" },
          field("Temperature", temperature), field("Top-p", topP),
          field("Max tokens", maxTokens), field("Seed", seed)),
        el("div", { class: "check" }, heat, el("label", { for: "heat" }, "Color tokens with low probability")))),
  );

  const panes = () => [findModel(), other.value && findModel(other.value)].filter(Boolean);

  // Returns the messages of a request: the system prompt, the newest turns that fit into the context window, and the
  // new
// message. Turns without an answer are omitted.
  async function conversation(turn, pane, model, signal) {
    const earlier = turns.slice(0, turns.indexOf(turn)).filter((each) => each.answers[pane]?.isComplete);
    const systemPrompt = system.value.trim() ? system.value : "";
    const window = await post("/studio/api/window", {
      model: model.name,
      turns: earlier.map((each) => ({ user: each.user, answer: each.answers[pane].text })),
      user: turn.user, system: systemPrompt, max_tokens: Number(maxTokens.value),
    }, signal);
    turn.windows[pane] = { ...window, model: model.name, first: earlier[window.dropped] || turn };
    draw();
    return [
      ...(systemPrompt ? [{ role: "system", content: systemPrompt }] : []),
      ...earlier.slice(window.dropped).flatMap((each) => [
        { role: "user", content: each.user }, { role: "assistant", content: each.answers[pane].text }]),
      { role: "user", content: turn.user },
    ];
  }

  function sampling() {
    const settings = { temperature: Number(temperature.value), top_p: Number(topP.value), max_tokens: Number(maxTokens.value) };
    return seed.value === "" ? settings : { ...settings, seed: Number(seed.value) };
  }

  function submit() {
    const text = message.value;
    if (!text.trim() || running) return;
    if (!panes().length) return notice("No models found. Start a recipe in Train.");
    message.value = "";
    turns.push({ user: text, answers: [], windows: [] });
    generate(turns.at(-1));
  }

  function generate(turn) {
    const models = panes();
    running = new AbortController();
    const { signal } = running;
    turn.answers = models.map((model) => new Answer(model));
    turn.windows = [];
    draw();
    log.lastElementChild?.scrollIntoView({ block: "nearest" });
    stop.hidden = false;
    runWith(send, async () => {
      try {
        const results = await Promise.allSettled(models.map((model, pane) => generatePane(turn, pane, model, signal)));
        const failed = results.find((result) => result.status === "rejected");
        if (failed) throw failed.reason;
      } finally {
        running = null;
        stop.hidden = true;
        draw();
      }
    });
  }

  async function generatePane(turn, pane, model, signal) {
    let messages;
    try {
      messages = await conversation(turn, pane, model, signal);
    } catch (error) {
      turn.answers[pane].fail(error);
      throw error;
    }
    await turn.answers[pane].run(...completionRequest(model, messages, sampling()), signal);
  }

  function edit(turn) {
    running?.abort();
    message.value = turn.user;
    turns = turns.slice(0, turns.indexOf(turn));
    draw();
    message.focus();
  }

  function draw() {
    fill(log, turns.map((turn, index) => [...truncationNotes(turn), el("div", { class: "turn" },
      el("div", { class: "user" },
        el("p", { class: "who" }, "You"),
        el("p", { class: "user-text", dir: "auto" }, turn.user),
        el("div", { class: "row small" },
          el("button", { type: "button", on: { click: () => edit(turn) } }, "Edit"),
          index === turns.length - 1 && !running &&
            el("button", { type: "button", on: { click: () => { generate(turn); } } }, "Retry"))),
      el("div", { class: `answers of-${turn.answers.length}` }, turn.answers.map((answer) => el("div", { class: "answer" },
        el("p", { class: "who" }, answer.model), answer.body, answer.status))))]));
    if (!turns.length) log.append(emptyState(panes()));
    clear.hidden = !turns.length;
  }

  // Shows a line above the first turn that still fits into a model's context window.
  function truncationNotes(turn) {
    const windows = turns.at(-1).windows.filter((each) => each && each.dropped > 0 && each.first === turn);
    return windows.map(({ model, dropped, context_length: length }) => el("p", { class: "note truncation", role: "note" },
      `${model} no longer gets the ${dropped === 1 ? "turn" : `${dropped} turns`} above: its context window has ${length.toLocaleString("en")} tokens.`));
  }

  function emptyState(models) {
    if (!models.length) return el("p", { class: "empty" }, "No models found. Start a recipe in Train.");
    const base = models.filter((model) => !model.has_chat_template);
    return el("p", { class: "empty" }, base.length
      ? `${base.map((model) => model.name).join(" and ")}: no chat template, so your message is completed as text.`
      : "Type a message to start.");
  }

  function changed() {
    updateOptions(other, [["", "None"], ...languageModels().map((model) => [model.name, model.name])]);
    if (!turns.length) draw();
  }
  other.addEventListener("change", () => !turns.length && draw());
  onChange(changed);
  changed();
  return {};
}
