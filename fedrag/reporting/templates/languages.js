// Shows the language that the browser prefers, and the one that its reader chooses.
const choices = [...document.querySelectorAll('input[name="language"]')];
const show = (choice) => {
  choice.checked = true;
  document.documentElement.lang = choice.value;
  document.title = document.querySelector(`main > [lang="${choice.value}"]`).dataset.title;
};
const wanted = navigator.languages.map((tag) => tag.toLowerCase().split("-")[0]);
show(wanted.map((code) => choices.find((choice) => choice.value === code)).find(Boolean) ?? choices[0]);
choices.forEach((choice) => choice.addEventListener("change", () => show(choice)));
