// The queue of answers that wait for a verdict, worked through by keys.

import { earlier, history } from "./account.js";
import { showAnswer } from "./answer.js";
import { score } from "./events.js";
import { attempt, bounds, button, call, card, choice, count, digits, element, named, pill, plural, problem, quiet } from "./page.js";

export const title = "Queue",
  every = 60;
const MOST = 200,
  SHOWN = 60;
const ORDERS = [
  ["teaching", "teaches most first"],
  ["newest", "newest first"],
  ["score", "highest score first"],
];
let asked = { order: "teaching", decision: "", type: "", segment: "" },
  field = "";
let waiting = [],
  at = 0,
  asking = 0, // of how many attempts to read the list the last one counts
  shown = null, // what is on the page, and of which answer
  busy = false,
  place = null,
  menus = null;
const skipped = new Set(),
  given = []; // while the page is open: what was skipped, and the verdicts that can be undone
const reasons = new Map(); // the field that counts most for an anomaly, by score id

export const keys = {
  a: () => once(() => say("anomalous")),
  n: () => once(() => say("normal")),
  s: () => once(skip),
  u: () => once(undo),
  j: () => go(at + 1),
  k: () => go(at - 1),
};
export const redraw = () => shown?.redraw();

export async function open(root) {
  shown = null;
  place = {
    filters: element("div", { class: "row low" }),
    progress: element("div", { class: "row", id: "progress" }),
    list: element("ol", { id: "queue", "aria-label": "Answers that wait" }),
    said: element("p", { id: "said", "aria-live": "polite" }),
    problem: problem(),
    more: element("p", { class: "quiet", id: "open" }),
    answer: element("div", { class: "view", id: "answer" }),
  };
  const [model, thresholds] = await Promise.all([
    call("v1/model").catch(() => ({ types: [] })),
    call("v1/thresholds").catch(() => ({ segments: {} })),
  ]);
  menus = { types: model.types, segments: Object.keys(thresholds.segments) };
  await read();
  drawFilters();
  root.append(
    card("What waits for a verdict", place.progress, place.filters),
    element("div", { class: "split" }, card(null, place.more, place.list), element("div", {}, place.said, place.problem, place.answer)),
  );
  if (waiting.length) await go(0);
  else nothing();
}

// New answers come in at the end, so that what is looked at stays where it is.
export async function refresh() {
  const [answers] = await Promise.all([ask(), drawProgress()]);
  const known = new Set(waiting.map((one) => one.score_id));
  const none = !waiting.length;
  waiting.push(...answers.filter((one) => !known.has(one.score_id)));
  drawList();
  if (none && waiting.length) await go(0);
}

async function ask() {
  const query = new URLSearchParams(Object.entries({ most: MOST, ...asked }).filter(([, value]) => value !== ""));
  const { answers } = await call(`v1/review?${query}`);
  const done = new Set([...skipped, ...given.map(({ one }) => one.score_id)]);
  return answers.filter(({ score_id: id }) => !done.has(id) && (!field || reasons.get(id) === field));
}

// Whether the list was read anew; not so where it is being read in yet another way by now.
async function read() {
  const mine = (asking += 1);
  const [answers] = await Promise.all([ask(), drawProgress()]);
  if (mine !== asking) return false;
  waiting = answers;
  at = 0;
  for (const one of answers) if (one.segment && !menus.segments.includes(one.segment)) menus.segments.push(one.segment);
  drawList();
  return true;
}

async function drawProgress() {
  const today = 86400 * Math.floor(Date.now() / 86400000);
  const { judged, waiting: left, precision } = await call(`v1/review/progress?since=${today}`);
  const all = judged + left;
  place.progress.replaceChildren(
    element("progress", { max: Math.max(all, 1), value: judged, "aria-label": "Judged today" }),
    element("strong", {}, `${judged} of ${left >= 5000 ? "more than 5,000" : all} today`),
    element(
      "span",
      { class: "quiet" },
      precision ? `precision so far ${bounds(precision)}` : "no flagged answer is judged today, so its precision is not known yet",
    ),
  );
}

function drawFilters() {
  const any = [["", "any"]],
    of = (values) => [...any, ...values.map((value) => [value, named(value)])];
  const menu = (name, label, options) => {
    const made = choice(label, options, (value) => {
      asked[name] = value;
      again();
    });
    made.querySelector("select").value = asked[name];
    return made;
  };
  const why = choice("Main reason", of([...new Set(reasons.values())].sort()), (value) => {
    field = value;
    again();
  });
  why.querySelector("select").value = field;
  place.filters.replaceChildren(
    menu("order", "Order", ORDERS),
    menu("decision", "Decision", of(["block", "review", "allow"])),
    menu("type", "Type", of(menus.types)),
    menu("segment", "Segment", of(menus.segments)),
    why,
    button("Find main reasons", findReasons, { id: "why", title: "scores what is listed again, as trials, and asks for reasons" }),
  );
}

async function again() {
  await attempt(place.problem, async () => {
    if (!(await read())) return;
    if (waiting.length) await go(0);
    else nothing();
  });
}

