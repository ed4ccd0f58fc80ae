// The thresholds in force in words, and the audit: what operators have changed.

import { Refused, call, digits, element, percent, quiet, refill, table } from "./page.js";

export const words = (t) =>
  ["review", "block"]
    .map((level) => (t[level] !== undefined ? `${level} from a score of ${digits(t[level])}` : `${level} ${percent(t[`${level}_rate`])}`))
    .join(", ");

export function drawInForce(place, inForce) {
  const { source, segments, curves, recalibration } = inForce;
  const own = Object.entries(segments);
  refill(
    place,
    place.firstChild,
    element("p", { id: "force" }, `${words(inForce)}${inForce.review_rate !== undefined ? " of genuine accounts" : ""}`),
    quiet(source === "bundle" ? "They came with the bundle." : "An operator has set them, for this version of the bundle."),
    own.length
      ? table(
          "Segments with thresholds of their own",
          ["segment", "thresholds"],
          own.map(([name, pair]) => [name, words(pair)]),
        )
      : quiet("No segment has thresholds of its own."),
    recalibration &&
      quiet(
        `What rates mean was moved by verdicts: ${Object.entries(recalibration)
          .map(([name, n]) => `${n} genuine accounts at ${name} events`)
          .join(", ")}.`,
      ),
    curves &&
      element(
        "details",
        {},
        element("summary", {}, "As scores, by number of events"),
        table(
          "Thresholds as scores",
          ["events", "review from", "block from", "accounts behind it"],
          curves.map((c) => [
            `${c.events} or more`,
            c.review === undefined ? "none" : digits(c.review),
            c.block === undefined ? "none" : digits(c.block),
            c.accounts.toLocaleString("en"),
          ]),
          [1, 2, 3],
        ),
      ),
  );
}

export async function drawAudit(place) {
  try {
    const { changes } = await call("v1/audit?most=30");
    place.replaceChildren(
      place.firstChild,
      changes.length
        ? element(
            "div",
            { id: "audit" },
            table(
              "The audit",
              ["when (UTC)", "who", "what", "note"],
              changes.map((c) => [c.time.slice(0, 16).replace("T", " "), c.who, changed(c), c.note ?? ""]),
            ),
          )
        : quiet("Nothing was changed yet."),
    );
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    place.replaceChildren(place.firstChild, quiet(error.message));
  }
}

function changed({ what, old, new: made, bundle, score_id: scoreId, verdict_of: whose }) {
  if (typeof made === "object" && made !== null) return `${what}: from ${words(old)} to ${words(made)}`;
  if (made) return `${what}: from ${old} to ${made}`;
  return [what, whose && `of ${whose}`, bundle, scoreId && `of answer ${scoreId.slice(0, 8)}`].filter(Boolean).join(" ");
}
