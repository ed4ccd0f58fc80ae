// The queue of answers that wait for a verdict, worked through by keys.

import { earlier, history } from "./account.js";
import { showAnswer } from "./answer.js";
import { any, asked, drawFilters, findReasons, fits, reason } from "./filters.js";
import { attempt, bounds, button, call, card, count, digits, element, keepFocus, named, pill, plural, problem, quiet } from "./page.js";

export const title = "Queue",
  every = 60;
const PAGE = 30, // answers that are asked for at once, with their events
  MOST = 200; // which the service gives
let waiting = [],
  at = 0,
  wanted = PAGE,
  full = false, // whether more wait than were asked for
  stale = true, // whether what is listed was asked for in another way
  latest = null, // the reading of the list that counts
  shown = null, // what is on the page, and of which answer
  busy = false,
  place = null,
  menus = null;
const skipped = new Set(),
  given = []; // while the page is open: what was skipped, and the verdicts that can be undone

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
  [wanted, stale] = [PAGE, true];
  await read();
  filters();
  root.append(
    card("What waits for a verdict", place.progress, place.filters),
    element("div", { class: "split" }, card(null, place.more, place.list), element("div", {}, place.said, place.problem, place.answer)),
  );
  if (waiting.length) await go(0);
  else nothing();
}

export async function refresh() {
  const before = waiting[at];
  if (!(await read())) return;
  if (!waiting.length) nothing();
  else if (waiting[at] !== before) await go(at);
}

// Reads the list, and says whether it did: another reading may have begun meanwhile. What was asked for in the same way
// and is new comes in at the end, so that what is looked at stays where it is.
async function read() {
  const mine = (latest = {}),
    most = Math.min(wanted + skipped.size, MOST);
  const query = new URLSearchParams(Object.entries({ most, ...asked }).filter(([, value]) => value !== ""));
  const [{ answers }] = await Promise.all([call(`v1/review?${query}`), drawProgress()]);
  if (mine !== latest) return false;
  if (stale) [waiting, at, stale] = [[], 0, false];
  const known = new Set([...skipped, ...[...waiting, ...given.map(({ one }) => one)].map(({ score_id: id }) => id)]);
  waiting.push(...answers.filter((one) => !known.has(one.score_id) && fits(one)));
  full = answers.length === most;
  for (const { segment } of answers) if (segment && !menus.segments.includes(segment)) menus.segments.push(segment);
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

function filters() {
  drawFilters(place.filters, menus, again, () =>
    attempt(place.problem, async () => {
      await findReasons(waiting);
      filters();
      drawList();
    }),
  );
}

const again = () => {
  [wanted, stale] = [PAGE, true];
  return attempt(place.problem, refresh);
};
const more = () => {
  wanted += PAGE;
  return attempt(place.problem, refresh);
};

function drawList() {
  keepFocus(() => {
    const words = `${full ? "The first " : ""}${waiting.length} ${full ? "are listed." : waiting.length === 1 ? "waits." : "wait."} `;
    place.more.replaceChildren(waiting.length ? words : "", full && wanted < MOST ? button("List more", more, { id: "more" }) : "");
    place.list.replaceChildren(...waiting.map(listed));
  });
}

function listed(one, i) {
  const what = [plural(count(one.events), "event"), one.segment, reason(one)].filter(Boolean).join(", ");
  return element(
    "li",
    {},
    element(
      "button",
      { type: "button", onclick: () => go(i), "aria-current": i === at ? "true" : null, "data-of": one.score_id },
      pill(one.decision),
      element("b", {}, digits(one.score)),
      element("span", {}, named(one.type) || (one.decision === "allow" ? "random sample" : "unknown")),
      element("span", { class: "quiet" }, what),
    ),
  );
}

function nothing() {
  shown = null;
  place.answer.replaceChildren(
    card(
      null,
      element(
        "p",
        { class: "good" },
        any()
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
  else if (full) await attempt(place.problem, refresh);
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
