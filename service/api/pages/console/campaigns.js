// Accounts that act together: who, what they push, when; and one verdict for all of them.

import { width } from "./draw.js";
import { button, call, card, cut, day, digits, element, keepFocus, lasting, percent, pill, plural, quiet, svg, table } from "./page.js";

export const title = "Campaigns",
  every = 15;
const ACCOUNTS = 40,
  VALUES = 12; // drawn in the graph; tables have them all
let place = null,
  found = [],
  chosen = null;
const pushes = ({ column, value, side, copies, number }) =>
  copies ? "copies of one history" : [column ?? "value", value ?? number, side].filter(Boolean).join(" ");
const nameOf = (m) => m.user_id ?? m.sequence_id ?? `number ${m.number}`;
const chance = (log10) => (log10 < -6 ? "practically never" : `${(10 ** log10).toPrecision(1)} times`);

export async function open(root, id) {
  chosen = id ?? null;
  place = {
    list: element("ul", { id: "campaigns" }),
    said: element("p", { id: "agreed", "aria-live": "polite" }), // what is said is only heard from an element that stays
    one: element("div", { class: "view", id: "campaign" }),
  };
  await refresh();
  root.append(
    element(
      "div",
      { class: "split" },
      card(
        "Accounts that act together",
        place.list,
        quiet("They are looked for now and then. Of several workers, the one that answers tells what it has found."),
      ),
      element("div", {}, place.said, place.one),
    ),
  );
  redraw();
}

export async function refresh() {
  const before = JSON.stringify(found);
  found = (await call("v1/campaigns")).campaigns;
  if (!found.some(({ id }) => id === chosen)) chosen = found[0]?.id ?? null;
  drawList();
  if (place.one.isConnected && before !== JSON.stringify(found)) redraw();
}

export const redraw = () => keepFocus(drawOne);

function drawOne() {
  const one = found.find(({ id }) => id === chosen);
  place.one.replaceChildren(
    ...(one
      ? [head(one)]
      : [
          card(
            null,
            element("p", { class: "good" }, "No campaign is found now."),
            quiet("A service needs a crowd of accounts to tell who acts together: see RECGUARD_CROWD and RECGUARD_CAMPAIGN_SECONDS."),
          ),
        ]),
  );
  if (!one) return;
  const times = element("div", { id: "times" }),
    graph = element("div", { id: "graph" });
  place.one.append(
    element(
      "div",
      { class: "grid" },
      card(
        "Who pushes what",
        graph,
        quiet(
          `Lines: who took up what is pushed. ${one.members.length > ACCOUNTS ? `The ${ACCOUNTS} most certain of ${one.members.length} accounts are drawn.` : ""}`,
        ),
      ),
      element("div", { class: "view" }, card("When they took it up", times), card("What they push", pushed(one))),
    ),
    card("Members", members(one)),
  );
  drawGraph(graph, one);
  drawTimes(times, one.members);
}

function drawList() {
  keepFocus(() => place.list.replaceChildren(...found.map((one) => element("li", {}, choiceOf(one)))));
}

function choiceOf(one) {
  return element(
    "button",
    {
      type: "button",
      onclick: () => {
        chosen = one.id;
        place.said.textContent = "";
        drawList();
        redraw();
      },
      "aria-current": one.id === chosen ? "true" : null,
      "data-of": one.id,
    },
    element("b", {}, `${one.accounts} accounts, ${one.pushed.slice(0, 2).map(pushes).join(", ")}`),
    element("span", { class: "quiet" }, `since ${day(one.since)}, ${one.verdict ?? "no verdict"}`),
  );
}

function head(one) {
  const give = (verdict) =>
    button(
      verdict,
      async () => {
        try {
          const answer = await call(`v1/campaigns/${one.id}/verdict`, { verdict });
          place.said.textContent = `recorded: ${verdict}, on ${answer.answers} of ${answer.accounts} accounts`;
          await refresh();
        } catch (error) {
          place.said.textContent = error.message;
        }
      },
      { "data-all": verdict },
    );
  return card(
    `Campaign of ${plural(one.accounts, "account")}`,
    element(
      "p",
      {},
      `Chance makes such a group ${chance(one.log10_expected)} among all that is known now. It began ${day(one.since)} and was found ${day(one.found)} (UTC).`,
    ),
    element(
      "div",
      { class: "row" },
      element("span", { class: "quiet" }, one.verdict ? `Called ${one.verdict}. All of them are` : "All of them are"),
      give("anomalous"),
      give("normal"),
    ),
  );
}

const pushed = (one) =>
  element(
    "div",
    { id: "pushed" },
    table(
      "What they push",
      ["value", "from", "until", "accounts", "usual"],
      one.pushed.map((p) => [pushes(p), day(p.start), day(p.end), String(p.accounts), p.usual.toFixed(2)]),
      [3, 4],
    ),
  );

