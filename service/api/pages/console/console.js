// The console: sends what is in the text field to /v1/score and draws the answer; no library, nothing from elsewhere.

const $ = (id) => document.getElementById(id);
const MOST_VALUES = 16000; // events sent at most to try what each one changes
const key = sessionStorage.getItem("key") ?? "";
let thresholds = { segments: {} };
let shown = null; // { sequence, result, out: Set of event numbers }
let whose = "genuine accounts"; // whose share a false-alarm rate is
let before = null; // the counters of the last look, for rates

$("key").value = key;
$("key").addEventListener("change", () => { sessionStorage.setItem("key", $("key").value); start(); review(false); campaigns(); });
$("score").addEventListener("click", () => scoreInput());
for (const button of document.querySelectorAll("[data-verdict]")) {
  button.addEventListener("click", () => say(button.dataset.verdict));
}
$("next").addEventListener("click", () => review(true));
document.addEventListener("keydown", (e) => {
  const verdict = { a: "anomalous", n: "normal", s: null }[e.key];
  if (verdict === undefined || e.ctrlKey || e.metaKey || e.altKey || !shown?.kept || /^(INPUT|TEXTAREA)$/.test(e.target.tagName)) return;
  e.preventDefault();
  if (verdict) say(verdict); else skip();
});
$("input").addEventListener("keydown", (e) => { if (e.key === "Enter" && (e.ctrlKey || e.metaKey)) scoreInput(); });

async function call(path, body) {
  const headers = {};
  if ($("key").value) headers.Authorization = `Bearer ${$("key").value}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const answer = await fetch(path, { method: body === undefined ? "GET" : "POST", headers, body: body && JSON.stringify(body) });
  const type = answer.headers.get("content-type") ?? "";
  if (!answer.ok) {
    const problem = type.includes("json") ? await answer.json() : { detail: await answer.text() };
    const places = (problem.errors ?? []).slice(0, 5).map((e) => `${e.pointer}: ${e.detail}`);
    throw new Error([`${answer.status}: ${problem.detail}`, ...places].join("\n"));
  }
  return type.includes("json") ? answer.json() : answer.text();
}

function element(tag, attributes = {}, text = "") {
  const made = tag === "rect" || tag === "path"
    ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text) made.textContent = text;
  return made;
}

const columns = (events) => !Array.isArray(events);
const count = (events) => columns(events) ? Object.values(events)[0].length : events.length;
const without = (events, out) => columns(events)
  ? Object.fromEntries(Object.entries(events).map(([name, values]) => [name, values.filter((_, i) => !out.has(i))]))
  : events.filter((_, i) => !out.has(i));
const eventAt = (events, i) => columns(events)
  ? Object.fromEntries(Object.entries(events).map(([name, values]) => [name, values[i]])) : events[i];
const colour = (score) => `color-mix(in oklab, var(--block) ${Math.round(100 * score)}%, var(--low))`;
const digits = (score) => score > 0.9995 || score < 0.0005 ? score.toPrecision(6) : score.toFixed(3);

async function start() {
  try {
    const [model, samples] = await Promise.all([call("v1/model"), call("v1/samples")]);
    $("model").textContent = `${model.name} ${model.version}, ${model.precision} on ${model.provider}`;
    whose = model.promise.of;
    $("problem").textContent = "";
    $("samples").replaceChildren(...samples.sequences.map((sequence, i) => {
      const button = element("button", { type: "button" }, `sample ${i + 1}`);
      button.addEventListener("click", () => { $("input").value = JSON.stringify(sequence, null, 1); scoreInput(); });
      return button;
    }));
    const wanted = Number(new URLSearchParams(location.search).get("sample"));
    if (wanted >= 1 && !shown) $("samples").children[wanted - 1]?.click();
  } catch (error) { $("problem").textContent = error.message; }
}

async function scoreInput() {
  $("problem").textContent = "";
  try {
    const given = JSON.parse($("input").value);
    const sequences = (given.sequences ?? [given]).map((s) => ({ id: "console", ...s }));
    thresholds = await call("v1/thresholds");
    const { results } = await call("v1/score", { sequences, reasons: 12, repair: true, trial: true });
    choose(sequences, results, 0);
  } catch (error) {
    $("answer").hidden = true;
    $("problem").textContent = error.message;
  }
}

function choose(sequences, results, at) {
  $("choice").replaceChildren(...(sequences.length < 2 ? [] : sequences.map((s, i) => {
    const button = element("button", { type: "button", "aria-pressed": i === at }, s.id);
    button.addEventListener("click", () => choose(sequences, results, i));
    return button;
  })));
  const result = results[at];
  if (result.error) throw new Error(`${sequences[at].id}: ${result.error.detail}`);
  shown = { sequence: sequences[at], result, out: new Set() };
  $("answer").hidden = false;
  $("campaign").hidden = true;
  group = null;
  $("value").textContent = digits(result.score);
  $("decision").textContent = result.decision;
  $("decision").className = `pill ${result.decision}`;
  $("type").textContent = [result.type?.replaceAll("_", " "), result.listed && `by the ${result.listed} list`, exempt(result)].filter(Boolean).join(", ");
  drawScale(result.score);
  drawEvents();
  $("reasons").tBodies[0].replaceChildren(...result.reasons.map((r) => {
    const row = element("tr");
    const cells = [r.event === null ? "all" : `#${r.event + 1}`, r.field, r.value, (r.contribution > 0 ? "+" : "") + r.contribution.toFixed(2)];
    row.append(...cells.map((c) => element("td", {}, c)));
    return row;
  }));
  $("removed").textContent = "";
  $("said").textContent = "";
  drawRepair();
  tryWithout();
}

