// How the service is now, and has been for an hour.

import { bars, curves, legend } from "./draw.js";
import { bounds, call, card, clock, day, element, keepFocus, lasting, percent, plural, quiet, refill, table } from "./page.js";

export const title = "Now",
  every = 10;
const LEVELS = { review_rate: "reviewed or blocked", block_rate: "blocked" };
const rate = (value) => (value >= 100 ? Math.round(value).toString() : Number(value.toPrecision(2)).toString());
const time = (value) => (value < 1 ? `${Number((1000 * value).toPrecision(3))} ms` : `${value.toPrecision(2)} s`);
let place = null,
  figures = [],
  last = null;

export async function open(root) {
  place = {
    alerts: card("Alerts"),
    tiles: element("div", { class: "tiles" }),
    curves: element("div", { class: "grid wide" }),
    scores: card("Scores, recent and at validation"),
    promise: card("The promise"),
    model: card("Model"),
  };
  await refresh(); // so that nothing empty is shown first
  root.append(
    place.alerts,
    place.tiles,
    card("The last hour", place.curves),
    element("div", { class: "grid" }, place.scores, place.promise, place.model),
  );
  redraw();
}

export async function refresh() {
  const [now, model] = await Promise.all([call("v1/now"), call("v1/model").catch(() => null)]);
  last = now;
  keepFocus(() => {
    drawAlerts(now);
    drawTiles(now);
    drawCurves(now.curves, now.objective_seconds);
    drawPromise(now, model);
    drawModel(now, model);
    if (place.alerts.isConnected) redraw();
  });
}

export function redraw() {
  figures.forEach((figure) => figure.redraw());
  drawScores(last.scores);
}

function drawAlerts({ alerts, untold }) {
  const rows = alerts.map((alert) =>
    element(
      "li",
      {},
      element("span", { class: `pill ${alert.fires ? "block" : "review"}` }, alert.fires ? "fires" : "pending"),
      element("b", {}, alert.name),
      element("span", {}, `${alert.says}: ${rate(alert.value)}, limit ${rate(alert.limit)}`),
      element("span", { class: "quiet" }, `since ${clock(alert.since)} UTC`),
    ),
  );
  place.alerts.replaceChildren(
    place.alerts.firstChild,
    rows.length
      ? element("ul", { id: "alerts" }, ...rows)
      : element("p", { class: "good" }, "None would fire, by what this service knows."),
    quiet(`Only Prometheus can tell ${untold.join(", ")}: they need days, other processes, or a service that is down.`),
  );
}

function drawTiles({ curves: { sequences, reviewed, blocked, p99_seconds: slow, queue }, decisions, workers }) {
  const scored = decisions.allow + decisions.review + decisions.block;
  const tiles = [
    [rate(sequences.at(-1) ?? 0), "sequences a second"],
    [scored.toLocaleString("en"), "scored since the start"],
    [percent(reviewed.at(-1) ?? 0), "reviewed, last 5 minutes"],
    [percent(blocked.at(-1) ?? 0), "blocked, last 5 minutes"],
    [time(slow.at(-1) ?? 0), "99 in 100 answered within"],
    [percent(queue.at(-1) ?? 0), "of the queue taken"],
    [workers.toString(), workers === 1 ? "worker serves" : "workers serve, counted together"],
  ];
  place.tiles.replaceChildren(
    ...tiles.map(([value, name]) => element("div", { class: "tile" }, element("b", {}, value), element("span", {}, name))),
  );
}

