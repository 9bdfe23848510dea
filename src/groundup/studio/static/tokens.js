// Tokens as text that can be walked through: with the pointer, or with the arrow keys.
import { el, fill, percent, seen } from "./dom.js";

const told = document.getElementById("told");

// A row of tokens, of which one can be reached by Tab and the others by arrows.
export function walk(row, onReach, onChoose = null) {
  row.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const all = [...row.querySelectorAll("[data-token]")];
    const at = all.indexOf(document.activeElement);
    if (event.key === "Escape") untell();
    if ((event.key === "Enter" || event.key === " ") && at >= 0 && onChoose) {
      event.preventDefault();
      onChoose(all[at]);
    }
    if (!step || at < 0) return;
    event.preventDefault();
    const next = all[Math.min(all.length - 1, Math.max(0, at + step))];
    all[at].tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
  const reached = (event) => {
    const token = event.target.closest?.("[data-token]");
    if (token) onReach(token);
    else untell();
  };
  row.addEventListener("pointerover", reached);
  row.addEventListener("focusin", reached);
  row.addEventListener("pointerleave", untell);
  row.addEventListener("focusout", untell);
  row.addEventListener("click", (event) => {
    const token = event.target.closest?.("[data-token]");
    if (!token) return;
    onReach(token);
    onChoose?.(token);
  });
}

// One token; `heat` from 0 to 1 is how strongly it is tinted.
export function token(text, given = {}) {
  const { heat = 0, special = false, first = false, button = false, ...rest } = given;
  const lines = text.endsWith("\n") ? text.match(/\n*$/)[0] : "";
  const shown = special ? text : lines ? `${text.slice(0, -lines.length)}${"↵"}${lines}` : text;
  return el("span", {
    class: `token${special ? " special" : ""}`, "data-token": "", tabIndex: first ? 0 : -1,
    role: button ? "button" : null, vars: { "--heat": heat.toFixed(3) }, ...rest,
  }, shown);
}

// Tell something beside an element: a title, and bars of (text, share, mark).
export function tell(beside, title, rows, foot = null) {
  fill(told,
    el("p", { class: "told-title" }, title),
    el("ol", { class: "shares" }, rows.map(([text, share, marked]) => el("li", { class: marked ? "marked" : "" },
      el("code", {}, seen(text)),
      el("span", { class: "share", vars: { "--share": share.toFixed(4) } }),
      el("span", { class: "value" }, percent(share))))),
    foot && el("p", { class: "told-foot" }, foot));
  told.hidden = false;
  const box = beside.getBoundingClientRect();
  const mine = told.getBoundingClientRect();
  const left = Math.max(8, Math.min(innerWidth - mine.width - 8, box.left + box.width / 2 - mine.width / 2));
  const above = box.top - mine.height - 8;
  told.style.left = `${left}px`;
  told.style.top = `${above > 8 ? above : Math.min(box.bottom + 8, innerHeight - mine.height - 8)}px`;
}

export function untell() {
  told.hidden = true;
}

addEventListener("scroll", untell, { passive: true });
