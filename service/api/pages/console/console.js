// The console: which view is shown, when it is read again, and the key; no library, nothing from elsewhere.

import { $, Refused, call, element, problem } from "./page.js";
import * as account from "./account.js";
import * as campaigns from "./campaigns.js";
import * as drift from "./drift.js";
import * as now from "./now.js";
import * as queue from "./queue.js";
import * as thresholds from "./thresholds.js";

// A view has a `title`, `open(root, ...rest)`, which may be told more in the address, as in #account/ID, and perhaps
// `refresh()`, every `every` seconds, `redraw()` where its place has another width, and `keys`, what keys do.
const views = { now, queue, account, campaigns, thresholds, drift };
let current = null; // { view, root, rest, place of its problem, whether it is opened }
let timer = 0;

async function show() {
  const [name, ...rest] = location.hash.slice(1).split("/");
  const view = Object.hasOwn(views, name) ? views[name] : now;
  for (const link of document.querySelectorAll("nav a")) {
    if (views[link.hash.slice(1)] === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${view.title} · recguard`;
  const place = problem();
  const root = element("div", { class: "view" });
  current = { view, root, rest: rest.map(decoded), place, opened: false };
  $("view").replaceChildren(element("h2", { class: "hidden" }, view.title), place, root);
  await read();
}

// What an address says, or its own text where that is not how addresses are written.
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

// Opens the view, or reads it again once that is done; and again later, unless the key does not open its door.
async function read() {
  const mine = current;
  const { view, root, rest, place } = mine;
  let shut = false;
  clearTimeout(timer);
  try {
    if (mine.opened) await view.refresh();
    else {
      root.replaceChildren();
      await view.open(root, ...rest);
    }
    mine.opened = true;
    place.textContent = "";
  } catch (error) {
    place.textContent = error.status === 0 && view.refresh ? `${error.message} This view asks again in ${view.every} s.` : error.message;
    if (!(error instanceof Refused)) throw error;
    shut = error.status === 401 || error.status === 403;
  }
  if (mine !== current || shut || !view.refresh || document.hidden) return; // nothing is asked while nobody looks
  clearTimeout(timer);
  timer = setTimeout(read, 1000 * view.every);
}

async function model() {
  try {
    const { name, version, precision, provider } = await call("v1/model");
    $("model").textContent = `${name} ${version}, ${precision} on ${provider}`;
  } catch {
    $("model").textContent = "";
  } // each view says by itself what it may not see
}

$("key").value = sessionStorage.getItem("key") ?? "";
$("key").addEventListener("change", () => {
  sessionStorage.setItem("key", $("key").value);
  model();
  show();
});
addEventListener("hashchange", show);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address goes on naming the view
  $("view").focus();
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) clearTimeout(timer);
  else if (current?.view.refresh) read();
});
let size = innerWidth;
addEventListener("resize", () => {
  if (innerWidth !== size) {
    size = innerWidth;
    if (current?.opened) current.view.redraw?.();
  }
});
document.addEventListener("keydown", (event) => {
  const act = current?.view.keys?.[event.key];
  if (
    !act ||
    event.defaultPrevented ||
    event.repeat ||
    event.ctrlKey ||
    event.metaKey ||
    event.altKey ||
    /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)
  )
    return;
  event.preventDefault();
  act();
});
model();
show();
