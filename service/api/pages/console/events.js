// The events of an answer, with the reasons at those that they name; and what it would score without some of them.

import {
  allEvents,
  button,
  call,
  card,
  choice,
  count,
  day,
  digits,
  element,
  pill,
  plural,
  problem,
  quiet,
  seconds,
  svg,
  told,
  without,
} from "./page.js";
import { colour, timeline } from "./timeline.js";

const MOST_VALUES = 16000; // events sent at most to try what each one changes
const ADVICE = {
  keep: () => "keep it.",
  weight: ({ weight }) => `keep it, at a weight of ${digits(weight)}.`,
  drop_events: ({ drop }) => `drop ${plural(drop.length, "event")}.`,
  drop_sequence: () => "drop it.",
};

// The results of some sequences, as trials: not counted, not kept, told to nobody.
export async function score(sequences, more = {}) {
  return (await call("v1/score", { sequences, trial: true, ...more })).results;
}

// The places of the events that a reason names; none where it is about the sequence as a whole.
export const eventsOf = (reason) => reason.events ?? (reason.event === null || reason.event === undefined ? [] : [reason.event]);

export function drawEvents(shown, columns) {
  const { sequence, result, out, place, how } = shown,
    scores = result.events.map((event) => event.score);
  const rings = new Map();
  result.reasons.forEach((reason, k) => reason.contribution > 0 && eventsOf(reason).forEach((i) => rings.has(i) || rings.set(i, k + 1)));
  Object.assign(place, {
    picture: element("div", { id: "events" }),
    event: element(
      "p",
      { id: "event", class: "quiet", "aria-live": "polite" },
      "Point at an event, or reach it with Tab and arrow keys, to see it.",
    ),
    removed: element("p", { id: "removed", "aria-live": "polite" }),
  });
  shown.draw = () =>
    timeline(place.picture, {
      events: sequence.events,
      scores,
      column: shown.column,
      across: shown.across,
      rings,
      out,
      label: "Events",
      pick: toggle,
      tell,
    });
  const rows = allEvents(sequence.events);
  function tell(i) {
    const fields = Object.entries(rows[i])
      .filter(([, v]) => v !== null)
      .map(([name, value]) =>
        name === "ts"
          ? `${day(seconds(value) ?? 0)}:${String(Math.floor((seconds(value) ?? 0) % 60)).padStart(2, "0")}`
          : `${name} ${told(value)}`,
      );
    place.event.textContent = `#${i + 1}, score ${digits(scores[i])}: ${fields.join(", ")}`;
  }
  function toggle(i) {
    if (!out.delete(i)) out.add(i);
    takeOut(i);
  }
  async function takeOut(i = null) {
    shown.draw();
    if (i !== null) place.picture.querySelectorAll("circle")[i].focus();
    back.disabled = !out.size;
    if (!out.size || out.size === rows.length) {
      place.removed.textContent = out.size ? "No event is left." : "";
      return;
    }
    try {
      const [r] = await score([{ ...sequence, events: without(sequence.events, out) }], how);
      place.removed.replaceChildren(`With ${plural(out.size, "event")} taken out: ${digits(r.score)}, `, pill(r.decision));
    } catch (error) {
      place.removed.textContent = error.message;
    }
  }
  const takeThese = (these) => {
    out.clear();
    these.forEach((i) => out.add(i));
    takeOut();
  };
  const back = button("Put all back", () => takeThese([]), { disabled: true, id: "back" });
  const least = button(
    "Fewest to leave out",
    async () => {
      try {
        const [{ counterfactual: found }] = await score([sequence], { ...how, counterfactual: true });
        if (found?.without?.length) takeThese(found.without);
        else place.removed.textContent = "No few events decide it.";
      } catch (error) {
        place.removed.textContent = error.message;
      }
    },
    { id: "counterfactual", hidden: result.decision === "allow" },
  );
  const { repair } = result;
  return card(
    "Events",
    element(
      "div",
      { class: "row low" },
      choice(
        "Across",
        [
          ["time", "time"],
          ["order", "order"],
        ].sort(([a]) => (a === shown.across ? -1 : 1)),
        (value) => {
          shown.across = value;
          shown.draw();
        },
      ),
      choice(
        "Up",
        columns.map((name) => [name, name]),
        (value) => {
          shown.column = value;
          shown.draw();
        },
      ),
      element(
        "p",
        { class: "legend" },
        element("span", {}, "score 0 ", scaleKey(), " 1"),
        element("span", {}, element("b", { class: "why" }, "1"), " number of a reason"),
      ),
    ),
    place.picture,
    place.event,
    place.removed,
    element(
      "div",
      { class: "row" },
      element("span", { class: "quiet" }, "A click takes an event out, or back in."),
      least,
      repair.strategy === "drop_events" && button("Take out what repair drops", () => takeThese(repair.drop), { id: "repair" }),
      back,
      element("span", { class: "quiet" }, "To repair the log, "),
      element("strong", { id: "advice" }, ADVICE[repair.strategy](repair)),
    ),
  );
}

