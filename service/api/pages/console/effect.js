// What thresholds would do: where they lie among recent sequences, how right they would be, and what that costs.

import { bars } from "./draw.js";
import { bounds, percent, plural, quiet, table } from "./page.js";

const DECADES = [1, 0.1, 0.01, 0.001, 0.0001];
const QUARTERS = [
  [0, "0"],
  [5, "0.25"],
  [10, "0.5"],
  [15, "0.75"],
  [20, "1"],
];
const BINS = 20;

// Recent sequences by rate or by score, the suspicious ones at the right, in the colours of what would become of them.
export function drawSpread(place, { spread, sequences, rate_steps: rates }, byRate, review, block) {
  const last = rates.length - 1;
  const bin = (value) => (byRate ? last - rates.findLastIndex((rate) => rate <= value * (1 + 1e-9)) : BINS * value);
  const from = (k, value) => k + (byRate ? 0 : 0.5) >= bin(value); // a bin of scores goes by its middle
  const counts = byRate ? [...spread.rates].reverse() : spread.scores;
  const ticks = DECADES.map((rate) => [last - rates.indexOf(rate), percent(rate)]).map(([k, text]) => [k === last ? last + 1 : k, text]);
  bars(
    place,
    "Recent sequences, and where thresholds lie",
    [
      {
        name: "recent",
        class: (k) => (from(k, block) ? "block" : from(k, review) ? "review" : "allow"),
        shares: counts.map((n) => n / Math.max(sequences, 1)),
      },
    ],
    {
      ticks: byRate ? ticks : QUARTERS,
      marks: [
        { at: bin(review), name: "review", class: "review" },
        { at: bin(block), name: "block", class: "block" },
      ],
    },
  );
  const by = byRate ? "false-alarm rate: the further right, the more suspicious" : "score";
  place.append(
    quiet(
      sequences
        ? `Share of the latest ${plural(sequences, "sequence")} of the worker that answers, by ${by}.`
        : "No sequence was scored yet, so nothing is known of traffic.",
    ),
  );
}

const per = (share) => (share === null ? "not known yet" : (1000 * share).toFixed(1));

// The thresholds in force and those that are tried, side by side, with what each would cost by the operator's prices.
export function drawEffect(place, { now, then, tried }, before, prices) {
  const cost = ({ missed, bothered }) =>
    missed === null ? "not known yet" : Math.round(1000 * (prices.missed * missed + prices.bothered * bothered)).toLocaleString("en");
  place.replaceChildren(
    table(
      "What they would do",
      ["", "in force", "these"],
      [
        ["Reviewed", percent(now.review), percent(then.review)],
        ["Blocked", percent(now.block), percent(then.block)],
        ["Precision, by verdicts", bounds(before.precision), bounds(tried.precision)],
        ["Recall, by verdicts", bounds(before.recall), bounds(tried.recall)],
        ["Missed anomalies in 1,000 accounts", per(before.missed), per(tried.missed)],
        ["Bothered genuine users in 1,000 accounts", per(before.bothered), per(tried.bothered)],
        ["Cost of 1,000 accounts", cost(before), cost(tried)],
      ],
      [1, 2],
    ),
    quiet(told(tried)),
  );
}

function told({ judged, recall }) {
  if (!judged) return "No account has a verdict yet: see Queue.";
  const unknown = recall ? "" : " Nobody has judged any that was allowed, so what is missed is not known: see Queue.";
  return `By verdicts on ${plural(judged, "account")}, each counted for those that it stands for.${unknown}`;
}
