// The display of the pipeline from text to a usable model. The step that produced the selected model is highlighted.
import { el, fill, hashLink } from "./dom.js";
import { findModel, findRun } from "./store.js";

const isFineTuning = (stage) => stage.stage.startsWith("finetune.");

// For each step: its label, the stages that belong to the step, and the link.
const STEPS = [
  ["Collected", (stage) => stage.stage === "collect", (stage) => hashLink("data", stage?.id)],
  ["Tokenized", (stage) => stage.stage === "tokenize", () => hashLink("inside", "surprisal")],
  ["Pretrained", (stage) => stage.stage === "pretrain" || stage.stage === "import", (stage) => hashLink("train", stage?.id)],
  ["Fine-tuned", isFineTuning, (stage) => (stage?.has_tokens_page ? hashLink("report", `tokens/${stage.id}`) : hashLink("train", stage?.id))],
  ["Evaluated", (stage) => stage.stage === "evaluate" || stage.stage === "compare", (stage) => hashLink("report", stage && `report/${stage.id.split("/")[0]}`)],
  ["In use", () => false, () => hashLink("chat")],
];

export function drawPipeline(nav) {
  const model = findModel();
  const run = model?.run ? findRun(model.run) : null;
  fill(nav, el("ol", {}, STEPS.map(([name, belongs, link]) => {
    const stage = stageOf(run?.stages.filter(belongs) || [], model);
    const { state, headline, summary } = describe(name, stage, model, run);
    const current = isCurrent(name, stage, model);
    return el("li", { class: `step ${state}${current ? " current" : ""}` },
      el("a", { href: link(stage), title: summary, "aria-current": current ? "step" : null },
        el("span", { class: "dot", "aria-hidden": "true" }),
        el("span", { class: "name" }, name),
        el("span", { class: "headline" }, headline)));
  })));
  // On a phone, the pipeline is wider than the screen, so scroll to the current step.
  const current = nav.querySelector(".current");
  if (current) nav.scrollLeft = current.offsetLeft - nav.offsetLeft - 40;
}

// Returns the stage that produced the model. If it is unknown, returns the last stage that produced a language model.
// If no stage produced a language model, returns the last stage.
const stageOf = (stages, model) => stages.find((stage) => stage.id === model.name) ||
  stages.findLast((stage) => stage.stage !== "finetune.classify") || stages.at(-1);

function describe(name, stage, model, run) {
  if (name === "In use") return model
    ? { state: "done", headline: model.has_chat_template ? "chat" : "text completion", summary: "Open the chat" }
    : { state: "pending", headline: "not done", summary: "No models found" };
  if (stage) {
    const labels = { running: "running", stopped: "stopped" };
    return { state: stage.state, headline: stage.headline || labels[stage.state] || "done", summary: stage.summary || name };
  }
  if (model && !run) {
    const notDone = name === "Evaluated" ? "no evaluation" : name === "Fine-tuned" && !model.has_chat_template ? "not fine-tuned" : null;
    return { state: notDone ? "pending" : "external", headline: notDone || "imported", summary: "Not done on this machine" };
  }
  return { state: "pending", headline: "not done", summary: "This stage has not run" };
}

// Returns the step that produced the model. For the base model of a run with fine-tuning, this is "Pretrained".
function isCurrent(name, stage, model) {
  if (!model) return false;
  if (stage && stage.id === model.name) return true;
  return !model.run && name === (model.has_chat_template ? "Fine-tuned" : "Pretrained");
}