async function findReasons() {
  await attempt(place.problem, async () => {
    const unknown = waiting.slice(0, SHOWN).filter(({ score_id: id }) => !reasons.has(id));
    for (let k = 0; k < unknown.length; k += 10) {
      const some = unknown.slice(k, k + 10);
      const results = await score(
        some.map((one) => ({ id: one.sequence_id, segment: one.segment, events: one.events })),
        { reasons: 1, alone: true },
      );
      some.forEach((one, i) => reasons.set(one.score_id, results[i].reasons?.[0]?.field ?? "none"));
    }
    drawFilters();
    drawList();
  });
}

function drawList() {
  const more = waiting.length === MOST ? "200 or more" : waiting.length;
  place.more.textContent = waiting.length
    ? `${more} wait${waiting.length === 1 ? "s" : ""}${waiting.length > SHOWN ? `; the first ${SHOWN} are listed` : ""}`
    : "";
  place.list.replaceChildren(
    ...waiting.slice(0, SHOWN).map((one, i) =>
      element(
        "li",
        {},
        button("", () => go(i), { "aria-current": i === at ? "true" : null }),
      ),
    ),
  );
  [...place.list.children].forEach((item, i) =>
    item.firstChild.append(
      pill(waiting[i].decision),
      element("b", {}, digits(waiting[i].score)),
      element("span", {}, named(waiting[i].type) || (waiting[i].decision === "allow" ? "random sample" : "unknown")),
      element(
        "span",
        { class: "quiet" },
        [plural(count(waiting[i].events), "event"), waiting[i].segment, reasons.get(waiting[i].score_id)].filter(Boolean).join(", "),
      ),
    ),
  );
}

function nothing() {
  shown = null;
  const all = Object.entries(asked).every(([name, value]) => name === "order" || !value) && !field;
  place.answer.replaceChildren(
    card(
      null,
      element(
        "p",
        { class: "good" },
        all
          ? skipped.size
            ? `Only what you skipped waits: ${skipped.size}.`
            : "Nothing waits for a verdict."
          : "Nothing like that waits.",
      ),
      quiet("Every answer that is flagged comes here, and of the allowed ones a random share (RECGUARD_REVIEW_SHARE)."),
    ),
  );
}

// One verdict after another, each on the answer that is on the page: a key that is held must not judge what nobody has seen.
async function once(act) {
  if (busy) return;
  busy = true;
  try {
    await act();
  } finally {
    busy = false;
  }
}

async function go(to) {
  if (!waiting[to]) return;
  shown = null;
  place.answer.replaceChildren();
  at = to;
  [...place.list.children].forEach((item, i) =>
    i === at ? item.firstChild.setAttribute("aria-current", "true") : item.firstChild.removeAttribute("aria-current"),
  );
  place.list.children[at]?.scrollIntoView({ block: "nearest" });
  const one = waiting[at];
  await attempt(place.problem, async () => {
    const { verdicts, others } = await call(`v1/review/${one.score_id}`);
    const found = await showAnswer(
      element("div"),
      { id: one.sequence_id, segment: one.segment, events: one.events },
      [buttons(), history(verdicts), earlier(others)],
      one,
    );
    if (waiting[at] !== one) return; // somebody went on meanwhile
    shown = { ...found, one };
    place.answer.replaceChildren(...found.root.children);
    found.redraw();
  });
}

function buttons() {
  const key = (name, text, act, attributes = {}) =>
    element("button", { type: "button", onclick: act, ...attributes }, element("kbd", {}, name), ` ${text}`);
  return element(
    "div",
    { class: "row", id: "verdict" },
    key("a", "anomalous", keys.a, { "data-verdict": "anomalous" }),
    key("n", "normal", keys.n, { "data-verdict": "normal" }),
    key("s", "skip", keys.s),
    key("u", given.length ? "undo the last verdict" : "undo", keys.u, { id: "undo", disabled: !given.length }),
    element("span", { class: "quiet" }, element("kbd", {}, "j"), " ", element("kbd", {}, "k"), " next, previous"),
  );
}

async function next(gone) {
  waiting = waiting.filter((one) => one !== gone);
  at = Math.min(at, Math.max(waiting.length - 1, 0));
  drawList();
  if (waiting.length) await go(at);
  else nothing();
}

async function say(verdict) {
  const one = waiting[at];
  if (!one || shown?.one !== one) return;
  await attempt(place.problem, async () => {
    const said = await call("v1/feedback", { score_id: one.score_id, verdict });
    given.push({ one, verdict });
    place.said.textContent = `recorded: ${verdict}, where the decision is ${said.decision}${said.contradicts ? "; another verdict says otherwise" : ""}`;
    await Promise.all([drawProgress(), next(one)]);
  });
}

async function skip() {
  const one = waiting[at];
  if (!one || shown?.one !== one) return;
  skipped.add(one.score_id);
  place.said.textContent = "skipped; it waits for somebody else";
  await next(one);
}

async function undo() {
  const last = given.pop();
  if (!last) return;
  const done = await attempt(place.problem, async () => {
    await call("v1/feedback/undo", { score_id: last.one.score_id });
    place.said.textContent = `taken back: ${last.verdict}; it waits again`;
    waiting.splice(at, 0, last.one);
    drawList();
    await Promise.all([drawProgress(), go(at)]);
  });
  if (!done) given.push(last);
}
