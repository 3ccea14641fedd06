"""The learning curve, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from learners.metrics import Metrics, headline, in_order, label, of_step, title

_PANELS = 6
"""An environment may report more numbers than a picture can hold."""
_SHARES = ("em", "f1", "format_ok")
"""Between 0 and 1."""


def draw(path: Path, rows: Sequence[Mapping[str, float]], evaluations: Mapping[int, Metrics]) -> None:
    """Draw metrics over training steps, a line for each group of questions, and evaluations as points.

    Args:
        path: Of the picture.
        rows: Numbers of training steps, with `step` from 1.
        evaluations: Steps made -> metrics.
    """
    # Imported here, because it is slow and needed once. Agg draws without a display.
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.lines import Line2D

    steps = [(int(row["step"]), of_step(row)) for row in rows]
    everything = [*(metrics for _, metrics in steps), *evaluations.values()]
    names = headline(dict.fromkeys(name for metrics in everything for name in metrics))[:_PANELS]
    if not names:
        return
    groups = in_order({group for metrics in everything for name in names for group in metrics.get(name, {})})
    colours = {group: f"C{number}" for number, group in enumerate(groups)}
    figure, axes = pyplot.subplots(
        1, len(names), figsize=(4 * len(names), 3.8), layout="constrained", squeeze=False
    )  # fmt: skip
    for axis, name in zip(axes[0], names, strict=True):
        for group, colour in colours.items():
            line = [(step, metrics[name][group]) for step, metrics in steps if group in metrics.get(name, {})]
            points = [(step, m[name][group]) for step, m in evaluations.items() if group in m.get(name, {})]
            axis.plot(*zip(*line, strict=True), color=colour) if line else None
            axis.plot(*zip(*points, strict=True), "o", color=colour) if points else None
        axis.set(title=label(name), xlabel="steps made")
        axis.grid(alpha=0.3)
        if name in _SHARES:
            axis.set_ylim(-0.02, 1.02)
    # Sampled answers are worse than greedy ones, so the two must not be taken for one another.
    marks = [
        *(Line2D([], [], color=colour, label=title(group)) for group, colour in colours.items() if group != "all"),
        Line2D([], [], color="grey", label="training, sampled"),
        Line2D([], [], color="grey", marker="o", linestyle="", label="evaluation, greedy"),
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
