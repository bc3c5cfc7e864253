// Asks a question, shows the answer with its passages, and keeps what a person says about it.
import {attempt, call, events, fill, grow, whenAllowed, words} from "./api.js";
import {fold, passageItem} from "./passages.js";

const MOST = 10; // passages that are looked for when somebody asks for more

const at = (id) => document.getElementById(id);
let shown = null; // {question, answer, passages}

whenAllowed(async () => {
  const models = (await call("v1/models")).data;
  const [site, run] = [models[0].owned_by, models.at(-1).id];
  at("site").textContent = site;
  at("run").textContent = run === "untouched" ? words.by_untrained : fill(words.by_models, {run});
  document.title = fill(words.title, {site});
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
  shown = {question, answer: "", passages: []};
  begin();
  try {
    const messages = [{role: "user", content: question}];
    for await (const chunk of events("v1/chat/completions", {model: "fedrag", messages, stream: true})) {
      const [choice] = chunk.choices;
      if (choice.delta.content) {
        shown.answer += choice.delta.content;
        write(shown.answer);
      }
      if (chunk.fedrag) {
        show(chunk.fedrag, choice.finish_reason === "length");
      }
    }
  } finally {
    button.disabled = false;
    at("waiting").hidden = true;
  }
}

function write(answer) {
  at("waiting").hidden = true;
  at("answer").textContent = answer;
  at("reply").hidden = false;
}

function show(told, isCut) {
  shown.passages = told.passages;
  write(shown.answer || words.no_answer);
  at("answer").classList.toggle("none", !shown.answer);
  const limits = [];
  if (told.unread_tokens) {
    limits.push(words.too_long);
  }
  if (isCut) {
    limits.push(words.is_cut);
  }
  at("limits").textContent = limits.join(words.space);
  at("limits").hidden = !limits.length;
  at("read").hidden = false;
  at("found").hidden = !shown.passages.length;
  shown.passages.forEach(add);
}

/** Make the page ready for another answer. */
function begin() {
  at("asked").textContent = shown.question;
  at("asked").hidden = true;
  at("answer").classList.remove("none");
  at("read").hidden = at("limits").hidden = true;
  at("passages").replaceChildren();
  at("more").hidden = false;
  for (const name of ["right", "wrong"]) {
    at(name).setAttribute("aria-pressed", "false");
    at(name).disabled = false;
  }
  at("correction").hidden = at("kept").hidden = true;
  at("right-answer").value = "";
  at("right-answer").style.height = "";
}

function add(passage) {
  const item = passageItem(at("passage"), passage, shown.answer);
  item.querySelector(".unread").hidden = passage.is_given !== false;
  at("passages").append(item);
  fold(item, passage, shown.answer);
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
  at("kept").textContent = words.kept;
  at("kept").hidden = false;
}