function exempt({ exempt: found }) { // why what the thresholds flag is allowed
  return found && `called genuine, until ${new Date(1000 * found.until).toISOString().slice(0, 10)}: the thresholds say ${found.decision}`;
}

function limits() { // scores from which the sequence shown is reviewed and blocked, as far as they can be told
  const { segment } = shown.sequence;
  const own = Object.hasOwn(thresholds.segments, segment ?? "") ? thresholds.segments[segment] : undefined;
  const curve = own ? {} : thresholds.curves?.findLast(({ events }) => events <= shown.result.support.events) ?? {};
  const of = (level) => (own ?? thresholds)[level] ?? curve[level] ?? 1;
  const block = of("block");
  return { review: Math.min(of("review"), block), block };
}

function drawScale(score) {
  const { review, block } = limits();
  const part = (name, from, to) => element("rect", { class: name, x: 1000 * from, y: 20, width: Math.max(1000 * (to - from), 1), height: 20 });
  const x = 1000 * score;
  $("scale").replaceChildren(
    part("allow", 0, review), part("review", review, block), part("block", block, 1),
    element("path", { class: "at", d: `M${x - 9} 4 L${x + 9} 4 L${x} 20 Z M${x - 2} 20 h4 v20 h-4 Z` }),
  );
  const { false_alarm_rate: rate, support, missing } = shown.result;
  const told = support.recall === null ? "" : `; as much evidence shows ${percent(support.recall)} of attackers`;
  const lacks = missing.length ? `; no ${missing.join(", ")}` : "";
  $("legend").textContent = `review from ${digits(review)}, block from ${digits(block)}; ${percent(rate)} of ${whose} score as high${told}${lacks}`;
}

function percent(share) { return `${(100 * share).toPrecision(2)} %`; }

function drawEvents() {
  const { sequence, result, out } = shown;
  $("events").replaceChildren(...result.events.map(({ score }, i) => {
    const bar = element("button", { type: "button", "aria-label": `event ${i + 1}, score ${score.toFixed(3)}`, class: out.has(i) ? "out" : "" });
    bar.style.height = `${Math.max(100 * score, 3)}%`;
    bar.style.background = colour(score);
    const tell = () => {
      const fields = Object.entries(eventAt(sequence.events, i)).filter(([, v]) => v !== null)
        .map(([name, value]) => name === "ts" && typeof value === "number" ? `${new Date(1000 * value).toISOString()}` : `${name} ${value}`);
      $("event").textContent = `#${i + 1}, score ${score.toFixed(3)}: ${fields.join(", ")}`;
    };
    bar.addEventListener("mouseenter", tell);
    bar.addEventListener("focus", tell);
    bar.addEventListener("click", () => toggle(i));
    return bar;
  }));
}

