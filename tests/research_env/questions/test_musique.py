"""The MuSiQue loader: rows to questions, and the pool of paragraphs."""

import hashlib
import json
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest

from research_env.errors import ConfigurationError, DataInvalid, DataMissing
from research_env.questions import musique, store
from research_env.questions.catalogue import DATASETS
from research_env.text import passage_id
from research_env.types import Hop, Question


def install(tmp_path, **splits):
    for split, rows in splits.items():
        file = tmp_path / f"{split}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        store.add("musique", [file])


def gold_id(row, hop):
    return sha16(row["paragraphs"][row["question_decomposition"][hop]["paragraph_support_idx"]])


def sha16(paragraph):
    text = paragraph["title"] + "\n" + paragraph["paragraph_text"]
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def test_a_row_becomes_a_question(musique_home, musique_rows):
    row = musique_rows["train"][0]
    assert musique.load().splits["train"][0] == Question(
        id="2hop__0",
        text="Who founded the founder of Varn0a?",
        answers=("Varn0c", "Varn0c the Elder"),
        hops=2,
        decomposition=(
            Hop("Who founded Varn0a?", "Varn0b", gold_id(row, 0)),
            Hop("Varn0b >> founded by", "Varn0c", gold_id(row, 1)),
        ),
        gold_passages=(gold_id(row, 0), gold_id(row, 1)),
    )


def test_the_registered_splits_are_loaded_in_file_order(musique_home, musique_rows):
    data = musique.load()
    assert data.name == "musique"
    assert list(data.splits) == ["train", "dev"]
    for split, rows in musique_rows.items():
        assert [question.id for question in data.splits[split]] == [row["id"] for row in rows]
    assert {question.hops for question in data.splits["train"]} == {2, 3, 4}


def test_a_single_split_is_enough(tmp_path, musique_rows):
    install(tmp_path, dev=musique_rows["dev"])
    assert list(musique.load().splits) == ["dev"]


def test_no_split_is_a_typed_failure():
    with pytest.raises(DataMissing, match="data download musique"):
        musique.load()


def test_the_name_in_the_table_leads_here():
    assert DATASETS["musique"].load == f"{musique.__name__}:{musique.load.__name__}"
    assert DATASETS["musique"].row == f"{musique.__name__}:{musique.Row.__name__}"


def test_answers_are_distinct_in_order_and_never_blank(tmp_path, musique_rows):
    row = musique_rows["dev"][0]
    row["answer"], row["answer_aliases"] = "Rome", ["Roma", "Rome", "", "  ", "Roma", "rome"]
    install(tmp_path, dev=[row])
    assert musique.load().splits["dev"][0].answers == ("Rome", "Roma", "rome")


def test_references_are_resolved_to_earlier_hops_only(tmp_path, musique_rows):
    row = musique_rows["dev"][2]  # 4 hops
    texts = ["Who sang a #1 hit?", "#1 and #1's wife", "#2 >> #3 >> #0 >> #10", "child of #1 by #3"]
    answers = ["#2 Joe", r"\1", "Cy", "Di"]
    for step, text, answer in zip(row["question_decomposition"], texts, answers, strict=True):
        step["question"], step["answer"] = text, answer
    install(tmp_path, dev=[row])
    resolved = [hop.question for hop in musique.load().splits["dev"][0].decomposition]
    assert resolved == [
        "Who sang a #1 hit?",
        "#2 Joe and #2 Joe's wife",
        r"\1 >> #3 >> #0 >> #10",
        "child of #2 Joe by Cy",
    ]


def test_gold_follows_idx_and_not_the_place_in_the_list(tmp_path, musique_rows):
    row = musique_rows["dev"][0]
    expected = (gold_id(row, 0), gold_id(row, 1))
    row["paragraphs"].reverse()
    install(tmp_path, dev=[row])
    assert musique.load().splits["dev"][0].gold_passages == expected


