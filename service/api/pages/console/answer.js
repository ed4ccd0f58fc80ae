// One answer in full: its score, its events with the reasons for it, what it would score without some of them.

import { allEvents, button, call, card, choice, count, day, digits, element, named, percent, pill, plural, problem, quiet, seconds, svg, table, without } from "./page.js";
import { colour, columnsOf, figures, spread, timeline } from "./timeline.js";

const MOST_VALUES = 16000; // events sent at most to try what each one changes
const ADVICE = { keep: () => "keep it.", weight: ({ weight }) => `keep it, at a weight of ${digits(weight)}.`,
  drop_events: ({ drop }) => `drop ${plural(drop.length, "event")}.`, drop_sequence: () => "drop it." };
let api = null, model = null, typical = null; // asked for once while the page is open
const signed = (value) => (value > 0 ? "+" : "") + value.toFixed(2);

// The results of some sequences, as trials: not counted, not kept, told to nobody.
export async function score(sequences, more = {}) {
  return (await call("v1/score", { sequences, trial: true, ...more })).results;
}

// Whether scoring can say with which events left out the decision would be another one.
const tellsCounterfactual = () => api ??= call("openapi.json").then((found) => "counterfactual" in (found.components.schemas.ScoreRequest?.properties ?? {}), () => false);

// The golden samples that are allowed, with their scores: what genuine accounts look like to this model.
const genuine = () => typical ??= (async () => {
  const { sequences } = await call("v1/samples");
  const results = await score(sequences);
  return sequences.map((sequence, i) => ({ sequence, result: results[i] })).filter(({ result }) => result.decision === "allow");
})().catch((error) => { typical = null; throw error; });

// Scores a sequence and shows the answer in `root`; `beside` are elements below its head, such as those for a verdict.
export async function showAnswer(root, sequence, beside = [], kept = null) {
  const [[result], thresholds, { promise }] = await Promise.all([score([sequence], { reasons: 12, repair: true }), call("v1/thresholds"), model ??= call("v1/model").catch((error) => { model = null; throw error; })]);
  if (result.error) throw new SyntaxError(`${sequence.id}: ${result.error.detail}`);
  const rows = allEvents(sequence.events), columns = columnsOf(rows);
  const shown = { sequence, result, thresholds, whose: promise.of, out: new Set(), column: columns[0] ?? "action", across: spread(rows.map(({ ts }) => seconds(ts))) ? "time" : "order", place: {} };
  const reasons = listReasons(shown), events = drawEvents(shown, columns);
  root.replaceChildren(head(shown, kept, beside), events, element("div", { class: "grid" }, reasons, await compare(shown)), tryEach(shown));
  shown.root = root;
  shown.redraw = () => { drawScale(shown); shown.draw(); shown.besideTypical?.(); };
  shown.redraw();
  return shown;
}

function head(shown, kept, beside) {
  const { result, sequence } = shown;
  const says = [named(result.type), result.listed && `by the ${result.listed} list`, exempt(result)].filter(Boolean).join(", ");
  shown.place.scale = element("div");
  const { false_alarm_rate: rate, support, missing } = result;
  const told = [`${percent(rate)} of ${shown.whose} score as high`, support.recall === null ? "" : `on as much evidence ${percent(support.recall)} of known attackers are flagged`,
    missing.length ? `unknown: ${missing.join(", ")}` : ""].filter(Boolean).join("; ");
  const before = kept && element("p", { id: "kept" }, `Answered ${day(kept.time)} UTC: `, pill(kept.decision), ` ${digits(kept.score)}${kept.type ? `, ${named(kept.type)}` : ""}${kept.segment ? `, segment ${kept.segment}` : ""}${kept.retroactive ? ", flagged since a campaign was found" : ""}. What follows is scored now, alone.`);
  return element("section", { class: "card answer" }, element("h3", { class: "account" }, `Account ${sequence.user_id ?? sequence.id}`), before,
    element("div", { class: "row" }, element("strong", { id: "value" }, digits(result.score)), element("span", { id: "decision", class: `pill ${result.decision}` }, result.decision), element("span", { id: "type" }, says)),
    shown.place.scale, element("p", { class: "quiet", id: "legend" }, told), ...beside);
}

function exempt({ exempt: found }) { // why what the thresholds flag is allowed
  return found && `called genuine, until ${day(found.until).slice(0, 10)}: the thresholds say ${found.decision}`;
}

// Scores from which the sequence is reviewed and blocked, as far as they can be told.
function limits({ sequence, result, thresholds }) {
  const { segment } = sequence;
  const own = Object.hasOwn(thresholds.segments, segment ?? "") ? thresholds.segments[segment] : undefined;
  const curve = own ? {} : thresholds.curves?.findLast(({ events }) => events <= result.support.events) ?? {};
  const of = (level) => (own ?? thresholds)[level] ?? curve[level] ?? 1;
  return { review: Math.min(of("review"), of("block")), block: of("block") };
}

