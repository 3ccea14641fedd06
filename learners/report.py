"""What a run writes and prints: metrics, curve, episodes, transcripts, summary."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from learners.curve import draw
from learners.errors import writing
from learners.metrics import Metrics, group_of, of_episode, of_step, title, told
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


def line(step: int, steps: int, values: Mapping[str, float]) -> str:
    """The numbers of a step for the terminal."""
    skipped = values.get("policy/updates_skipped", 0)
    others = [
        *([f"KL {values['policy/kl']:.3f}"] if "policy/kl" in values else []),
        *([f"updates skipped {skipped:.0f}"] if skipped else []),
        f"{sum(value for name, value in values.items() if name.startswith('seconds/')):.1f} s",
    ]
    return "  ".join([f"step {step}/{steps}", told(of_step(values)), *others])


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
        """Record the metrics of step `step`, from 1: `metrics.jsonl` and TensorBoard."""
        with writing(self.folder):
            with self._history.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step} | {k: round(v, 6) for k, v in values.items()}) + "\n")
            if self._board is None:
                # Imported late, because `say` is for everybody and this takes a second.
                from torch.utils.tensorboard import SummaryWriter

                # A resumed run makes some steps again: TensorBoard hides what it had from this step on. Its thread must
                # not write: it would tell of a full disk with a traceback of its own.
                board = str(self.folder / "tensorboard")
                self._board = SummaryWriter(board, purge_step=step, max_queue=1_000, flush_secs=1_000_000)
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
            self._board.flush()

    def history(self) -> list[dict[str, float]]:
        """All recorded steps."""
        return _rows(self._history)

    def forget_after(self, step: int) -> None:
        """Remove the records of the steps after `step` from disk: a resumed run makes these steps again."""
        rows = self.history()
        # Runs of older versions counted from 0.
        first = 1 if rows and rows[0]["step"] == 0 else 0
        rows = [row | {"step": row["step"] + first} for row in rows]
        self._replace(self._history, [json.dumps(row) for row in rows if row["step"] <= step])

    def episodes(self, phase: str, trajectories: Sequence[Trajectory]) -> None:
        """Write episodes into `episodes.jsonl`, in the place of those that this phase had before."""
        path = self.folder / "episodes.jsonl"
        rows = [row for row in _rows(path) if row["phase"] != phase]
        rows += [
            {
                "phase": phase, "seed": t.seed, "reward": t.reward, "status": t.status, "tokens": len(t.ids),
                "sampled": int(t.mask.sum()), "versions": t.versions, "info": dict(t.info), "text": t.text,
            }
            for t in trajectories
        ]  # fmt: skip
        self._replace(path, [json.dumps(row) for row in rows])

    def _replace(self, path: Path, lines: Sequence[str]) -> None:
        """Write a file anew; a kill at any moment leaves the old one or the new one."""
        partial = path.with_name(f"{path.name}.partial")
        try:
            with writing(path):
                partial.write_text("".join(f"{line}\n" for line in lines), "utf-8")
                partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

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
            of_group = "" if group == "all" else f"{title(group)}, "
            lines += [f"## Seed {t.seed}: {of_group}{of_episode(t)}", "", "```"]
            lines += [text.strip() for _, text in t.text if text.strip()]
            lines += ["```", ""]
            if t.info.get("golden_answers") is not None:
                lines[-1:] = [f"golden answers: {t.info['golden_answers']}", ""]
        with writing(self.folder):
            (self.folder / f"transcripts_{phase}.md").write_text("\n".join(lines), "utf-8")

    def curve(self, evaluations: Mapping[int, Metrics]) -> None:
        """Draw `curve.png`; evaluations are given by the number of steps that were made before."""
        with writing(self.folder):
            draw(self.folder / "curve.png", self.history(), evaluations)

    def summary(self, values: dict[str, Any]) -> None:
        """Write `summary.json`."""
        with writing(self.folder):
            (self.folder / "summary.json").write_text(json.dumps(values, indent=2, default=str) + "\n", "utf-8")

    def close(self) -> None:
        """Flush what is buffered."""
        if self._board is not None:
            self._board.close()


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file, none where it is not there; the last one may have been cut off by a kill."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.endswith("}")]
