"use strict";

const panes = document.querySelector(".panes");
const state = document.querySelector(".state");

function show(pane) {
  const list = document.querySelector(`.lines[data-platform="${pane.platform}"]`);
  if (list.children.length === pane.lines.length) return;
  list.replaceChildren(...pane.lines.map(({ author, text }) => {
    const item = document.createElement("li");
    item.className = author;
    item.textContent = text;
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

for (const form of document.querySelectorAll("form")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const words = new FormData(form);
    form.elements.text.value = "";
    await fetch(form.action, { method: "POST", body: words, redirect: "manual" });
    await look();
  });
}

for (const list of document.querySelectorAll(".lines")) list.scrollTop = list.scrollHeight;
keepLooking();
