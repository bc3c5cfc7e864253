// Replaces each section of the page with the new one that the coordinator's console sends.
"use strict";

const live = document.getElementById("live");
const source = new EventSource("events" + location.search);

function say(state, sentence) {
  live.className = state;
  live.textContent = sentence;
}

function replace(id, html) {
  const section = document.getElementById(id);
  const had = section.contains(document.activeElement) ? document.activeElement : null;
  const open = section.querySelector("details")?.open;
  section.innerHTML = html; // made and escaped by the console itself
  if (open) {
    section.querySelector("details").open = true;
  }
  const same = had && (had.id ? `#${CSS.escape(had.id)}` : `a[href="${CSS.escape(had.getAttribute("href"))}"]`);
  if (same) {
    section.querySelector(same)?.focus();
  }
}

source.addEventListener("message", (event) => {
  Object.entries(JSON.parse(event.data)).forEach(([id, html]) => replace(id, html));
  say("on", "Live");
});
source.addEventListener("error", () => {
  const time = new Date().toLocaleTimeString();
  say("off", `The console has not answered since ${time}; the page shows what it sent last.`);
});
