"""The evaluation report: one self-contained HTML page with its plots inside, readable on paper."""

import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from training.evaluation.quality import reliability

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "recguard"  # same evaluation, same page
NORMAL, ANOMALOUS = "#4477aa", "#cc3311"
STRIP = 150  # cells
STYLE = """
body{font:15px/1.45 system-ui,sans-serif;color:#1a1a1a;max-width:62rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin-bottom:.2rem}h2{font-size:1.1rem;margin:1.6rem 0 .5rem;border-bottom:1px solid #ccc}
table{border-collapse:collapse;margin:.4rem 0}
td,th{padding:.2rem .8rem .2rem 0;text-align:right;font-variant-numeric:tabular-nums}
td:first-child,th:first-child{text-align:left}th{font-weight:600;border-bottom:1px solid #999}
.plots{display:grid;grid-template-columns:1fr 1fr;gap:.6rem}.plots svg{width:100%;height:auto}.quiet{color:#555}
.side{display:flex;flex-wrap:wrap;align-items:flex-start;gap:0 3rem}
h3{font-size:1rem;margin:1rem 0 .2rem}.strips{width:100%}.strips td{white-space:nowrap}.strips td:last-child{width:60%}
.strips svg{display:block;width:100%;height:1rem;background:#f0f0f0;print-color-adjust:exact}
@media print{body{margin:0;font-size:11px}h2{break-after:avoid}table,svg{break-inside:avoid}}
"""
NAMES = {
    "auc": "AUC",
    "average_precision": "average precision",
    "recall_at_1_fpr": "recall at 1 % false positives",
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "accuracy": "accuracy",
    "expected_calibration_error": "expected calibration error",
}


def render(manifest: Mapping[str, Any], evaluation: Mapping[str, Any]) -> str:
    """The page for a bundle's manifest and evaluation, both as they are stored."""
    cost, data = evaluation["cost"], manifest["training_data"]
    title = f"{manifest['name']} {manifest['version']}"
    made = (
        f"Preset {_e(manifest['preset'])}, made {_e(manifest['created'])} from {data['sequences']:,} sequences with "
        f"{data['events']:,} events"
    )
    sections = [
        *(_quality(manifest, evaluation, made) if evaluation["metrics"] else _untested(manifest, made)),
        *_refitted(manifest.get("refit")),
        "<h2>The log and its cleaning</h2>",
        _cleaning(evaluation["cleaning"]),
        "<h2>What an event is encoded as</h2>",
        table(["field", "kind", "rows"], [[f["name"], f["kind"], f"{f['rows']:,}"] for f in evaluation["fields"]]),
        "<h2>Cost</h2>",
        table(
            ["", ""],
            [
                [
                    "fit, seconds",
                    f"{cost['seconds']:.0f} ({', '.join(f'{k} {v:.0f}' for k, v in cost['stages'].items() if v >= 1)})",
                ],
                ["epochs", ", ".join(map(str, evaluation["epochs"]))],
                ["peak memory, MB", f"{cost['peak_memory_mb']:,}"],
                [
                    "one window on one core, ms",
                    ", ".join(f"{k} {v:.2f}" for k, v in cost["milliseconds_per_window"].items()),
                ],
            ],
        ),
    ]
    return page(f"Evaluation of {title}", "".join(sections))


def _refitted(found: Mapping[str, Any] | None) -> list[str]:
    """The section that compares a refitted model with the one it went on from."""
    if found is None:
        return []
    rows = [[r["part"], r["measure"], r] for r in found["rows"]]
    rows += [[f"{r['type']} ({r['sequences']})", "recall at 1 % FPR", r] for r in found["types"]]
    return [
        f"<h2>Against the bundle before: {found['verdict']}</h2>",
        f"<p class=quiet>Went on from {_e(found['from'])} with {found['judged']:,} judged sequences, the old log "
        "replayed. Both models on the same sequences, which neither was fitted on; the interval is of the difference, "
        "over the same resamples.</p>",
        table(
            ["held out", "measure", "old", "new", "change, 95 %"],
            [
                [part, measure, f"{r['old']:.4f}", f"{r['new']:.4f}", "{:+.4f} to {:+.4f}".format(*r["change"])]
                for part, measure, r in rows
            ],
        ),
    ]