const ADVICE = {
  keep: () => "keep it",
  weight: ({ weight }) => `keep it, at a weight of ${digits(weight)}`,
  drop_events: ({ drop }) => `drop ${drop.length} of its events`,
  drop_sequence: () => "drop it",
};

function drawRepair() {
  const { repair } = shown.result;
  $("advice").textContent = ADVICE[repair.strategy](repair);
  $("repair").textContent = "show it after";
  $("repair").hidden = repair.strategy !== "drop_events";
}

$("repair").addEventListener("click", () => {
  shown.out = new Set(shown.out.size ? [] : shown.result.repair.drop);
  takeOut();
});

function toggle(i) {
  if (!shown.out.delete(i)) shown.out.add(i);
  takeOut();
}

async function takeOut() {
  const { sequence, out } = shown;
  [...$("events").children].forEach((bar, i) => bar.classList.toggle("out", out.has(i)));
  $("repair").textContent = out.size ? "show it before" : "show it after";
  if (!out.size || out.size === count(sequence.events)) {
    $("removed").textContent = out.size ? "No event is left." : "";
    return;
  }
  try {
    const { results: [r] } = await call("v1/score", {
      sequences: [{ ...sequence, events: without(sequence.events, out) }], trial: true,
    });
    $("removed").textContent = `With ${out.size === 1 ? "1 event" : `${out.size} events`} taken out: ${digits(r.score)}, ${r.decision}.`;
  } catch (error) { $("removed").textContent = error.message; }
}

async function tryWithout() {
  const { sequence, result } = shown;
  const mine = shown;
  const length = count(sequence.events);
  $("without").replaceChildren();
  if (length < 2) return;
  // of a long sequence, the events that are blamed most
  const order = [...result.events.keys()].sort((a, b) => result.events[b].score - result.events[a].score);
  const tried = order.slice(0, Math.max(Math.floor(MOST_VALUES / length), 1));
  const changed = new Map();
  try {
    for (let k = 0; k < tried.length; k += 32) {
      const some = tried.slice(k, k + 32);
      const { results } = await call("v1/score", {
        sequences: some.map((i) => ({ id: "without", segment: sequence.segment, events: without(sequence.events, new Set([i])) })),
        trial: true,
      });
      some.forEach((i, n) => results[n].error || changed.set(i, results[n].score));
    }
  } catch (error) { $("removed").textContent = error.message; }
  if (mine !== shown) return;
  const logit = (p) => Math.log((p + 1e-6) / (1 - p + 1e-6));
  const moves = [...changed].map(([i, score]) => [i, logit(score) - logit(result.score), score]);
  const most = Math.max(0.5, ...moves.map(([, by]) => Math.abs(by)));
  const cells = result.events.map(() => element("div"));
  for (const [i, by, score] of moves) {
    const bar = element("i", { class: by < 0 ? "down" : "up", title: `without #${i + 1}: ${digits(score)}` });
    const height = Math.max(48 * Math.abs(by) / most, 1);
    bar.style.height = `${height}%`;
    bar.style.top = `${by < 0 ? 50 : 50 - height}%`;
    cells[i].append(bar);
  }
  $("without").replaceChildren(...cells);
}

async function say(verdict) {
  const { kept, sequence } = shown;
  try {
    const said = await call("v1/feedback", kept ? { score_id: kept, verdict } : { sequence, verdict });
    const against = said.contradicts ? "; another verdict says otherwise" : "";
    const recorded = `recorded: ${verdict}, where the decision is ${said.decision}${against}`;
    if (kept) await skip();
    $("said").textContent = recorded;
  } catch (error) { $("said").textContent = error.message; }
}