def test_a_passage_that_two_hops_need_is_gold_once(tmp_path, musique_rows):
    row = musique_rows["dev"][0]
    for step in row["question_decomposition"]:
        step["paragraph_support_idx"] = 3
    install(tmp_path, dev=[row])
    question = musique.load().splits["dev"][0]
    assert question.gold_passages == (gold_id(row, 0),)
    assert len(question.decomposition) == 2


def test_unanswerable_rows_are_left_out_and_counted_but_their_paragraphs_stay(tmp_path, musique_rows, caplog):
    asked, twin = musique_rows["dev"][0], json.loads(json.dumps(musique_rows["dev"][0]))
    twin["answerable"] = False  # as in MuSiQue-Full: the same id, a needed paragraph replaced
    twin["question_decomposition"][0]["paragraph_support_idx"] = None
    twin["paragraphs"][5] = {"idx": 5, "title": "Only here", "paragraph_text": "Yes.", "is_supporting": False}
    install(tmp_path, dev=[asked, twin])
    data = musique.load()
    with caplog.at_level(logging.INFO):
        assert [question.id for question in data.splits["dev"]] == [asked["id"]]
    assert [(part.questions, part.unanswerable) for part in store.listing()] == [(1, 1)]
    assert "1 unanswerable" in caplog.text
    assert "Only here" in {passage.title for passage in data.pool.passages()}


def test_the_pool_is_every_paragraph_once(musique_home, musique_rows):
    data = musique.load()
    paragraphs = [p for split in ("train", "dev") for row in musique_rows[split] for p in row["paragraphs"]]
    pool = list(data.pool.passages())
    assert [passage.id for passage in pool] == list(dict.fromkeys(map(sha16, paragraphs)))
    assert len(pool) == data.pool.count() < len(paragraphs)
    assert {(p.title, p.text) for p in pool} == {(p["title"], p["paragraph_text"]) for p in paragraphs}
    assert list(data.pool.passages()) == pool, "each call is a fresh pass"


def test_one_title_with_two_texts_is_two_passages(tmp_path, musique_rows):
    row = musique_rows["dev"][0]
    row["paragraphs"] = row["paragraphs"][:8]
    for paragraph in row["paragraphs"][:3]:
        paragraph["title"] = "Same"
    install(tmp_path, dev=[row])
    assert musique.load().pool.count() == 8


def test_passage_id_is_known_by_hand():
    # printf 'Café\nA place.' | sha256sum
    assert passage_id("Café", "A place.") == "dda0a8f0b4b99d33"


def test_passages_are_lazy(musique_home):
    data = musique.load()
    for split in data.splits:
        (musique_home / "data" / "musique" / f"{split}.jsonl").unlink()
    passages = data.pool.passages()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        next(iter(passages))


def test_opening_one_split_reads_no_other(musique_home, musique_rows):
    data = musique.load()
    assert "train" in data.splits
    assert list(data.splits) == ["train", "dev"]
    reads = []
    original = musique.read_rows

    def watched(path, model):
        reads.append(path.name)
        return original(path, model)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(musique, "read_rows", watched)
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(lambda _: data.splits["dev"], range(8)))
        assert reads == ["dev.jsonl"]
        assert {id(questions) for questions in found} == {id(data.splits["dev"])}
        assert len(data.splits["train"]) == len(musique_rows["train"])
        assert reads == ["dev.jsonl", "train.jsonl"]
        with pytest.raises(KeyError):
            data.splits["test"]


def test_passages_are_counted_once_for_all_processes(tmp_path, musique_home, musique_rows, monkeypatch):
    count = musique.load().pool.count()
    monkeypatch.setattr(musique, "read_rows", lambda *_: pytest.fail("the files were read again"))
    assert musique.load().pool.count() == count
    monkeypatch.undo()
    monkeypatch.setenv("RESEARCH_HOME", str(musique_home))
    install(tmp_path, train=musique_rows["train"][:2])
    assert musique.load().pool.count() < count, "other files, another number"


