"""The checkpoint that a kill at any moment leaves behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from learners import checkpoint


class Killed(BaseException):
    """The process ends here."""


def write(folder: Path, step: int) -> Path:
    folder.mkdir(parents=True)
    (folder / "state.json").write_text(json.dumps({"step": step}))
    return folder


@pytest.mark.parametrize(
    ("moment", "survivor"),
    [("before the first rename", 3), ("between the renames", 3), ("before the old one is removed", 4), ("never", 4)],
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
