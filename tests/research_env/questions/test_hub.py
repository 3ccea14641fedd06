"""Downloads through `datasets`; a folder of files, which it reads in the same way, stands in for the Hub."""

import sys
from dataclasses import replace

import pytest

from research_env.errors import ConfigurationError, DataInvalid, DataMissing, ResearchError
from research_env.questions import hub, musique, store
from research_env.questions.catalogue import DATASETS


@pytest.fixture
def repository(tmp_path, monkeypatch, musique_rows, write):
    datasets = pytest.importorskip("datasets")
    repo = tmp_path / "hub"
    repo.mkdir()
    entry = DATASETS["musique"]
    there = replace(entry.hub, repo=str(repo))
    for split, path in there.files.items():
        write(repo / path, musique_rows[split])
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(DATASETS, "musique", replace(entry, hub=there))
    return repo


def test_download_installs_the_same_bytes_as_add(repository, musique_rows, monkeypatch, tmp_path):
    downloaded = hub.download("musique")
    assert [(part.split, part.questions) for part in downloaded] == [("train", 12), ("dev", 6)]
    prints = [musique.load().pool.fingerprint]
    monkeypatch.setenv("RESEARCH_HOME", str(tmp_path / "other"))
    store.add("musique", sorted(repository.glob("*.jsonl")))
    prints.append(musique.load().pool.fingerprint)
    assert prints[0] == prints[1]


def test_a_bad_row_from_the_hub_is_named(repository, musique_rows, research_home, write, leftovers):
    musique_rows["dev"][3]["question"] = " "
    write(repository / "musique_ans_v1.0_dev.jsonl", musique_rows["dev"])
    with pytest.raises(DataInvalid, match=r"dev row '2hop__102'.*question=' ': is blank"):
        hub.download("musique")
    assert leftovers(research_home) == []


def test_rows_loaded_by_datasets_from_json_take_the_same_path(tmp_path, musique_rows, write, monkeypatch):
    datasets = pytest.importorskip("datasets")
    train = write(tmp_path / "musique_train.jsonl", musique_rows["train"])
    table = datasets.load_dataset("json", data_files={"train": str(train)}, cache_dir=str(tmp_path / "cache"))
    monkeypatch.setattr(hub, "fetch", lambda name: (("train", row) for row in table["train"]))
    (installed,) = hub.download("musique")
    assert installed.path.read_bytes() == train.read_bytes()


def test_an_unreachable_hub_is_one_clear_failure(monkeypatch, research_home, leftovers):
    datasets = pytest.importorskip("datasets")

    def unreachable(*_, **__):
        raise ConnectionError("Couldn't reach 'dgslibisey/MuSiQue' on the Hub (LocalEntryNotFoundError)")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(ResearchError) as caught:
        hub.download("musique")
    message = str(caught.value)
    assert "\n" not in message
    assert "https://huggingface.co/datasets/dgslibisey/MuSiQue could not be read (Couldn't reach" in message
    assert "musique_ans_v1.0_train.jsonl and musique_ans_v1.0_dev.jsonl" in message
    assert "python -m research_env data add musique FILE…" in message
    assert leftovers(research_home) == []


def test_without_datasets_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ResearchError, match=r"pip install 'research-gym\[data\]'"):
        hub.download("musique")


def test_a_data_set_that_is_not_on_the_hub_says_what_to_do(monkeypatch):
    monkeypatch.setitem(DATASETS, "musique", replace(DATASETS["musique"], hub=None))
    with pytest.raises(ConfigurationError, match=r"not on the Hub; .* data add musique FILE"):
        hub.download("musique")
    with pytest.raises(DataMissing) as caught:
        store.find("musique")
    assert "download" not in str(caught.value)
    assert hub.on_the_hub() == []
