// Asks the service. A token, where it wants one, is kept for this tab alone.
const KEY = "fedrag-token";
const tokenForm = document.getElementById("token");
const problem = document.getElementById("problem");

/** Send a request; return the JSON answer, or throw an Error with one sentence. */
export async function call(path, body) {
  const headers = {};
  const token = sessionStorage.getItem(KEY);
  if (token) {
    headers.Authorization = `Bearer ${token}`;
  }
  if (body !== undefined) {
    headers["Content-Type"] = "application/json";
  }
  let response;
  try {
    response = await fetch(path, {method: body === undefined ? "GET" : "POST", headers, body: JSON.stringify(body)});
  } catch {
    throw new Error("The service does not answer. Has it been stopped?");
  }
  const answer = await response.json();
  if (response.status === 401) {
    tokenForm.hidden = false;
    tokenForm.querySelector("input").focus();
    throw new Error(token ? "This is not the token." : "");
  }
  if (!response.ok) {
    throw new Error(sentence(answer.error.message));
  }
  return answer;
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
}

function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}
