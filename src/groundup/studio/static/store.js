// What all views share: what is there, and which model is meant.
import { get } from "./api.js";

const listeners = new Set();
export const store = { home: null, model: null };

const CALM = 6000;
const LIVELY = 3000;
let timer = 0;

export const onChange = (listener) => listeners.add(listener);
const changed = () => listeners.forEach((listener) => listener(store));

export const modelOf = (name = store.model) => store.home?.models.find((model) => model.name === name) || null;
export const runOf = (name) => store.home?.runs.find((run) => run.name === name) || null;
export const labelling = () => store.home?.models.filter((model) => model.kind === "classifier") || [];
export const talking = () => store.home?.models.filter((model) => model.kind !== "classifier") || [];

export function choose(name) {
  store.model = name;
  changed();
}

// Look again now; and then as often as something may have happened.
export async function refresh() {
  clearTimeout(timer);
  try {
    const home = await get("/studio/api/home");
    const before = JSON.stringify(store.home);
    store.home = home;
    if (!modelOf()) store.model = preferred(home);
    if (JSON.stringify(home) !== before) changed();
  } finally {
    const lively = store.home?.runs.some((run) => run.running || run.job?.running);
    timer = setTimeout(() => !document.hidden && refresh().catch(() => {}), lively ? LIVELY : CALM);
  }
}

document.addEventListener("visibilitychange", () => !document.hidden && refresh().catch(() => {}));

function preferred(home) {
  if (home.chosen) return home.chosen;
  const can = home.models.filter((model) => model.kind !== "classifier");
  return (can.find((model) => model.chats) || can[0] || home.models[0])?.name || null;
}
