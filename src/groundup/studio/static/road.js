// The road from text to a model that is used, and where on it the chosen model stands.
import { el, fill, to } from "./dom.js";
import { modelOf, runOf } from "./store.js";

const tuned = (stage) => stage.stage.startsWith("finetune.");

// Each station: its name, the stages that make it, where a click leads.
const STATIONS = [
  ["Collected", (stage) => stage.stage === "collect", (stage) => to("data", stage?.place)],
  ["Tokenized", (stage) => stage.stage === "tokenize", () => to("inside", "surprise")],
  ["Pretrained", (stage) => stage.stage === "pretrain" || stage.stage === "import", (stage) => to("train", stage?.place)],
  ["Tuned", tuned, (stage) => (stage?.xray ? to("report", `xray/${stage.place}`) : to("train", stage?.place))],
  ["Measured", (stage) => stage.stage === "evaluate" || stage.stage === "compare", (stage) => to("report", stage && `report/${stage.place.split("/")[0]}`)],
  ["In use", () => false, () => to("chat")],
];

export function drawRoad(nav) {
  const model = modelOf();
  const run = model?.run ? runOf(model.run) : null;
  fill(nav, el("ol", {}, STATIONS.map(([name, makes, leads]) => {
    const stage = made(run?.stages.filter(makes) || [], model);
    const { state, figure, says } = standing(name, stage, model, run);
    const here = mark(name, stage, model);
    return el("li", { class: `station ${state}${here ? " here" : ""}` },
      el("a", { href: leads(stage), title: says, "aria-current": here ? "step" : null },
        el("span", { class: "dot", "aria-hidden": "true" }),
        el("span", { class: "name" }, name),
        el("span", { class: "figure" }, figure)));
  })));
  // On a phone the road is longer than the screen.
  const here = nav.querySelector(".here");
  if (here) nav.scrollLeft = here.offsetLeft - nav.offsetLeft - 40;
}

// Of several stages of a kind the one that left the model, else the last that left a language model, else the last.
const made = (stages, model) => stages.find((stage) => stage.place === model.name) ||
  stages.findLast((stage) => stage.stage !== "finetune.classify") || stages.at(-1);

function standing(name, stage, model, run) {
  if (name === "In use") return model
    ? { state: "done", figure: model.chats ? "it chats" : "it writes on", says: "Talk to it" }
    : { state: "ahead", figure: "not yet", says: "There is no model yet" };
  if (stage) {
    const words = { running: "under way", stopped: "stopped" };
    return { state: stage.state, figure: stage.figure || words[stage.state] || "done", says: stage.says || name };
  }
  if (model && !run) {
    const elsewhere = name === "Measured" ? "not here" : name === "Tuned" && !model.chats ? "not tuned" : "elsewhere";
    return { state: elsewhere === "elsewhere" ? "elsewhere" : "ahead", figure: elsewhere, says: "Not made on this machine" };
  }
  return { state: "ahead", figure: "not yet", says: "This stage has not run" };
}

// The station that the model came from: a base model of a tuned run stands at "Pretrained".
function mark(name, stage, model) {
  if (!model) return false;
  if (stage && stage.place === model.name) return true;
  return !model.run && name === (model.chats ? "Tuned" : "Pretrained");
}
