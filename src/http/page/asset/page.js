// What the pages do beyond what they do without a script: a bar that moves, an upload that shows
// how far it is.
"use strict";

const AGAIN_MS = 3000;
const FIGURES_MS = 1500;

// Says something to those who cannot see it change.
function say(text) {
  const place = document.getElementById("say");
  if (place && place.textContent !== text) place.textContent = text;
}

// Puts the page as it is now in place of the page as it was; who was in a field stays there.
async function refresh() {
  const held = document.activeElement && document.activeElement.closest("input, select, textarea");
  if (held) return false;
  let answer;
  try {
    answer = await fetch(location.href, { headers: { accept: "text/html" } });
  } catch {
    return false;
  }
  if (!answer.ok || answer.redirected) {
    location.reload();
    return true;
  }
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  const [was, is] = [document.querySelector("main"), fresh.querySelector("main")];
  if (!is) return false;
  const had_focus = was.contains(document.activeElement);
  was.replaceWith(document.adoptNode(is));
  if (had_focus) is.focus();
  // It may have gone on since the event that led here: to an end, after which no more come.
  const pill = is.querySelector("[data-state]");
  if (pill) say(pill.textContent);
  watch();
  return true;
}

// Puts the figures as they are now in place of those that stand there: an event has none of them.
async function figures(here) {
  if (source !== here) return; // the page is another one meanwhile
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    if (!answer.ok || answer.redirected) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (source !== here) return;
    for (const is of fresh.querySelectorAll("[data-count]")) {
      const was = document.querySelector(`[data-count="${is.dataset.count}"]`);
      if (was) was.textContent = is.textContent;
    }
  } catch {
    // the next event asks again
  }
}

// Shows a run as an event has it, and says whether it has ended.
function show(box, run) {
  const is_over = ["completed", "failed", "cancelled"].includes(run.state);
  const done = run.items_ok + run.items_failed + run.items_skipped;
  const bar = box.querySelector("progress");
  const n = (number) => number.toLocaleString("en");
  let text = n(done);
  if (run.items_total !== null || run.state === "completed") {
    // What the page itself says: never more than there is, and 100 % at the end only.
    const total = run.state === "completed" ? done : Math.max(run.items_total, done);
    const percent = run.state === "completed" ? 100 : Math.min(99, Math.floor((done * 100) / Math.max(total, 1)));
    bar.max = Math.max(total, 1);
    bar.value = run.state === "completed" ? bar.max : done;
    text = `${n(done)} of ${n(total)} (${percent} %)`;
    say(`${percent - (percent % 10)} %`);
  }
  box.querySelector("[data-progress]").textContent = text;
  return is_over;
}

let source = null;

// Follows the run of this page until it has ended, while somebody looks.
function watch() {
  if (source) source.close();
  source = null;
  const box = document.querySelector("[data-events]");
  if (!box || document.hidden) return;
  const pill = box.querySelector("[data-state]").textContent;
  const here = new EventSource(box.dataset.events);
  source = here;
  let waiting = false;
  here.onmessage = (event) => {
    const run = JSON.parse(event.data);
    const is_over = show(box, run);
    if (is_over || run.state !== pill) {
      // There is more to show than a number: results, other buttons.
      here.close();
      say(run.state);
      later();
    } else if (!waiting && document.querySelector("[data-count]")) {
      waiting = true;
      setTimeout(async () => {
        await figures(here);
        waiting = false;
      }, FIGURES_MS);
    }
  };
  // A browser asks again by itself, unless it was refused: as many look as may.
  here.onerror = () => {
    if (here.readyState === EventSource.CLOSED) setTimeout(later, AGAIN_MS);
  };
}

async function later() {
  if (!(await refresh())) setTimeout(later, AGAIN_MS);
}

// Sends the form's file by hand, since a browser shows nothing of an upload that takes minutes.
function send(form) {
  const fields = new FormData(form);
  for (const [name, value] of [...fields]) {
    if (value === "") fields.delete(name);
  }
  const [button, alert] = [form.querySelector("p > button"), form.querySelector("[role=alert]")];
  const sending = form.querySelector(".sending");
  const [bar, text] = [sending.querySelector("progress"), sending.querySelector("span")];
  const stop = (why) => {
    button.disabled = false;
    sending.hidden = true;
    alert.hidden = false;
    alert.textContent = why;
    // A button that is disabled loses the focus: whoever was there is there again.
    if (document.activeElement === document.body) button.focus();
  };
  button.disabled = true;
  alert.hidden = true;
  sending.hidden = false;
  const request = new XMLHttpRequest();
  request.upload.onprogress = (event) => {
    if (!event.lengthComputable) return;
    bar.value = (event.loaded * 100) / event.total;
    text.textContent = event.loaded < event.total ? "uploading" : "being looked at";
  };
  request.onload = () => {
    let told = {};
    try {
      told = JSON.parse(request.responseText);
    } catch {
      // a proxy's page, for example
    }
    if (request.status === 202) {
      const same = told.data.sameFileAs ? `?same=${told.data.sameFileAs}` : "";
      location.assign(`/imports/${told.data.jobId}${same}`);
    } else {
      stop(told.message || told.detail || `The daemon answers with ${request.status}.`);
    }
  };
  request.onerror = () => stop("The connection broke off.");
  request.open("POST", form.dataset.upload);
  request.send(fields);
}

document.addEventListener("submit", (event) => {
  if (event.target.dataset.upload) {
    event.preventDefault();
    send(event.target);
  }
});

document.addEventListener("visibilitychange", watch);
watch();