def page(title: str, body: str) -> str:
    """A self-contained HTML page around a body of HTML."""
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{_e(title)}</title><style>{STYLE}</style><h1>{_e(title)}</h1>{body}</html>\n"
    )


def _quality(manifest: Mapping[str, Any], evaluation: Mapping[str, Any], made: str) -> list[str]:
    """How well the model does on the test part."""
    label, score = np.array(evaluation["label"]), np.array(evaluation["score"])
    thresholds, found, config = evaluation["thresholds"], evaluation["metrics"], manifest["config"]
    split = evaluation["split"]
    how = "by time, the latest for the test" if split["how"] == "time" else "at random, by label and type"
    return [
        f"<p class=quiet>{made}, split {how}: {split['train']:,} to fit on, {split['test']:,} to test. All figures and "
        "plots below are of the test part, which nothing was fitted or chosen on.</p>",
        "<h2>Quality</h2><div class=side>",
        table(["measure", "test"], [[NAMES[k], f"{found[k]:.3f}"] for k in NAMES]),
        _confusion(label, score, thresholds, found["threshold"]),
        "</div>",
        f"<p class=quiet>F1, precision, recall and accuracy at {found['threshold']:.3f}, the threshold of the best "
        f"F1 on held-out scores. Review from {thresholds['review']:.3f}, block from {thresholds['block']:.3f}, chosen "
        f"there by {_chosen_by(config)}.</p>",
        "<div class=plots>",
        _roc(label, score),
        _precision_recall(label, score),
        _histogram(label, score, thresholds),
        _matrix(label, score, found["threshold"]),
        "</div><div class=plots>",
        _reliability(label, score, found["expected_calibration_error"]),
        "</div>",
        "<h2>By type</h2>",
        _by_type(evaluation, label, score, thresholds),
        "<div class=plots>",
        _type_matrix(evaluation),
        _importance(evaluation["importance"]),
        "</div>",
        *groups(evaluation["groups"]),
        *events(evaluation["events"]),
        *_strips(evaluation["strips"]),
    ]


def _chosen_by(config: Mapping[str, Any]) -> str:
    """How the thresholds were chosen, review and block, as `thresholds.choose` does it."""
    rates = [f"a false-positive rate of {config[f'{level}_fpr']:.1%}" for level in ("review", "block")]
    for i, level in enumerate(("review", "block")):
        if (precision := config[f"{level}_precision"]) is not None:
            rates[i] = f"a precision of {precision:.1%}"
    if config["cost_fp"] is not None:
        rates[1] = f"least cost, {config['cost_fp']:g} for a false alarm and {config['cost_fn']:g} for a miss"
    return " and ".join(rates)


def _untested(manifest: Mapping[str, Any], made: str) -> list[str]:
    """What can be said of a model without a test part."""
    thresholds, share = manifest["thresholds"], manifest["config"]["contamination"]
    if manifest["metrics"]["held_out"]:
        why, rows = "with too few labels to set some aside for a test.", [["review", ""], ["block", ""]]
    else:
        why = "without labels. What lies farthest from the rest was taken for anomalous."
        rows = [["review", f"{share:.1%} of this log is flagged"], ["block", f"{share / 5:.1%} of this log is blocked"]]
    for row in rows:
        row.insert(1, f"{thresholds[row[0]]:.3f}")
    return [
        f"<p class=quiet>{made}, {why} Nothing here says how good the model is: label some of what it flags and run "
        "<code>recguard-train evaluate --bundle</code>.</p><h2>Thresholds</h2>",
        table(["decision", "from score", ""], rows),
    ]


