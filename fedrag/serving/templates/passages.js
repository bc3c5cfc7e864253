// Shows a passage with the answer marked in it.
const BEFORE = 160; // characters before the answer in a long passage

/**
 * Return a copy of a page's template of a passage, filled.
 *
 * Put it into the page, then call `fold` on it: only there its height is known.
 */
export function passageItem(template, passage, answer) {
  const item = template.content.cloneNode(true).firstElementChild;
  item.dataset.id = passage.id;
  item.querySelector(".title").textContent = passage.title ?? "";
  item.querySelector(".source").textContent = passage.source || (passage.title ? "" : passage.id);
  item.querySelector(".text").replaceChildren(...marked(excerpt(passage.text, answer), answer));
  return item;
}

/** Offer the whole passage where a part of it is seen. */
export function fold(item, passage, answer) {
  const text = item.querySelector(".text");
  const whole = item.querySelector(".whole");
  whole.hidden = excerpt(passage.text, answer) === passage.text && text.scrollHeight <= text.clientHeight + 1;
  whole.addEventListener("click", () => {
    text.replaceChildren(...marked(passage.text, answer));
    text.classList.add("open");
    whole.hidden = true;
  });
}

/** Return a long text from shortly before the answer on. */
function excerpt(text, answer) {
  const place = placeOf(text, answer);
  if (place <= 2 * BEFORE) {
    return text;
  }
  const start = text.indexOf(" ", place - BEFORE);
  return `… ${text.slice(start < 0 || start > place ? place : start + 1)}`;
}

/** Return the nodes of a text, the answer in it marked. */
function marked(text, answer) {
  const place = placeOf(text, answer);
  if (place < 0) {
    return [text];
  }
  const mark = document.createElement("mark");
  mark.textContent = text.slice(place, place + answer.length);
  return [text.slice(0, place), mark, text.slice(place + answer.length)];
}

function placeOf(text, answer) {
  return answer ? text.toLowerCase().indexOf(answer.toLowerCase()) : -1;
}