// Answers that wait for a verdict, what teaches most first; those skipped stay away while the page is open.
let queue = [];
const skipped = new Set();

async function skip() {
  skipped.add(shown.kept);
  shown = null;
  await review(true);
}

async function review(open) {
  try {
    queue = (await call("v1/review?most=50")).answers.filter((answer) => !skipped.has(answer.score_id));
    $("open").textContent = queue.length ? `${queue.length === 50 ? "50 or more" : queue.length} wait` : "nothing waits";
    $("queue").replaceChildren(...queue.slice(0, 8).map((answer) => {
      const item = element("li");
      const button = element("button", { type: "button" }, `${answer.decision}, ${digits(answer.score)}, ${answer.type?.replaceAll("_", " ") ?? "sample"}`);
      button.addEventListener("click", () => openKept(answer));
      item.append(button);
      return item;
    }));
    if (open && queue.length) await openKept(queue[0]);
    else if (open) $("answer").hidden = true;
  } catch (error) { $("open").textContent = open ? error.message : ""; } // the key may not be for review
}

async function openKept(answer) {
  $("input").value = JSON.stringify({ id: answer.sequence_id, events: answer.events }, null, 1);
  await scoreInput();
  if (shown) shown.kept = answer.score_id;
  document.activeElement?.blur();
}

// Groups of accounts that act together, the least likely to be chance first.
let group = null; // the campaign shown
const day = (seconds) => new Date(1000 * seconds).toISOString().slice(0, 16).replace("T", " ");
const pushes = ({ column, value, side, copies, number }) =>
  copies ? "copies of one history" : [column ?? "value", value ?? number, side].filter(Boolean).join(" ");
const chance = (log10) => log10 < -6 ? "practically never" : `${(10 ** log10).toPrecision(1)} times`;

async function campaigns() {
  try {
    const found = (await call("v1/campaigns")).campaigns;
    $("acting").textContent = found.length ? "" : "none are found";
    $("campaigns").replaceChildren(...found.map((campaign) => {
      const item = element("li");
      const said = campaign.verdict ? `, ${campaign.verdict}` : "";
      const button = element("button", { type: "button" },
        `${campaign.accounts} accounts, ${campaign.pushed.slice(0, 2).map(pushes).join(", ")}, since ${day(campaign.since)}${said}`);
      button.addEventListener("click", () => { $("agreed").textContent = ""; $("answer").hidden = true; shown = null; showCampaign(campaign); });
      item.append(button);
      return item;
    }));
    group = found.find(({ id }) => id === group?.id) ?? null;
    if (group) showCampaign(group); else $("campaign").hidden = true;
  } catch { $("acting").textContent = ""; } // the key may not be for review
}

function rows(table, cells) {
  $(table).tBodies[0].replaceChildren(...cells.map((some) => {
    const row = element("tr");
    row.append(...some.map((cell) => {
      const made = element("td");
      made.append(cell);
      return made;
    }));
    return row;
  }));
}

function showCampaign(campaign) {
  group = campaign;
  $("campaign").hidden = false;
  $("named").textContent = `of ${campaign.accounts} accounts, found ${day(campaign.found)}`;
  $("unlikely").textContent = `Chance makes such a group ${chance(campaign.log10_expected)} among all that is known now.`;
  rows("pushed", campaign.pushed.map((p) => [pushes(p), day(p.start), day(p.end), String(p.accounts), p.usual.toFixed(2)]));
  rows("members", campaign.members.map((m) => [
    m.user_id ?? m.sequence_id ?? `number ${m.number}, answered elsewhere`, day(m.time), `${Math.round(100 * m.certainty)} %`,
    m.decision ? element("span", { class: `pill ${m.decision}` }, m.decision) : "", m.score === null ? "" : digits(m.score),
  ]));
  drawTimes(campaign.members);
}