def _e(value: object) -> str:
    return html.escape(str(value))


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table; no head where all its words are empty."""
    top = "<tr>" + "".join(f"<th>{_e(h)}" for h in head) + "</tr>" if any(head) else ""
    return (
        f"<table>{top}" + "".join("<tr>" + "".join(f"<td>{_e(v)}" for v in row) + "</tr>" for row in rows) + "</table>"
    )


def share(found: Sequence[float] | None) -> str:
    """A share with its interval, as `assessment.rate` gives it."""
    return "{:.1%} ({:.1%} to {:.1%}) of {:,}".format(*found) if found else "none"


def _decisions(score: Any, thresholds: Mapping[str, float]) -> tuple[int, int, int]:
    block = int((score >= thresholds["block"]).sum())
    review = int((score >= thresholds["review"]).sum()) - block
    return len(score) - review - block, review, block


def _confusion(label: Any, score: Any, thresholds: Mapping[str, float], threshold: float) -> str:
    rows = [[name, *_decisions(score[label == y], thresholds)] for y, name in ((0, "normal"), (1, "anomalous"))]
    return table(["decision on", "allow", "review", "block"], rows)


def _by_type(evaluation: Mapping[str, Any], label: Any, score: Any, thresholds: Mapping[str, float]) -> str:
    types = np.array([t or ("normal" if not y else "unnamed") for t, y in zip(evaluation["type"], label, strict=True)])
    rows = []
    for kind in sorted(set(types.tolist()), key=lambda t: (t != "normal", t)):
        of_kind = score[types == kind]
        allowed, reviewed, blocked = _decisions(of_kind, thresholds)
        caught = (reviewed + blocked) / len(of_kind)
        rows.append([kind, len(of_kind), f"{np.median(of_kind):.3f}", allowed, reviewed, blocked, f"{caught:.0%}"])
    return table(["type", "sequences", "median score", "allow", "review", "block", "reviewed or blocked"], rows)


def _type_matrix(evaluation: Mapping[str, Any]) -> str:
    """True type against the type named, in shares of the true type; what was let through has none."""
    pairs = [
        (kind or "unnamed", named or "let through")
        for kind, named, y in zip(evaluation["type"], evaluation["named"], evaluation["label"], strict=True)
        if y
    ]
    true = sorted({t for t, _ in pairs})
    last = ["unknown", "let through"]
    named = [*sorted({n for _, n in pairs} - set(last)), *last]
    counts = np.array([[pairs.count((t, n)) for n in named] for t in true])
    shares = counts / counts.sum(axis=1, keepdims=True)
    plot, axes = figure("Type named", "named", "true")
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for y, x in np.argwhere(counts):
        axes.text(x, y, counts[y, x], ha="center", va="center", size=6, color="w" if shares[y, x] > 0.5 else "k")
    axes.set_xticks(range(len(named)), named, rotation=45, ha="right", size=7)
    axes.set_yticks(range(len(true)), true, size=7)
    return svg(plot)


def _importance(rows: Sequence[Mapping[str, Any]]) -> str:
    shown = rows[:15][::-1]
    plot, axes = figure("What each column is worth", "average precision lost when it is shuffled", "")
    axes.barh([r["column"] for r in shown], [r["loss"] for r in shown], color=NORMAL)
    return svg(plot)


def groups(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The section on rates by group, if there are any."""
    if not rows:
        return []
    table_rows = [[r["column"], r["value"], share(r["false_positive_rate"]), share(r["recall"])] for r in rows]
    return [
        "<h2>By group</h2>",
        table(["column", "value", "normal, reviewed or blocked", "anomalous, reviewed or blocked"], table_rows),
        "<p class=quiet>In brackets, 95 % intervals (Wilson): groups whose intervals overlap may well be treated "
        "alike.</p>",
    ]