// The score between 0 and 1, in log odds, where thresholds near 1 stand apart.
function drawScale(shown) {
  const { review, block } = limits(shown), { score } = shown.result;
  const x = (p) => 500 + 500 * Math.max(Math.min(Math.log((p + 1e-4) / (1 - p + 1e-4)) / Math.log(1e4), 1), -1);
  const part = (name, from, to) => svg("rect", { class: name, x: x(from), y: 18, width: Math.max(x(to) - x(from), 1), height: 14 });
  const at = Math.max(Math.min(x(score), 994), 6);
  shown.place.scale.replaceChildren(svg("svg", { class: "scale", viewBox: "0 0 1000 34", preserveAspectRatio: "none", role: "img", "aria-label": `score ${digits(score)}, review from ${digits(review)}, block from ${digits(block)}` },
    part("allow", 0, review), part("review", review, block), part("block", block, 1), svg("path", { class: "at", d: `M${at - 7} 2 h14 l-7 14 Z` })),
  quiet(`review from ${digits(review)}, block from ${digits(block)}`));
}

const eventsOf = (reason) => reason.events ?? (reason.event === null || reason.event === undefined ? [] : [reason.event]);

function listReasons(shown) {
  const most = Math.max(...shown.result.reasons.map((reason) => Math.abs(reason.contribution)), 0.01);
  const items = shown.result.reasons.map((reason, k) => {
    const on = eventsOf(reason);
    const bar = element("i", { class: reason.contribution > 0 ? "up" : "down" });
    bar.style.width = `${Math.max(100 * Math.abs(reason.contribution) / most, 2)}%`;
    const beside = reason.observed !== undefined && reason.observed !== null && reason.usual !== undefined && reason.usual !== null ? ` (observed ${reason.observed}, usual ${reason.usual})` : "";
    const chips = on.slice(0, 8).map((i) => button(`#${i + 1}`, () => shown.place.picture.querySelectorAll("circle")[i].focus(), { class: "chip", "aria-label": `to event ${i + 1}` }));
    return element("li", {}, element("span", { class: "why" }, String(k + 1)), element("div", {},
      element("p", {}, reason.text ?? `${reason.field}: ${reason.value}${beside}`),
      element("p", { class: "quiet" }, on.length ? null : "the sequence as a whole ", ...chips, on.length > chips.length ? ` and ${on.length - chips.length} more` : null)),
    element("div", { class: "weight", title: "log odds added to the score" }, element("span", {}, bar), signed(reason.contribution)));
  });
  return card("Reasons", items.length ? element("ol", { id: "reasons" }, ...items) : quiet("Nothing stands out."),
    quiet("What counts most, in log odds: + speaks for an anomaly, - for a genuine account. Numbers are those at the events above."));
}

function drawEvents(shown, columns) {
  const { sequence, result, out, place } = shown, scores = result.events.map((event) => event.score);
  const rings = new Map();
  result.reasons.forEach((reason, k) => reason.contribution > 0 && eventsOf(reason).forEach((i) => rings.has(i) || rings.set(i, k + 1)));
  Object.assign(place, { picture: element("div", { id: "events" }), event: element("p", { id: "event", class: "quiet", "aria-live": "polite" }, "Point at an event, or reach it with Tab and arrow keys, to see it."), removed: element("p", { id: "removed", "aria-live": "polite" }) });
  shown.draw = () => timeline(place.picture, { events: sequence.events, scores, column: shown.column, across: shown.across, rings, out, label: "Events", pick: toggle, tell });
  const rows = allEvents(sequence.events);
  function tell(i) {
    const fields = Object.entries(rows[i]).filter(([, v]) => v !== null).map(([name, value]) => name === "ts" ? `${day(seconds(value) ?? 0)}:${String(Math.floor((seconds(value) ?? 0) % 60)).padStart(2, "0")}` : `${name} ${value}`);
    place.event.textContent = `#${i + 1}, score ${digits(scores[i])}: ${fields.join(", ")}`;
  }
  function toggle(i) { if (!out.delete(i)) out.add(i); takeOut(i); }
  async function takeOut(i = null) {
    shown.draw();
    if (i !== null) place.picture.querySelectorAll("circle")[i].focus();
    back.disabled = !out.size;
    if (!out.size || out.size === rows.length) { place.removed.textContent = out.size ? "No event is left." : ""; return; }
    try {
      const [r] = await score([{ ...sequence, events: without(sequence.events, out) }]);
      place.removed.replaceChildren(`With ${plural(out.size, "event")} taken out: ${digits(r.score)}, `, pill(r.decision));
    } catch (error) { place.removed.textContent = error.message; }
  }
  const takeThese = (these) => { out.clear(); these.forEach((i) => out.add(i)); takeOut(); };
  const back = button("Put all back", () => takeThese([]), { disabled: true, id: "back" });
  const least = button("Fewest to leave out", async () => {
    try {
      const [{ counterfactual: found }] = await score([sequence], { counterfactual: true });
      if (found?.without?.length) takeThese(found.without);
      else place.removed.textContent = "No few events decide it.";
    } catch (error) { place.removed.textContent = error.message; }
  }, { id: "counterfactual", hidden: true });
  tellsCounterfactual().then((known) => { least.hidden = !known || result.decision === "allow"; });
  const { repair } = result;
  return card("Events", element("div", { class: "row low" },
    choice("Across", [["time", "time"], ["order", "order"]].sort(([a]) => a === shown.across ? -1 : 1), (value) => { shown.across = value; shown.draw(); }),
    choice("Up", columns.map((name) => [name, name]), (value) => { shown.column = value; shown.draw(); }),
    element("p", { class: "legend" }, element("span", {}, "score 0 ", scaleKey(), " 1"), element("span", {}, element("b", { class: "why" }, "1"), " number of a reason"))),
  place.picture, place.event, place.removed,
  element("div", { class: "row" }, element("span", { class: "quiet" }, "A click takes an event out, or back in."), least,
    repair.strategy === "drop_events" && button("Take out what repair drops", () => takeThese(repair.drop), { id: "repair" }), back,
    element("span", { class: "quiet" }, "To repair the log, "), element("strong", { id: "advice" }, ADVICE[repair.strategy](repair))));
}

