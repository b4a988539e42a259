"use strict";

// A part of the page that follows what happens: told over a socket that something changed, else asking every two seconds.
const page = document.querySelector("[data-live]");
const how = document.querySelector("#live-state");
const known = new Map(); // event id -> when it came
let settled = Number(page.dataset.after);
let socket = null;
let pause = 1000;
let looking = null;
let lookAgain = false;

function part() { return document.querySelector("#now"); }

function look() {
  lookAgain = true; // also when one is under way: it may have looked too early
  looking = looking || (async () => {
    try {
      while (lookAgain) { lookAgain = false; await lookOnce(); }
    } finally { looking = null; }
  })();
  return looking;
}

async function lookOnce() {
  const answer = await fetch(page.dataset.now, { cache: "no-store", redirect: "error" });
  if (!answer.ok) throw new Error(answer.status);
  const parsed = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = parsed.querySelector("#now");
  if (fresh && fresh.dataset.version !== part().dataset.version) {
    part().replaceWith(document.adoptNode(fresh));
    ready();
    part().focus({ preventScroll: true });
  }
}

function wait(milliseconds) { return new Promise((done) => { setTimeout(done, milliseconds); }); }
function say(words) { if (how.textContent !== words) how.textContent = words; }

async function poll() {
  if (socket && socket.readyState === WebSocket.OPEN) return;
  try {
    await look();
    say(how.dataset.polling);
  } catch {
    say(how.dataset.offline);
  }
}

function connect() {
  if (!part().dataset.socket) return setTimeout(connect, 1000);
  const address = new URL("/live/", location.href);
  address.protocol = address.protocol.replace("http", "ws");
  socket = new WebSocket(address);
  socket.addEventListener("open", () => {
    pause = 1000;
    socket.send(JSON.stringify({ after: settled }));
    say(how.dataset.live);
    look().catch(() => {});
  });
  socket.addEventListener("message", ({ data }) => {
    const event = JSON.parse(data);
    if (!event.id || known.has(event.id)) return;
    known.set(event.id, Date.now());
    for (const [id, at] of known) {
      if (at < Date.now() - 10000) { settled = Math.max(settled, id); known.delete(id); }
    }
    look().catch(() => {});
  });
  socket.addEventListener("close", async () => {
    socket = null;
    await Promise.race([look().catch(() => {}), wait(5000)]); // perhaps this browser was signed out, and hears no more
    setTimeout(connect, pause);
    pause = Math.min(pause * 2, 30000);
  });
}

function countdown() {
  for (const left of document.querySelectorAll("[data-until]")) {
    const seconds = Math.max(0, Math.round((Date.parse(left.dataset.until) - Date.now()) / 1000));
    left.textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
    if (!seconds && !left.dataset.over) { left.dataset.over = "yes"; setTimeout(() => look().catch(() => {}), 1500); }
  }
}

function ready() {
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.hidden = !navigator.clipboard;
    button.onclick = async () => {
      await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent.trim());
      button.textContent = button.dataset.done;
    };
  }
  countdown();
}

let touched = 0;
function here() {
  if (Date.now() - touched < 60000 || !socket || socket.readyState !== WebSocket.OPEN) return;
  touched = Date.now();
  socket.send(JSON.stringify({ here: true }));
}
for (const sign of ["keydown", "pointerdown"]) document.addEventListener(sign, here, { passive: true });

ready();
connect();
setInterval(poll, 2000);
setInterval(countdown, 1000);
