// The logit lens panel, which shows the most likely next token after each layer.
import { el, fill, visibleText } from "./dom.js";
import { hideTooltip, showTooltip, navigateTokens } from "./tokens.js";

export function lensPanel(fetchPanel) {
  const table = el("table", { class: "lens" });
  const scroll = el("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": "Logit lens by layer" }, table);
  const status = el("p", { class: "note" }, "");
  let lens = null;

  const section = el("section", { class: "panel", id: "lens", "aria-label": "Logit lens" },
    el("h3", {}, "Logit lens"),
    el("p", { class: "lesson" }, "Each layer refines the prediction of the next token. Read a column from bottom to top. A stronger color is a higher probability."),
    status, scroll);

  navigateTokens(table, (cell) => {
    if (cell.dataset.row === undefined) return hideTooltip();
    const [layer, index] = [Number(cell.dataset.row), Number(cell.dataset.index)];
    const predicted = lens.rows[layer][index];
    const actual = lens.tokens[index + 1];
    const rows = [[predicted.text, predicted.p, actual?.id === predicted.id]];
    if (actual && actual.id !== predicted.id) rows.push([actual.text, predicted.p_actual, true]);
    const title = `${layer === 0 ? "Before the first layer" : `After layer ${layer}`}, next token after “${visibleText(lens.tokens[index].text)}”`;
    showTooltip(cell, title, rows, actual ? "The actual next token is bold." : null);
  });

  return {
    section,
    select(index) {
      for (const cell of table.querySelectorAll(".column")) cell.classList.remove("column");
      for (const cell of table.querySelectorAll(`[data-index="${index}"]`)) cell.classList.add("column");
    },
    async show(reading) {
      status.textContent = "Computing the logits after each layer …";
      lens = await fetchPanel("lens");
      status.textContent = reading.tokens.length > lens.tokens.length ? `First ${lens.tokens.length} tokens.` : "";
      const layers = [...lens.rows.keys()].reverse();
      fill(table,
        el("caption", {}, "Most likely next token after each layer"),
        el("thead", {}, el("tr", {}, el("td", {}), lens.tokens.map((token, index) => el("th", { scope: "col", "data-index": String(index) }, visibleText(token.text))))),
        el("tbody", {}, layers.map((layer) => el("tr", {},
          el("th", { scope: "row" }, layer === 0 ? "in" : String(layer)),
          lens.rows[layer].map((predicted, index) => {
            const correct = lens.tokens[index + 1]?.id === predicted.id;
            return el("td", {
              class: correct ? "cell correct" : "cell", "data-token": "", "data-row": String(layer), "data-index": String(index),
              tabIndex: layer === layers[0] && index === 0 ? 0 : -1, vars: { "--heat": predicted.p.toFixed(3) } }, visibleText(predicted.text));
          })))));
    },
  };
}
