"""The checkpoint that a kill at any moment leaves behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from learners import checkpoint
from learners.errors import DiskFault


class Killed(BaseException):
    """The process ends here."""


def write(folder: Path, step: int) -> Path:
    folder.mkdir(parents=True)
    (folder / "state.json").write_text(json.dumps({"step": step}))
    return folder


@pytest.mark.parametrize(
    ("moment", "survivor"),
    [("before the first rename", 3), ("between the renames", 4), ("before the old one is removed", 4), ("never", 4)],
)
def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, survivor: int
) -> None:
    """The run has a checkpoint of step 3; while that of step 4 takes its place, the process is killed."""
    place = write(tmp_path / "checkpoint", 3)
    partial = write(tmp_path / "checkpoint.partial", 4)
    rename, remove = Path.rename, shutil.rmtree
    renames = {"before the first rename": 0, "between the renames": 1}.get(moment, 99)

    def dying_rename(self: Path, target: Any) -> Path:
        nonlocal renames
        if renames == 0:
            raise Killed
        renames -= 1
        return rename(self, target)

    def dying_remove(path: Any, *args: Any, **kwargs: Any) -> None:
        if moment == "before the old one is removed" and Path(path).exists():
            raise Killed
        remove(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", dying_rename)
        patch.setattr(shutil, "rmtree", dying_remove)
        if moment == "never":
            checkpoint.replace_folder(partial, place)
        else:
            with pytest.raises(Killed):
                checkpoint.replace_folder(partial, place)

    found, state = checkpoint.read_state(tmp_path)
    assert state == {"step": survivor}
    assert sorted(path.name for path in tmp_path.iterdir() if path == found) == [found.name]
    # The run goes on: the next checkpoint takes its place, and nothing of the accident stays.
    shutil.rmtree(partial, ignore_errors=True)
    checkpoint.replace_folder(write(partial, 5), place)
    assert checkpoint.read_state(tmp_path)[1] == {"step": 5}
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_kill_at_any_rename_of_a_save_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, state and settings are those of the last whole save, whichever rename is the last, and so on and on."""
    place = tmp_path / "checkpoint"

    def save(step: int, dies_at: int) -> None:
        left, rename = dies_at, Path.rename

        def dying_rename(self: Path, target: Any) -> Path:
            nonlocal left
            if not left:
                raise Killed
            left -= 1
            return rename(self, target)

        def fill(partial: Path) -> None:
            partial.mkdir()
            (partial / "weights").write_text(str(step))

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", dying_rename)
            # A killed process cleans nothing up.
            patch.setattr(shutil, "rmtree", lambda path, **_: None if left <= 0 else real_remove(path, **_))
            checkpoint.write(place, {"step": step, "config": {"seed": step}}, fill)

    real_remove = shutil.rmtree
    save(0, 9)
    whole, kills = 0, 0
    for step, dies_at in enumerate([0, 1, 2, 2, 2, 1, 3, 2, 0, 2, 9, 1, 2], start=1):
        try:
            save(step, dies_at)
            whole = step
        except Killed:
            kills += 1
            found, state = checkpoint.read_state(tmp_path)
            # The state's own rename makes the new one whole; a kill after it, with nothing in its place, loses nothing.
            assert state["step"] in (whole, step)
            whole = state["step"]
            assert state["config"] == {"seed": whole}
            assert (found / "weights").read_text() == str(whole)
            assert checkpoint.present(place) == found  # what `learners.evaluate RUN/checkpoint` reads
    assert kills > 8
    save(99, 9)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_full_disk_leaves_the_checkpoint_that_was_there(tmp_path: Path) -> None:
    write(tmp_path / "checkpoint", 3)

    def fill(partial: Path) -> None:
        partial.mkdir()
        (partial / "weights").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(DiskFault, match=r"checkpoint cannot be written: the disk is full") as caught:
        checkpoint.write(tmp_path / "checkpoint", {"step": 4}, fill)
    assert str(tmp_path / "checkpoint") in str(caught.value)
    assert checkpoint.read_state(tmp_path)[1] == {"step": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_run_without_a_checkpoint_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--resume") as raised:
        checkpoint.read_state(tmp_path)
    assert str(tmp_path) in str(raised.value)


def test_looking_for_a_checkpoint_changes_nothing(tmp_path: Path) -> None:
    """A kill between two renames has left the older one under another name; only the next save puts it right."""
    write(tmp_path / "checkpoint.old", 3)
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    assert checkpoint.find(tmp_path) == tmp_path / "checkpoint.old"
    assert checkpoint.read_state(tmp_path)[1] == {"step": 3}
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before


def test_a_state_that_is_cut_off_is_named(tmp_path: Path) -> None:
    write(tmp_path / "checkpoint", 3)
    (tmp_path / "checkpoint" / "state.json").write_text('{"step": ')
    with pytest.raises(ValueError, match=r"state\.json cannot be read"):
        checkpoint.read_state(tmp_path)
