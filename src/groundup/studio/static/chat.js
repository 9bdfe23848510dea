// Chat: one model, or two side by side; every token tells what else it could have been.
import { Answer, request } from "./answer.js";
import { post } from "./api.js";
import { during, el, field, fill, notice, renew, select } from "./dom.js";
import { modelOf, onChange, talking } from "./store.js";

export function chat(section) {
  // A turn is what a person said, and for each pane the answer to it.
  let turns = [];
  let running = null;

  const beside = select([["", "no other model"]]);
  const system = el("textarea", { rows: "2", placeholder: "You are …" });
  const number = (value, min, max, step) => el("input", { type: "number", value, min, max, step, required: true });
  const temperature = number("0.7", "0", "2", "0.1");
  const topP = number("0.95", "0.05", "1", "0.05");
  const tokens = number("200", "1", "4096", "1");
  const seed = el("input", { type: "number", min: "0", step: "1", placeholder: "any" });
  const heat = el("input", { type: "checkbox", id: "heat" });
  const log = el("div", { class: "log" });
  const words = el("textarea", { rows: "3", class: "words", required: true });
  const send = el("button", { type: "submit", class: "main" }, "Send");
  const stop = el("button", { type: "button", hidden: true, on: { click: () => running?.abort() } }, "Stop");
  const clear = el("button", { type: "button", on: { click: () => { running?.abort(); turns = []; draw(); } } }, "New conversation");

  const composer = el("form", { class: "composer", on: { submit: (event) => { event.preventDefault(); say(); } } },
    field("You say", words), el("div", { class: "row" }, send, stop, clear));
  words.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      say();
    }
  });
  heat.addEventListener("change", () => log.classList.toggle("heated", heat.checked));

  section.append(
    el("h2", {}, "Chat"),
    el("p", { class: "lead" }, "Talk to the model. Rest on a word, or walk through them with the arrow keys, to see what else it might have said."),
    el("div", { class: "split" },
      el("div", { class: "wide" }, log, composer),
      el("aside", { class: "settings", "aria-label": "Settings" },
        field("Beside it", beside, "The same words to both: a base model against a tuned one."),
        field("System prompt", system),
        el("div", { class: "pair" },
          field("Temperature", temperature), field("Top-p", topP),
          field("Most tokens", tokens), field("Seed", seed)),
        el("div", { class: "check" }, heat, el("label", { for: "heat" }, "Colour the tokens it was unsure of")))),
  );

  const panes = () => [modelOf(), beside.value && modelOf(beside.value)].filter(Boolean);

  // What a model is sent: the system prompt, the newest turns that its context holds, and the question. A turn that
  // failed, or was stopped before its first word, is no part of it.
  async function said(turn, pane, model, signal) {
    const before = turns.slice(0, turns.indexOf(turn)).filter((each) => each.answers[pane]?.counts);
    const told = system.value.trim() ? system.value : "";
    const window = await post("/studio/api/window", {
      model: model.name,
      turns: before.map((each) => ({ user: each.user, answer: each.answers[pane].text })),
      user: turn.user, system: told, max_tokens: Number(tokens.value),
    }, signal);
    turn.windows[pane] = { ...window, model: model.name, first: before[window.dropped] || turn };
    draw();
    return [
      ...(told ? [{ role: "system", content: told }] : []),
      ...before.slice(window.dropped).flatMap((each) => [
        { role: "user", content: each.user }, { role: "assistant", content: each.answers[pane].text }]),
      { role: "user", content: turn.user },
    ];
  }

  function sampling() {
    const given = { temperature: Number(temperature.value), top_p: Number(topP.value), max_tokens: Number(tokens.value) };
    return seed.value === "" ? given : { ...given, seed: Number(seed.value) };
  }

  function say() {
    const text = words.value;
    if (!text.trim() || running) return;
    if (!panes().length) return notice("There is no model to talk to yet. Train one first.");
    words.value = "";
    turns.push({ user: text, answers: [], windows: [] });
    answer(turns.at(-1));
  }

  function answer(turn) {
    const models = panes();
    running = new AbortController();
    const { signal } = running;
    turn.answers = models.map((model) => new Answer(model));
    turn.windows = [];
    draw();
    log.lastElementChild?.scrollIntoView({ block: "nearest" });
    stop.hidden = false;
    during(send, async () => {
      try {
        const ends = await Promise.allSettled(models.map((model, pane) => answerOf(turn, pane, model, signal)));
        const failed = ends.find((end) => end.status === "rejected");
        if (failed) throw failed.reason;
      } finally {
        running = null;
        stop.hidden = true;
        draw();
      }
    });
  }

  async function answerOf(turn, pane, model, signal) {
    let messages;
    try {
      messages = await said(turn, pane, model, signal);
    } catch (problem) {
      turn.answers[pane].fail(problem);
      throw problem;
    }
    await turn.answers[pane].run(...request(model, messages, sampling()), signal);
  }

  function edit(turn) {
    running?.abort();
    words.value = turn.user;
    turns = turns.slice(0, turns.indexOf(turn));
    draw();
    words.focus();
  }

  function draw() {
    const models = panes();
    fill(log, turns.map((turn, at) => [...cuts(turn), el("div", { class: "turn" },
      el("div", { class: "user" },
        el("p", { class: "who" }, "You"),
        el("p", { class: "user-text", dir: "auto" }, turn.user),
        el("div", { class: "row small" },
          el("button", { type: "button", on: { click: () => edit(turn) } }, "Edit"),
          at === turns.length - 1 && !running &&
            el("button", { type: "button", on: { click: () => { answer(turn); } } }, "Retry"))),
      el("div", { class: `answers of-${turn.answers.length}` }, turn.answers.map((each) => el("div", { class: "answer" },
        el("p", { class: "who" }, each.model), each.body, each.foot))))]));
    if (!turns.length) log.append(greeting(models));
    clear.hidden = !turns.length;
  }

  // The line above the first turn that a model still sees.
  function cuts(turn) {
    const windows = turns.at(-1).windows.filter((each) => each && each.dropped > 0 && each.first === turn);
    return windows.map(({ model, dropped, context_length: context }) => el("p", { class: "note cut", role: "note" },
      `${model} no longer sees the ${dropped === 1 ? "turn" : `${dropped} turns`} above: its context holds ${context.toLocaleString("en")} tokens.`));
  }

  function greeting(models) {
    if (!models.length) return el("p", { class: "empty" }, "There is no model here yet. Go to Train and start a recipe.");
    const silent = models.filter((model) => !model.chats);
    return el("p", { class: "empty" }, silent.length
      ? `${silent.map((model) => model.name).join(" and ")} was not tuned to chat: it writes on from your words.`
      : "Nothing has been said yet.");
  }

  function choices() {
    renew(beside, [["", "no other model"], ...talking().map((model) => [model.name, model.name])]);
    if (!turns.length) draw();
  }
  beside.addEventListener("change", () => !turns.length && draw());
  onChange(choices);
  choices();
  return {};
}
