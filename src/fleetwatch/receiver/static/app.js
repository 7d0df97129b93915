// Comfort only: every page works without this file.
// Parts marked data-live are replaced when the server has news; forms in use are left alone.

const INTERVAL = 5000; // milliseconds between two looks
const TIMEOUT = 10000;
const main = document.getElementById("main");
const fresh = document.getElementById("fresh");
const connection = document.getElementById("connection");
const help = document.getElementById("help");
const shortcuts = document.getElementById("shortcuts");

// Times

let skew = 0; // milliseconds that the server's clock is ahead of ours
let updated = Date.now();

/** Write a time span as "1 h 5 min", and without seconds once it is longer than a minute, as the server does. */
function age(seconds) {
  seconds = Math.max(Math.floor(seconds), 0);
  if (seconds >= 60) seconds -= seconds % 60;
  const parts = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]].map(([unit, size]) => {
    const count = Math.floor(seconds / size);
    seconds %= size;
    return count ? `${count} ${unit}` : "";
  });
  const first = parts.findIndex(Boolean);
  return first < 0 ? "0 s" : parts.slice(first, first + 2).filter(Boolean).join(" ");
}

function tick() {
  for (const time of document.querySelectorAll("time[data-age]")) {
    const text = age((Date.now() + skew - Date.parse(time.dateTime)) / 1000);
    if (time.textContent !== text) time.textContent = text;
  }
  if (!fresh.classList.contains("lost")) {
    fresh.textContent = `updated ${age((Date.now() - updated) / 1000)} ago`;
  }
}

document.addEventListener("mouseover", ({ target }) => {
  const time = target.closest("time");
  if (time && !time.dataset.local) {
    time.dataset.local = "1";
    time.title += ` (here ${new Date(time.dateTime).toLocaleString()})`;
  }
});

// Live update

let etag = "";
let timer;

function say(problem) {
  fresh.classList.toggle("lost", Boolean(problem));
  if (problem) fresh.textContent = problem;
  if (connection.textContent !== problem) connection.textContent = problem; // read aloud once
}

async function look() {
  clearTimeout(timer);
  if (document.hidden) return; // visibilitychange takes it up again
  try {
    const response = await fetch(location.href, {
      cache: "no-store",
      headers: etag ? { "If-None-Match": etag } : {},
      signal: AbortSignal.timeout(TIMEOUT),
    });
    if (response.status === 401 || response.status === 403) {
      say("signed out: reload");
    } else if (response.status === 304 || response.ok) {
      skew = (Date.parse(response.headers.get("Date")) || Date.now()) - Date.now();
      if (response.ok) {
        etag = show(await response.text()) ? response.headers.get("ETag") : "";
      }
      updated = Date.now();
      say("");
    } else {
      say("connection lost");
    }
  } catch {
    say("connection lost");
  }
  tick();
  timer = setTimeout(look, INTERVAL);
}

/** Tell whether somebody is at work in a part of the page, so that it must not change now. */
function busy(part) {
  const selection = getSelection();
  return part.querySelector("details[open]")
    || [...part.querySelectorAll("textarea")].some((area) => area.value !== area.defaultValue)
    || part.contains(document.activeElement?.closest("form"))
    || (!selection.isCollapsed && part.contains(selection.anchorNode));
}

/** Put the news of a page into this one; false when a part was in use and has to wait. */
function show(html) {
  const page = new DOMParser().parseFromString(html, "text/html");
  const focused = document.activeElement?.id;
  const row = [...document.querySelectorAll("li[id]")].find((item) => item.getBoundingClientRect().bottom > 0);
  const anchor = focused && main.contains(document.activeElement) ? focused : row?.id;
  const before = document.getElementById(anchor)?.getBoundingClientRect().top;
  let complete = true;

  for (const part of document.querySelectorAll("[data-live]")) {
    const news = page.getElementById(part.id);
    if (!news || content(part) === content(news)) continue;
    if (busy(part)) {
      complete = false;
      continue;
    }
    const known = new Set([...part.querySelectorAll("li[id]")].map((item) => item.id));
    part.className = news.className;
    part.replaceChildren(...news.childNodes);
    for (const item of part.querySelectorAll("li[id]")) {
      item.classList.toggle("new", !known.has(item.id));
    }
  }
  document.title = page.title;
  document.querySelector("link[rel=icon]").href = page.querySelector("link[rel=icon]").getAttribute("href");
  if (focused && document.activeElement?.id !== focused) {
    document.getElementById(focused)?.focus({ preventScroll: true });
  }
  const after = document.getElementById(anchor)?.getBoundingClientRect().top;
  if (scrollY > 0 && before !== undefined && after !== undefined) scrollBy({ top: after - before, behavior: "instant" });
  return complete;
}

/** Return what a part says, whatever the clock. */
function content(part) {
  const copy = part.cloneNode(true);
  for (const time of copy.querySelectorAll("time")) time.replaceWith(time.dateTime);
  for (const item of copy.querySelectorAll(".new")) item.classList.remove("new");
  return copy.className + copy.innerHTML;
}

document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : look()));

// Keyboard

const rows = () => [...document.querySelectorAll("[data-row]")];
let last = ""; // id of the row that had the focus last

function move(step) {
  const all = rows();
  const at = all.findIndex((row) => row.id === (document.activeElement?.id || last) || row.id === last);
  const row = all[Math.min(Math.max(at + step, 0), all.length - 1)];
  row?.focus();
  row?.scrollIntoView({ block: "nearest" });
}

function goTo(id) {
  const here = document.getElementById(id);
  if (here) {
    here.focus();
  } else if (document.activeElement?.dataset.row !== undefined) {
    location.assign(`${document.activeElement.href}#${id}`);
  }
}

const keys = {
  j: () => move(1),
  k: () => move(-1),
  a: () => goTo("acknowledge"),
  n: () => goTo("note"),
  u: () => location.assign(document.getElementById("nav-incidents").href),
  "/": () => (document.getElementById("search") ?? document.getElementById("nav-incidents")).focus(),
  "?": () => help.showModal(),
};

document.addEventListener("focusin", ({ target }) => {
  if (target.dataset.row !== undefined) last = target.id;
});
document.addEventListener("keydown", (event) => {
  const writing = event.target.closest("input, textarea, select, dialog");
  if (writing && event.key === "Escape" && writing.id === "search") writing.blur();
  if (writing || event.ctrlKey || event.metaKey || event.altKey || !shortcuts.checked) return;
  const act = keys[event.key];
  if (act) {
    event.preventDefault();
    act();
  }
});
document.getElementById("help-open").addEventListener("click", () => help.showModal());
try { // the storage may be forbidden
  shortcuts.checked = localStorage.getItem("shortcuts") !== "off";
  shortcuts.addEventListener("change", () => localStorage.setItem("shortcuts", shortcuts.checked ? "on" : "off"));
} catch { /* then they are on */ }

// Start

const query = new URLSearchParams(location.search);
if (query.has("done")) { // a reload must not say it again
  query.delete("done");
  history.replaceState(null, "", `${location.pathname}${query.size ? `?${query}` : ""}${location.hash}`);
}
if (location.hash.length > 1) document.getElementById(location.hash.slice(1))?.focus();
document.getElementById("help-open").hidden = false;
if (document.querySelector("[data-live]#list, [data-live]#timeline")) {
  fresh.hidden = false;
  tick();
  setInterval(tick, 1000);
  timer = setTimeout(look, INTERVAL);
}
