// What all views share: elements, calls to the service, problems in words, numbers and times as people read them.

export const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

// An element; what comes from a log goes through here as text, never as markup.
export function element(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}
// Puts other children in the place of those that an element has; what is false is left out.
export function refill(place, ...children) {
  place.replaceChildren(...children.filter((child) => child || child === 0));
}
// Draws a place anew and leaves the keyboard where it was: on what has the same name there now, else on the view.
export function keepFocus(draw) {
  const before = document.activeElement;
  draw();
  if (before.isConnected) return;
  const name = nameFor(before),
    heir = [...document.querySelectorAll(before.tagName)].find((one) => nameFor(one) === name);
  (heir ?? $("view")).focus({ preventScroll: true });
}
const nameFor = (one) => one.dataset.of ?? one.getAttribute("aria-label") ?? one.getAttribute("href") ?? one.textContent;
function fill(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  refill(made, ...children);
  return made;
}

export const button = (text, onclick, attributes = {}) => element("button", { type: "button", onclick, ...attributes }, text);
export const card = (title, ...children) => element("section", { class: "card" }, title && element("h2", {}, title), ...children);
export const quiet = (text) => element("p", { class: "quiet" }, text);
export const pill = (decision) => element("span", { class: `pill ${decision}` }, decision);
export const problem = () => element("p", { class: "problem", role: "alert" });

// A menu: the values with their words, the first one chosen.
export function choice(label, options, onchange) {
  const select = element("select", { onchange: () => onchange(select.value) });
  select.append(...options.map(([value, words]) => element("option", { value }, words)));
  return element("label", { class: "field" }, element("span", {}, label), select);
}

export function table(caption, heads, rows, numbers = []) {
  const side = (k) => (numbers.includes(k) ? "number" : null);
  const line = (cells) => element("tr", {}, ...cells.map((cell, k) => element("td", { class: side(k) }, cell)));
  return element(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    element(
      "table",
      {},
      element("caption", { class: "hidden" }, caption),
      element("thead", {}, element("tr", {}, ...heads.map((head, k) => element(head ? "th" : "td", { class: side(k) }, head)))),
      element("tbody", {}, ...rows.map(line)),
    ),
  );
}

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export async function call(path, body, method = body === undefined ? "GET" : "POST") {
  const headers = {};
  if ($("key").value) headers.Authorization = `Bearer ${$("key").value}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
  } catch {
    throw new Refused(0, "The service does not answer. It may be restarting.");
  }
  const type = answer.headers.get("content-type") ?? "";
  if (answer.ok) return answer.json();
  const told = type.includes("json") ? await answer.json() : { detail: await answer.text() };
  const places = (told.errors ?? []).slice(0, 5).map((e) => `${e.pointer}: ${e.detail}`);
  throw new Refused(answer.status, [`${answer.status}: ${words(answer, told.detail)}`, ...places].join("\n"));
}

function words(answer, detail) {
  const wait = answer.headers.get("retry-after");
  if (answer.status === 401) return "this needs an API key. Enter one at the top of the page.";
  if (answer.status === 403) return `${detail}. Other views may still work.`;
  return wait ? `${detail}. Try again in ${wait} s.` : detail;
}

// Does some work and shows in its place why it could not be done; says whether it could.
export async function attempt(place, work) {
  try {
    await work();
    if (place.textContent) place.textContent = "";
    return true;
  } catch (error) {
    place.textContent = error.message;
    if (!(error instanceof Refused || error instanceof SyntaxError)) throw error;
    return false;
  }
}

// Events come one by one, or column by column.
const columns = (events) => !Array.isArray(events);
export const count = (events) => (columns(events) ? Object.values(events)[0].length : events.length);
export const eventAt = (events, i) =>
  columns(events) ? Object.fromEntries(Object.entries(events).map(([name, values]) => [name, values[i]])) : events[i];
export const allEvents = (events) => Array.from({ length: count(events) }, (_, i) => eventAt(events, i));
export const without = (events, out) =>
  columns(events)
    ? Object.fromEntries(Object.entries(events).map(([name, values]) => [name, values.filter((_, i) => !out.has(i))]))
    : events.filter((_, i) => !out.has(i));
// A value of an event as a reader takes it in: a vector by how long it is, or by how its base64 begins.
export const told = (value) =>
  Array.isArray(value) ? `of ${plural(value.length, "number")}` : /^\S{61,}$/.test(value) ? shorten(value, 60) : value;
export const shorten = (text, most) => (text.length > most ? `${text.slice(0, Math.max(most - 1, 1))}…` : text);
export function seconds(time) {
  if (typeof time === "number") return time;
  const text = /[Zz]|[+-]\d\d:?\d\d$/.test(String(time)) ? time : `${String(time).replace(" ", "T")}Z`;
  const found = time ? Date.parse(text) / 1000 : NaN;
  return Number.isNaN(found) ? null : found;
}

export const digits = (score) => (score > 0.9995 || score < 0.0005 ? Number(score.toPrecision(6)).toString() : score.toFixed(3));
export const percent = (share) => `${share > 0 && share < 0.001 ? (100 * share).toPrecision(1) : Number((100 * share).toPrecision(3))} %`;
export const bounds = (found, as = (v) => v.toFixed(2)) =>
  found ? `${as(found[0])}, ${as(found[1])} to ${as(found[2])}` : "not known yet";
export const plural = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;
export const named = (type) => type?.replaceAll("_", " ") ?? "";
export const cut = (text, most) => (String(text).length > most ? `${String(text).slice(0, most - 1)}…` : String(text));
// Times are in UTC, as those of the service's log.
export const day = (at) => new Date(1000 * at).toISOString().slice(0, 16).replace("T", " ");
export const clock = (at) => day(at).slice(11);
export function lasting(time) {
  const [size, unit] = [
    [86400, "day"],
    [3600, "hour"],
    [60, "minute"],
    [1, "second"],
  ].find(([least]) => time >= 2 * least) ?? [1, "second"];
  return plural(Number((time / size).toPrecision(2)), unit);
}
