// Thresholds tried on recent traffic and on what people have judged, put in force with a note; and what was changed before.

import { bars } from "./draw.js";
import { Refused, attempt, bounds, button, call, card, day, digits, element, percent, plural, problem, quiet, table } from "./page.js";

export const title = "Thresholds";
const STEPS = 1000, MOST_ODDS = 9; // a score's slider goes by log odds, from 1 in 8,000 to 8,000 to 1
const WAIT = 200; // milliseconds without a move before thresholds are tried
let place = null, inForce = null, wanted = null, byRate = true, tried = null, baseline = null, timer = 0, latest = 0;
let rates = []; // the false-alarm rates that there are
const prices = { missed: Number(localStorage.getItem("price of a missed anomaly") ?? 100), bothered: Number(localStorage.getItem("price of a bothered user") ?? 5) };

export async function open(root) {
  [tried, baseline, rates] = [null, null, []];
  place = { force: card("In force"), sliders: element("div", { class: "grid" }), picture: element("div", { id: "spread" }), says: element("div", { id: "effect", "aria-live": "polite" }), problem: problem(), audit: card("What was changed"),
    note: element("input", { id: "note", maxlength: "1000", placeholder: "why" }), applied: element("p", { id: "applied", "aria-live": "polite" }) };
  inForce = await call("v1/thresholds");
  drawInForce();
  root.append(element("div", { class: "split even" }, card("Try others", place.problem), element("div", { class: "view" }, place.force, place.audit)));
  const trying = place.problem.parentNode;
  if (!await attempt(place.problem, async () => { baseline = await call("v1/thresholds/preview", body(inForce)); })) {
    trying.append(quiet("With a key of the scope admin, thresholds can be tried and changed here."));
    place.audit.append(quiet("The audit is for the scope admin."));
    return;
  }
  rates = baseline.rate_steps;
  byRate = inForce.review === undefined;
  wanted = body(inForce);
  trying.append(modes(), place.sliders, place.picture, place.says, costs(),
    element("div", { class: "row" }, element("label", { for: "note" }, "Note"), place.note, button("Put in force", apply, { class: "main", id: "apply" })), place.applied);
  tried = baseline;
  drawSliders();
  drawEffect();
  await drawAudit();
}

export function redraw() { if (tried) drawEffect(); }

// What a request takes of an answer that tells thresholds.
function body({ review, block, review_rate: reviewRate, block_rate: blockRate, segments }) { return { review, block, review_rate: reviewRate, block_rate: blockRate, segments }; }
const words = (t) => ["review", "block"].map((level) => t[level] !== undefined ? `${level} from a score of ${digits(t[level])}` : `${level} ${percent(t[`${level}_rate`])}`).join(", ");

function drawInForce() {
  const { source, segments, curves, recalibration } = inForce;
  const own = Object.entries(segments);
  place.force.replaceChildren(place.force.firstChild, element("p", { id: "force" }, `${words(inForce)}${inForce.review_rate !== undefined ? " of genuine accounts" : ""}`),
    quiet(source === "bundle" ? "They came with the bundle." : "An operator has set them, for this version of the bundle."),
    own.length ? table("Segments with thresholds of their own", ["segment", "thresholds"], own.map(([name, pair]) => [name, words(pair)])) : quiet("No segment has thresholds of its own."),
    recalibration && quiet(`What rates mean was moved by verdicts: ${Object.entries(recalibration).map(([name, n]) => `${n} genuine accounts at ${name} events`).join(", ")}.`),
    curves && element("details", {}, element("summary", {}, "As scores, by number of events"), table("Thresholds as scores", ["events", "review from", "block from", "accounts behind it"],
      curves.map((c) => [`${c.events} or more`, c.review === undefined ? "none" : digits(c.review), c.block === undefined ? "none" : digits(c.block), c.accounts.toLocaleString("en")]), [1, 2, 3])));
}

function modes() {
  const one = (rate, text) => element("label", {}, element("input", { type: "radio", name: "by", checked: rate === byRate, onchange: () => { byRate = rate; convert(); drawSliders(); drawEffect(); preview(); } }), ` ${text}`);
  return element("fieldset", { class: "row" }, element("legend", {}, "Thresholds are"), one(true, "false-alarm rates"), one(false, "scores"));
}

// Begins at the usual rates, or at the scores that the rates stand for in the middle of the lengths.
function convert() {
  const middle = inForce.curves?.[Math.floor(inForce.curves.length / 2)] ?? {};
  const start = byRate ? { review_rate: inForce.review_rate ?? 0.05, block_rate: inForce.block_rate ?? 0.01 } : { review: inForce.review ?? middle.review ?? 0.5, block: inForce.block ?? middle.block ?? 0.9 };
  wanted = { ...start, segments: inForce.segments };
}

const field = (level) => byRate ? `${level}_rate` : level;
const toSlider = (value) => byRate ? rates.findLastIndex((rate) => rate <= value * (1 + 1e-9)) : Math.round(STEPS * (Math.max(Math.min(Math.log(value / (1 - value)), MOST_ODDS), -MOST_ODDS) / MOST_ODDS + 1) / 2);
const fromSlider = (at) => byRate ? rates[at] : Number((1 / (1 + Math.exp(-MOST_ODDS * (2 * at / STEPS - 1)))).toPrecision(5));

