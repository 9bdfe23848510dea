// The Data view, which shows the data card of a corpus and searches the documents and the drop log.
import { get } from "./api.js";
import { el, field, fill, runWith, select, updateOptions } from "./dom.js";
import { frame } from "./frame.js";
import { onChange, store } from "./store.js";

export function data(section) {
  const corpus = select([["", "No corpus found"]]);
  const query = el("input", { type: "search", required: true, placeholder: "to be, or not to be" });
  const kind = select([["search", "Text of documents"], ["fates", "Document name: kept or dropped"]]);
  const search = el("button", { type: "submit", class: "main" }, "Search");
  const results = el("div", { class: "found", "aria-live": "polite" });
  const card = frame("Data card");
  const empty = el("p", { class: "empty" }, "No corpus found. Start a recipe with a collect stage in Train.");
  const form = el("form", { class: "inline", on: { submit: (event) => { event.preventDefault(); runSearch(); } } },
    field("Corpus", corpus), field("Query", query), field("Search in", kind), search);
  const content = el("div", {}, form, results, card.figure);

  section.append(
    el("h2", {}, "Data"),
    el("p", { class: "lead" }, "The training data: its sources, and which documents were dropped and why."),
    empty, content);

  const runSearch = () => runWith(search, async () => {
    const response = await get(`/studio/api/${kind.value}`, { id: corpus.value, text: query.value });
    const rows = kind.value === "search" ? response.matches.map(drawMatch) : response.fates.map(drawFate);
    fill(results,
      el("p", { class: "note" }, rows.length ? `${response.more ? "First " : ""}${rows.length} ${rows.length === 1 ? "document" : "documents"}` : "No documents found."),
      el("ol", { class: "results" }, rows));
  });

  const drawMatch = ({ document, around: [before, hit, after] }) => el("li", {},
    el("p", { class: "who" }, `${document.origin} · ${document.source}`),
    el("p", { class: "generated", dir: "auto" }, "…", before, el("mark", {}, hit), after, "…"));

  const drawFate = (fate) => el("li", {},
    el("p", { class: "who" }, `${fate.origin} · ${fate.source}`),
    el("p", {}, fate.is_kept ? "kept" : `dropped: ${fate.reason}${fate.detail ? ` (${fate.detail})` : ""}, in step ${fate.step}`),
    el("p", { class: "generated", dir: "auto" }, fate.beginning));

  function draw() {
    const stages = store.overview.runs.flatMap((run) => run.stages.filter((stage) => stage.stage === "collect" && stage.state === "done"));
    empty.hidden = stages.length > 0;
    content.hidden = !stages.length;
    updateOptions(corpus, stages.length ? stages.map((stage) => [stage.id, stage.id]) : [["", "No corpus found"]]);
    if (corpus.value) card.show(`/studio/page/card/${corpus.value}`);
  }

  corpus.addEventListener("change", () => { fill(results); draw(); });
  onChange(draw);
  draw();
  return {
    show(id) {
      if ([...corpus.options].some((option) => option.value === id)) corpus.value = id;
      draw();
    },
  };
}