function drawTimes(members) {
  const times = members.map(({ time }) => time);
  const [first, last] = [Math.min(...times), Math.max(...times)];
  const bins = new Map();
  const tallest = {};
  for (const { time, decision } of [...members].sort((a, b) => String(a.decision).localeCompare(String(b.decision)))) {
    const at = Math.round(60 * (time - first) / Math.max(last - first, 1));
    bins.set(at, [...bins.get(at) ?? [], decision ?? "unseen"]);
    tallest.n = Math.max(tallest.n ?? 1, bins.get(at).length);
  }
  const height = Math.min(60 / tallest.n, 12);
  $("times").replaceChildren(...[...bins].flatMap(([at, some]) => some.map((decision, k) =>
    element("rect", { class: decision, x: 16 * at + 2, y: 62 - height * (k + 1), width: 12, height: height * 0.9 }))));
  $("span").textContent = first === last ? `all at ${day(first)} UTC` : `${day(first)} to ${day(last)} UTC`;
}

for (const button of document.querySelectorAll("[data-all]")) {
  button.addEventListener("click", async () => {
    try {
      const { id } = group;
      const said = await call(`v1/campaigns/${id}/verdict`, { verdict: button.dataset.all });
      $("agreed").textContent = `recorded: ${button.dataset.all}, on ${said.answers} of ${said.accounts} accounts`;
      await Promise.all([campaigns(), review(false)]);
    } catch (error) { $("agreed").textContent = error.message; }
  });
}

async function look() {
  try {
    const now = { at: performance.now() / 1000, values: new Map() };
    for (const line of (await call("metrics")).split("\n")) {
      const found = /^(recguard_\w+)(\{[^}]*\})? (\S+)$/.exec(line);
      if (found) now.values.set(found[1] + (found[2] ?? ""), Number(found[3]));
    }
    const value = (name) => now.values.get(`recguard_${name}`) ?? 0;
    const decided = (d) => value(`sequences_total{decision="${d}"}`);
    const total = decided("allow") + decided("review") + decided("block");
    const rate = before ? Math.max(total - before.total, 0) / (now.at - before.at) : 0;
    before = { at: now.at, total };
    const counters = [
      ["sequences a second", rate.toFixed(1)], ["scored", total], ["reviewed", decided("review")], ["blocked", decided("block")],
      ["waiting", value("queue_depth_sequences")], ["refused", value('rejected_total{reason="queue_full"}')],
      ["drift (PSI)", value("score_drift_psi").toFixed(3)],
    ];
    $("counters").replaceChildren(...counters.map(([name, number]) => {
      const box = element("div");
      box.append(element("b", {}, String(number)), element("span", {}, name));
      return box;
    }));
  } catch { $("counters").replaceChildren(); } // the key is not for metrics, or the service restarts
}

// What has moved since training: a field is two strips, its values' shares in training and recently.
$("drift").addEventListener("toggle", async () => {
  if (!$("drift").open) return;
  try {
    const { sequences, fields } = await call("v1/drift");
    $("moved").textContent = sequences < 1 ? "nothing was looked at yet" : `of ${Math.round(sequences)} sequences`;
    $("fields").replaceChildren(...fields.map(({ field, psi, values }) => {
      const box = element("div");
      box.append(element("span", { class: psi > 0.25 ? "major" : "" }, `${field}, PSI ${psi.toFixed(2)}`));
      for (const part of ["expected", "now"]) {
        const strip = element("div", { class: "strip" });
        strip.append(...values.map((value, k) => {
          const cell = element("i", { title: `${value.value}: ${(100 * value.expected).toFixed(1)} % in training, ${(100 * value.now).toFixed(1)} % recently` });
          cell.style.width = `${100 * value[part]}%`;
          cell.style.background = `color-mix(in oklab, var(--accent) ${25 + Math.round(60 * ((7 * k) % values.length) / values.length)}%, var(--card))`;
          return cell;
        }));
        box.append(strip);
      }
      return box;
    }));
  } catch (error) { $("moved").textContent = error.message; }
});

start();
review(false);
campaigns();
look();
setInterval(look, 2000);
setInterval(campaigns, 15000);
