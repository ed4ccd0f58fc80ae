// The console: which view is shown, when it is read again, and the key; no library, nothing from elsewhere.

import { $, attempt, call, element, problem } from "./page.js";
import * as account from "./account.js";
import * as campaigns from "./campaigns.js";
import * as drift from "./drift.js";
import * as now from "./now.js";
import * as queue from "./queue.js";
import * as thresholds from "./thresholds.js";

// A view has a `title`, `open(root, ...rest)`, which may be told more in the address, as in #account/ID, and perhaps
// `refresh()`, every `every` seconds, `redraw()` where its place has another width, and `keys`, what keys do.
const views = { now, queue, account, campaigns, thresholds, drift };
let current = null; // { view, problem }
let timer = 0;

async function show() {
  const [name, ...rest] = location.hash.slice(1).split("/");
  if (name === "view") {
    $("view").focus();
    return;
  } // the link past the menu
  const view = views[name] ?? now;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${Object.keys(views).find((one) => views[one] === view)}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${view.title} · recguard`;
  const place = problem(),
    root = element("div", { class: "view" });
  const mine = (current = { view, place });
  $("view").replaceChildren(element("h2", { class: "hidden" }, view.title), place, root);
  await attempt(place, () => view.open(root, ...rest.map(decodeURIComponent)));
  if (mine === current) watch();
}

async function again() {
  const { view, place } = current;
  await attempt(place, () => view.refresh());
  watch();
}

function watch() {
  // nothing is asked while nobody looks
  clearTimeout(timer);
  if (current.view.refresh && !document.hidden) timer = setTimeout(again, 1000 * current.view.every);
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
document.addEventListener("visibilitychange", () => {
  if (current?.view.refresh && !document.hidden) again();
  else clearTimeout(timer);
});
let size = innerWidth;
addEventListener("resize", () => {
  if (innerWidth !== size) {
    size = innerWidth;
    current?.view.redraw?.();
  }
});
document.addEventListener("keydown", (event) => {
  const act = current?.view.keys?.[event.key];
  if (!act || event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) return;
  event.preventDefault();
  act();
});
model();
show();