def events(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The section on the quality of events' scores, if there is any."""
    if not rows:
        return []
    return [
        "<h2>Which events</h2>",
        table(
            ["type", "sequences", "events", "share anomalous", "AUC", "average precision"],
            [
                [
                    r["type"],
                    r["sequences"],
                    f"{r['events']:,}",
                    f"{r['share']:.0%}",
                    f"{r['auc']:.3f}",
                    f"{r['average_precision']:.3f}",
                ]
                for r in rows
            ],
        ),
        "<p class=quiet>Of the events' scores, in anomalous sequences that are anomalous only in part.</p>",
    ]


def _strips(strips: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """One strip a sequence, its events from left to right, the darker the higher their score."""
    parts = ["<h2>Event by event</h2>"]
    for title, rows in strips.items():
        parts.append(f"<h3>{_e(title.capitalize())}</h3><table class=strips>")
        for r in rows:
            name = f"{_e(r['sequence'])}<td>{_e(r['type'] or '')}<td>{r['score']:.3f}<td>{len(r['events']):,} events"
            parts.append(f"<tr><td>{name}<td>{_strip(r['events'])}")
        parts.append("</table>")
    return [*parts, "<p class=quiet>Events from left to right; the darker, the likelier part of an anomaly.</p>"]


def _strip(events: Sequence[float]) -> str:
    """At most STRIP cells; where there are more events, a cell shows the highest score of its stretch."""
    cells = [max(part) for part in np.array_split(np.array(events), min(len(events), STRIP))]
    rects = "".join(f"<rect x={i} width=1.05 height=1 opacity={c:.2f} />" for i, c in enumerate(cells) if c >= 0.005)
    return (
        f"<svg viewBox='0 0 {len(cells)} 1' preserveAspectRatio=none fill='{ANOMALOUS}' role=img "
        f"aria-label='highest score {max(cells):.2f}'>{rects}</svg>"
    )


def _cleaning(c: Mapping[str, Any]) -> str:
    rows: list[list[object]] = [["rows read", f"{c['rows']:,}"], ["rows kept", f"{c['kept']:,}"]]
    rows += [[f"set aside: {reason}", f"{n:,}"] for reason, n in c["rejected"].items()]
    rows += [
        ["duplicates of an event_id, dropped", f"{c['duplicates']:,}"],
        ["out of order in time, sorted", f"{c['out_of_order']:,}"],
    ]
    rows += [[f"{name}: empty, kept as missing", f"{n:,}"] for name, n in c["missing"].items()]
    rows += [[f"{name}: outliers, taken in by the end bins", f"{n:,}"] for name, n in c["clipped"].items()]
    rows += [[name, f"{n:,}"] for name, n in c["labels"].items()]
    return table(["", "count"], rows)


def figure(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    """An empty plot of the size that all have."""
    plot = Figure(figsize=(4.6, 3.4), layout="constrained")
    axes = plot.add_subplot()
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)
    return plot, axes


def svg(plot: Figure) -> str:
    """The figure as an element of a page."""
    buffer = io.StringIO()
    plot.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _roc(label: Any, score: Any) -> str:
    plot, axes = figure("ROC", "false-positive rate", "recall")
    false_rate, true_rate, _ = roc_curve(label, score)
    axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1)
    axes.plot(false_rate, true_rate, color=ANOMALOUS)
    return svg(plot)


def _precision_recall(label: Any, score: Any) -> str:
    plot, axes = figure("Precision and recall", "recall", "precision")
    precision, recall, _ = precision_recall_curve(label, score)
    axes.plot(recall, precision, color=ANOMALOUS)
    axes.axhline(label.mean(), color="#bbbbbb", linewidth=1)
    axes.set_ylim(0, 1.03)
    return svg(plot)


def _reliability(label: Any, score: Any, error: float) -> str:
    plot, axes = figure(f"Calibration, expected error {error:.3f}", "score", "share anomalous")
    axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1)
    counts, scores, shares = reliability(label, score)
    axes.scatter(scores, shares, s=8 + 120 * counts / counts.max(), color=ANOMALOUS, alpha=0.7, linewidths=0)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    return svg(plot)


def _histogram(label: Any, score: Any, thresholds: Mapping[str, float]) -> str:
    plot, axes = figure("Scores", "score", "sequences")
    axes.hist(
        [score[label == 0], score[label == 1]],
        bins=np.linspace(0, 1, 26).tolist(),
        stacked=True,
        color=[NORMAL, ANOMALOUS],
        label=["normal", "anomalous"],
    )
    axes.set_yscale("symlog", linthresh=10)
    for name, style in (("review", ":"), ("block", "--")):
        axes.axvline(thresholds[name], color="#222222", linestyle=style, linewidth=1, label=name)
    axes.legend(frameon=False, fontsize=8)
    return svg(plot)


def _matrix(label: Any, score: Any, threshold: float) -> str:
    plot, axes = figure(f"Confusion matrix at {threshold:.3f}", "predicted", "true")
    counts = np.array([[((label == y) & ((score >= threshold) == p)).sum() for p in (0, 1)] for y in (0, 1)])
    shares = counts / counts.sum(axis=1, keepdims=True)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for y in (0, 1):
        for p in (0, 1):
            axes.text(
                p,
                y,
                f"{counts[y, p]:,}\n{shares[y, p]:.1%}",
                ha="center",
                va="center",
                color="white" if shares[y, p] > 0.5 else "black",
            )
    axes.set_xticks([0, 1], ["normal", "anomalous"])
    axes.set_yticks([0, 1], ["normal", "anomalous"], rotation=90, va="center")
    return svg(plot)
