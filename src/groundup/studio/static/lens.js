// The logit lens: what the model would say if it ended after each layer.
import { el, fill, seen } from "./dom.js";
import { tell, untell, walk } from "./tokens.js";

export function lensPanel(ask) {
  const table = el("table", { class: "lens" });
  const scroll = el("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": "The logit lens, layer by layer" }, table);
  const wait = el("p", { class: "note" }, "");
  let told = null;

  const section = el("section", { class: "panel", id: "lens", "aria-label": "Logit lens" },
    el("h3", {}, "Logit lens"),
    el("p", { class: "lesson" }, "Each layer refines the guess of the next token: read a column from the bottom up to see an answer form; the stronger the colour, the surer the model is by then."),
    wait, scroll);

  walk(table, (cell) => {
    if (cell.dataset.row === undefined) return untell();
    const [layer, at] = [Number(cell.dataset.row), Number(cell.dataset.at)];
    const it = told.rows[layer][at];
    const after = told.tokens[at + 1];
    const rows = [[it.text, it.p, after?.id === it.id]];
    if (after && after.id !== it.id) rows.push([after.text, it.actual, true]);
    tell(cell, `${name(layer)}, after “${seen(told.tokens[at].text)}”`, rows, after ? "marked: what really comes next" : null);
  });

  const name = (layer) => (layer === 0 ? "before the first layer" : `after layer ${layer}`);

  return {
    section,
    chosen(at) {
      for (const cell of table.querySelectorAll(".column")) cell.classList.remove("column");
      for (const cell of table.querySelectorAll(`[data-at="${at}"]`)) cell.classList.add("column");
    },
    async show(reading) {
      wait.textContent = "Each layer meets the whole vocabulary: a moment …";
      told = await ask("lens");
      wait.textContent = reading.tokens.length > told.tokens.length ? `The first ${told.tokens.length} tokens.` : "";
      const layers = [...told.rows.keys()].reverse();
      fill(table,
        el("caption", {}, "What the model would say next after each layer"),
        el("thead", {}, el("tr", {}, el("td", {}), told.tokens.map((it, at) => el("th", { scope: "col", "data-at": String(at) }, seen(it.text))))),
        el("tbody", {}, layers.map((layer) => el("tr", {},
          el("th", { scope: "row" }, layer === 0 ? "in" : String(layer)),
          told.rows[layer].map((it, at) => {
            const right = told.tokens[at + 1]?.id === it.id;
            return el("td", {
              class: right ? "cell right" : "cell", "data-token": "", "data-row": String(layer), "data-at": String(at),
              tabIndex: layer === layers[0] && at === 0 ? 0 : -1, vars: { "--heat": it.p.toFixed(3) } }, seen(it.text));
          })))));
    },
  };
}
