// Tokens that users can select with the pointer or the arrow keys, and the tooltip that shows probabilities.
import { el, fill, formatPercent, visibleText } from "./dom.js";

const tooltip = document.getElementById("tooltip");

// Add keyboard and pointer navigation. The Tab key focuses one token of the row, and the arrow keys move between
// tokens.
export function navigateTokens(row, onFocus, onSelect = null) {
  row.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const all = [...row.querySelectorAll("[data-token]")];
    const index = all.indexOf(document.activeElement);
    if (event.key === "Escape") hideTooltip();
    if ((event.key === "Enter" || event.key === " ") && index >= 0 && onSelect) {
      event.preventDefault();
      onSelect(all[index]);
    }
    if (!step || index < 0) return;
    event.preventDefault();
    const next = all[Math.min(all.length - 1, Math.max(0, index + step))];
    all[index].tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
  const onReach = (event) => {
    const token = event.target.closest?.("[data-token]");
    if (token) onFocus(token);
    else hideTooltip();
  };
  row.addEventListener("pointerover", onReach);
  row.addEventListener("focusin", onReach);
  row.addEventListener("pointerleave", hideTooltip);
  row.addEventListener("focusout", hideTooltip);
  row.addEventListener("click", (event) => {
    const token = event.target.closest?.("[data-token]");
    if (!token) return;
    onFocus(token);
    onSelect?.(token);
  });
}

// Create the element of a token. `heat`, from 0 to 1, is the strength of the background color.
export function tokenElement(text, options = {}) {
  const { heat = 0, special = false, first = false, button = false, ...attributes } = options;
  const newlines = text.endsWith("\n") ? text.match(/\n*$/)[0] : "";
  const shown = special ? text : newlines ? `${text.slice(0, -newlines.length)}${"↵"}${newlines}` : text;
  return el("span", {
    class: `token${special ? " special" : ""}`, "data-token": "", tabIndex: first ? 0 : -1,
    role: button ? "button" : null, vars: { "--heat": heat.toFixed(3) }, ...attributes,
  }, shown);
}

// Show a tooltip next to an element. Each row is [text, probability, highlighted].
export function showTooltip(target, title, rows, note = null) {
  fill(tooltip,
    el("p", { class: "tooltip-title" }, title),
    el("ol", { class: "shares" }, rows.map(([text, probability, highlighted]) => el("li", { class: highlighted ? "marked" : "" },
      el("code", {}, visibleText(text)),
      el("span", { class: "share", vars: { "--share": probability.toFixed(4) } }),
      el("span", { class: "value" }, formatPercent(probability))))),
    note && el("p", { class: "tooltip-note" }, note));
  tooltip.hidden = false;
  const box = target.getBoundingClientRect();
  const size = tooltip.getBoundingClientRect();
  const left = Math.max(8, Math.min(innerWidth - size.width - 8, box.left + box.width / 2 - size.width / 2));
  const above = box.top - size.height - 8;
  tooltip.style.left = `${left}px`;
  tooltip.style.top = `${above > 8 ? above : Math.min(box.bottom + 8, innerHeight - size.height - 8)}px`;
}

export function hideTooltip() {
  tooltip.hidden = true;
}

addEventListener("scroll", hideTooltip, { passive: true });
