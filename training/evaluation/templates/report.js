"use strict";
// What the test part would have shown at other thresholds. A cell is [step of review, step of block, accounts]: they are
// flagged from that step of either slider on.
const counts = JSON.parse(document.getElementById("counts").textContent);
const sliders = Object.fromEntries(
  ["review", "block", "prevalence"].map((name) => [name, document.getElementById(`to-${name}`)]),
);
const rounded = (share, of) => {
  const near = Math.floor(share * of + 0.5);
  return share > 0 && share < 1 ? Math.min(Math.max(near, 1), of - 1) : near;
};
const text = (number) => number.toLocaleString("en-US");

// A share with Wilson's score interval: [share, low, high].
function wilson(hits, n) {
  const z = 1.959964;
  const p = hits / n;
  const middle = p + (z * z) / (2 * n);
  const half = z * Math.sqrt((p * (1 - p)) / n + (z * z) / (4 * n * n));
  const over = 1 + (z * z) / n;
  return [p, Math.max((middle - half) / over, 0), Math.min((middle + half) / over, 1)];
}

function told([share, low, high], of) {
  const ends = [low, high].map((end) => text(Math.floor(end * of + 0.5)));
  return `${text(rounded(share, of))} (${ends.join(" to ")})`;
}

function share(cells, at, level) {
  let hits = 0;
  let n = 0;
  for (const [review, block, accounts] of cells) {
    const blocked = block <= at.block;
    n += accounts;
    if (blocked || (level === "flagged" && review <= at.review)) hits += accounts;
  }
  return wilson(hits, n);
}

// Of those flagged, the share of attackers; its ends come from the worse and from the better ends of both intervals.
function precision(found, alarms, prevalence) {
  const of = (recall, rate) => {
    const hits = prevalence * recall;
    const flagged = hits + (1 - prevalence) * rate;
    return flagged ? hits / flagged : 0;
  };
  if (!found[0] && !alarms[0]) return null;
  return [of(found[0], alarms[0]), of(found[1], alarms[2]), of(found[2], alarms[1])];
}

// The rows of the table for steps of the sliders: words, what they say, and whether they are of one type.
function figures(at) {
  const everybody = Object.values(counts.types).flat();
  const [alarms, found] = [counts.genuine, everybody].map((cells) => share(cells, at, "flagged"));
  const right = precision(found, alarms, counts.prevalence.values[at.prevalence]);
  return [
    ["genuine users bothered, of 10,000", told(alarms, 10000)],
    ["genuine users blocked, of 10,000", told(share(counts.genuine, at, "blocked"), 10000)],
    ["attackers among those flagged, of 100", right ? told(right, 100) : "it flags nobody"],
    ["attackers found, of 100", told(found, 100)],
    ["attackers blocked, of 100", told(share(everybody, at, "blocked"), 100)],
    ...Object.entries(counts.types).map(([kind, cells]) => [
      `${kind.replaceAll("_", " ")} found, of 100`,
      told(share(cells, at, "flagged"), 100),
    ]),
  ];
}

function said(name, step) {
  const { unit, values } = counts[name];
  const value = values[step];
  if (unit === "score") return `from a score of ${Number(value.toPrecision(4))}`;
  const percent = `${Number((100 * value).toPrecision(3))} %`;
  return name === "prevalence" ? percent : value ? `at most ${percent} of ${counts.whose}` : "nobody";
}

const inForce = Object.fromEntries(Object.keys(sliders).map((name) => [name, counts[name].at]));
const cell = (name, words) => Object.assign(document.createElement(name), { textContent: words });

function show() {
  const at = {};
  for (const [name, slider] of Object.entries(sliders)) {
    at[name] = Number(slider.value);
    const words = said(name, at[name]);
    document.getElementById(`said-${name}`).textContent = words;
    slider.setAttribute("aria-valuetext", words);
  }
  const before = figures({ ...inForce, prevalence: at.prevalence });
  const rows = figures(at).map(([words, now], k) => {
    const row = document.createElement("tr");
    row.append(cell("th", words), cell("td", before[k][1]), cell("td", now));
    row.firstChild.scope = "row";
    return row;
  });
  document.getElementById("tried").replaceChildren(...rows);
}

// Whoever is blocked is flagged: where both thresholds are of one kind, neither slider passes the other.
function keepOrder(moved) {
  if (counts.review.unit !== counts.block.unit) return;
  const other = moved === "review" ? "block" : "review";
  const [review, block] = [Number(sliders.review.value), Number(sliders.block.value)];
  if (block > review) sliders[other].value = sliders[moved].value;
}

for (const [name, slider] of Object.entries(sliders)) {
  slider.addEventListener("input", () => {
    if (name !== "prevalence") keepOrder(name);
    show();
  });
}
document.getElementById("back").addEventListener("click", () => {
  for (const [name, slider] of Object.entries(sliders)) slider.value = inForce[name];
  show();
});
document.getElementById("try").hidden = false;
show();
