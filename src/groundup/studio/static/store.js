// The state that all views share: the server's overview of runs and models, and the selected model.
import { get } from "./api.js";

const listeners = new Set();
export const store = { overview: null, model: null };

const IDLE_POLL_MS = 6000;
const ACTIVE_POLL_MS = 3000;
let timer = 0;

export const onChange = (listener) => listeners.add(listener);
const notifyListeners = () => listeners.forEach((listener) => listener(store));

export const isRunning = (run) => run.running || run.job?.running;
export const findModel = (name = store.model) => store.overview?.models.find((model) => model.name === name) || null;
export const findRun = (name) => store.overview?.runs.find((run) => run.name === name) || null;
export const classifiers = () => store.overview?.models.filter((model) => model.kind === "classifier") || [];
export const languageModels = () => store.overview?.models.filter((model) => model.kind !== "classifier") || [];

export function selectModel(name) {
  store.model = name;
  notifyListeners();
}

// Fetch the overview repeatedly. The interval is shorter while a run is active.
export async function refresh() {
  clearTimeout(timer);
  try {
    const overview = await get("/studio/api/overview");
    const before = JSON.stringify(store.overview);
    store.overview = overview;
    if (!findModel()) store.model = defaultModel(overview);
    if (JSON.stringify(overview) !== before) notifyListeners();
  } finally {
    const active = store.overview?.runs.some(isRunning);
    timer = setTimeout(() => !document.hidden && refresh().catch(() => {}), active ? ACTIVE_POLL_MS : IDLE_POLL_MS);
  }
}

document.addEventListener("visibilitychange", () => !document.hidden && refresh().catch(() => {}));

function defaultModel(overview) {
  if (overview.default_model) return overview.default_model;
  const candidates = languageModels();
  return (candidates.find((model) => model.has_chat_template) || candidates[0] || overview.models[0])?.name || null;
}
