"""One run, one folder, one lock."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from learners import run, run_folder
from learners.config import Config, load_config
from learners.run_folder import LOCK, check, claim

ROOT = Path(__file__).resolve().parents[2]


def configured(runs: Path, *arguments: str) -> Config:
    return load_config(["--runs", str(runs), *arguments])


def begin(runs: Path, name: str) -> Path:
    """A run with a checkpoint."""
    folder = runs / name / "checkpoint"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text(json.dumps({"step": 2, "config": {}}))
    return runs / name


HOLD = """
import sys
from learners.config import load_config
from learners.run_folder import claim

with claim(load_config(sys.argv[1:])) as folder:
    (folder / "metrics.jsonl").write_text("kept")
    print(folder, flush=True)
    sys.stdin.read()
"""


FORK = """
    import os, time
    child = os.fork()
    if child == 0:
        time.sleep(60)
    print(child"""


def hold(runs: Path, *arguments: str) -> subprocess.Popen[str]:
    """Another process that claims a folder and keeps it until its standard input ends."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, "--runs", str(runs), *arguments],
        cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_processes_that_start_at_once_get_folders_of_their_own(tmp_path: Path) -> None:
    others = [hold(tmp_path / "runs") for _ in range(3)]
    try:
        folders = [other.stdout.readline().strip() for other in others if other.stdout]
    finally:
        for other in others:
            other.communicate()
    assert sorted(folders) == [str(tmp_path / "runs" / f"tiny-cpu-{number}") for number in (1, 2, 3)]


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_in_progress_is_nobody_elses(resume: bool, tmp_path: Path) -> None:
    other = hold(tmp_path, "--name", "mine")
    try:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == str(tmp_path / "mine")
        if resume:
            begin(tmp_path, "mine")
        else:
            # It has written nothing yet: only the lock tells that the folder is taken.
            (tmp_path / "mine" / "metrics.jsonl").unlink()
        config = configured(tmp_path, "--name", "mine", *(["--resume"] if resume else []))
        with pytest.raises(ValueError, match=r"mine: another process holds this run") as caught, claim(config):
            pytest.fail("it was claimed twice")
        assert "\n" not in str(caught.value)
        assert (tmp_path / "mine").is_dir()
        other.kill()
        other.wait()
        with claim(config) as folder:  # the lock has gone with the process
            assert folder == tmp_path / "mine"
    finally:
        other.kill()
        other.communicate()


def test_a_name_is_not_given_twice(tmp_path: Path) -> None:
    begin(tmp_path, "done")
    with pytest.raises(ValueError, match=r"--name done.*holds a run; add --resume"):
        check(configured(tmp_path, "--name", "done"))
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / "metrics.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(ValueError, match=r"--name killed.*is not empty, and has no checkpoint.*remove it"):
        check(configured(tmp_path, "--name", "killed"))
    assert (tmp_path / "killed" / "metrics.jsonl").read_text() == '{"step": 1}\n'
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"--name file.*is a file"):
        check(configured(tmp_path, "--name", "file"))


def test_what_has_nothing_to_keep_is_removed(tmp_path: Path) -> None:
    for _ in range(2):  # the name is free again
        with claim(configured(tmp_path / "runs", "--name", "mine")) as folder:
            (folder / "tensorboard").mkdir()
        assert not folder.exists()
    with claim(configured(tmp_path / "runs")) as first, claim(configured(tmp_path / "runs")) as second:
        assert (first.name, second.name) == ("tiny-cpu-1", "tiny-cpu-2")
        (second / "metrics.jsonl").write_text("steps")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["tiny-cpu-2"]
    begin(tmp_path / "runs", "kept")
    with claim(configured(tmp_path / "runs", "--name", "kept", "--resume")) as folder:
        pass
    assert (folder / "checkpoint").exists()
    # A killed process leaves its lock file, which holds nothing.
    (tmp_path / "runs" / "dead").mkdir()
    (tmp_path / "runs" / "dead" / LOCK).write_text("")
    with claim(configured(tmp_path / "runs", "--name", "dead")):
        pass


def test_a_folder_that_is_found_to_be_anothers_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody put a file into it between the two times that it is looked at."""
    usual = run_folder._open

    def opened(config: Config) -> Path:
        folder = usual(config)
        (folder / "notes.md").write_text("mine")
        return folder

    monkeypatch.setattr(run_folder, "_open", opened)
    with pytest.raises(ValueError, match="is not empty"), claim(configured(tmp_path, "--name", "mine")):
        pass
    assert (tmp_path / "mine" / "notes.md").read_text() == "mine"


def test_a_preset_from_elsewhere_still_runs_in_the_folder_of_runs(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("prompts = 7\n")
    with claim(configured(tmp_path / "runs", "--preset", str(tmp_path / "mine.toml"))) as folder:
        assert folder == tmp_path / "runs" / "mine-1"


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "..", "/tmp/x", "x/", "x\0y", "n" * 300])
@pytest.mark.parametrize("resume", [False, True])
def test_a_name_is_no_path(name: str, resume: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs").mkdir()
    arguments = ["--runs", str(tmp_path / "runs"), f"--name={name}", *(["--resume"] if resume else [])]
    assert run.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: --")
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.rglob("*")] == ["runs"]


@pytest.mark.parametrize("given", ["/proc/runs", "/sys/runs", "{file}", "{file}/runs", "{tmp}/" + "n" * 300])
@pytest.mark.parametrize("more", [[], ["--name", "mine"], ["--dry-run"]])
def test_a_place_where_nothing_can_be_written(
    given: str, more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if given.startswith("/") and not Path(given).parent.is_dir():
        pytest.skip(f"this machine has no {Path(given).parent}")
    (tmp_path / "file").write_text("")
    runs = given.format(file=tmp_path / "file", tmp=tmp_path)
    assert run.main(["--runs", runs, *more]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: --runs {runs}: ")
    assert err.count("\n") == 1


def test_a_full_disk_is_noticed_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(**_: object) -> object:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_folder.tempfile, "TemporaryFile", full)
    assert run.main(["--runs", str(tmp_path)]) == 2
    assert "the disk is full" in capsys.readouterr().err


def test_a_fork_does_not_keep_the_lock(tmp_path: Path) -> None:
    """vLLM forks processes, which may outlive a run that is killed."""
    code = HOLD.replace('    (folder / "metrics.jsonl").write_text("kept")\n    print(folder', FORK)
    assert code != HOLD
    other = subprocess.Popen(
        [sys.executable, "-c", code, "--runs", str(tmp_path), "--name", "mine"],
        cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert other.stdout is not None
    child = int(other.stdout.readline())
    try:
        other.kill()
        other.wait()
        os.kill(child, 0)
        with claim(configured(tmp_path, "--name", "mine")):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
