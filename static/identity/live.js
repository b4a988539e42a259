"use strict";

const status = document.querySelector("[data-status]");
const offline = document.querySelector("#offline");

async function look() {
  try {
    const answer = await fetch(status.dataset.status, { redirect: "error", cache: "no-store" });
    if (!answer.ok) throw new Error(answer.status);
    const now = await answer.json();
    offline.hidden = true;
    if (now.version !== status.dataset.version) return location.reload();
    if (status.textContent !== now.text) status.textContent = now.text;
  } catch {
    offline.hidden = false;
  }
  setTimeout(look, 2000);
}

function copyWith(button) {
  const source = document.getElementById(button.dataset.copy);
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(source.value ?? source.textContent);
    button.classList.add("copied");
    const label = button.textContent;
    button.textContent = "✓";
    setTimeout(() => { button.textContent = label; }, 1500);
  });
}

document.querySelectorAll("[data-copy]").forEach(copyWith);
if (status.dataset.live === "yes") setTimeout(look, 2000);