@pytest.mark.parametrize("kept", [b"", b"[1]", b'{"fingerprint": ', b'{"fingerprint": 1, "passages": 1}'])
def test_a_damaged_count_is_counted_again(musique_home, kept):
    count = musique.load().pool.count()
    (file,) = (musique_home / "data" / "musique").glob(".passages.json")
    file.write_bytes(kept)
    assert musique.load().pool.count() == count
    assert json.loads(file.read_bytes())["passages"] == count


def test_a_data_folder_that_cannot_be_written_breaks_nothing(musique_home, monkeypatch):
    def refused(path, content):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(store, "replace", refused)
    data = musique.load()
    assert data.pool.count() == len(list(data.pool.passages()))
    assert not list((musique_home / "data" / "musique").glob(".passages*"))


def test_fingerprint_is_of_the_bytes(tmp_path, musique_rows, monkeypatch):
    first, second = tmp_path / "first", tmp_path / "second"
    prints = []
    for home in (first, second):
        monkeypatch.setenv("RESEARCH_HOME", str(home))
        install(tmp_path, **musique_rows)
        prints.append(musique.load().pool.fingerprint)
    assert prints[0] == prints[1]
    musique_rows["train"][0]["paragraphs"][0]["paragraph_text"] += "!"
    install(tmp_path, train=musique_rows["train"])
    assert musique.load().pool.fingerprint != prints[0]


def test_files_replaced_under_a_running_process_spoil_no_index(tmp_path, musique_home, musique_rows):
    data = musique.load()
    time.sleep(0.01)
    install(tmp_path, train=musique_rows["train"][:3])
    for read in (lambda: list(data.pool.passages()), lambda: data.splits["train"], lambda: data.splits["dev"]):
        with pytest.raises(DataInvalid, match="start it again"):
            read()


def test_an_installed_file_that_is_damaged_is_named(musique_home):
    path = musique_home / "data" / "musique" / "train.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    data = musique.load()
    for read in (lambda: data.splits["train"], data.pool.count, lambda: list(data.pool.passages())):
        for _ in range(2):
            with pytest.raises(DataInvalid, match=r"train\.jsonl, line 12: .*is it whole"):
                read()
    assert len(data.splits["dev"]) == 6, "a split needs its own file only"


def test_real_rows_load(real_data):
    files = sorted((real_data / "musique").glob("musique_ans_*.jsonl"))
    store.add("musique", files)
    data = musique.load()
    assert {split: len(questions) for split, questions in data.splits.items()} == {"train": 72, "dev": 216}
    assert {part.split: part.unanswerable for part in store.listing()} == {"train": 0, "dev": 0}
    pool = {passage.id: passage for passage in data.pool.passages()}
    assert len(pool) == data.pool.count()
    for question in (q for questions in data.splits.values() for q in questions):
        assert question.hops == len(question.decomposition) == int(question.id[0])
        assert set(question.gold_passages) <= pool.keys()
        assert question.decomposition[-1].answer == question.answers[0]
        for before, hop in pairwise(question.decomposition):
            assert f"#{question.decomposition.index(before) + 1}" not in hop.question
    first = data.splits["dev"][0]
    assert first.text == "Where did the creator of the Allegory of Isabella d'Este's Coronation die?"
    assert first.decomposition[1].question == "Lorenzo Costa >> place of death"
    assert pool[first.gold_passages[0]].title == "Allegory of Isabella d'Este's Coronation"


def test_real_files_are_kept_byte_for_byte(real_data, research_home):
    official = real_data / "musique" / "musique_ans_train.jsonl"
    store.add("musique", [official])
    assert (research_home / "data" / "musique" / "train.jsonl").read_bytes() == official.read_bytes()


def test_entities_of_titles_are_replaced_for_gold_passages_and_pool_alike(tmp_path, musique_rows, write):
    row = musique_rows["dev"][0]
    row["paragraphs"][5]["title"] = "Steers &amp; Stripes"
    store.add("musique", [write(tmp_path / "dev.jsonl", [row])])
    loaded = musique.load()
    titles = {passage.id: passage.title for passage in loaded.pool.passages()}
    assert titles[loaded.splits["dev"][0].gold_passages[0]] == "Steers & Stripes"
