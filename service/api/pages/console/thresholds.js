// Thresholds tried on recent traffic and on what people have judged, put in force with a note; and what was changed before.

import { drawAudit, drawInForce, words } from "./changes.js";
import { drawEffect, drawSpread } from "./effect.js";
import { attempt, button, call, card, digits, element, percent, problem, quiet } from "./page.js";

export const title = "Thresholds";
const STEPS = 1000,
  MOST_ODDS = 9; // a score's slider goes by log odds, from 1 in 8,000 to 8,000 to 1
const WAIT = 200; // milliseconds without a move before thresholds are tried
let place = null,
  inForce = null,
  wanted = null,
  byRate = true,
  tried = null,
  baseline = null,
  timer = 0,
  latest = 0;
let rates = []; // the false-alarm rates that there are
const prices = {
  missed: Number(localStorage.getItem("price of a missed anomaly") ?? 100),
  bothered: Number(localStorage.getItem("price of a bothered user") ?? 5),
};

export async function open(root) {
  [tried, baseline, rates] = [null, null, []];
  place = {
    force: card("In force"),
    sliders: element("div", { class: "grid" }),
    picture: element("div", { id: "spread" }),
    says: element("div", { id: "effect", "aria-live": "polite" }),
    problem: problem(),
    audit: card("What was changed"),
    note: element("input", { id: "note", maxlength: "1000", placeholder: "why" }),
    applied: element("p", { id: "applied", "aria-live": "polite" }),
  };
  inForce = await call("v1/thresholds");
  drawInForce(place.force, inForce);
  root.append(
    element("div", { class: "split even" }, card("Try others", place.problem), element("div", { class: "view" }, place.force, place.audit)),
  );
  const trying = place.problem.parentNode;
  if (
    !(await attempt(place.problem, async () => {
      baseline = await call("v1/thresholds/preview", body(inForce));
    }))
  ) {
    trying.append(quiet("With a key of the scope admin, thresholds can be tried and changed here."));
    place.audit.append(quiet("The audit is for the scope admin."));
    return;
  }
  rates = baseline.rate_steps;
  byRate = inForce.review === undefined;
  wanted = body(inForce);
  if (["review", "block"].some((level) => wanted[field(level)] === undefined)) convert(); // one is a rate, the other a score
  trying.append(
    modes(),
    place.sliders,
    place.picture,
    place.says,
    costs(),
    element(
      "div",
      { class: "row" },
      element("label", { for: "note" }, "Note"),
      place.note,
      button("Put in force", apply, { class: "main", id: "apply" }),
    ),
    place.applied,
  );
  tried = baseline;
  drawSliders();
  show();
  await drawAudit(place.audit);
}

export function redraw() {
  if (tried) show();
}

function show() {
  drawSpread(place.picture, tried, byRate, wanted[field("review")], wanted[field("block")]);
  drawEffect(place.says, tried, baseline.tried, prices);
}

// What a request takes of an answer that tells thresholds.
function body({ review, block, review_rate: reviewRate, block_rate: blockRate, segments }) {
  return { review, block, review_rate: reviewRate, block_rate: blockRate, segments };
}
function modes() {
  const one = (rate, text) =>
    element(
      "label",
      {},
      element("input", {
        type: "radio",
        name: "by",
        checked: rate === byRate,
        onchange: () => {
          byRate = rate;
          convert();
          drawSliders();
          show();
          preview();
        },
      }),
      ` ${text}`,
    );
  return element(
    "fieldset",
    { class: "row" },
    element("legend", {}, "Thresholds are"),
    one(true, "false-alarm rates"),
    one(false, "scores"),
  );
}

// Begins at the usual rates, or at the scores that the rates stand for in the middle of the lengths.
function convert() {
  const middle = inForce.curves?.[Math.floor(inForce.curves.length / 2)] ?? {};
  const start = byRate
    ? { review_rate: inForce.review_rate ?? 0.05, block_rate: inForce.block_rate ?? 0.01 }
    : { review: inForce.review ?? middle.review ?? 0.5, block: inForce.block ?? middle.block ?? 0.9 };
  wanted = { ...start, segments: inForce.segments };
}

