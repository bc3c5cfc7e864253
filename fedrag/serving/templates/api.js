// Asks the service. A token, where it wants one, is kept for this tab alone.
const KEY = "fedrag-token";
const tokenForm = document.getElementById("token");
const problem = document.getElementById("problem");

/** The sentences of the page's language that its scripts show. */
export const words = JSON.parse(document.getElementById("words").textContent);

/** Return a sentence with its placeholders filled. */
export function fill(text, values) {
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

/** Send a request; return the JSON answer, or throw an Error with one sentence. */
export async function call(path, body) {
  return (await send(path, body)).json();
}

/** Send a request for a stream; yield its events. */
export async function* events(path, body) {
  const reader = (await send(path, body)).body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const {value, done} = await reader.read().catch(gone);
    if (done) {
      throw new Error(words.broke_off);
    }
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: /, "");
      if (data === "[DONE]") {
        return;
      }
      yield JSON.parse(data);
    }
  }
}

async function send(path, body) {
  const headers = {};
  const token = sessionStorage.getItem(KEY);
  if (token) {
    headers.Authorization = `Bearer ${token}`;
  }
  if (body !== undefined) {
    headers["Content-Type"] = "application/json";
  }
  const method = body === undefined ? "GET" : "POST";
  const response = await fetch(path, {method, headers, body: JSON.stringify(body)}).catch(gone);
  if (response.status === 401) {
    tokenForm.hidden = false;
    tokenForm.querySelector("input").focus();
    throw new Error(token ? words.no_token : "");
  }
  if (!response.ok) {
    throw new Error(words[`refused_${response.status}`] ?? fill(words.refused, {status: response.status}));
  }
  return response;
}

function gone() {
  throw new Error(words.gone);
}

/** Show what went wrong, or nothing. */
export function complain(error) {
  problem.textContent = error ? error.message : "";
  problem.hidden = !problem.textContent;
}

/** Call a function now, and again each time a token is given. */
export function whenAllowed(load) {
  tokenForm.addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem(KEY, tokenForm.querySelector("input").value.trim());
    tokenForm.hidden = true;
    attempt(load);
  });
  attempt(load);
}

/** Run an async function; show its error. */
export async function attempt(action) {
  complain(null);
  try {
    await action();
  } catch (error) {
    complain(error);
  }
}

/** Let a text field be as high as its text. */
export function grow(field) {
  const fit = () => {
    field.style.height = "auto";
    field.style.height = `${field.scrollHeight + field.offsetHeight - field.clientHeight}px`;
  };
  field.addEventListener("input", fit);
  if (field.value) {
    fit();
  }
}
