// Helper functions that create DOM elements. Strings become text nodes and are never parsed as markup.

const isShown = (child) => child !== null && child !== undefined && child !== false;

export function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (key === "class") element.className = value;
    else if (key === "vars") for (const [name, variable] of Object.entries(value)) element.style.setProperty(name, variable);
    else if (key in element && typeof value !== "string") element[key] = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter(isShown));
  return element;
}

export function fill(parent, ...children) {
  parent.replaceChildren(...children.flat(Infinity).filter(isShown));
  return parent;
}

const SVG = "http://www.w3.org/2000/svg";

export function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) if (value !== null && value !== undefined) element.setAttribute(key, value);
  element.append(...children.flat(Infinity).filter(Boolean));
  return element;
}

let fieldCount = 0;

// Creates a form control with a label and an optional note.
export function field(label, control, note = null) {
  control.id ||= `field-${(fieldCount += 1)}`;
  return el("div", { class: "field" }, el("label", { for: control.id }, label), control, note && el("small", {}, note));
}

export function select(options, attributes = {}) {
  return el("select", attributes, options.map(([value, label]) => el("option", { value }, label)));
}

// Replace the options of a <select> and keep the selected one.
export function updateOptions(control, options) {
  const selected = control.value;
  const unchanged = control.options.length === options.length &&
    options.every(([value, label], index) => control.options[index].value === value && control.options[index].text === label);
  if (unchanged) return;
  fill(control, options.map(([value, label]) => el("option", { value }, label)));
  if (options.some(([value]) => value === selected)) control.value = selected;
}

let noticeTimer = 0;

// Show a message for 12 seconds. Screen readers announce the message.
export function notice(text) {
  const line = document.getElementById("notice");
  line.textContent = text;
  line.hidden = !text;
  clearTimeout(noticeTimer);
  if (text) noticeTimer = setTimeout(() => { line.hidden = true; }, 12_000);
}

// Disable a button while an action runs, and report its error.
export async function runWith(button, action) {
  button.disabled = true;
  button.setAttribute("aria-busy", "true");
  try {
    await action();
  } catch (error) {
    if (error.name !== "AbortError") notice(error.message);
  } finally {
    button.disabled = false;
    button.removeAttribute("aria-busy");
  }
}

// Returns the text of a token with symbols for white space.
export const visibleText = (text) => text.replaceAll("\n", "↵").replaceAll("\t", "⇥").replace(/^ | $/g, "␣") || "∅";

// Returns a link to a view and the item that it shows. Names of items may contain any character.
export const hashLink = (view, detail = "") => `#/${[view, ...detail.split("/")].filter(Boolean).map(encodeURIComponent).join("/")}`;

const SCALES = [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]];

export function formatNumber(value) {
  const [size, suffix] = SCALES.find(([min]) => Math.abs(value) >= min) || [1, ""];
  const scaled = value / size;
  if (suffix) return scaled.toPrecision(3) + suffix;
  return Math.abs(value) >= 100 ? String(Math.round(value)) : String(Number(value.toPrecision(3)));
}

export const formatPercent = (value) => (value >= 0.0995 ? `${Math.round(100 * value)} %` : `${(100 * value).toPrecision(2)} %`);

export function formatDuration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.round((whole % 3600) / 60)} min`;
}
