// Asks the console to change things. The token stays in this tab, and goes out in a header alone.
"use strict";

const KEY = "fedrag-console-token";
const told = document.getElementById("told");
const question = document.getElementById("question");

function tell(sentence, good) {
  told.textContent = sentence;
  told.className = good ? "good" : "bad";
  told.hidden = false;
}

function show() {
  document.body.classList.toggle("unlocked", sessionStorage.getItem(KEY) !== null);
}

function lock() {
  sessionStorage.removeItem(KEY);
  show();
}

async function ask(path, fields) {
  const headers = { "Authorization": `Bearer ${sessionStorage.getItem(KEY)}`, "Content-Type": "application/json" };
  const answer = await fetch(`acts/${path}`, { method: "POST", headers, body: JSON.stringify(fields) });
  if (answer.ok) {
    return answer.status === 204 ? {} : answer.json();
  }
  if (answer.status === 401) {
    lock();
  }
  throw new Error(await answer.text());
}

/** Show a question; give what confirms it, or null. */
function confirmed(asked, answer) {
  const typed = document.getElementById("typed");
  const sentence = document.getElementById("sentence");
  const confirm = document.getElementById("confirm");
  sentence.textContent = asked.sentence;
  document.getElementById("detail").innerHTML = asked.html; // made and escaped by the console itself
  confirm.textContent = asked.button;
  confirm.hidden = !asked.button;
  document.getElementById("cancel").textContent = asked.button ? "Cancel" : "Close";
  document.getElementById("to-type").hidden = !asked.typed;
  document.getElementById("word").textContent = asked.typed;
  typed.required = Boolean(asked.typed);
  typed.value = "";
  question.returnValue = "";
  question.showModal();
  (asked.typed ? typed : sentence).focus(); // so that a key pressed too often confirms nothing
  return new Promise((resolve) => {
    question.addEventListener("close", () => {
      resolve(question.returnValue === "confirm" ? answer || typed.value.trim() : null);
    }, { once: true });
  });
}

async function act(name, fields) {
  told.hidden = true;
  document.body.classList.add("busy");
  try {
    let reply = await ask(name, fields);
    while (reply.question) {
      const confirm = await confirmed(reply.question, reply.confirm);
      if (confirm === null) {
        return false;
      }
      reply = await ask(name, { ...fields, confirm });
    }
    tell(`${reply.done}.`, true);
    return true;
  } catch (error) {
    tell(error.message, false);
    return false;
  } finally {
    document.body.classList.remove("busy");
  }
}

document.getElementById("unlock").addEventListener("submit", async (event) => {
  event.preventDefault();
  const field = document.getElementById("token");
  sessionStorage.setItem(KEY, field.value.trim());
  field.value = "";
  try {
    await ask("unlock", {});
    told.hidden = true;
    show();
  } catch (error) {
    lock();
    tell(error.message, false);
  }
});
document.getElementById("lock").addEventListener("click", lock);
document.getElementById("file").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  if (file) {
    document.getElementById("text").value = await file.text();
    document.getElementById("scenario").value = "";
  }
});
document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-act]");
  if (button) {
    const { act: name, ...fields } = button.dataset;
    act(name, fields);
  }
});
for (const name of ["start", "add-site"]) {
  document.getElementById(name).addEventListener("submit", async (event) => {
    event.preventDefault();
    const form = event.target;
    if (await act(name, Object.fromEntries(new FormData(form)))) {
      form.reset();
    }
  });
}
show();
