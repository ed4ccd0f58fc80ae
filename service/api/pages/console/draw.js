// Pictures of numbers: curves over time, and bars; drawn at the size of their place, in colours of the style sheet.

import { clock, element, refill, svg } from "./page.js";

const HEIGHT = 130,
  LEFT = 46,
  BOTTOM = 20,
  TOP = 8,
  RIGHT = 10;
export const width = (place, least = 260, most = 900) => Math.min(Math.max(Math.floor(place.clientWidth), least), most);

// A round number that is no less, so that an axis ends where people expect it.
function above(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 2.5, 5, 10].find((step) => step * power >= value * (1 - 1e-9));
}

// Lines over time in a figure. Each line is { name, values, class }; `limit` is a line that should not be crossed.
export function curves(title, times, lines, { as = String, limit = null, least = 0 } = {}) {
  const figure = element("figure", { class: "curve" }, element("figcaption", {}, title));
  figure.redraw = () => {
    const w = width(figure),
      at = (k) => LEFT + (w - LEFT - RIGHT) * (times.length < 2 ? 1 : (times[k] - times[0]) / (times.at(-1) - times[0]));
    const top = above(Math.max(least, 1.1 * (limit?.value ?? 0), ...lines.flatMap(({ values }) => values)));
    const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top);
    const now = lines.map(({ name, values }) => `${name} ${as(values.at(-1) ?? 0)}`).join(", ");
    const told = element("p", { class: "quiet reading" }, times.length < 2 ? "The first minute is not over yet." : `now ${now}`);
    const mark = svg("line", { class: "mark", y1: TOP, y2: HEIGHT - BOTTOM, x1: -9, x2: -9 });
    const picture = svg(
      "svg",
      { class: "chart", viewBox: `0 0 ${w} ${HEIGHT}`, role: "img", "aria-label": `${title}: now ${now}` },
      ...[0, 0.5, 1].flatMap((share) => [
        svg("line", { class: "grid", x1: LEFT, x2: w - RIGHT, y1: y(share * top), y2: y(share * top) }),
        svg("text", { x: LEFT - 6, y: y(share * top) + 4, class: "end" }, as(share * top)),
      ]),
      limit && svg("line", { class: "limit", x1: LEFT, x2: w - RIGHT, y1: y(limit.value), y2: y(limit.value) }),
      limit && svg("text", { class: "limit end", x: w - RIGHT, y: y(limit.value) - 3 }, limit.name),
      ...lines.map(({ values, class: name }) =>
        svg("polyline", { class: `line ${name}`, points: values.map((v, k) => `${at(k).toFixed(1)},${y(v).toFixed(1)}`).join(" ") }),
      ),
      times.length && svg("text", { x: LEFT, y: HEIGHT - 5 }, clock(times[0])),
      times.length && svg("text", { x: w - RIGHT, y: HEIGHT - 5, class: "end" }, clock(times.at(-1))),
      mark,
    );
    picture.addEventListener("pointermove", (event) => {
      const x = (event.offsetX * w) / picture.clientWidth;
      const k = times.reduce((best, _, i) => (Math.abs(at(i) - x) < Math.abs(at(best) - x) ? i : best), 0);
      mark.setAttribute("x1", at(k));
      mark.setAttribute("x2", at(k));
      told.textContent = `${clock(times[k])}: ${lines.map(({ name, values }) => `${name} ${as(values[k])}`).join(", ")}`;
    });
    picture.addEventListener("pointerleave", () => {
      mark.setAttribute("x1", -9);
      mark.setAttribute("x2", -9);
      told.textContent = `now ${now}`;
    });
    refill(figure, figure.firstChild, picture, lines.length > 1 && legend(lines), told);
  };
  return figure;
}

export const legend = (lines) =>
  element(
    "p",
    { class: "legend" },
    ...lines.map(({ name, class: colour }) => element("span", {}, element("i", { class: `key ${colour}` }), name)),
  );

// Bars of shares on a logarithmic axis from 0.1 % to 100 %, as one bin mostly outweighs all others.
// Each series is { name, class, shares }, a class may also be made of the bin's number; marks are lines { at, name, class }.
export function bars(place, label, series, { ticks, marks = [], height = 190 }) {
  const w = width(place),
    bins = series[0].shares.length,
    step = (w - LEFT - RIGHT) / bins,
    floor = height - 34;
  const y = (share) => TOP + 12 + (floor - TOP - 12) * Math.min(-Math.log10(Math.max(share, 1e-3)) / 3, 1);
  const x = (bin) => LEFT + step * bin;
  const each = (step * 0.86) / series.length;
  place.replaceChildren(
    svg(
      "svg",
      { class: "chart", viewBox: `0 0 ${w} ${height}`, role: "img", "aria-label": label },
      ...[1, 0.1, 0.01, 0.001].flatMap((share) => [
        svg("line", { class: "grid", x1: LEFT, x2: w - RIGHT, y1: y(share), y2: y(share) }),
        svg("text", { x: LEFT - 6, y: y(share) + 4, class: "end" }, `${100 * share} %`),
      ]),
      ...series
        .flatMap(({ shares, class: colour }, s) =>
          shares.map(
            (share, k) =>
              share > 0 &&
              svg("rect", {
                class: typeof colour === "function" ? colour(k) : colour,
                x: x(k) + step * 0.07 + s * each,
                width: Math.max(each, 1),
                y: Math.min(y(share), floor - 1),
                height: Math.max(floor - y(share), 1),
              }),
          ),
        )
        .filter(Boolean),
      ...ticks.map(([bin, text]) =>
        svg("text", { x: x(bin), y: floor + 15, class: bin === 0 ? "" : bin >= bins ? "end" : "middle" }, text),
      ),
      ...marks.flatMap(({ at, name, class: colour }, k) => [
        svg("line", { class: `limit ${colour}`, x1: x(at), x2: x(at), y1: TOP + 2, y2: floor }),
        svg(
          "text",
          { class: `limit ${colour} ${at > bins / 2 ? "end" : ""}`, x: x(at) + (at > bins / 2 ? -4 : 4), y: TOP + 8 + 12 * k },
          name,
        ),
      ]),
    ),
  );
}
