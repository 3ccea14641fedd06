"""What a run writes and prints: metrics, curve, episodes, transcripts, summary."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from learners.metrics import group_of, title
from learners.types import Trajectory

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_console = Console(highlight=False, markup=False, soft_wrap=True)


def say(text: str) -> None:
    """One line on standard output, at once."""
    _console.print(text)


def track(steps: range, title: str) -> Iterator[int]:
    """Go through steps, with a progress bar where the output is a terminal."""
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=_console, transient=True, disable=not _console.is_terminal) as progress:
        yield from progress.track(steps, description=title, total=steps.stop, completed=steps.start)


class Reporter:
    """Writes into the run's folder; every method may be called again after a resume."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.seconds: dict[str, float] = {}
        self._board: SummaryWriter | None = None
        self._history = folder / "metrics.jsonl"

    @contextmanager
    def phase(self, name: str, title: str | None = None) -> Iterator[None]:
        """Time a phase; one with a title is announced, with a spinner while it runs on a terminal."""
        start = time.monotonic()
        try:
            if title:
                say(title)
            with _console.status(title) if title else nullcontext():
                yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0) + time.monotonic() - start, 1)

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Record one step's metrics: TensorBoard and `metrics.jsonl`."""
        if self._board is None:
            # Imported late, because `say` is for everybody and this takes a second.
            from torch.utils.tensorboard import SummaryWriter

            # A resumed run makes some steps again: TensorBoard hides what it had from this step on.
            self._board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=step)
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        with self._history.open("a") as file:
            file.write(json.dumps({"step": step} | {k: round(v, 6) for k, v in values.items()}) + "\n")

    def history(self) -> list[dict[str, float]]:
        """All recorded steps."""
        return _rows(self._history)

    def forget_from(self, step: int) -> None:
        """Remove the records of `step` and of all later steps from disk: a resumed run makes these steps again."""
        rows = [row for row in self.history() if row["step"] < step]
        self._history.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def episodes(self, phase: str, trajectories: Sequence[Trajectory]) -> None:
        """Append episodes to `episodes.jsonl`."""
        with (self.folder / "episodes.jsonl").open("a") as file:
            for t in trajectories:
                row = {
                    "phase": phase, "seed": t.seed, "reward": t.reward, "status": t.status, "tokens": len(t.ids),
                    "sampled": int(t.mask.sum()), "versions": t.versions, "info": dict(t.info), "text": t.text,
                }  # fmt: skip
                file.write(json.dumps(row) + "\n")

    def questions(self) -> set[str]:
        """Ids of the questions in `episodes.jsonl`, where the environment reports them."""
        found = (row["info"].get("question_id") for row in _rows(self.folder / "episodes.jsonl"))
        return {str(question) for question in found if question is not None}

    def transcripts(self, phase: str, trajectories: Sequence[Trajectory], each: int = 4) -> None:
        """A readable sample, the same questions before and after: `transcripts_<phase>.md`."""
        shown: dict[str, int] = {}
        lines = [f"# Transcripts {phase} training", ""]
        for t in trajectories:
            group = group_of(t.info)
            shown[group] = shown.get(group, 0) + 1
            if shown[group] > each:
                continue
            verdict = f"reward {t.reward:g}, {t.info.get('searches', 0)} searches, {t.status}"
            lines += [f"## Seed {t.seed}: {title(group)}, {verdict}", "", "```"]
            lines += [text.strip() for _, text in t.text if text.strip()]
            lines += ["```", f"golden answers: {t.info.get('golden_answers')}", ""]
        (self.folder / f"transcripts_{phase}.md").write_text("\n".join(lines))

    def curve(self) -> None:
        """Draw `curve.png`: EM, searches per episode and format validity over steps, by hop count."""
        # Imported here, because it is slow and needed once. Agg draws without a display.
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        rows = self.history()
        panels = {"em": "exact match", "searches": "searches an episode", "format_ok": "valid format"}
        figure, axes = pyplot.subplots(1, len(panels), figsize=(12, 3.4), layout="constrained")
        for axis, (metric, caption) in zip(axes, panels.items(), strict=True):
            for name in sorted({key for row in rows for key in row if key.startswith(f"{metric}/")}):
                points = [(row["step"], row[name]) for row in rows if name in row]
                group = name.split("/")[1]
                axis.plot(*zip(*points, strict=True), label=title(group))
            axis.set(title=caption, xlabel="step")
            axis.grid(alpha=0.3)
            if metric != "searches":
                axis.set_ylim(-0.02, 1.02)
        if axes[0].lines:
            axes[0].legend()
        figure.savefig(self.folder / "curve.png", dpi=110)
        pyplot.close(figure)

    def summary(self, values: dict[str, Any]) -> None:
        """Write `summary.json`."""
        (self.folder / "summary.json").write_text(json.dumps(values, indent=2, default=str) + "\n")

    def close(self) -> None:
        """Flush what is buffered."""
        if self._board is not None:
            self._board.close()


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file, none where it is not there; the last one may have been cut off by a kill."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.endswith("}")]
