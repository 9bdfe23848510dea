// The Inside view, which shows how a model processes a text. Its panels are surprisal, attention weights, logit lens,
// embeddings and parameters.
import { attentionPanel } from "./attention.js";
import { post } from "./api.js";
import { el, field, fill, notice, runWith } from "./dom.js";
import { embeddingsPanel } from "./embeddings.js";
import { lensPanel } from "./lens.js";
import { parametersPanel } from "./parameters.js";
import { findModel, onChange, store } from "./store.js";
import { hideTooltip, navigateTokens, showTooltip, tokenElement } from "./tokens.js";

const EXAMPLE = "The quick brown fox jumps over the lazy dog. The quick brown fox jumps over the lazy cat.";
const MAX_COLOR_NATS = 10; // the surprisal that gets the strongest color

export function inside(section) {
  let reading = null; // { model, text, step, tokens, ... }
  let attempted = ""; // the model and the training step of the last request

  const text = el("textarea", { rows: "3", required: true, maxlength: "20000" });
  text.value = EXAMPLE;
  const analyze = el("button", { type: "submit", class: "main" }, "Analyze");
  const follow = el("input", { type: "checkbox", id: "follow", checked: true });
  const following = el("div", { class: "check", hidden: true }, follow, el("label", { for: "follow" }, "Update at each checkpoint"));
  const form = el("form", { on: { submit: (event) => { event.preventDefault(); run(); } } },
    field("Text to analyze", text), el("div", { class: "row" }, analyze, following));

  const row = el("p", { class: "tokens", dir: "auto" });
  const summary = el("p", { class: "note" });
  const fetchPanel = (name, params = {}) => post(`/studio/api/inside/${name}`, { model: reading.model, text: reading.text, ...params });
  const panels = [attentionPanel(fetchPanel), lensPanel(fetchPanel), embeddingsPanel(fetchPanel), parametersPanel(fetchPanel)];

  navigateTokens(row, (span) => showSurprisal(span, Number(span.dataset.index)), (span) => {
    const index = Number(span.dataset.index);
    panels.forEach((panel) => panel.select?.(index));
    for (const other of row.children) other.removeAttribute("aria-pressed");
    span.setAttribute("aria-pressed", "true");
  });

  const result = el("div", { hidden: true },
    el("section", { class: "panel", id: "surprisal", "aria-label": "Surprisal" },
      el("h3", {}, "Surprisal"),
      el("p", { class: "lesson" }, "A language model predicts each token from the tokens before it. Surprisal is the negative log-probability of the actual token."),
      row, summary,
      el("p", { class: "scale" }, "low ", el("span", { class: "ramp", "aria-hidden": "true" }), " high. Select a token to highlight it in all panels.")),
    panels.map((panel) => panel.section));

  section.append(
    el("h2", {}, "Inside"),
    el("p", { class: "lead" }, "Enter a text to see how the model processes it, layer by layer. This works during training, too."),
    form, result);

  function showSurprisal(span, index) {
    const token = reading.tokens[index];
    if (token.nats === undefined) return showTooltip(span, "Beginning of text (BOS)", [], "This token starts each text, so the model does not predict it.");
    const rows = token.top.map((other) => [other.text, other.p, other.id === token.id]);
    if (!token.top.some((other) => other.id === token.id)) rows.push([token.text, Math.exp(-token.nats), true]);
    showTooltip(span, `Surprisal ${(token.nats / Math.LN2).toFixed(1)} bits, rank ${token.rank.toLocaleString("en")}`, rows, "Most likely tokens. The actual token is bold.");
  }

  const run = () => runWith(analyze, async () => {
    const model = findModel();
    if (!model) return notice("No models found. Start a recipe in Train.");
    attempted = version(model);
    result.setAttribute("aria-busy", "true");
    const request = { model: model.name, text: text.value };
    const response = await post("/studio/api/inside/surprisal", request);
    reading = { ...request, ...response };
    hideTooltip();
    draw();
    result.hidden = false;
    for (const panel of panels) await panel.show(reading);
  }).then(() => {
    result.removeAttribute("aria-busy");
    changed(); // the user may have selected another model during the request
  });

  function draw() {
    fill(row, reading.tokens.map((token, index) => tokenElement(token.text, {
      special: token.special, first: index === 0, button: true, "data-index": String(index),
      heat: Math.min(1, (token.nats ?? 0) / MAX_COLOR_NATS) })));
    const cut = reading.num_truncated ? ` Truncated to the first ${reading.tokens.length - 1} tokens; ${reading.num_truncated} more are ignored.` : "";
    const step = reading.step === null ? "" : ` Checkpoint at step ${reading.step} of a model in training.`;
    summary.textContent = `${reading.tokens.length - 1} tokens, ${reading.bits_per_byte.toFixed(2)} bits per byte.${cut}${step}`;
  }

  const version = (model) => `${model?.name} ${model?.step}`;

  // Analyze the text again if the user has selected another model or if training has saved a new checkpoint.
  function changed() {
    const model = findModel();
    following.hidden = !model || model.step === null;
    if (section.hidden || !reading || analyze.disabled || version(model) === attempted) return;
    if (reading.model !== model?.name || follow.checked) run();
  }

  onChange(changed);
  return {
    changed,
    show(panel) {
      if (!reading && store.model) run();
      else changed();
      if (panel) document.getElementById(panel)?.scrollIntoView();
    },
  };
}
