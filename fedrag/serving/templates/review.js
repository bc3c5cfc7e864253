// Shows what people said about answers, and writes down what a reviewer decides, each decision at once.
import {attempt, call, fill, grow, whenAllowed, words} from "./api.js";
import {fold, passageItem} from "./passages.js";

const MOST = 5; // passages that a search brings

const at = (id) => document.getElementById(id);

whenAllowed(load);
at("all").addEventListener("change", () => attempt(load));
at("next").addEventListener("click", () => attempt(load));

async function load() {
  const listed = await call(`review/rows${at("all").checked ? "?all=1" : ""}`);
  at("site").textContent = listed.site;
  document.title = fill(words.title, {site: listed.site});
  at("counts").textContent = listed.counts && fill(words.counts, {counts: listed.counts});
  at("nothing").hidden = listed.rows.length > 0;
  at("next").hidden = listed.waiting <= listed.rows.length;
  at("rows").replaceChildren();
  listed.rows.forEach(add);
}

function add(row) {
  const article = at("row").content.cloneNode(true).firstElementChild;
  const part = (name) => article.querySelector(name);
  part(".question").textContent = row.question;
  part(".label").textContent = fill(words[`answered_${row.verdict}`], {date: dateOf(row.day)});
  part(".given").textContent = row.answer || words.no_answer;
  part(".given").classList.add(row.verdict);
  const field = part("textarea");
  field.id = `answer-${row.id}`;
  part(".right-answer").htmlFor = field.id;
  field.value = row.right_answer;
  at("rows").append(article);
  grow(field);
  row.passages.forEach((passage) => addPassage(article, passage, row.right_answer));
  part("h3").hidden = !row.passages.length;

  part(".search").addEventListener("submit", (event) => {
    event.preventDefault();
    told(article, () => find(article, part(".search input").value.trim(), field.value.trim()));
  });
  part(".accept").addEventListener("click", () => told(article, () => accept(article, row)));
  part(".drop").addEventListener("click", () => told(article, () => decide(article, row, {state: "dropped"})));
  part(".undo").addEventListener("click", () => told(article, () => decide(article, row, {state: "new"})));
  if (row.state !== "new") {
    close(article, row.state);
  }
}

function dateOf(iso) {
  const [year, month, day] = iso.split("-");
  return fill(words.date, {year, month, day, short_month: Number(month), short_day: Number(day)});
}

function addPassage(article, passage, answer) {
  const item = passageItem(at("passage"), passage, answer);
  item.querySelector("input").checked = Boolean(passage.is_right);
  item.querySelector(".hint").textContent = passage.holds_answer ? words.stands_in_it : "";
  item.querySelector(".blame").hidden = !passage.is_wrong;
  article.querySelector(".passages").append(item);
  fold(item, passage, answer);
}

async function find(article, words, answer) {
  if (!words) {
    return;
  }
  const found = (await call("search", {query: words, passages: MOST})).passages;
  const known = new Set([...article.querySelectorAll("li")].map((item) => item.dataset.id));
  const others = found.filter((passage) => !known.has(passage.id));
  others.forEach((passage) => addPassage(article, passage, answer));
  if (!others.length) {
    throw new Error(words.none_found);
  }
}

/** Take a row as it stands on the page; what differs from what came is an edit. */
async function accept(article, row) {
  const answer = article.querySelector("textarea").value.trim();
  const ticked = [...article.querySelectorAll("li")].filter((item) => item.querySelector("input").checked);
  const picked = ticked.map((item) => item.dataset.id);
  const before = row.passages.filter((passage) => passage.is_right).map((passage) => passage.id);
  const isSame = answer === row.right_answer && picked.join("\n") === before.join("\n");
  await decide(article, row, isSame ? {state: "accepted"} : {state: "edited", correction: answer, right_ids: picked});
}

async function decide(article, row, decision) {
  const decided = await call(`review/rows/${row.id}`, decision);
  row.state = decided.state;
  at("counts").textContent = fill(words.counts, {counts: decided.counts});
  if (row.state === "new") {
    article.classList.remove("done");
    article.querySelector(".outcome").hidden = true;
    article.querySelector("textarea").focus();
  } else {
    close(article, row.state);
    article.querySelector(".undo").focus();
  }
}

function close(article, state) {
  article.classList.add("done");
  article.querySelector(".decided").textContent = words[`is_${state}`];
  article.querySelector(".outcome").hidden = false;
}

/** Do something; show its error beside the row that it is about. */
async function told(article, action) {
  const complaint = article.querySelector(".complaint");
  complaint.hidden = true;
  try {
    await action();
  } catch (error) {
    complaint.textContent = error.message;
    complaint.hidden = false;
  }
}
