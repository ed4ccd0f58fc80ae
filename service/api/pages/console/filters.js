// Which of the answers that wait are listed, and in which order; also by the field that counts most, which trials tell.

import { score } from "./events.js";
import { button, choice, named } from "./page.js";

const ORDERS = [
  ["teaching", "teaches most first"],
  ["newest", "newest first"],
  ["score", "highest score first"],
];
const TOGETHER = 10; // sequences in one request for reasons
export const asked = { order: "teaching", decision: "", type: "", segment: "" }; // as the service takes it
let field = "";
const reasons = new Map(); // the field that counts most for an anomaly, by score id

export const reason = ({ score_id: id }) => reasons.get(id);
export const fits = (one) => !field || reason(one) === field;
export const any = () => Object.entries(asked).every(([name, value]) => name === "order" || !value) && !field;

// Draws the menus; `again` is called when another choice was made, `find` where main reasons are wanted.
export function drawFilters(place, { types, segments }, again, find) {
  const menu = (label, options, value, take) => {
    const made = choice(label, options, (now) => {
      take(now);
      again();
    });
    made.querySelector("select").value = value;
    return made;
  };
  const of = (values) => [["", "any"], ...values.map((value) => [value, named(value)])],
    ask = (name, label, options) => menu(label, options, asked[name], (value) => (asked[name] = value));
  place.replaceChildren(
    ask("order", "Order", ORDERS),
    ask("decision", "Decision", of(["block", "review", "allow"])),
    ask("type", "Type", of(types)),
    ask("segment", "Segment", of(segments)),
    menu("Main reason", of([...new Set(reasons.values())].sort()), field, (value) => (field = value)),
    button("Find main reasons", find, { id: "why", title: "scores what is listed again, as trials, and asks for reasons" }),
  );
}

export async function findReasons(answers) {
  const unknown = answers.filter((one) => !reason(one));
  for (let k = 0; k < unknown.length; k += TOGETHER) {
    const some = unknown.slice(k, k + TOGETHER);
    const results = await score(
      some.map((one) => ({ id: one.sequence_id, segment: one.segment, events: one.events })),
      { reasons: 1, alone: true },
    );
    some.forEach((one, i) => reasons.set(one.score_id, results[i].reasons?.[0]?.field ?? "none"));
  }
}
