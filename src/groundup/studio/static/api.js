// Requests to the server.

async function checked(response) {
  if (response.ok) return response;
  let message = `The server returned status ${response.status}.`;
  try {
    message = (await response.json()).error.message;
  } catch { /* The body is not JSON, so the error message contains only the status. */ }
  throw new Error(message);
}

async function request(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not respond. Check that it is still running.");
  }
}

export async function get(path, params = {}) {
  const query = new URLSearchParams(params).toString();
  return (await checked(await request(query ? `${path}?${query}` : path))).json();
}

const json = (body) => ({ method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

export async function post(path, body, signal) {
  return (await checked(await request(path, { ...json(body), signal }))).json();
}

// Send a POST request and yield its server-sent events as objects, until the event "[DONE]".
export async function* stream(path, body, signal) {
  const response = await checked(await request(path, { ...json(body), signal }));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    buffer += value;
    const events = buffer.split("\n\n");
    buffer = events.pop();
    for (const event of events) {
      const data = event.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("\n");
      if (!data) continue;
      if (data === "[DONE]") return;
      const message = JSON.parse(data);
      if (message.error) throw new Error(message.error.message);
      yield message;
    }
  }
}