function members(one) {
  return element(
    "div",
    { id: "members" },
    table(
      "Members",
      ["account", "took it up (UTC)", "certainty", "decision", "score", ""],
      one.members.map((m) => [
        m.user_id || m.sequence_id ? nameOf(m) : `${nameOf(m)}, answered elsewhere`,
        day(m.time),
        percent(Number(m.certainty.toFixed(2))),
        m.decision ? pill(m.decision) : "",
        m.score === null ? "" : digits(m.score),
        m.score_id && m.decision !== "allow" ? element("a", { href: `#account/${m.score_id}` }, "open") : "",
      ]),
      [2, 4],
    ),
  );
}

function drawGraph(graph, one) {
  const who = one.members.slice(0, ACCOUNTS),
    what = one.pushed.slice(0, VALUES),
    w = width(graph, 280, 760);
  const height = Math.max(who.length * 17, what.length * 34, 60) + 12,
    side = Math.min(w * 0.3, 170);
  const y = (k, n) => 10 + ((height - 20) * (k + 0.5)) / n;
  const lines = what.flatMap((value, v) =>
    value.members
      .filter((m) => m < who.length)
      .map((m) =>
        svg("path", {
          class: "edge",
          d: `M${side} ${y(m, who.length)} C${w / 2} ${y(m, who.length)} ${w / 2} ${y(v, what.length)} ${w - side} ${y(v, what.length)}`,
        }),
      ),
  );
  graph.replaceChildren(
    svg(
      "svg",
      {
        class: "chart",
        viewBox: `0 0 ${w} ${height}`,
        role: "img",
        "aria-label": `${who.length} accounts and the ${plural(what.length, "value")} that they push`,
      },
      ...lines,
      ...who.flatMap((m, k) => [
        svg("circle", { class: m.decision ?? "unseen", cx: side, cy: y(k, who.length), r: 5 }),
        svg("text", { class: "end", x: side - 9, y: y(k, who.length) + 4 }, cut(nameOf(m), Math.floor(side / 7))),
      ]),
      ...what.flatMap((value, v) => [
        svg("rect", { class: "main", x: w - side - 5, y: y(v, what.length) - 6, width: 12, height: 12, rx: 2 }),
        svg("text", { x: w - side + 12, y: y(v, what.length) + 1 }, cut(pushes(value), Math.floor(side / 6.4))),
        svg("text", { x: w - side + 12, y: y(v, what.length) + 13 }, `${value.accounts}, usual ${value.usual.toFixed(1)}`),
      ]),
    ),
    key(),
  );
}

const key = () =>
  element(
    "p",
    { class: "legend" },
    ...[
      ["allow", "allow"],
      ["review", "review"],
      ["block", "block"],
      ["unseen", "not answered here"],
    ].map(([name, words]) => element("span", {}, element("i", { class: `key ${name}` }), words)),
  );

// Members as a heap of squares over time.
function drawTimes(times, some) {
  const at = some.map(({ time }) => time),
    first = Math.min(...at),
    last = Math.max(...at),
    w = width(times, 280, 760),
    bins = Math.floor(w / 14),
    heaps = new Map();
  for (const { time, decision } of [...some].sort((a, b) => String(a.decision).localeCompare(String(b.decision)))) {
    const k = Math.round(((bins - 1) * (time - first)) / Math.max(last - first, 1));
    heaps.set(k, [...(heaps.get(k) ?? []), decision ?? "unseen"]);
  }
  const tallest = Math.max(...[...heaps.values()].map((heap) => heap.length)),
    size = Math.min(90 / tallest, 12),
    floor = Math.max(size * tallest, 24) + 6;
  times.replaceChildren(
    svg(
      "svg",
      {
        class: "chart",
        viewBox: `0 0 ${w} ${floor + 22}`,
        role: "img",
        "aria-label": `Accounts over time, from ${day(first)} to ${day(last)}`,
      },
      ...[...heaps].flatMap(([k, heap]) =>
        heap.map((decision, n) =>
          svg("rect", {
            class: decision,
            x: 2 + ((w - 16) * k) / Math.max(bins - 1, 1),
            y: floor - 1 - size * (n + 1),
            width: 11,
            height: Math.max(size - 1, 1),
          }),
        ),
      ),
      svg("line", { class: "grid", x1: 0, x2: w, y1: floor, y2: floor }),
      svg("text", { x: 2, y: floor + 16 }, day(first)),
      last > first && svg("text", { class: "end", x: w - 2, y: floor + 16 }, `${lasting(last - first)} later`),
    ),
  );
}
