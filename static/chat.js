// The chat: a socket tells that there is something new; without one, the page asks every two seconds.
import { follow, oneAtATime, wait } from "./follow.js";

const page = document.querySelector("#chat");
const log = document.querySelector("#log");
const lines = document.querySelector("#lines");
const answering = document.querySelector("#answering");
const how = document.querySelector("#chat-state");
const form = document.querySelector("#say");
const box = form.elements.text;
const stop = document.querySelector("#stop");
const problem = document.querySelector("#problem");

let looked = 0;
let sending = false;
let version = document.querySelector("#now").dataset.version;

function is(words) { if (how.textContent !== how.dataset[words]) how.textContent = how.dataset[words]; }

// --- What there is

async function lookOnce() {
  const answer = await fetch(page.dataset.now, { cache: "no-store", redirect: "error" });
  if (!answer.ok) throw new Error(answer.status);
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("#now");
  looked = Date.now();
  if (!fresh || fresh.dataset.state !== "open") return location.replace(page.dataset.page);
  if (fresh.dataset.version === version) return;
  version = fresh.dataset.version;
  show(fresh);
}

const look = oneAtATime(lookOnce);

function show(fresh) {
  const wasAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 120;
  const words = fresh.dataset.answering ? answering.dataset.words : "";
  if (answering.textContent !== words) answering.textContent = words;
  stop.hidden = !fresh.dataset.answering;
  log.setAttribute("aria-busy", fresh.querySelector("li.draft") ? "true" : "false");
  merge([...fresh.querySelectorAll("#lines > li")]);
  document.querySelector("#nothing").hidden = lines.children.length > 0;
  if (wasAtEnd) log.scrollTop = log.scrollHeight;
}

function merge(wanted) {
  const there = new Map([...lines.children].map((line) => [line.dataset.key, line]));
  let place = lines.firstElementChild;
  for (const line of wanted) {
    const old = there.get(line.dataset.key);
    there.delete(line.dataset.key);
    if (old && (old.innerHTML !== line.innerHTML || old.className !== line.className)) {
      old.className = line.className;
      old.replaceChildren(...line.childNodes);
    }
    if (old && old === place) place = place.nextElementSibling;
    else lines.insertBefore(old || document.adoptNode(line), place);
  }
  for (const gone of there.values()) gone.remove();
}

// --- How it comes

async function poll() {
  if (Date.now() - looked < (line.isOpen() ? 5000 : 1900)) return;
  try {
    await look();
    if (!line.isOpen() && !sending) is("polling");
  } catch {
    lost();
  }
}

function lost() {
  if (!sending) is("offline");
  line.breakOff();
}

is("connecting");
const line = follow({
  after: Number(page.dataset.after),
  opened: () => look().then(() => is("live"), lost),
  changed: () => look().catch(lost),
  closed() {
    if (navigator.onLine && !sending) is("reconnecting");
    return look().catch(lost);
  },
});

// --- What is sent

function anotherKey(form) {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  form.elements.key.value = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

// With the same key until it is known to be stored: sent twice, it is one message.
async function deliver(body) {
  for (;;) {
    try {
      const answer = await fetch(form.action, {
        method: "POST", body, headers: { Accept: "application/json" }, redirect: "error",
      });
      if (answer.status < 500) {
        const said = await answer.json();
        if (said.answer !== "too_often") return said;
      }
    } catch (error) {
      if (error instanceof SyntaxError) throw error; // no answer of ours
      is("unsent");
    }
    await wait(1000);
  }
}

async function send(event) {
  event.preventDefault();
  if (sending || !box.value.trim()) return;
  sending = true;
  problem.textContent = "";
  is("sending");
  const body = new FormData(form);
  box.readOnly = true;
  try {
    const said = await deliver(body);
    problem.textContent = said.words;
    if (said.answer === "sent" || said.answer === "secret") { box.value = ""; anotherKey(form); }
  } catch {
    problem.textContent = how.dataset.failed;
  }
  box.readOnly = false;
  sending = false;
  log.scrollTop = log.scrollHeight;
  look().then(() => is(line.isOpen() ? "live" : "polling"), lost);
  box.focus();
}

async function stopAnswer(event) {
  event.preventDefault();
  const body = new FormData(stop);
  stop.hidden = true;
  box.focus();
  try {
    problem.textContent = (await deliver(body)).words;
    anotherKey(stop);
  } catch {
    problem.textContent = how.dataset.failed;
  }
  look().catch(lost);
}

form.addEventListener("submit", send);
stop.addEventListener("submit", stopAnswer);
box.addEventListener("keydown", (event) => {
  const isEnter = event.key === "Enter" && !event.shiftKey && !event.isComposing;
  if (isEnter && !matchMedia("(pointer: coarse)").matches) { event.preventDefault(); form.requestSubmit(); }
});

// --- While the page is open

window.addEventListener("offline", lost);
window.addEventListener("online", () => { line.connectNow(); look().catch(lost); });
window.addEventListener("pageshow", (event) => { if (event.persisted) { anotherKey(form); anotherKey(stop); look().catch(lost); } });

log.scrollTop = log.scrollHeight;
setInterval(poll, 1000);
