// One account's events as dots: time or order across, one of their columns up, colour by the event's score.

import { allEvents, day, digits, lasting, percent, plural, seconds, shorten, svg } from "./page.js";
import { width } from "./draw.js";

const LANES = 10; // values of a column that have a lane of their own
const LANE = 26,
  LEFT = 118,
  RIGHT = 22,
  TOP = 12,
  RADIUS = 6;
export const colour = (score) => `color-mix(in oklab, var(--block) ${Math.round(100 * score)}%, var(--low))`;

// The columns that may go up: those with more than one value, but not one of its own for each of many events, nor vectors.
export function columnsOf(events) {
  const names = [...new Set(events.flatMap(Object.keys))].filter(
    (name) => !["ts", "event_id", "text"].includes(name) && !events.some((event) => Array.isArray(event[name])),
  );
  const kinds = (name) => new Set(events.map((event) => event[name])).size;
  return names.sort((a, b) => fit(kinds(b)) - fit(kinds(a)));
}
const fit = (kinds) => (kinds < 2 ? 0 : kinds <= LANES ? 1 + kinds / 100 : 1 / kinds);

function lanesOf(events, column) {
  const counts = new Map();
  for (const event of events) counts.set(String(event[column] ?? "missing"), (counts.get(String(event[column] ?? "missing")) ?? 0) + 1);
  const most = [...counts]
    .sort((a, b) => b[1] - a[1])
    .slice(0, counts.size > LANES ? LANES - 1 : LANES)
    .map(([name]) => name);
  const names = counts.size > most.length ? [...most, `${counts.size - most.length} others`] : most;
  return {
    names,
    of: (event) => {
      const at = most.indexOf(String(event[column] ?? "missing"));
      return at < 0 ? names.length - 1 : at;
    },
  };
}

// Whether times tell events apart in a picture that wide; else their order does it better.
export function spread(times, pixels = 600) {
  if (times.some((t) => t === null) || times.length < 2) return false;
  const [first, last] = [Math.min(...times), Math.max(...times)];
  return (
    last > first &&
    new Set(times.map((t) => Math.round(((pixels / 12) * (t - first)) / (last - first)))).size > Math.min(times.length, pixels / 12) / 4
  );
}

// Draws the events. `pick(i)`, if any, is what a click or Enter on an event does; `tell(i)` hears which one is looked at.
export function timeline(place, { events, scores, column, across, rings = new Map(), out = new Set(), label, pick, tell }) {
  const rows = allEvents(events),
    times = rows.map(({ ts }) => seconds(ts)),
    lanes = lanesOf(rows, column);
  const w = width(place, 280, 1400),
    height = TOP + LANE * lanes.names.length + 24,
    floor = height - 22;
  const left = Math.min(LEFT, w / 4),
    byTime = across === "time" && times.every((t) => t !== null);
  const [first, last] = byTime ? [Math.min(...times), Math.max(...times)] : [0, rows.length - 1];
  const x = (i) => left + 10 + ((w - left - RIGHT - 10) * ((byTime ? times[i] : i) - first)) / Math.max(last - first, 1e-9);
  const taken = new Map(); // dots at one place stand beside each other
  const dots = rows.map((row, i) => {
    const lane = lanes.of(row),
      at = `${lane} ${Math.round(x(i) / 4)}`,
      k = taken.get(at) ?? 0;
    taken.set(at, k + 1);
    const cy = TOP + LANE * (lane + 0.5) + [0, -7, 7, -3, 3][k % 5];
    const dot = svg("circle", { cx: x(i).toFixed(1), cy, r: RADIUS, class: `${rings.has(i) ? "ring" : ""} ${out.has(i) ? "out" : ""}` });
    dot.style.fill = colour(scores[i] ?? 0);
    const number = rings.has(i) && svg("text", { class: "why", x: x(i) + 5, y: cy - 5 }, String(rings.get(i)));
    return { dot, number };
  });
  const picture = svg(
    "svg",
    { class: "chart events", viewBox: `0 0 ${w} ${height}`, role: pick ? "group" : "img", "aria-label": label },
    ...lanes.names.flatMap((name, k) => [
      svg("line", { class: "grid", x1: left, x2: w - 4, y1: TOP + LANE * (k + 0.5), y2: TOP + LANE * (k + 0.5) }),
      svg("text", { class: "end", x: left - 6, y: TOP + LANE * (k + 0.5) + 4 }, shorten(name, left / 7)),
    ]),
    svg("text", { x: left + 4, y: floor + 16 }, byTime ? day(first) : "first event"),
    svg(
      "text",
      { class: "end", x: w - 6, y: floor + 16 },
      byTime ? `${w > 500 ? day(last) : ""} (${lasting(last - first)} later)` : `event ${rows.length}`,
    ),
    ...dots.map(({ dot }) => dot),
    ...dots.map(({ number }) => number).filter(Boolean),
  );
  if (pick)
    dots.forEach(({ dot }, i) =>
      active(dots, dot, i, `event ${i + 1}, score ${digits(scores[i])}, ${lanes.names[lanes.of(rows[i])]}`, out.has(i), pick, tell),
    );
  place.replaceChildren(picture);
}

// Makes a dot a button. Of all dots one is reached by Tab; arrows lead to the others.
function active(dots, dot, i, label, pressed, pick, tell) {
  for (const [name, value] of Object.entries({ role: "button", "aria-label": label, "aria-pressed": pressed, tabindex: i ? -1 : 0 }))
    dot.setAttribute(name, value);
  dot.addEventListener("click", () => pick(i));
  dot.addEventListener("pointerenter", () => tell(i));
  dot.addEventListener("focus", () => tell(i));
  dot.addEventListener("keydown", (event) => {
    const to = { ArrowRight: i + 1, ArrowDown: i + 1, ArrowLeft: i - 1, ArrowUp: i - 1, Home: 0, End: dots.length - 1 }[event.key];
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      pick(i);
    } else if (to !== undefined && dots[to]) {
      event.preventDefault();
      dot.setAttribute("tabindex", -1);
      dots[to].dot.setAttribute("tabindex", 0);
      dots[to].dot.focus();
    }
  });
}

// What an analyst compares first, as rows of name and value.
export function figures(events, scores) {
  const rows = allEvents(events),
    times = rows
      .map(({ ts }) => seconds(ts))
      .filter((t) => t !== null)
      .sort((a, b) => a - b);
  const gaps = times
    .slice(1)
    .map((t, k) => t - times[k])
    .sort((a, b) => a - b);
  const found = [["Events", rows.length.toLocaleString("en")]];
  if (gaps.length) found.push(["From first to last", lasting(times.at(-1) - times[0])], ["Median gap", lasting(gaps[gaps.length >> 1])]);
  for (const [name, words] of [
    ["item_id", "item"],
    ["category", "category"],
  ]) {
    const counts = new Map();
    rows.forEach((row) => row[name] !== undefined && row[name] !== null && counts.set(row[name], (counts.get(row[name]) ?? 0) + 1));
    if (counts.size)
      found.push(
        [`Distinct ${words === "item" ? "items" : "categories"}`, counts.size.toLocaleString("en")],
        [`Most frequent ${words}`, `${percent(Math.max(...counts.values()) / rows.length)} of events`],
      );
  }
  const high = scores.filter((score) => score >= 0.5).length;
  found.push(["Events that score 0.5 or more", `${plural(high, "event")}, ${percent(high / rows.length)}`]);
  return found;
}
