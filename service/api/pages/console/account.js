// One account: a kept answer named in the address, a sequence that is pasted, or one of the bundle's samples.

import { showAnswer } from "./answer.js";
import { attempt, button, call, card, day, digits, element, named, pill, problem, quiet, table } from "./page.js";

export const title = "Account";
let place = null,
  shown = null;

export async function open(root, scoreId) {
  shown = null;
  place = {
    answer: element("div", { class: "view" }),
    samples: element("div", { class: "row", id: "samples" }),
    problem: problem(),
    choice: element("div", { class: "row", id: "choice" }),
    input: element("textarea", {
      id: "input",
      spellcheck: "false",
      onkeydown: (e) => {
        if (e.key === "Enter" && (e.ctrlKey || e.metaKey)) scoreInput();
      },
    }),
  };
  const paste = pasting();
  root.append(...(scoreId ? [place.answer, paste, place.choice] : [paste, place.choice, place.answer])); // what was asked for comes first
  const known = attempt(place.problem, samples);
  if (scoreId) await showKept(scoreId);
  else await known;
}

export const redraw = () => shown?.redraw();

function pasting() {
  return card(
    "Score a sequence",
    element("p", { class: "quiet" }, "What is scored here is a trial: it is not counted, not kept, and told to nobody."),
    place.samples,
    element("label", { for: "input" }, "A sequence, or the body of a request, as JSON"),
    place.input,
    element("div", { class: "row" }, button("Score", scoreInput, { class: "main", id: "score" }), quiet("or Ctrl+Enter"), place.problem),
  );
}

async function samples() {
  const { sequences } = await call("v1/samples");
  place.samples.replaceChildren(
    ...sequences.map((sequence, i) =>
      button(`sample ${i + 1}`, () => {
        place.input.value = JSON.stringify(sequence, null, 1);
        scoreInput();
      }),
    ),
  );
}

async function scoreInput() {
  place.answer.replaceChildren();
  place.choice.replaceChildren();
  await attempt(place.problem, async () => {
    const given = JSON.parse(place.input.value);
    const sequences = (given.sequences ?? [given]).map((sequence) => ({ id: "console", ...sequence }));
    if (sequences.length > 1) {
      place.choice.replaceChildren(
        ...sequences.map((sequence) =>
          button(
            sequence.id,
            (event) => {
              press(event.target);
              attempt(place.problem, () => showGiven(sequence));
            },
            { "aria-pressed": false },
          ),
        ),
      );
      press(place.choice.firstChild);
    }
    await showGiven(sequences[0]);
  });
}

function press(chosen) {
  for (const one of place.choice.children) one.setAttribute("aria-pressed", one === chosen);
}

async function showGiven(sequence) {
  shown = await showAnswer(place.answer, sequence, [verdicts((verdict) => call("v1/feedback", { sequence, verdict }))]);
}

async function showKept(scoreId) {
  const { answer, verdicts: said, others } = await call(`v1/review/${encodeURIComponent(scoreId)}`);
  const sequence = { id: answer.sequence_id, segment: answer.segment, events: answer.events };
  place.input.value = JSON.stringify(sequence, null, 1);
  shown = await showAnswer(
    place.answer,
    sequence,
    [verdicts((verdict) => call("v1/feedback", { score_id: scoreId, verdict }), scoreId), history(said), earlier(others)],
    answer,
  );
}

// A verdict by buttons, which may be taken back.
function verdicts(say, scoreId = null) {
  const told = element("span", { id: "said", "aria-live": "polite" });
  const act = (work) => async () => {
    try {
      told.textContent = await work();
    } catch (error) {
      told.textContent = error.message;
    }
  };
  const give = (verdict) =>
    button(
      verdict,
      act(async () => {
        const found = await say(verdict);
        scoreId = found.score_id;
        undo.disabled = false;
        return `recorded: ${verdict}, where the decision is ${found.decision}${found.contradicts ? "; another verdict says otherwise" : ""}`;
      }),
      { "data-verdict": verdict },
    );
  const undo = button(
    "take back",
    act(async () => {
      const found = await call("v1/feedback/undo", { score_id: scoreId });
      return found.undone ? "taken back" : "you have said nothing of it that stands";
    }),
    { disabled: !scoreId, "data-verdict": "undo" },
  );
  return element(
    "div",
    { class: "row" },
    element("span", { class: "quiet" }, "Was this right? It is"),
    give("anomalous"),
    give("normal"),
    undo,
    told,
  );
}

export function history(said) {
  if (!said.length) return quiet("No verdict on it yet.");
  return table(
    "Verdicts on this answer",
    ["when (UTC)", "verdict", "by", "note"],
    said.map((one) => [day(one.time), one.verdict === "undone" ? "taken back" : one.verdict, one.who, one.note ?? ""]),
  );
}

export function earlier(others) {
  if (!others.length) return quiet("Nothing else is kept of this account.");
  return element(
    "details",
    { id: "earlier", open: others.length < 6 },
    element("summary", {}, `Other answers to this account: ${others.length === 50 ? "the latest 50" : others.length}`),
    table(
      "Other answers to this account",
      ["when (UTC)", "decision", "score", "type", "verdict", ""],
      others.map((one) => [
        day(one.time),
        pill(one.decision),
        digits(one.score),
        named(one.type),
        one.verdict ?? "none",
        element("a", { href: `#account/${one.score_id}` }, "open"),
      ]),
      [2],
    ),
  );
}