const field = (level) => (byRate ? `${level}_rate` : level);
const toSlider = (value) =>
  byRate
    ? rates.findLastIndex((rate) => rate <= value * (1 + 1e-9))
    : Math.round((STEPS * (Math.max(Math.min(Math.log(value / (1 - value)), MOST_ODDS), -MOST_ODDS) / MOST_ODDS + 1)) / 2);
const fromSlider = (at) => (byRate ? rates[at] : Number((1 / (1 + Math.exp(-MOST_ODDS * ((2 * at) / STEPS - 1)))).toPrecision(5)));

function drawSliders() {
  place.sliders.replaceChildren(
    ...["review", "block"].map((level) => {
      const name = field(level),
        shown = element("output", { for: `slider-${level}` });
      const exact = element("input", {
        type: "number",
        id: `exact-${level}`,
        min: 0,
        max: 1,
        step: "any",
        value: wanted[name],
        "aria-label": `${level}, exactly`,
        onchange: () => set(Number(exact.value)),
      });
      const slider = element("input", {
        type: "range",
        id: `slider-${level}`,
        min: 0,
        max: byRate ? rates.length - 1 : STEPS,
        value: Math.max(toSlider(wanted[name]), 0),
        oninput: () => set(fromSlider(Number(slider.value))),
      });
      function set(value) {
        wanted[name] = value;
        exact.value = value;
        slider.value = Math.max(toSlider(value), 0);
        shown.textContent = byRate ? `flags ${percent(value)} of genuine accounts` : `from a score of ${digits(value)}`;
        show();
        preview();
      }
      shown.textContent = byRate ? `flags ${percent(wanted[name])} of genuine accounts` : `from a score of ${digits(wanted[name])}`;
      return element(
        "div",
        { class: "slider" },
        element("label", { for: `slider-${level}` }, level === "review" ? "Review or block" : "Block"),
        slider,
        element("div", { class: "row" }, exact, shown),
      );
    }),
  );
}

function preview() {
  clearTimeout(timer);
  const mine = (latest += 1);
  timer = setTimeout(
    () =>
      attempt(place.problem, async () => {
        const found = await call("v1/thresholds/preview", wanted);
        if (mine !== latest) return; // moved meanwhile
        tried = found;
        show();
      }),
    WAIT,
  );
}

function costs() {
  const price = (name, key, label) =>
    element(
      "label",
      { class: "field" },
      element("span", {}, label),
      element("input", {
        type: "number",
        min: 0,
        step: "any",
        value: prices[name],
        id: `price-${name}`,
        onchange: (event) => {
          prices[name] = Number(event.target.value);
          localStorage.setItem(key, prices[name]);
          show();
        },
      }),
    );
  return element(
    "div",
    { class: "row" },
    price("missed", "price of a missed anomaly", "Price of a missed anomaly"),
    price("bothered", "price of a bothered user", "Price of a bothered genuine user"),
    quiet("Your prices stay in this browser."),
  );
}

// What a colleague has put in force meanwhile is shown and kept: nobody overwrites what they have not seen.
async function readAgain(error) {
  if (error.status === 409) {
    inForce = await call("v1/thresholds");
    wanted.segments = inForce.segments;
    drawInForce(place.force, inForce);
  }
  throw error;
}

async function apply() {
  place.applied.textContent = "";
  await attempt(place.problem, async () => {
    const note = place.note.value.trim() || undefined;
    inForce = await call("v1/thresholds", { ...wanted, note, instead_of: body(inForce) }, "PUT").catch(readAgain);
    place.applied.textContent = `In force now: ${words(inForce)}.`;
    place.note.value = "";
    baseline = tried = await call("v1/thresholds/preview", body(inForce));
    drawInForce(place.force, inForce);
    show();
    await drawAudit(place.audit);
  });
}
