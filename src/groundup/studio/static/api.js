// What is asked of the server.

async function checked(answer) {
  if (answer.ok) return answer;
  let told = `The server answered ${answer.status}.`;
  try {
    told = (await answer.json()).error.message;
  } catch { /* no JSON: the status is all there is to say */ }
  throw new Error(told);
}

async function asked(path, options) {
  try {
    return await fetch(path, options);
  } catch (problem) {
    if (problem.name === "AbortError") throw problem;
    throw new Error("The server does not answer. Is it still running?");
  }
}

export async function get(path, params = {}) {
  const query = new URLSearchParams(params).toString();
  return (await checked(await asked(query ? `${path}?${query}` : path))).json();
}

const sent = (body) => ({ method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

export async function post(path, body, signal) {
  return (await checked(await asked(path, { ...sent(body), signal }))).json();
}

// Server-sent events of a POST, one object each, until "[DONE]".
export async function* stream(path, body, signal) {
  const answer = await checked(await asked(path, { ...sent(body), signal }));
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    held += value;
    const events = held.split("\n\n");
    held = events.pop();
    for (const event of events) {
      const data = event.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("\n");
      if (!data) continue;
      if (data === "[DONE]") return;
      const told = JSON.parse(data);
      if (told.error) throw new Error(told.error.message);
      yield told;
    }
  }
}
