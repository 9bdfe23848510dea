// The Apps view, which has a form for each application and shows the result while it is streamed. The form is generated
// from the declaration of the application.
import { get, stream } from "./api.js";
import { el, field, fill, formatPercent, hashLink, notice, runWith, select, updateOptions } from "./dom.js";
import { classifiers, findModel } from "./store.js";

const GROUPS = { create: "Create", understand: "Understand", teach: "Teach" };

export function apps(section) {
  let available = [];
  let selected = "";
  // Maps application names to forms, so that a form keeps its inputs when the user switches to another application.
  const forms = new Map();

  const list = el("nav", { class: "apps", "aria-label": "Applications" });
  const main = el("div", { class: "wide" });
  section.append(
    el("h2", {}, "Apps"),
    el("p", { class: "lead" }, "Common tasks with tested prompts. Choose one, fill in the form and run it."),
    el("div", { class: "split side" }, list, main));

  const groupTitle = (group) => GROUPS[group] || group;

  function drawList() {
    const groups = [...new Set(available.map((app) => app.group))];
    fill(list, groups.map((group) => [
      el("h3", {}, groupTitle(group)),
      el("ul", {}, available.filter((app) => app.group === group).map((app) =>
        el("li", {}, el("a", { href: hashLink("apps", app.name), "aria-current": app.name === selected ? "true" : null }, app.title)))),
    ]));
  }

  function draw() {
    drawList();
    const app = available.find((each) => each.name === selected);
    if (!app) return;
    if (!forms.has(selected)) forms.set(selected, createForm(app));
    const { elements, updateClassifiers } = forms.get(selected);
    updateClassifiers();
    fill(main, elements);
  }

  return {
    async show(name) {
      try {
        if (!available.length) available = (await get("/v1/apps")).data;
      } catch (error) {
        notice(error.message);
        return;
      }
      selected = available.some((app) => app.name === name) ? name : selected || available[0]?.name || "";
      draw();
    },
  };
}

function createForm(app) {
  const controls = app.inputs.map((input) => [input, createControl(input)]);
  const maxTokens = el("input", { type: "number", min: "1", step: "1", required: true, value: String(app.decoding.max_tokens) });
  const temperature = el("input", { type: "number", min: "0", max: "2", step: "0.1", required: true, value: String(app.decoding.temperature) });
  const run = el("button", { type: "submit", class: "main" }, "Run");
  const stop = el("button", { type: "button", hidden: true }, "Stop");
  const bar = el("progress", { hidden: true, "aria-label": "Processed chunks" });
  const result = el("div", { class: "result", "aria-live": "polite", "aria-label": "Result", role: "region" });
  const classifier = app.output.kind === "label" ? select([], {}) : null;
  const classifierField = classifier && field("Classifier", classifier, "The model above, or a classifier that was fine-tuned for these labels.");
  const form = el("form", {},
    controls.map(([input, control]) => field(`${capitalized(input.name)}${input.required ? "" : " (optional)"}`, control, inputNote(input))),
    classifierField,
    el("details", {}, el("summary", {}, "Sampling settings"),
      el("div", { class: "pair" }, field("Max tokens", maxTokens), field("Temperature", temperature))),
    el("div", { class: "row" }, run, stop, bar));

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const model = classifier?.value ? { name: classifier.value } : findModel();
    if (!model) return notice("No models found. Start a recipe in Train.");
    const controller = new AbortController();
    stop.onclick = () => controller.abort();
    stop.hidden = false;
    const inputs = Object.fromEntries(controls.filter(([, control]) => control.value !== "").map(([input, control]) => [input.name, control.value]));
    const body = { model: model.name, inputs, stream: true, max_tokens: Number(maxTokens.value), temperature: Number(temperature.value) };
    return runWith(run, async () => {
      const text = el("p", { class: "generated", dir: "auto" });
      const status = el("p", { class: "note" }, `Generating with ${model.name} …`);
      fill(result, status, text);
      try {
        for await (const event of stream(`/v1/apps/${encodeURIComponent(app.name)}`, body, controller.signal)) {
          if (event.type === "text") text.append(event.text);
          else if (event.type === "progress") {
            bar.hidden = event.total < 2;
            Object.assign(bar, { max: event.total, value: event.done });
          } else if (event.type === "result") showResult(result, event, app.output.lettered);
        }
      } catch (error) {
        status.textContent = error.name === "AbortError" ? "Stopped." : "Failed.";
        throw error;
      } finally {
        stop.hidden = true;
        bar.hidden = true;
      }
    });
  });
  const updateClassifiers = () => {
    if (!classifier) return;
    updateOptions(classifier, [["", "Model above"], ...classifiers().map((each) => [each.name, each.name])]);
    classifierField.hidden = !classifiers().length;
  };
  classifier?.addEventListener("change", () => { // the labels of a classifier are part of the model
    for (const [input, control] of controls) if (input.type === "labels") control.required = input.required && !classifier.value;
  });
  return { elements: [el("h3", {}, app.title), el("p", { class: "lesson" }, `${capitalized(app.about)}.`), form, result], updateClassifiers };
}

