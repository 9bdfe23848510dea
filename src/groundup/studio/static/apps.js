// Apps: every application with a form made from its declaration, and its result as it comes.
import { get, stream } from "./api.js";
import { during, el, field, fill, notice, percent, renew, select, to } from "./dom.js";
import { labelling, modelOf } from "./store.js";

const GROUPS = { create: "Create", understand: "Understand", teach: "Teach" };

export function apps(section) {
  let known = [];
  let name = "";
  const forms = new Map(); // name -> its form, so that nothing typed is lost on the way to another

  const list = el("nav", { class: "apps", "aria-label": "Applications" });
  const place = el("div", { class: "wide" });
  section.append(
    el("h2", {}, "Apps"),
    el("p", { class: "lead" }, "What people do with a model: each of these is a question that was put well once, so that you need not."),
    el("div", { class: "split side" }, list, place));

  const nameOf = (group) => GROUPS[group] || group;

  function drawList() {
    const groups = [...new Set(known.map((app) => app.group))];
    fill(list, groups.map((group) => [
      el("h3", {}, nameOf(group)),
      el("ul", {}, known.filter((app) => app.group === group).map((app) =>
        el("li", {}, el("a", { href: to("apps", app.name), "aria-current": app.name === name ? "true" : null }, app.title)))),
    ]));
  }

  function draw() {
    drawList();
    const app = known.find((each) => each.name === name);
    if (!app) return;
    if (!forms.has(name)) forms.set(name, formOf(app));
    const { parts, offer } = forms.get(name);
    offer();
    fill(place, parts);
  }

  return {
    async show(wanted) {
      try {
        if (!known.length) known = (await get("/v1/apps")).data;
      } catch (problem) {
        notice(problem.message);
        return;
      }
      name = known.some((app) => app.name === wanted) ? wanted : name || known[0]?.name || "";
      draw();
    },
  };
}

function formOf(app) {
  const controls = app.inputs.map((input) => [input, controlOf(input)]);
  const tokens = el("input", { type: "number", min: "1", step: "1", required: true, value: String(app.decoding.max_tokens) });
  const temperature = el("input", { type: "number", min: "0", max: "2", step: "0.1", required: true, value: String(app.decoding.temperature) });
  const go = el("button", { type: "submit", class: "main" }, "Run");
  const stop = el("button", { type: "button", hidden: true }, "Stop");
  const bar = el("progress", { hidden: true, "aria-label": "Parts done" });
  const result = el("div", { class: "result", "aria-live": "polite", "aria-label": "Result", role: "region" });
  const labels = app.output.kind === "label" ? select([], {}) : null;
  const by = labels && field("Labels by", labels, "The model above, or a classifier that was trained for such labels.");
  const form = el("form", {},
    controls.map(([input, control]) => field(`${sentence(input.name)}${input.required ? "" : " (optional)"}`, control, note(input))),
    by,
    el("details", {}, el("summary", {}, "How it writes"),
      el("div", { class: "pair" }, field("Most tokens", tokens), field("Temperature", temperature))),
    el("div", { class: "row" }, go, stop, bar));

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const model = labels?.value ? { name: labels.value } : modelOf();
    if (!model) return notice("There is no model yet. Train one first.");
    const working = new AbortController();
    stop.onclick = () => working.abort();
    stop.hidden = false;
    const inputs = Object.fromEntries(controls.filter(([, control]) => control.value !== "").map(([input, control]) => [input.name, control.value]));
    const asked = { model: model.name, inputs, stream: true, max_tokens: Number(tokens.value), temperature: Number(temperature.value) };
    return during(go, async () => {
      const written = el("p", { class: "written", dir: "auto" });
      const state = el("p", { class: "note" }, `${model.name} is at work …`);
      fill(result, state, written);
      try {
        for await (const event of stream(`/v1/apps/${encodeURIComponent(app.name)}`, asked, working.signal)) {
          if (event.type === "text") written.append(event.text);
          else if (event.type === "progress") {
            bar.hidden = event.total < 2;
            Object.assign(bar, { max: event.total, value: event.done });
          } else if (event.type === "result") show(result, event, app.output.lettered);
        }
      } catch (problem) {
        state.textContent = problem.name === "AbortError" ? "Stopped." : "It could not be done.";
        throw problem;
      } finally {
        stop.hidden = true;
        bar.hidden = true;
      }
    });
  });
  const offer = () => {
    if (!labels) return;
    renew(labels, [["", "the model above"], ...labelling().map((each) => [each.name, each.name])]);
    by.hidden = !labelling().length;
  };
  labels?.addEventListener("change", () => { // a classifier brings its own
    for (const [input, control] of controls) if (input.type === "labels") control.required = input.required && !labels.value;
  });
  return { parts: [el("h3", {}, app.title), el("p", { class: "lesson" }, `${sentence(app.about)}.`), form, result], offer };
}

function controlOf(input) {
  const given = { required: input.required };
  const value = input.default ?? "";
  if (input.type === "choice") {
    const control = select(input.choices.map((choice) => [choice, choice]), given);
    if (value) control.value = value;
    return control;
  }
  const example = Array.isArray(input.example) ? input.example.join(", ") : String(input.example ?? "");
  if (input.type === "text") return el("textarea", { ...given, rows: "5", placeholder: example, maxlength: input.max && String(input.max) });
  const shown = Array.isArray(value) ? value.join(", ") : String(value);
  const control = input.type === "number"
    ? el("input", { ...given, type: "number", step: "1", min: String(input.min), max: input.max === null ? null : String(input.max) })
    : el("input", { ...given, type: "text", placeholder: example, maxlength: input.type === "line" && input.max ? String(input.max) : null });
  control.value = shown;
  return control;
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);
const note = (input) => `${sentence(input.about)}${input.type === "labels" ? "; with commas between" : ""}.`;

function show(result, told, lettered) {
  const facts = [`${told.model}: ${told.completion_tokens} tokens written, ${told.prompt_tokens} read`];
  if (told.parts > 1) facts.push(`in ${told.parts} parts`);
  const labels = Object.entries(told.probabilities);
  fill(result,
    labels.length ? shares(labels, told.value)
      : told.value !== null && typeof told.value === "object" ? tree(told.value, lettered) : el("p", { class: "written", dir: "auto" }, told.text),
    told.notes.map((line) => el("p", { class: "note" }, line)),
    el("p", { class: "note" }, `${facts.join(", ")}.`));
}

function shares(labels, chosen) {
  const sure = new Set([chosen].flat());
  return el("ol", { class: "shares wide-labels" }, labels.sort((a, b) => b[1] - a[1]).map(([label, share]) =>
    el("li", { class: sure.has(label) ? "marked" : "" },
      el("span", { class: "label" }, label),
      el("span", { class: "share", vars: { "--share": share.toFixed(4) } }),
      el("span", { class: "value" }, percent(share)))));
}

// Any JSON as nested lists: what a schema says decides what is in it, not how it is drawn.
function tree(value, lettered, name = "") {
  if (Array.isArray(value)) {
    const type = lettered.includes(name) ? "A" : null;
    return el("ol", { class: "tree", type }, value.map((each) => el("li", {}, tree(each, lettered))));
  }
  if (value !== null && typeof value === "object") {
    return el("dl", { class: "tree" }, Object.entries(value).map(([key, each]) => [
      el("dt", {}, sentence(key.replaceAll("_", " "))), el("dd", {}, tree(each, lettered, key))]));
  }
  return el("span", { dir: "auto" }, String(value));
}
