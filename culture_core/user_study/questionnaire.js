"use strict";
// Asks one rater after another; every answer is kept in localStorage before the next question shows.

const content = JSON.parse(document.getElementById("content").textContent);
const byId = (id) => document.getElementById(id);
const STORE = `culture-user-study:${content.study}`;
const SIGNS = "123456789ABCDEFGHIJKLMNOP";
const screens = ["start", "question", "end"].map(byId);

let language = "en";
let state = null; // {rater, language, position, answers: {number: {answer, seconds}}}, null before signing in
let shown = 0; // when the question came up
let kept = true; // whether the last attempt to save went well

const text = (name, slots = {}) =>
  content.languages[language][name].replace(/\{(\w+)\}/g, (_, slot) => slots[slot]);
const rater = () => content.raters[state.rater];

// ---- keeping answers

function read(key) {
  try {
    return JSON.parse(localStorage.getItem(key));
  } catch {
    return null;
  }
}

function save() {
  try {
    if (state) localStorage.setItem(`${STORE}:${state.rater}`, JSON.stringify(state));
    localStorage.setItem(STORE, JSON.stringify({ rater: state && state.rater, language }));
    kept = true;
  } catch {
    kept = false;
  }
  byId("saved").textContent = text(kept ? "saved" : "not_saved");
  document.querySelector("footer").classList.toggle("alarm", !kept);
}

function signIn(code) {
  if (!Object.hasOwn(content.raters, code)) return false;
  const old = read(`${STORE}:${code}`);
  state = old && old.rater === code && old.answers ? old : { rater: code, position: 0, answers: {} };
  state.language = language;
  save();
  return true;
}

// ---- showing

function show() {
  const page = document.documentElement;
  page.lang = language;
  page.dir = content.languages[language].dir;
  document.title = text("title");
  byId("language-label").textContent = text("language");
  byId("language").value = language;
  for (const element of document.querySelectorAll("[data-text]"))
    element.textContent = text(element.dataset.text);
  for (const element of document.querySelectorAll(".note")) element.textContent = content.note;
  byId("problem").textContent = byId("code-problem").textContent = "";
  const place = !state ? 0 : state.position < rater().questions.length ? 1 : 2;
  screens.forEach((screen, index) => (screen.hidden = index !== place));
  document.querySelector("footer").hidden = !state;
  byId("so-far").hidden = place === 2;
  if (place === 1) showQuestion();
}

function nameOf(task, answer) {
  if (task === "mcc" && answer !== "unrecognisable") return content.languages[language].cultures[answer];
  if (task !== "csr") return text(answer);
  return answer === "1" ? `1 – ${text("least")}` : answer === "5" ? `5 – ${text("most")}` : answer;
}

function capital(name) { // as the style sheet shows an option
  const [first] = name;
  return first.toLocaleUpperCase(language) + name.slice(first.length);
}

function showQuestion() {
  const { questions, options } = rater();
  const number = state.position + 1;
  const [task, picture, asked, check] = questions[state.position];
  const given = state.answers[number];
  const part = Object.keys(content.tasks).indexOf(task) + 1;
  byId("place").textContent = text("place", { part, number, total: questions.length });
  byId("progress").max = questions.length;
  byId("progress").value = Object.keys(state.answers).length;
  byId("picture").src = content.pictures[picture];
  byId("picture").alt = text("picture", { number });
  byId("asked").textContent = check
    ? text("check", { answer: capital(nameOf(task, check)) })
    : text(task, { culture: asked && content.languages[language].cultures[asked] });
  byId("back").hidden = state.position === 0;
  const list = task === "mcc" ? options : content.tasks[task];
  byId("options").className = list.length > 6 ? "many" : "";
  byId("options").replaceChildren(...list.map((answer, index) => {
    const input = Object.assign(document.createElement("input"), { type: "radio", name: "answer", value: answer });
    input.checked = Boolean(given) && given.answer === answer;
    input.addEventListener("change", () => choose(answer));
    const name = Object.assign(document.createElement("span"), { className: "answer", textContent: nameOf(task, answer) });
    const sign = Object.assign(document.createElement("kbd"), { textContent: SIGNS[index] });
    sign.setAttribute("aria-hidden", "true");
    const label = document.createElement("label");
    label.append(input, name, sign);
    return label;
  }));
}