function createControl(input) {
  const attributes = { required: input.required };
  const value = input.default ?? "";
  if (input.type === "choice") {
    const control = select(input.choices.map((choice) => [choice, choice]), attributes);
    if (value) control.value = value;
    return control;
  }
  const example = Array.isArray(input.example) ? input.example.join(", ") : String(input.example ?? "");
  if (input.type === "text") return el("textarea", { ...attributes, rows: "5", placeholder: example, maxlength: input.max && String(input.max) });
  const control = input.type === "number"
    ? el("input", { ...attributes, type: "number", step: "1", min: String(input.min), max: input.max === null ? null : String(input.max) })
    : el("input", { ...attributes, type: "text", placeholder: example, maxlength: input.type === "line" && input.max ? String(input.max) : null });
  control.value = Array.isArray(value) ? value.join(", ") : String(value);
  return control;
}

const capitalized = (text) => text.charAt(0).toUpperCase() + text.slice(1);
const inputNote = (input) => `${capitalized(input.about)}${input.type === "labels" ? ", separated by commas" : ""}.`;

function showResult(parent, result, lettered) {
  const facts = [`${result.model}: ${result.completion_tokens} completion tokens, ${result.prompt_tokens} prompt tokens`];
  if (result.parts > 1) facts.push(`${result.parts} chunks`);
  const labels = Object.entries(result.probabilities);
  fill(parent,
    labels.length ? labelBars(labels, result.value)
      : result.value !== null && typeof result.value === "object" ? tree(result.value, lettered) : el("p", { class: "generated", dir: "auto" }, result.text),
    result.warning && el("p", { class: "note warning" }, `${result.app}: ${result.warning}`),
    result.notes.map((line) => el("p", { class: "note" }, line)),
    el("p", { class: "note" }, `${facts.join(", ")}.`));
}

function labelBars(labels, predicted) {
  const predictedLabels = new Set([predicted].flat());
  return el("ol", { class: "shares wide-labels" }, labels.sort((a, b) => b[1] - a[1]).map(([label, probability]) =>
    el("li", { class: predictedLabels.has(label) ? "marked" : "" },
      el("span", { class: "label" }, label),
      el("span", { class: "share", vars: { "--share": probability.toFixed(4) } }),
      el("span", { class: "value" }, formatPercent(probability)))));
}

// Shows any JSON value as nested lists.
function tree(value, lettered, name = "") {
  if (Array.isArray(value)) {
    const type = lettered.includes(name) ? "A" : null;
    return el("ol", { class: "tree", type }, value.map((each) => el("li", {}, tree(each, lettered))));
  }
  if (value !== null && typeof value === "object") {
    return el("dl", { class: "tree" }, Object.entries(value).map(([key, each]) => [
      el("dt", {}, capitalized(key.replaceAll("_", " "))), el("dd", {}, tree(each, lettered, key))]));
  }
  return el("span", { dir: "auto" }, String(value));
}
