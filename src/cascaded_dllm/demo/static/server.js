// Requests to the server.

export async function facts() {
  return (await answered(fetch("/cascade"))).json();
}

// What a promise of the network gives. Browsers tell of a lost connection in words of their own, as a TypeError.
async function answered(promise) {
  try {
    return await promise;
  } catch (error) {
    throw error instanceof TypeError ? new Error("the server does not answer; is cdllm demo still running?") : error;
  }
}

// The number of tokens that count in an edited text of a stage.
export async function numTokens(text, stage) {
  return (await (await post("/tokens", { text, stage })).json()).tokens;
}

// The lines of JSON that the server sends while it writes a text, as they come.
export async function* lines(asked, signal) {
  const answer = await post("/write", asked, signal);
  const reader = answer.body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value } = await answered(reader.read());
    if (done) return;
    const parts = (rest + decoder.decode(value, { stream: true })).split("\n");
    rest = parts.pop();
    for (const part of parts) yield JSON.parse(part);
  }
}

async function post(path, value, signal) {
  const answer = await answered(fetch(path, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(value), signal,
  }));
  if (!answer.ok) throw new Error((await answer.json()).error);
  return answer;
}