function drawCurves(c, objective) {
  figures = [
    curves(
      "Traffic, a second",
      c.time,
      [
        { name: "sequences", values: c.sequences, class: "main" },
        { name: "requests", values: c.requests, class: "second" },
      ],
      { as: rate },
    ),
    curves(
      "Decisions, share over 5 minutes",
      c.time,
      [
        { name: "reviewed", values: c.reviewed, class: "review" },
        { name: "blocked", values: c.blocked, class: "block" },
      ],
      { as: percent, least: 0.05 },
    ),
    curves(
      "Time of a scoring request",
      c.time,
      [
        { name: "median", values: c.median_seconds, class: "second" },
        { name: "99 in 100", values: c.p99_seconds, class: "main" },
      ],
      { as: time, limit: { value: objective, name: "objective" } },
    ),
    curves("Scores moved from validation, PSI", c.time, [{ name: "PSI", values: c.score_drift, class: "main" }], {
      as: rate,
      limit: { value: 0.25, name: "major" },
    }),
    curves("Queue, share taken", c.time, [{ name: "taken", values: c.queue, class: "main" }], {
      as: percent,
      limit: { value: 0.8, name: "alert" },
    }),
    curves("Refused or late, a second", c.time, [{ name: "refused", values: c.refused, class: "block" }], { as: rate }),
  ];
  place.curves.replaceChildren(...figures);
}

function drawScores({ expected, recent }) {
  const share = (counts) => {
    const all = counts.reduce((a, b) => a + b, 0);
    return counts.map((n) => n / Math.max(all, 1e-9));
  };
  const series = [
    { name: "at validation", class: "second", shares: share(expected) },
    { name: "recent", class: "main", shares: share(recent) },
  ];
  const picture = element("div");
  const seen = Math.round(recent.reduce((a, b) => a + b, 0));
  place.scores.replaceChildren(
    place.scores.firstChild,
    picture,
    legend(series),
    quiet(seen ? `Share of sequences by score. Recent: ${plural(seen, "sequence")}, of which older ones fade.` : "Nothing was scored yet."),
  );
  bars(picture, "Share of sequences by score, recent and at validation", series, {
    ticks: [
      [0, "0"],
      [5, "0.25"],
      [10, "0.5"],
      [15, "0.75"],
      [20, "1"],
    ],
  });
}

function drawPromise({ rates, precision, recall }, model) {
  const rows = rates.map(({ level, asked, delivered }) => [
    LEVELS[level],
    percent(asked),
    bounds(delivered, percent),
    delivered === null ? "" : delivered[1] > asked ? element("b", { class: "bad" }, "broken") : delivered[2] <= asked ? "kept" : "may hold",
  ]);
  const of = model?.promise.of ?? "genuine accounts";
  refill(
    place.promise,
    place.promise.firstChild,
    rates.length
      ? table(`Share of ${of} that is flagged`, [`of ${of}`, "promised", "observed", ""], rows)
      : quiet("Thresholds in force are scores, which promise no rate."),
    quiet("Observed by people's verdicts: the share, and its 95 % interval."),
    element(
      "dl",
      {},
      element("dt", {}, "Precision by verdicts"),
      element("dd", {}, bounds(precision)),
      element("dt", {}, "Recall by verdicts"),
      element("dd", {}, bounds(recall)),
    ),
    !precision && quiet("No flagged answer has a verdict yet: see Queue."),
    !recall && quiet("Recall needs verdicts on the sample of allowed answers, too."),
  );
}

function drawModel({ challenger, time: at }, model) {
  if (!model) {
    place.model.replaceChildren(place.model.firstChild, quiet("This key may not see the model; it needs the scope score or admin."));
    return;
  }
  const rows = [
    ["Serves", `${model.name} ${model.version}`],
    ["Fitted", `${model.created.slice(0, 16).replace("T", " ")}, ${lasting(Math.max(at - Date.parse(model.created) / 1000, 0))} ago`],
    ["Runs", `${model.precision} on ${model.provider}`],
    ["Scores are for", `${percent(model.prevalence)} of anomalies in traffic`],
    ["Challenger", model.challenger ? `${model.challenger.name} ${model.challenger.version}` : "none"],
  ];
  if (model.challenger)
    rows.push([
      "It agrees",
      challenger ? `on ${percent(challenger.agree)} of ${plural(challenger.sequences, "sequence")}` : "has compared nothing yet",
    ]);
  place.model.replaceChildren(
    place.model.firstChild,
    element("dl", {}, ...rows.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)])),
    quiet(`As of ${day(at)} UTC`),
  );
}
