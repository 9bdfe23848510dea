// Elements as nested calls. Text becomes text and nothing else: no string is ever read as markup.

export function el(name, given = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(given)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "on") for (const [event, act] of Object.entries(value)) made.addEventListener(event, act);
    else if (key === "class") made.className = value;
    else if (key === "vars") for (const [property, at] of Object.entries(value)) made.style.setProperty(property, at);
    else if (key in made && typeof value !== "string") made[key] = value;
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

export function fill(parent, ...children) {
  parent.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return parent;
}

const SVG = "http://www.w3.org/2000/svg";

export function svg(name, given = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(given)) if (value !== null && value !== undefined) made.setAttribute(key, value);
  made.append(...children.flat(Infinity).filter(Boolean));
  return made;
}

let counted = 0;

// A control with its label above it.
export function field(label, control, note = null) {
  control.id ||= `field-${(counted += 1)}`;
  return el("div", { class: "field" }, el("label", { for: control.id }, label), control, note && el("small", {}, note));
}

export function select(options, given = {}) {
  return el("select", given, options.map(([value, label]) => el("option", { value }, label)));
}

// Keep what is chosen while the choices are renewed.
export function renew(control, options) {
  const chosen = control.value;
  const same = control.options.length === options.length &&
    options.every(([value, label], at) => control.options[at].value === value && control.options[at].text === label);
  if (same) return;
  fill(control, options.map(([value, label]) => el("option", { value }, label)));
  if (options.some(([value]) => value === chosen)) control.value = chosen;
}

let timer = 0;

// Something went wrong, or well, in a line that screen readers hear, too.
export function notice(text) {
  const line = document.getElementById("notice");
  line.textContent = text;
  line.hidden = !text;
  clearTimeout(timer);
  if (text) timer = setTimeout(() => { line.hidden = true; }, 12_000);
}

// Do what a person asked for; while it lasts its button rests, and what fails is said.
export async function during(button, work) {
  button.disabled = true;
  button.setAttribute("aria-busy", "true");
  try {
    await work();
  } catch (problem) {
    if (problem.name !== "AbortError") notice(problem.message);
  } finally {
    button.disabled = false;
    button.removeAttribute("aria-busy");
  }
}

// What a token looks like where its white space must be seen.
export const seen = (text) => text.replaceAll("\n", "↵").replaceAll("\t", "⇥").replace(/^ | $/g, "␣") || "∅";

// Where a link leads: a view, and what of it; names may hold any character.
export const to = (view, place = "") => `#/${[view, ...place.split("/")].filter(Boolean).map(encodeURIComponent).join("/")}`;

const SCALES = [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]];

export function short(value) {
  const [size, name] = SCALES.find(([least]) => Math.abs(value) >= least) || [1, ""];
  const scaled = value / size;
  if (name) return scaled.toPrecision(3) + name;
  return Math.abs(value) >= 100 ? String(Math.round(value)) : String(Number(value.toPrecision(3)));
}

export const percent = (share) => (share >= 0.0995 ? `${Math.round(100 * share)} %` : `${(100 * share).toPrecision(2)} %`);

export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.round((whole % 3600) / 60)} min`;
}