// ---- answering

function choose(answer) {
  const seconds = Math.round(performance.now() - shown) / 1000;
  state.answers[state.position + 1] = { answer, seconds };
  byId("problem").textContent = "";
  byId("progress").value = Object.keys(state.answers).length;
  save();
}

function go(step) {
  state.position += step;
  save();
  show();
  shown = performance.now();
  window.scrollTo(0, 0);
  // Readers of screens hear the new question, and keys work at once.
  byId(state.position < rater().questions.length ? "asked" : "done").focus({ preventScroll: true });
}

function signOf(event) {
  if (/^[a-z0-9]$/i.test(event.key)) return event.key.toUpperCase();
  // Keyboards of other scripts, and those that need Shift for digits: the place of the key.
  const place = /^(?:Key|Digit|Numpad)([A-Z0-9])$/.exec(event.code);
  return place ? place[1] : "";
}

byId("main").addEventListener("keydown", (event) => {
  if (byId("question").hidden || event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key === "Enter" && event.target.tagName !== "BUTTON") {
    event.preventDefault();
    byId("question").requestSubmit();
    return;
  }
  const sign = signOf(event);
  const input = sign && byId("options").querySelectorAll("input")[SIGNS.indexOf(sign)];
  if (!input) return;
  event.preventDefault();
  input.focus();
  input.checked = true;
  choose(input.value);
});

byId("question").addEventListener("submit", (event) => {
  event.preventDefault();
  if (state.answers[state.position + 1]) return go(1);
  byId("problem").textContent = text("choose");
  byId("options").querySelector("input").focus();
});
byId("back").addEventListener("click", () => go(-1));
byId("again").addEventListener("click", () => go(-1));

byId("start").addEventListener("submit", (event) => {
  event.preventDefault();
  if (signIn(byId("code").value.trim().toUpperCase())) go(0);
  else byId("code-problem").textContent = text("wrong_code");
});

byId("other").addEventListener("click", () => {
  state = null;
  save();
  byId("code").value = "";
  show();
  byId("code").focus();
});

byId("language").addEventListener("change", (event) => {
  language = event.target.value;
  if (state) state.language = language;
  save();
  show();
});

// ---- handing over

function rows() {
  return Object.keys(state.answers).map(Number).sort((a, b) => a - b).map((number) => {
    const [task, picture, asked] = rater().questions[number - 1];
    return { number, task, picture, asked, ...state.answers[number] };
  });
}

function download(name, type, body) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([body], { type }));
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

function downloadJson() {
  const { format, version, study } = content;
  const complete = rows().length === rater().questions.length;
  const record = { format, version, study, rater: state.rater, language: state.language, complete, answers: rows() };
  download(`answers-${state.rater}.json`, "application/json", JSON.stringify(record, null, 1));
}

byId("json").addEventListener("click", downloadJson);
byId("so-far").addEventListener("click", downloadJson);
byId("csv").addEventListener("click", () => {
  const same = { study: content.study, rater: state.rater, language: state.language };
  const lines = rows().map((row) => content.columns.map((name) => ({ ...same, ...row })[name] ?? "").join(","));
  download(`answers-${state.rater}.csv`, "text/csv", [content.columns.join(","), ...lines, ""].join("\r\n"));
});

// Another tab may have gone on with the same rater: what it saved counts.
window.addEventListener("storage", (event) => {
  if (!state || event.key !== `${STORE}:${state.rater}` || !event.newValue) return;
  state = JSON.parse(event.newValue);
  show();
});
window.addEventListener("beforeunload", (event) => {
  if (!kept && state && Object.keys(state.answers).length) event.preventDefault();
});

// ---- beginning, or going on after a reload

const before = read(STORE) || {};
const wished = [before.language, ...navigator.languages.map((tag) => tag.slice(0, 2).toLowerCase())];
language = wished.find((code) => code && Object.hasOwn(content.languages, code)) || "en";
for (const [code, { autonym }] of Object.entries(content.languages)) {
  const option = Object.assign(new Option(autonym, code), { lang: code });
  byId("language").add(option);
}
const invited = location.hash.slice(1).toUpperCase();
byId("code").value = invited;
if (before.rater && (!invited || invited === before.rater)) signIn(before.rater);
show();
shown = performance.now();
