// One answer in full: its score against the thresholds, the reasons for it, and a typical account beside it.

import { width } from "./draw.js";
import { drawEvents, eventsOf, score, tryEach } from "./events.js";
import { allEvents, button, call, card, count, day, digits, element, named, percent, pill, quiet, seconds, svg, table } from "./page.js";
import { columnsOf, figures, spread, timeline } from "./timeline.js";

let model = null,
  typical = null; // asked for once while the page is open
const signed = (value) => (value > 0 ? "+" : "") + value.toFixed(2);

// The golden samples that are allowed, with their scores: what genuine accounts look like to this model.
const genuine = () =>
  (typical ??= (async () => {
    const { sequences } = await call("v1/samples");
    const results = await score(sequences);
    return sequences.map((sequence, i) => ({ sequence, result: results[i] })).filter(({ result }) => result.decision === "allow");
  })().catch((error) => {
    typical = null;
    throw error;
  }));

// Scores a sequence and shows the answer in `root`; `beside` are elements below its head, such as those for a verdict.
// An answer that is `kept` is judged alone: beside the crowd, in which its account goes by another name, it would copy itself.
export async function showAnswer(root, sequence, beside = [], kept = null) {
  const how = { alone: kept !== null };
  const [[result], thresholds, { promise }] = await Promise.all([
    score([sequence], { ...how, reasons: 12, repair: true }),
    call("v1/thresholds"),
    (model ??= call("v1/model").catch((error) => {
      model = null;
      throw error;
    })),
  ]);
  if (result.error) throw new SyntaxError(`${sequence.id}: ${result.error.detail}`);
  const rows = allEvents(sequence.events),
    columns = columnsOf(rows);
  const shown = {
    sequence,
    result,
    how,
    thresholds,
    whose: promise.of,
    out: new Set(),
    column: columns[0] ?? "action",
    across: spread(rows.map(({ ts }) => seconds(ts))) ? "time" : "order",
    place: {},
  };
  const reasons = listReasons(shown),
    events = drawEvents(shown, columns);
  root.replaceChildren(head(shown, kept, beside), events, element("div", { class: "grid" }, reasons, await compare(shown)), tryEach(shown));
  shown.root = root;
  shown.redraw = () => {
    drawScale(shown);
    shown.draw();
    shown.besideTypical?.();
  };
  shown.redraw();
  return shown;
}

function head(shown, kept, beside) {
  const { result, sequence } = shown;
  const says = [named(result.type), result.listed && `by the ${result.listed} list`, exempt(result)].filter(Boolean).join(", ");
  shown.place.scale = element("div");
  const { false_alarm_rate: rate, support, missing } = result;
  const told = [
    `${percent(rate)} of ${shown.whose} score as high`,
    support.recall === null ? "" : `on as much evidence ${percent(support.recall)} of known attackers are flagged`,
    missing.length ? `unknown: ${missing.join(", ")}` : "",
  ]
    .filter(Boolean)
    .join("; ");
  const before =
    kept &&
    element(
      "p",
      { id: "kept" },
      `Answered ${day(kept.time)} UTC: `,
      pill(kept.decision),
      ` ${digits(kept.score)}${kept.type ? `, ${named(kept.type)}` : ""}${kept.segment ? `, segment ${kept.segment}` : ""}${kept.retroactive ? ", flagged since a campaign was found" : ""}. What follows is scored now and alone: without the crowd, and without what the account did before.`,
    );
  return element(
    "section",
    { class: "card answer" },
    element("h3", { class: "account" }, `Account ${kept?.user_id ?? sequence.user_id ?? sequence.id}`),
    before,
    element(
      "div",
      { class: "row" },
      element("strong", { id: "value" }, digits(result.score)),
      element("span", { id: "decision", class: `pill ${result.decision}` }, result.decision),
      element("span", { id: "type" }, says),
    ),
    shown.place.scale,
    element("p", { class: "quiet", id: "legend" }, told),
    ...beside,
  );
}

function exempt({ exempt: found }) {
  // why what the thresholds flag is allowed
  return found && `called genuine, until ${day(found.until).slice(0, 10)}: the thresholds say ${found.decision}`;
}

// Scores from which the sequence is reviewed and blocked, as far as they can be told.
function limits({ sequence, result, thresholds }) {
  const { segment } = sequence;
  const own = Object.hasOwn(thresholds.segments, segment ?? "") ? thresholds.segments[segment] : undefined;
  const curve = own ? {} : (thresholds.curves?.findLast(({ events }) => events <= result.support.events) ?? {});
  const of = (level) => (own ?? thresholds)[level] ?? curve[level] ?? 1;
  return { review: Math.min(of("review"), of("block")), block: of("block") };
}

