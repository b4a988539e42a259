// Keeps a part of the page up to date: a socket tells that something changed; without one, the page asks every two seconds.
import { follow, oneAtATime } from "./follow.js";

const page = document.querySelector("[data-live]");
const how = document.querySelector("#live-state");

function part() { return document.querySelector("#now"); }
function say(words) { if (how.textContent !== words) how.textContent = words; }

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

const look = oneAtATime(lookOnce);
function lookQuietly() { return look().catch(() => {}); }

async function poll() {
  if (line.isOpen()) return;
  try {
    await look();
    say(how.dataset.polling);
  } catch {
    say(how.dataset.offline);
  }
}

function countdown() {
  for (const left of document.querySelectorAll("[data-until]")) {
    const seconds = Math.max(0, Math.round((Date.parse(left.dataset.until) - Date.now()) / 1000));
    left.textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
    if (!seconds && !left.dataset.over) { left.dataset.over = "yes"; setTimeout(lookQuietly, 1500); }
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

ready();
const line = follow({
  after: Number(page.dataset.after),
  opened() { say(how.dataset.live); lookQuietly(); },
  changed: lookQuietly,
  closed: lookQuietly,
  isWanted: () => part().dataset.socket,
});
setInterval(poll, 2000);
setInterval(countdown, 1000);
