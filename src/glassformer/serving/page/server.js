// What the page asks its server: which models there are, and documents, which come with word of how far they are.

class Refusal extends Error {
  constructor(message, status = null) {
    super(message);
    this.forPeople = true; // the message is a sentence for whoever asked
    this.status = status;
  }
}

export async function models(key) {
  const answer = await reach("v1/models", { headers: headers(key) });
  return (await answer.json()).data;
}

// What is sent for `fields` (model, view, text, …) and the view's options, which may be null. The page has word of how
// far the work is, and patterns packed; people have neither.
export function bodyOf(fields, options, page = true) {
  const own = { ...(page && fields.view === "attention" ? { packed: true } : {}), ...options };
  return { ...fields, ...(page ? { stream: true } : {}), ...(Object.keys(own).length ? { options: own } : {}) };
}

// The document that a body asks for. onProgress(share) is told how much is done.
export async function ask(body, key, { onProgress, signal }) {
  const request = { method: "POST", headers: headers(key), body: JSON.stringify(body), signal };
  const answer = await reach("v1/trace", request);
  for await (const event of events(answer.body)) {
    if (event.error) throw new Refusal(event.error.message);
    if (event.progress !== undefined) onProgress(event.progress);
    if (event.document) return event.document;
  }
  throw new Refusal("The server ended its answer before the document came.");
}

function headers(key) {
  const authorization = key() === null ? {} : { Authorization: `Bearer ${key()}` };
  return { "Content-Type": "application/json", ...authorization };
}

async function reach(address, request) {
  let answer;
  try {
    answer = await fetch(address, request);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("The server cannot be reached: is it still running?");
  }
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => null);
  throw new Refusal(said?.error?.message ?? `The server answered ${answer.status}.`, answer.status);
}

// Server-sent events whose data are JSON. Long documents come in many pieces, which are joined once.
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let pieces = [];
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    pieces.push(value.replaceAll("\r", ""));
    if (!value.includes("\n")) continue;
    const blocks = pieces.join("").split("\n\n");
    pieces = [blocks.pop()];
    for (const block of blocks) {
      const data = block.split("\n").filter((line) => line.startsWith("data:"));
      const text = data.map((line) => line.slice(5)).join("\n").trim();
      if (text && text !== "[DONE]") yield JSON.parse(text);
    }
  }
}