function drawSliders() {
  place.sliders.replaceChildren(...["review", "block"].map((level) => {
    const name = field(level), shown = element("output", { for: `slider-${level}` });
    const exact = element("input", { type: "number", id: `exact-${level}`, min: 0, max: 1, step: "any", value: wanted[name], "aria-label": `${level}, exactly`, onchange: () => set(Number(exact.value)) });
    const slider = element("input", { type: "range", id: `slider-${level}`, min: 0, max: byRate ? rates.length - 1 : STEPS, value: Math.max(toSlider(wanted[name]), 0), oninput: () => set(fromSlider(Number(slider.value))) });
    function set(value) {
      wanted[name] = value;
      exact.value = value;
      slider.value = Math.max(toSlider(value), 0);
      shown.textContent = byRate ? `flags ${percent(value)} of genuine accounts` : `from a score of ${digits(value)}`;
      drawEffect();
      preview();
    }
    shown.textContent = byRate ? `flags ${percent(wanted[name])} of genuine accounts` : `from a score of ${digits(wanted[name])}`;
    return element("div", { class: "slider" }, element("label", { for: `slider-${level}` }, level === "review" ? "Review or block" : "Block"), slider, element("div", { class: "row" }, exact, shown));
  }));
}

function preview() {
  clearTimeout(timer);
  const mine = latest += 1;
  timer = setTimeout(() => attempt(place.problem, async () => {
    const found = await call("v1/thresholds/preview", wanted);
    if (mine !== latest) return; // moved meanwhile
    tried = found;
    drawEffect();
  }), WAIT);
}

function drawEffect() {
  const { spread, sequences, now, then } = tried, counts = byRate ? [...spread.rates].reverse() : spread.scores, all = Math.max(sequences, 1);
  const [review, block] = ["review", "block"].map((level) => wanted[field(level)]);
  const bin = (value) => byRate ? rates.length - 1 - toSlider(value) : 20 * value; // from the left, where nobody is suspicious
  const kind = (k) => k + (byRate ? 0 : 0.5) >= bin(block) ? "block" : k + (byRate ? 0 : 0.5) >= bin(review) ? "review" : "allow";
  const ticks = byRate ? rates.map((rate, k) => [rates.length - 1 - k, rate]).filter(([, rate]) => [1, 0.1, 0.01, 0.001, 0.0001].includes(rate)).map(([k, rate]) => [k === 0 ? 0 : k === rates.length - 1 ? rates.length : k, percent(rate)]) : [[0, "0"], [5, "0.25"], [10, "0.5"], [15, "0.75"], [20, "1"]];
  bars(place.picture, "Recent sequences, and where thresholds lie", [{ name: "recent", class: kind, shares: counts.map((n) => n / all) }],
    { ticks, marks: [{ at: bin(review), name: "review", class: "review" }, { at: bin(block), name: "block", class: "block" }] });
  const t = tried.tried, b = baseline.tried;
  place.says.replaceChildren(quiet(sequences ? `Share of the latest ${plural(sequences, "sequence")} of the worker that answers, by ${byRate ? "false-alarm rate: the further right, the more suspicious" : "score"}.` : "No sequence was scored yet, so nothing is known of traffic."),
    table("What they would do", ["", "in force", "these"], [
      ["Reviewed", percent(now.review), percent(then.review)], ["Blocked", percent(now.block), percent(then.block)],
      ["Precision, by verdicts", bounds(b.precision), bounds(t.precision)], ["Recall, by verdicts", bounds(b.recall), bounds(t.recall)],
      ["Missed anomalies in 1,000 accounts", per(b.missed), per(t.missed)], ["Bothered genuine users in 1,000 accounts", per(b.bothered), per(t.bothered)],
      ["Cost of 1,000 accounts", cost(b), cost(t)]], [1, 2]),
    quiet(t.judged ? `By verdicts on ${plural(t.judged, "account")}, each counted for those that it stands for.${t.recall ? "" : " Nobody has judged any that was allowed, so what is missed is not known: see Queue."}` : "No account has a verdict yet: see Queue."));
}

const per = (share) => share === null ? "not known yet" : (1000 * share).toFixed(1);
const cost = ({ missed, bothered }) => missed === null ? "not known yet" : Math.round(1000 * (prices.missed * missed + prices.bothered * bothered)).toLocaleString("en");

function costs() {
  const price = (name, key, label) => element("label", { class: "field" }, element("span", {}, label), element("input", { type: "number", min: 0, step: "any", value: prices[name], id: `price-${name}`,
    onchange: (event) => { prices[name] = Number(event.target.value); localStorage.setItem(key, prices[name]); drawEffect(); } }));
  return element("div", { class: "row" }, price("missed", "price of a missed anomaly", "Price of a missed anomaly"), price("bothered", "price of a bothered user", "Price of a bothered genuine user"), quiet("Your prices stay in this browser."));
}

async function apply() {
  place.applied.textContent = "";
  await attempt(place.problem, async () => {
    inForce = await call("v1/thresholds", { ...wanted, ...(place.note.value.trim() ? { note: place.note.value.trim() } : {}) }, "PUT");
    place.applied.textContent = `In force now: ${words(inForce)}.`;
    place.note.value = "";
    baseline = tried = await call("v1/thresholds/preview", body(inForce));
    drawInForce();
    drawEffect();
    await drawAudit();
  });
}

async function drawAudit() {
  try {
    const { changes } = await call("v1/audit?most=30");
    place.audit.replaceChildren(place.audit.firstChild, changes.length ? element("div", { id: "audit" }, table("The audit", ["when (UTC)", "who", "what", "note"], changes.map((c) => [c.time.slice(0, 16).replace("T", " "), c.who, changed(c), c.note ?? ""]))) : quiet("Nothing was changed yet."));
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    place.audit.replaceChildren(place.audit.firstChild, quiet(error.message));
  }
}

function changed({ what, old, new: made, bundle, score_id: scoreId }) {
  if (typeof made === "object" && made !== null) return `${what}: from ${words(old)} to ${words(made)}`;
  if (made) return `${what}: from ${old} to ${made}`;
  return [what, bundle, scoreId && `of answer ${scoreId.slice(0, 8)}`].filter(Boolean).join(" ");
}
