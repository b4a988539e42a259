"use strict";

const panes = document.querySelector(".panes");
const state = document.querySelector(".state");

function made(name, properties) {
  return Object.assign(document.createElement(name), properties);
}

function buttonsOf(pane, line) {
  const form = made("form", { method: "post", action: panes.dataset.press, className: "buttons" });
  const saying = document.querySelector(`#${pane.platform} form.say`);
  for (const name of ["csrfmiddlewaretoken", "as", "platform"]) {
    form.append(made("input", { type: "hidden", name, value: saying.elements[name].value }));
  }
  form.append(made("input", { type: "hidden", name: "message", value: line.id }));
  form.append(...line.buttons.map(({ label, command }) => (
    made("button", { name: "command", value: command, textContent: label })
  )));
  return form;
}

function show(pane) {
  const list = document.querySelector(`.lines[data-platform="${pane.platform}"]`);
  if (list.children.length === pane.lines.length) return;
  list.replaceChildren(...pane.lines.map((line) => {
    const item = made("li", { className: line.author });
    item.append(made("p", { textContent: line.text }));
    if (line.buttons.length) item.append(buttonsOf(pane, line));
    return item;
  }));
  list.scrollTop = list.scrollHeight;
}

async function look() {
  try {
    const answer = await fetch(panes.dataset.chats);
    (await answer.json()).panes.forEach(show);
    state.hidden = true;
  } catch {
    state.hidden = false;
  }
}

async function keepLooking() {
  await look();
  setTimeout(keepLooking, 500);
}

document.addEventListener("submit", async (event) => {
  const form = event.target;
  event.preventDefault();
  const words = new FormData(form);
  if (event.submitter && event.submitter.name) words.set(event.submitter.name, event.submitter.value);
  if (form.elements.text) form.elements.text.value = "";
  await fetch(form.action, { method: "POST", body: words, redirect: "manual" });
  await look();
});

for (const list of document.querySelectorAll(".lines")) list.scrollTop = list.scrollHeight;
keepLooking();