// The score between 0 and 1, in log odds, where thresholds near 1 stand apart.
function drawScale(shown) {
  const { review, block } = limits(shown),
    { score } = shown.result;
  const w = width(shown.place.scale, 240, 1400);
  const x = (p) => (w / 2) * (1 + Math.max(Math.min(Math.log((p + 1e-4) / (1 - p + 1e-4)) / Math.log(1e4), 1), -1));
  const part = (name, from, to) => svg("rect", { class: name, x: x(from), y: 18, width: Math.max(x(to) - x(from), 1), height: 14 });
  const at = Math.max(Math.min(x(score), w - 7), 7);
  shown.place.scale.replaceChildren(
    svg(
      "svg",
      {
        class: "scale",
        viewBox: `0 0 ${w} 34`,
        role: "img",
        "aria-label": `score ${digits(score)}, review from ${digits(review)}, block from ${digits(block)}`,
      },
      part("allow", 0, review),
      part("review", review, block),
      part("block", block, 1),
      svg("path", { class: "at", d: `M${at - 7} 2 h14 l-7 14 Z` }),
    ),
    quiet(`review from ${digits(review)}, block from ${digits(block)}`),
  );
}

function listReasons(shown) {
  const most = Math.max(...shown.result.reasons.map((reason) => Math.abs(reason.contribution)), 0.01);
  const items = shown.result.reasons.map((reason, k) => {
    const on = eventsOf(reason);
    const bar = element("i", { class: reason.contribution > 0 ? "up" : "down" });
    bar.style.width = `${Math.max((100 * Math.abs(reason.contribution)) / most, 2)}%`;
    const beside =
      reason.observed !== undefined && reason.observed !== null && reason.usual !== undefined && reason.usual !== null
        ? ` (observed ${reason.observed}, usual ${reason.usual})`
        : "";
    const chips = on.slice(0, 8).map((i) =>
      button(`#${i + 1}`, () => shown.place.picture.querySelectorAll("circle")[i].focus(), {
        class: "chip",
        "aria-label": `to event ${i + 1}`,
      }),
    );
    return element(
      "li",
      {},
      element("span", { class: "why" }, String(k + 1)),
      element(
        "div",
        {},
        element("p", {}, reason.text ?? `${reason.field}: ${reason.value}${beside}`),
        element(
          "p",
          { class: "quiet" },
          on.length ? null : "the sequence as a whole ",
          ...chips,
          on.length > chips.length ? ` and ${on.length - chips.length} more` : null,
        ),
      ),
      element("div", { class: "weight", title: "log odds added to the score" }, element("span", {}, bar), signed(reason.contribution)),
    );
  });
  return card(
    "Reasons",
    items.length ? element("ol", { id: "reasons" }, ...items) : quiet("Nothing stands out."),
    quiet("What counts most, in log odds: + speaks for an anomaly, - for a genuine account. Numbers are those at the events above."),
  );
}

// Beside an account that the model allows, of the length nearest to this one's.
async function compare(shown) {
  const { sequence, result } = shown,
    mine = figures(
      sequence.events,
      result.events.map((event) => event.score),
    );
  let found = [];
  try {
    found = await genuine();
  } catch {
    /* the key may be for review alone, and the figures still help */
  }
  const length = count(sequence.events),
    itself = JSON.stringify(sequence.events);
  const near = found
    .filter((one) => JSON.stringify(one.sequence.events) !== itself)
    .sort((a, b) => Math.abs(count(a.sequence.events) - length) - Math.abs(count(b.sequence.events) - length))[0];
  if (!near)
    return card(
      "Beside a typical account",
      table("This account in figures", ["", "this account"], mine),
      quiet("The bundle holds no sample that is allowed."),
    );
  const scores = near.result.events.map((event) => event.score),
    theirs = new Map(figures(near.sequence.events, scores));
  const picture = element("div");
  shown.besideTypical = () =>
    timeline(picture, {
      events: near.sequence.events,
      scores,
      column: shown.column,
      across: spread(allEvents(near.sequence.events).map(({ ts }) => seconds(ts))) ? "time" : "order",
      label: "Events of a typical account",
    });
  return card(
    "Beside a typical account",
    table(
      "This account beside a typical one",
      ["", "this account", "typical"],
      mine.map(([name, value]) => [name, value, theirs.get(name) ?? ""]),
      [1, 2],
    ),
    element("h3", {}, "The typical one"),
    picture,
    quiet(`It is a sample from the bundle that the model allows (score ${digits(near.result.score)}), of those the nearest in length.`),
  );
}
