"""Plots for the HTML pages, as SVG inside the page."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from training.evaluation.early import ALL, curve, kinds_of
from training.evaluation.quality import Labels, Scores, reliability

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "recguard"  # same evaluation, same page
NORMAL, ANOMALOUS = "#4477aa", "#cc3311"
LET_THROUGH = "let through"
MOST_COLUMNS = 15  # most columns whose importance is shown


def figure(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    """An empty plot of the common size."""
    plot = Figure(figsize=(4.6, 3.4), layout="constrained")
    axes = plot.add_subplot()
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)
    return plot, axes


def svg(plot: Figure) -> Markup:
    """The figure as an element of a page; without metadata, since that holds addresses of other sites."""
    buffer = io.StringIO()
    plot.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = buffer.getvalue()
    return Markup(text[text.index("<svg") :])  # matplotlib escapes the text that it draws


def roc(label: Labels, score: Scores) -> Markup:
    """Recall against the false-positive rate."""
    plot, axes = figure("ROC", "false-positive rate", "recall")
    false_rate, true_rate, _ = roc_curve(label, score)
    axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1)
    axes.plot(false_rate, true_rate, color=ANOMALOUS)
    return svg(plot)


def precision_recall(label: Labels, score: Scores) -> Markup:
    """Precision against recall, and the precision of chance."""
    plot, axes = figure("Precision and recall", "recall", "precision")
    precision, recall, _ = precision_recall_curve(label, score)
    axes.plot(recall, precision, color=ANOMALOUS)
    axes.axhline(label.mean(), color="#bbbbbb", linewidth=1)
    axes.set_ylim(0, 1.03)
    return svg(plot)


def histogram(label: Labels, score: Scores) -> Markup:
    """Number of sequences by score."""
    plot, axes = figure("Scores", "score", "sequences")
    axes.hist(
        [score[label == 0], score[label == 1]],
        bins=np.linspace(0, 1, 26).tolist(),
        stacked=True,
        color=[NORMAL, ANOMALOUS],
        label=["normal", "anomalous"],
    )
    axes.set_yscale("symlog", linthresh=10)
    axes.legend(frameon=False, fontsize=8)
    return svg(plot)


def confusion_matrix(label: Labels, score: Scores, threshold: float) -> Markup:
    """Confusion matrix at a threshold: counts, and shares of the true class."""
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


def calibration(label: Labels, score: Scores, error: float) -> Markup:
    """Share of anomalies against the score, in bins; a larger dot holds more sequences."""
    plot, axes = figure(f"Calibration, expected error {error:.3f}", "score", "share anomalous")
    axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1)
    counts, scores, shares = reliability(label, score)
    axes.scatter(scores, shares, s=8 + 120 * counts / counts.max(), color=ANOMALOUS, alpha=0.7, linewidths=0)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    return svg(plot)


def type_matrix(pairs: Sequence[tuple[str, str]]) -> Markup:
    """True type against the type named, in shares of the true type.

    Args:
        pairs: for each anomalous sequence, its type and the type that the model named, or LET_THROUGH.
    """
    true = sorted({t for t, _ in pairs})
    last = ["unknown", LET_THROUGH]
    named = [*sorted({n for _, n in pairs} - set(last)), *last]
    counts = np.array([[pairs.count((t, n)) for n in named] for t in true])
    shares = counts / counts.sum(axis=1, keepdims=True)
    plot, axes = figure("Type named", "named", "true")
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for y, x in np.argwhere(counts):
        axes.text(x, y, counts[y, x], ha="center", va="center", size=6, color="w" if shares[y, x] > 0.5 else "k")
    # names come from the user: dollar signs in them do not mark a formula
    axes.set_xticks(range(len(named)), named, rotation=45, ha="right", size=7, parse_math=False)
    axes.set_yticks(range(len(true)), true, size=7, parse_math=False)
    return svg(plot)


def how_early(rows: Sequence[Mapping[str, Any]], end: str) -> Markup:
    """Recall by type and by events seen, the "first" or the "latest"; rows as `promise.by_cut` gives them."""
    plot, axes = figure(f"Reviewed or blocked, by the {end} events", "events seen", "")
    kinds = kinds_of(rows)
    shares = np.array([curve(rows, end, kind)[1] for kind in kinds])
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for y, x in np.ndindex(shares.shape):
        dark = shares[y, x] > 0.5
        axes.text(x, y, f"{shares[y, x]:.0%}", ha="center", va="center", size=6, color="w" if dark else "k")
    events = curve(rows, end, ALL)[0]
    axes.set_xticks(range(len(events)), [str(k) for k in events])
    axes.set_yticks(range(len(kinds)), kinds, size=7, parse_math=False)
    return svg(plot)


def importance(rows: Sequence[Mapping[str, Any]]) -> Markup:
    """Loss of average precision for each column, the largest on top; rows as `assessment.importance` gives them."""
    shown = rows[:MOST_COLUMNS][::-1]
    plot, axes = figure("What each column is worth", "average precision lost when it is shuffled", "")
    axes.barh(range(len(shown)), [r["loss"] for r in shown], color=NORMAL)
    axes.set_yticks(range(len(shown)), [r["column"] for r in shown], parse_math=False)
    return svg(plot)