function scaleKey() {
  return svg("svg", { viewBox: "0 0 80 10", class: "ramp", "aria-hidden": "true" }, ...[0, 0.25, 0.5, 0.75, 1].map((score, k) => {
    const box = svg("rect", { x: 16 * k, y: 0, width: 16, height: 10 });
    box.style.fill = colour(score);
    return box;
  }));
}

// Beside an account that the model allows, of the length nearest to this one's.
async function compare(shown) {
  const { sequence, result } = shown, mine = figures(sequence.events, result.events.map((event) => event.score));
  let found = [];
  try { found = await genuine(); } catch { /* the key may be for review alone, and the figures still help */ }
  const length = count(sequence.events), itself = JSON.stringify(sequence.events);
  const near = found.filter((one) => JSON.stringify(one.sequence.events) !== itself).sort((a, b) => Math.abs(count(a.sequence.events) - length) - Math.abs(count(b.sequence.events) - length))[0];
  if (!near) return card("Beside a typical account", table("This account in figures", ["", "this account"], mine), quiet("The bundle holds no sample that is allowed."));
  const scores = near.result.events.map((event) => event.score), theirs = new Map(figures(near.sequence.events, scores));
  const picture = element("div");
  shown.besideTypical = () => timeline(picture, { events: near.sequence.events, scores, column: shown.column, across: spread(allEvents(near.sequence.events).map(({ ts }) => seconds(ts))) ? "time" : "order", label: "Events of a typical account" });
  return card("Beside a typical account", table("This account beside a typical one", ["", "this account", "typical"], mine.map(([name, value]) => [name, value, theirs.get(name) ?? ""]), [1, 2]),
    element("h3", {}, "The typical one"), picture,
    quiet(`It is a sample from the bundle that the model allows (score ${digits(near.result.score)}), of those the nearest in length.`));
}

// What the sequence would score with only one event taken out, each in its turn.
function tryEach(shown) {
  const { sequence, result } = shown, length = count(sequence.events), bars = element("div", { id: "without", role: "img", "aria-label": "Change of the score without each event" }), place = problem();
  const start = button("Score without each event", async () => {
    start.disabled = true;
    const order = [...result.events.keys()].sort((a, b) => result.events[b].score - result.events[a].score); // of a long one, those blamed most
    const tried = order.slice(0, Math.max(Math.floor(MOST_VALUES / length), 1)), changed = new Map();
    try {
      for (let k = 0; k < tried.length; k += 32) {
        const some = tried.slice(k, k + 32);
        const results = await score(some.map((i) => ({ id: "without", segment: sequence.segment, events: without(sequence.events, new Set([i])) })));
        some.forEach((i, n) => results[n].error || changed.set(i, results[n].score));
      }
    } catch (error) { place.textContent = error.message; }
    drawEach(bars, result, changed);
  }, { id: "each" });
  return card("Without one event", element("div", { class: "row" }, length < 2 ? quiet("It has only one event.") : start, quiet("Below the line, the score is lower without that event; above, higher.")), bars, place);
}

function drawEach(bars, result, changed) {
  const logit = (p) => Math.log((p + 1e-6) / (1 - p + 1e-6));
  const moves = [...changed].map(([i, without]) => [i, logit(without) - logit(result.score), without]);
  const most = Math.max(0.5, ...moves.map(([, by]) => Math.abs(by)));
  const cells = result.events.map(() => element("div"));
  for (const [i, by, without] of moves) {
    const bar = element("i", { class: by < 0 ? "down" : "up", title: `without #${i + 1}: ${digits(without)}` }), height = Math.max(48 * Math.abs(by) / most, 1);
    bar.style.height = `${height}%`;
    bar.style.top = `${by < 0 ? 50 : 50 - height}%`;
    cells[i].append(bar);
  }
  bars.replaceChildren(...cells);
}