function scaleKey() {
  return svg(
    "svg",
    { viewBox: "0 0 80 10", class: "ramp", "aria-hidden": "true" },
    ...[0, 0.25, 0.5, 0.75, 1].map((score, k) => {
      const box = svg("rect", { x: 16 * k, y: 0, width: 16, height: 10 });
      box.style.fill = colour(score);
      return box;
    }),
  );
}

// What the sequence would score with only one event taken out, each in its turn.
export function tryEach(shown) {
  const { sequence, result, how } = shown,
    length = count(sequence.events),
    bars = element("div", { id: "without", role: "img", "aria-label": "Change of the score without each event" }),
    told = element("p", { id: "most", "aria-live": "polite" }),
    place = problem();
  const start = button(
    "Score without each event",
    async () => {
      start.disabled = true;
      const order = [...result.events.keys()].sort((a, b) => result.events[b].score - result.events[a].score); // of a long one, those blamed most
      const tried = order.slice(0, Math.max(Math.floor(MOST_VALUES / length), 1)),
        changed = new Map();
      try {
        for (let k = 0; k < tried.length; k += 32) {
          const some = tried.slice(k, k + 32);
          const results = await score(
            some.map((i) => ({ ...sequence, events: without(sequence.events, new Set([i])) })),
            how,
          );
          some.forEach((i, n) => results[n].error || changed.set(i, results[n].score));
        }
      } catch (error) {
        place.textContent = error.message;
      }
      told.textContent = drawEach(bars, result, changed);
    },
    { id: "each" },
  );
  return card(
    "Without one event",
    element(
      "div",
      { class: "row" },
      length < 2 ? quiet("It has only one event.") : start,
      quiet("Below the line, the score is lower without that event; above, higher."),
    ),
    bars,
    told,
    place,
  );
}

// Draws the changes in log odds; says which event changes most.
function drawEach(bars, result, changed) {
  const logit = (p) => Math.log((p + 1e-6) / (1 - p + 1e-6));
  const moves = [...changed].map(([i, without]) => [i, logit(without) - logit(result.score), without]);
  const most = Math.max(0.5, ...moves.map(([, by]) => Math.abs(by)));
  const cells = result.events.map(() => element("div"));
  for (const [i, by, without] of moves) {
    const bar = element("i", { class: by < 0 ? "down" : "up", title: `without #${i + 1}: ${digits(without)}` }),
      height = Math.max((48 * Math.abs(by)) / most, 1);
    bar.style.height = `${height}%`;
    bar.style.top = `${by < 0 ? 50 : 50 - height}%`;
    cells[i].append(bar);
  }
  bars.replaceChildren(...cells);
  const [first] = moves.sort(([, a], [, b]) => Math.abs(b) - Math.abs(a));
  return first ? `Now it scores ${digits(result.score)}. Event #${first[0] + 1} changes most: without it, ${digits(first[2])}.` : "";
}
