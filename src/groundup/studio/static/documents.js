// The Documents view, which answers questions from an index. A citation opens the document at the cited passage.
import { get, post } from "./api.js";
import { el, field, fill, formatDuration, runWith, select, updateOptions } from "./dom.js";
import { findModel, onChange, store } from "./store.js";

export function documents(section) {
  const index = select([["", "No index found"]]);
  const reader = select([["model", "The selected model"], ["", "Quote the best sentence, without a model"]]);
  const question = el("input", { type: "search", required: true, maxlength: "2000", placeholder: "When is the office closed?" });
  const ask = el("button", { type: "submit", class: "main" }, "Ask");
  const answer = el("div", { class: "found", "aria-live": "polite" });
  const reading = el("section", { class: "document", "aria-label": "Cited document", tabindex: "-1", hidden: true });
  const empty = el("p", { class: "empty" }, "No index found. Run: groundup index FOLDER --out runs/NAME/index");
  const form = el("form", { class: "inline", on: { submit: (event) => { event.preventDefault(); runAsk(); } } },
    field("Index", index), field("Question", question), field("Answer", reader), ask);
  const content = el("div", {}, form, answer, reading);

  section.append(
    el("h2", {}, "Ask your documents"),
    el("p", { class: "lead" }, "Answers come from the passages of an index, with citations. Other questions are refused."),
    empty, content);

  const runAsk = () => runWith(ask, async () => {
    reading.hidden = true;
    fill(answer, el("p", { class: "note" }, "Searching …"));
    try {
      const model = reader.value && findModel() ? store.model : "";
      drawAnswer(await post("/studio/api/ask", { index: index.value, question: question.value, model }));
    } catch (error) {
      fill(answer);
      throw error;
    }
  });

  function drawAnswer(found) {
    const text = found.text.split(/(\[\d+\])/).map((part) => {
      const citation = found.citations.find((each) => part === `[${each.number}]`);
      return citation ? el("button", { class: "citation", "aria-label": `Open citation ${citation.number}`,
        on: { click: (event) => open(citation, event.currentTarget) } }, part) : part;
    });
    const others = found.passages.map((passage) => el("li", {},
      el("button", { class: "citation", on: { click: (event) => open({ ...passage, quote: passage.text }, event.currentTarget) } }, place(passage)),
      el("p", { class: "generated", dir: "auto" }, `${passage.text.slice(0, 200)}…`)));
    const time = `${Math.round(1000 * found.search_seconds)} ms search, ${found.seconds < 60 ? `${found.seconds.toFixed(2)} s` : formatDuration(found.seconds)} in total`;
    const memory = found.memory_bytes ? `, ${Math.round(found.memory_bytes / 1e6)} MB peak memory` : "";
    fill(answer,
      el("p", { class: "cited-answer", dir: "auto" }, text),
      found.reason && el("p", { class: "note" }, `Refused: ${found.reason}.`),
      found.citations.map((each) => el("blockquote", { dir: "auto" }, each.quote, el("footer", {}, `[${each.number}] ${place(each)}`))),
      others.length > 0 && el("details", {}, el("summary", {}, `${others.length} passages found`), el("ol", { class: "results" }, others)),
      el("p", { class: "note" }, time + memory));
  }

  const place = ({ origin, page }) => (page === null ? origin : `${origin}, page ${page}`);

  const open = (cited, button) => runWith(button, async () => {
    const { text, title } = await get("/studio/api/document", { id: index.value, number: cited.document, document_id: cited.document_id });
    // Offsets count Unicode characters, and JavaScript strings count UTF-16 code units.
    const characters = [...text];
    const part = (start, end) => characters.slice(start, end).join("");
    const mark = el("mark", {}, part(cited.start, cited.end));
    fill(reading,
      el("h3", {}, title || cited.origin), el("p", { class: "note" }, place(cited)),
      el("pre", { class: "generated", dir: "auto", tabindex: "0", "aria-label": "Text of the document" },
        part(0, cited.start), mark, part(cited.end)));
    reading.hidden = false;
    reading.focus({ preventScroll: true });
    mark.scrollIntoView({ block: "center" });
  });

  function draw() {
    const stages = store.overview.runs.flatMap((run) => run.stages.filter((stage) => stage.stage === "index" && stage.state === "done"));
    empty.hidden = stages.length > 0;
    content.hidden = !stages.length;
    updateOptions(index, stages.length ? stages.map((stage) => [stage.id, `${stage.id} (${stage.summary})`]) : [["", "No index found"]]);
  }

  index.addEventListener("change", () => { fill(answer); reading.hidden = true; });
  onChange(draw);
  draw();
  return {};
}
