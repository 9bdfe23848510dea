// The embeddings panel, which shows the tokens whose embeddings are most similar to the selected token's.
import { el, fill, notice, visibleText } from "./dom.js";

export function embeddingsPanel(fetchPanel) {
  let reading = null;
  let requests = 0;
  const title = el("p", { class: "note", "aria-live": "polite" });
  const list = el("ol", { class: "shares wide-shares" });
  const section = el("section", { class: "panel", id: "embeddings", "aria-label": "Nearest embeddings" },
    el("h3", {}, "Nearest embeddings"),
    el("p", { class: "lesson" }, "A model represents each token as a vector. Tokens that occur in similar contexts get similar vectors during training."),
    title, list);

  async function show(index) {
    const request = (requests += 1);
    const selected = reading.tokens[index];
    try {
      const { nearest } = await fetchPanel("embeddings", { token: selected.id });
      if (request !== requests) return;
      title.textContent = `Nearest to “${visibleText(selected.text)}” by cosine similarity. Select another token above.`;
      fill(list, nearest.map((other) => el("li", {},
        el("code", {}, visibleText(other.text)),
        el("span", { class: "share", vars: { "--share": Math.max(0, other.cosine).toFixed(4) } }),
        el("span", { class: "value" }, other.cosine.toFixed(2)))));
    } catch (error) {
      notice(error.message);
    }
  }

  return {
    section,
    select: show,
    async show(newReading) {
      reading = newReading;
      const words = reading.tokens.map((token, index) => [token, index]).filter(([token]) => !token.special && token.text.trim().length > 2);
      await show(words.length ? words[Math.min(1, words.length - 1)][1] : Math.min(1, reading.tokens.length - 1));
    },
  };
}
