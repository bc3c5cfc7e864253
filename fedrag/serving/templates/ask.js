// Asks a question, shows the answer with its passages, and keeps what a person says about it.
import {attempt, call, grow, whenAllowed} from "./api.js";

const MOST = 10; // passages that are looked for when somebody asks for more
const BEFORE = 160; // characters before the answer in a long passage

const at = (id) => document.getElementById(id);
let shown = null; // {question, answer, passages}

whenAllowed(async () => {
  const models = (await call("v1/models")).data;
  at("site").textContent = models[0].owned_by;
  at("run").textContent = models.at(-1).id === "untouched" ? ", by models that nobody has trained yet" : `, by the models of ${models.at(-1).id}`;
  document.title = `Ask ${models[0].owned_by}`;
});
grow(at("question"));
grow(at("right-answer"));

at("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    at("ask").requestSubmit();
  }
});

// The question stands above its answer once another one is being typed.
at("question").addEventListener("input", () => {
  at("asked").hidden = at("question").value.trim() === shown?.question;
});

at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(ask);
});

async function ask() {
  const question = at("question").value.trim();
  const button = at("ask").querySelector("button");
  button.disabled = true;
  at("waiting").hidden = false;
  at("reply").hidden = true;
  try {
    const messages = [{role: "user", content: question}];
    const reply = await call("v1/chat/completions", {model: "fedrag", messages});
    const choice = reply.choices[0];
    shown = {question, answer: choice.message.content, passages: reply.fedrag.passages};
    show(reply.fedrag.unread_tokens, choice.finish_reason === "length");
  } finally {
    button.disabled = false;
    at("waiting").hidden = true;
  }
}

function show(unread, isCut) {
  at("asked").textContent = shown.question;
  at("asked").hidden = at("question").value.trim() === shown.question;
  at("answer").textContent = shown.answer || "No answer";
  at("answer").classList.toggle("none", !shown.answer);
  const limits = [];
  if (unread) {
    limits.push("The question is too long: its end was not read.");
  }
  if (isCut) {
    limits.push("The answer was cut: it is longer than these models may write.");
  }
  at("limits").textContent = limits.join(" ");
  at("limits").hidden = !limits.length;
  begin();
  at("passages").replaceChildren();
  at("found-heading").hidden = at("more").hidden = !shown.passages.length;
  at("reply").hidden = false;
  shown.passages.forEach(add);
}

/** Make the feedback fresh. */
function begin() {
  for (const name of ["right", "wrong"]) {
    at(name).setAttribute("aria-pressed", "false");
    at(name).disabled = false;
  }
  at("correction").hidden = at("kept").hidden = true;
  at("right-answer").value = "";
  at("right-answer").style.height = "";
}

function add(passage) {
  const item = at("passage").content.cloneNode(true).firstElementChild;
  item.dataset.id = passage.id;
  item.querySelector(".title").textContent = passage.title ?? "";
  item.querySelector(".source").textContent = passage.source || (passage.title ? "" : passage.id);
  item.querySelector(".unread").hidden = passage.is_given !== false;
  const text = item.querySelector(".text");
  at("passages").append(item);
  text.replaceChildren(...marked(excerpt(passage.text)));
  const whole = item.querySelector(".whole");
  whole.hidden = excerpt(passage.text) === passage.text && text.scrollHeight <= text.clientHeight + 1;
  whole.addEventListener("click", () => {
    text.replaceChildren(...marked(passage.text));
    text.classList.add("open");
    whole.hidden = true;
  });
}

/** Return a long text from shortly before the answer on. */
function excerpt(text) {
  const place = placeOf(text);
  if (place <= 2 * BEFORE) {
    return text;
  }
  const start = text.indexOf(" ", place - BEFORE);
  return `… ${text.slice(start < 0 || start > place ? place : start + 1)}`;
}

/** Return the nodes of a text, the answer in it marked. */
function marked(text) {
  const place = placeOf(text);
  if (place < 0) {
    return [text];
  }
  const mark = document.createElement("mark");
  mark.textContent = text.slice(place, place + shown.answer.length);
  return [text.slice(0, place), mark, text.slice(place + shown.answer.length)];
}

function placeOf(text) {
  return shown.answer ? text.toLowerCase().indexOf(shown.answer.toLowerCase()) : -1;
}

at("more").addEventListener("click", () =>
  attempt(async () => {
    const found = (await call("search", {query: shown.question, passages: MOST})).passages;
    const known = new Set(shown.passages.map((passage) => passage.id));
    const others = found.filter((passage) => !known.has(passage.id));
    others.forEach((passage) => add({...passage, is_given: false}));
    shown.passages.push(...others);
    at("more").hidden = true;
  }),
);

at("right").addEventListener("click", () => attempt(() => keep("right", "")));
at("wrong").addEventListener("click", () => {
  at("wrong").setAttribute("aria-pressed", "true");
  at("correction").hidden = false;
  at("right-answer").focus();
});
at("correction").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(() => keep("wrong", at("right-answer").value.trim()));
});

async function keep(verdict, correction) {
  const ticked = [...at("passages").children].filter((item) => item.querySelector("input").checked);
  await call("feedback", {
    question: shown.question,
    answer: shown.answer,
    shown: shown.passages.map((passage) => passage.id),
    verdict,
    correction,
    right_ids: ticked.map((item) => item.dataset.id),
  });
  at(verdict).setAttribute("aria-pressed", "true");
  at("right").disabled = at("wrong").disabled = true;
  at("correction").hidden = true;
  at("kept").textContent = "Kept at this site, without your name. Thank you.";
  at("kept").hidden = false;
}
