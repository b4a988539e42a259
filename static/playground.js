"use strict";

// Asks for the page twice a second and puts in what has changed, part by part; sends its forms without leaving it.
const state = document.querySelector("#state");
const pause = document.querySelector("#pause");
let caption = document.querySelector("#caption");
let playing = caption.dataset.playing === "yes";
let shownAt = Date.now();
let sending = false;
let saidAt = 0;
let sent = Promise.resolve(); // of the form before: what is typed quickly arrives in its order

function say(words) {
  state.textContent = words;
  saidAt = Date.now();
}

function patchList(list, fresh) {
  const isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  const wanted = [...fresh.children];
  wanted.forEach((item, place) => {
    const old = list.children[place];
    if (!old) list.append(item);
    else if (old.outerHTML !== item.outerHTML) old.replaceWith(item);
  });
  while (list.children.length > wanted.length) list.lastElementChild.remove();
  if (isAtEnd) list.scrollTop = list.scrollHeight;
}

function patch(fresh) {
  for (const part of document.querySelectorAll("[data-part]")) {
    const other = fresh.getElementById(part.id);
    if (part === state && Date.now() < saidAt + 4000) continue;
    if (part.dataset.part === "lines") patchList(part, other);
    else if (part.innerHTML !== other.innerHTML) part.innerHTML = other.innerHTML;
  }
  const told = fresh.querySelector("#caption").dataset;
  if (told.told !== caption.dataset.told) shownAt = Date.now();
  Object.assign(caption.dataset, { told: told.told, platform: told.platform, seconds: told.seconds, over: told.over });
  document.querySelector("progress").value = told.told;
}

async function look() {
  try {
    const answer = await fetch(location.href, { cache: "no-store", redirect: "error" });
    if (!answer.ok) throw new Error(answer.status);
    patch(new DOMParser().parseFromString(await answer.text(), "text/html"));
  } catch {
    say(state.dataset.offline);
  }
}

function showControls() {
  const { told, over, platform } = caption.dataset;
  const isRunning = told !== "0" && !over;
  document.querySelector("#begin").hidden = isRunning;
  document.querySelector("#next").hidden = !isRunning;
  pause.hidden = !isRunning;
  pause.textContent = playing ? pause.dataset.pause : pause.dataset.play;
  for (const pane of document.querySelectorAll(".pane")) pane.classList.toggle("now", isRunning && pane.id === platform);
}

async function send(form, submitter) {
  const words = new FormData(form, submitter);
  if (form.elements.text) form.elements.text.value = "";
  sending = true;
  const post = () => fetch(form.action, { method: "POST", body: words, redirect: "manual" });
  sent = sent.then(post, post);
  const answer = await sent;
  sending = false;
  if (answer.status >= 400) say(await answer.text());
}

async function goOn() {
  const isRead = Date.now() - shownAt > 1000 * Number(caption.dataset.seconds);
  if (!playing || sending || caption.dataset.told === "0" || caption.dataset.over || !isRead) return;
  await send(document.querySelector("#story"), document.querySelector("#next"));
}

async function keepLooking() {
  await look();
  showControls();
  await goOn().catch(() => { sending = false; });
  setTimeout(keepLooking, 500);
}

document.addEventListener("submit", async (event) => {
  const isLeaving = event.submitter?.id === "begin" || event.target.action.endsWith("/start-over/");
  if (isLeaving) return;
  event.preventDefault();
  await send(event.target, event.submitter).catch(() => { sending = false; });
  await look();
  showControls();
});

document.addEventListener("click", async ({ target }) => {
  if (target === pause) {
    playing = !playing;
    showControls();
  } else if (target.dataset.copy) {
    await navigator.clipboard.writeText(target.dataset.copy);
    say(`${state.dataset.copied} ${target.dataset.copy}`);
  }
});

for (const list of document.querySelectorAll(".lines")) list.scrollTop = list.scrollHeight;
showControls();
keepLooking();
