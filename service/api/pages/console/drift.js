// Which fields have moved since training, and from what to what.

import { call, card, cut, element, keepFocus, percent, quiet, table } from "./page.js";

export const title = "Drift",
  every = 30;
const MAJOR = 0.25,
  SOME = 0.1,
  LEAST = 0.005; // as PSI is read; and the least change of a share that is worth a word
let place = null,
  opened = new Set();

export async function open(root) {
  place = element("div", { class: "view" });
  opened = null;
  await refresh();
  root.append(place);
}

export async function refresh() {
  const { sequences, fields } = await call("v1/drift");
  opened ??= new Set(
    fields
      .filter(({ psi }) => psi > MAJOR)
      .slice(0, 3)
      .map(({ field }) => field),
  );
  const major = fields.filter(({ psi }) => psi > MAJOR).length;
  const told = card(
    "What has moved since training",
    element(
      "p",
      { id: "moved" },
      sequences < 1
        ? "Nothing was looked at yet."
        : `${major ? `${major} of ${fields.length} fields` : "No field"} moved much, by ${Math.round(sequences).toLocaleString("en")} recent sequences; one in four is looked at.`,
    ),
    sequences >= 1 &&
      fields.every(({ psi }) => psi === 0) &&
      quiet("With so few sequences, a shift would be noise: it stays at 0 until 50 were looked at."),
    quiet("The population stability index (PSI) is 0 if nothing moved; above 0.1 something has, above 0.25 the shift is major."),
    element("div", { id: "fields" }, ...fields.map(one)),
  );
  keepFocus(() => place.replaceChildren(told));
}

function one({ field, psi, values }) {
  const moved = [...values].sort((a, b) => Math.abs(b.now - b.expected) - Math.abs(a.now - a.expected));
  const level = psi > MAJOR ? "major" : psi > SOME ? "some" : "",
    bar = element("i", { class: level });
  bar.style.width = `${Math.min((100 * psi) / (2 * MAJOR), 100)}%`;
  const box = element(
    "details",
    { class: level, open: opened.has(field), ontoggle: () => (box.open ? opened.add(field) : opened.delete(field)) },
    element(
      "summary",
      { "data-of": field },
      element("b", {}, field),
      element("span", { class: "psi" }, bar),
      element("span", { class: "figure" }, `PSI ${psi.toFixed(2)}`),
      element("span", { class: "quiet" }, sentence(moved)),
    ),
    strip("in training", values, "expected"),
    strip("recently", values, "now"),
    table(
      `Values of ${field}`,
      ["value", "in training", "recently", "change"],
      moved.slice(0, 8).map((v) => [cut(v.value, 60), percent(v.expected), percent(v.now), points(v.now - v.expected)]),
      [1, 2, 3],
    ),
  );
  return box;
}

const points = (by) => (by ? `${by > 0 ? "+" : "-"}${Number((100 * Math.abs(by)).toPrecision(2))} points` : "none");

function sentence(moved) {
  const said = moved
    .slice(0, 2)
    .filter((v) => Math.abs(v.now - v.expected) >= LEAST)
    .map((v) => `${cut(v.value, 24)} ${v.now > v.expected ? "rose" : "fell"} from ${percent(v.expected)} to ${percent(v.now)}`);
  return said.join("; ") || "as in training";
}

// The shares of the values as a strip; a value has the same shade in both strips.
function strip(label, values, part) {
  return element(
    "div",
    { class: "shares" },
    element("span", { class: "quiet" }, label),
    element(
      "div",
      { class: "strip", role: "img", "aria-label": `Shares ${label}` },
      ...values.map((value, k) => {
        const cell = element("i", { title: `${value.value}: ${percent(value.expected)} in training, ${percent(value.now)} recently` });
        cell.style.width = `${100 * value[part]}%`;
        cell.style.background = `color-mix(in oklab, var(--accent) ${25 + Math.round((60 * ((7 * k) % values.length)) / values.length)}%, var(--card))`;
        return cell;
      }),
    ),
  );
}
