// Inside: what a model sees in a text, layer by layer. The panels share one text, one reading of it, one token.
import { anatomyPanel } from "./anatomy.js";
import { attentionPanel } from "./attention.js";
import { post } from "./api.js";
import { during, el, field, fill, notice } from "./dom.js";
import { lensPanel } from "./lens.js";
import { neighboursPanel } from "./neighbours.js";
import { modelOf, onChange, store } from "./store.js";
import { tell, token, untell, walk } from "./tokens.js";

const EXAMPLE = "The quick brown fox jumps over the lazy dog. The quick brown fox jumps over the lazy cat.";
const VERY = 10; // nats: as strong as a colour gets

export function inside(section) {
  let reading = null; // { model, text, step, tokens, ... }
  let tried = "";

  const text = el("textarea", { rows: "3", required: true, maxlength: "20000" });
  text.value = EXAMPLE;
  const read = el("button", { type: "submit", class: "main" }, "Read it");
  const follow = el("input", { type: "checkbox", id: "follow", checked: true });
  const following = el("div", { class: "check", hidden: true }, follow, el("label", { for: "follow" }, "Read again whenever its training has saved a step"));
  const form = el("form", { on: { submit: (event) => { event.preventDefault(); look(); } } }, field("A text", text), el("div", { class: "row" }, read, following));

  const row = el("p", { class: "tokens", dir: "auto" });
  const sum = el("p", { class: "note" });
  const ask = (what, more = {}) => post(`/studio/api/inside/${what}`, { model: reading.model, text: reading.text, ...more });
  const panels = [attentionPanel(ask), lensPanel(ask), neighboursPanel(ask), anatomyPanel(ask)];

  walk(row, (span) => surprised(span, Number(span.dataset.at)), (span) => {
    const at = Number(span.dataset.at);
    panels.forEach((panel) => panel.chosen?.(at));
    for (const other of row.children) other.removeAttribute("aria-pressed");
    span.setAttribute("aria-pressed", "true");
  });

  const result = el("div", { hidden: true },
    el("section", { class: "panel", id: "surprise", "aria-label": "Surprise" },
      el("h3", {}, "Surprise"),
      el("p", { class: "lesson" }, "A model reads one token at a time and guesses each before it sees it; the stronger the colour, the less it expected what came."),
      row, sum,
      el("p", { class: "scale" }, "expected ", el("span", { class: "ramp", "aria-hidden": "true" }), " surprising. Choose a token to follow it through the pictures below.")),
    panels.map((panel) => panel.section));

  section.append(
    el("h2", {}, "Inside"),
    el("p", { class: "lead" }, "Give it a text and look at what happens between its first layer and its last; also while it is still being trained."),
    form, result);

  function surprised(span, at) {
    const it = reading.tokens[at];
    if (it.nats === undefined) return tell(span, "Where a text begins", [], "The token before every text.");
    const rows = it.expected.map((other) => [other.text, other.p, other.id === it.id]);
    if (!it.expected.some((other) => other.id === it.id)) rows.push([it.text, Math.exp(-it.nats), true]);
    tell(span, `${(it.nats / Math.LN2).toFixed(1)} bits of surprise, rank ${it.rank.toLocaleString("en")}`, rows, "what it expected here; marked: what came");
  }

  const look = () => during(read, async () => {
    const model = modelOf();
    if (!model) return notice("There is no model yet. Train one first.");
    tried = stamp(model);
    result.setAttribute("aria-busy", "true");
    const asked = { model: model.name, text: text.value };
    const told = await post("/studio/api/inside/read", asked);
    reading = { ...asked, ...told };
    untell();
    draw();
    result.hidden = false;
    for (const panel of panels) await panel.show(reading);
  }).then(() => {
    result.removeAttribute("aria-busy");
    changed(); // another model may have been chosen meanwhile
  });

  function draw() {
    fill(row, reading.tokens.map((it, at) => token(it.text, {
      special: it.special, first: at === 0, button: true, "data-at": String(at), heat: Math.min(1, (it.nats ?? 0) / VERY) })));
    const cut = reading.left_out ? ` The first ${reading.tokens.length - 1} tokens are shown; ${reading.left_out} more are not read.` : "";
    const step = reading.step === null ? "" : ` This is its state at step ${reading.step}; it is still learning.`;
    sum.textContent = `${reading.tokens.length - 1} tokens, ${reading.bits_per_byte.toFixed(2)} bits a byte.${cut}${step}`;
  }

  const stamp = (model) => `${model?.name} ${model?.step}`;

  // A model that learns is read again when it has saved a step; another one when it is chosen.
  function changed() {
    const model = modelOf();
    following.hidden = !model || model.step === null;
    if (section.hidden || !reading || read.disabled || stamp(model) === tried) return;
    if (reading.model !== model?.name || follow.checked) look();
  }

  onChange(changed);
  return {
    changed,
    show(wanted) {
      if (!reading && store.model) look();
      else changed();
      if (wanted) document.getElementById(wanted)?.scrollIntoView();
    },
  };
}
