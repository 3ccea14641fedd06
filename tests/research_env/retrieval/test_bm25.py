"""The embedded index: scores against bm25s and by hand, any query, and the cache it lives in."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import bm25s
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from research_env.errors import DataInvalid, RetrievalError
from research_env.retrieval.embedded.bm25 import Bm25Index, open_or_build
from research_env.types import Passage, Pool

ROOT = Path(__file__).resolve().parents[3]
SMALL = [
    Passage("p0", "Amber Kesh", "Amber Kesh is a novel by Bram Tovik. It was published by Vornak Press."),
    Passage("p1", "Bram Tovik", "Bram Tovik was born in Lundor Quay."),
    Passage("p2", "Lundor Quay", "Lundor Quay is a port, twinned with Orlo Bay."),
    Passage("p3", "Vornak Press", "Vornak Press publishes novels and poems in Orlo Bay."),
    Passage("p4", "Élan café", "The café of Zoë Müller, 北京, O’Brien (AND) title:Kesh."),
]


def build(folder: Path, passages: list[Passage], fingerprint: str = "f") -> Bm25Index:
    return open_or_build(folder, Pool("pool", fingerprint, lambda: passages, lambda: len(passages)))


def ids(index: Bm25Index, query: str, top_k: int = 5) -> list[str]:
    return [hit.passage.id for hit in index.search([query], top_k)[0]]


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Bm25Index:
    return build(tmp_path_factory.mktemp("small"), SMALL)


def test_passages_come_back_whole_best_first(small):
    hits = small.search(["Who is the author of Amber Kesh?"], 3)[0]
    assert hits[0].passage == SMALL[0]
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert small.corpus.passages == 5
    assert len(small.search(["Orlo Bay novels by Tovik"], 2)[0]) == 2


def test_queries_are_answered_in_order_each_for_itself(small):
    queries = ["Zoë", "nothing such", "Bram Tovik", "Zoë"]
    assert [[hit.passage.id for hit in hits[:1]] for hits in small.search(queries, 5)] == [["p4"], [], ["p1"], ["p4"]]
    assert small.search([], 5) == []


@pytest.mark.parametrize("query", ["", " \n\t", "the of and is", "?!…", "\0", "🙂", "\ud800", "zzzzzz", "x" * 1000])
def test_queries_without_a_known_term_find_nothing(small, query):
    assert small.search([query], 5) == [[]]


@pytest.mark.parametrize(
    ("query", "best"),
    [("ELAN Cafe", "p4"), ("élan", "p4"), ("zoe muller", "p4"), ("北京", "p4"), ("publishing a POEM", "p3")],
)
def test_case_accents_and_endings_do_not_matter(small, query, best):
    assert ids(small, query)[0] == best


@pytest.mark.parametrize(
    ("query", "same"),
    [
        ("-Kesh", "Kesh"),
        ("NOT Kesh", "Kesh"),
        ("+Bram -Tovik", "Bram Tovik"),
        ('"Tovik Bram"', "Tovik Bram"),
        ("text:Kesh", "text Kesh"),
        ("id:p0", "id p0"),
        ("Kes*", "Kes"),
        ("[Amber TO Bram]", "Amber Bram"),
        ("Kesh^9 Bram", "Kesh 9 Bram"),
        ("(Kesh OR *)", "Kesh"),
        ("Kesh Kesh Kesh Bram", "Kesh Bram"),
    ],
)
def test_no_query_syntax_leaks_in(small, query, same):
    assert small.search([query], 5) == small.search([same], 5)


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(query=st.text(st.characters(), max_size=80), top_k=st.integers(1, 10))
@example(query="Kesh " * 200_000, top_k=5)
@example(query=" ".join(f"word{i}" for i in range(50_000)), top_k=5)
@example(query='title:"a" AND (NOT b OR c*~2^3) [x TO y} \\ /re/ <a>', top_k=1)
@example(query="\ud800\udfff \0 \u202e", top_k=10)
def test_any_string_is_a_legal_query(small, query, top_k):
    (hits,) = small.search([query], top_k)
    assert len(hits) <= min(top_k, len(SMALL))
    assert all(hit.passage in SMALL and hit.score > 0 for hit in hits)


def test_a_score_worked_out_by_hand(tmp_path):
    """Two passages, one term; k1 1.2, b 0.75, idf ln(1 + (N - n + 0.5) / (n + 0.5)), the factor k1 + 1 kept."""
    index = build(tmp_path, [Passage("a", "orlo", "kesh kesh brim"), Passage("b", "velm", "brim")])
    (hit,) = index.search(["kesh"], 5)[0]
    # ln(1 + 1.5 / 1.5) * 2 * 2.2 / (2 + 1.2 * (0.25 + 0.75 * 3 / 2)) = 0.693147 * 4.4 / 3.65
    assert hit.score == pytest.approx(0.835575, rel=1e-5)
    title_too = index.search(["kesh orlo"], 5)[0][0]
    # the title is a field of its own: 0.693147 * 2.2 / (1 + 1.2 * (0.25 + 0.75 * 1)) = 0.693147
    assert title_too.score == pytest.approx(0.835575 + 0.693147, rel=1e-5)


def test_scores_agree_with_bm25s(tmp_path):
    """Invented words, which are neither stemmed nor stop words; short texts, whose lengths are stored exactly."""
    rng = random.Random(0)
    words = [a + b for a in ("vor", "kel", "lun", "bra", "tov", "ges") for b in ("dak", "mok", "rux", "zim", "pon")]
    texts = [
        (" ".join(rng.choices(words, k=rng.randint(1, 3))), " ".join(rng.choices(words, k=rng.randint(1, 35))))
        for _ in range(80)
    ]
    index = build(tmp_path, [Passage(str(i), *both) for i, both in enumerate(texts)])
    theirs = []
    for field in (0, 1):
        scorer = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
        scorer.index([both[field].split() for both in texts], show_progress=False)
        theirs.append(scorer)
    for _ in range(40):
        query = rng.sample(words, rng.randint(1, 6))
        # Lucene's formula leaves the constant k1 + 1 out.
        expected = 2.2 * sum(scorer.get_scores(query) for scorer in theirs)
        hits = index.search([" ".join(query)], 80)[0]
        assert len(hits) == (expected > 0).sum()
        for hit in hits:
            assert hit.score == pytest.approx(expected[int(hit.passage.id)], rel=1e-4)


def test_common_terms_of_a_large_corpus_are_passed_over(tmp_path, monkeypatch):
    index = build(tmp_path, [Passage(f"p{i}", "", f"film number{i} {'seldom' * (i == 7)}") for i in range(10)])
    whole = index.search(["film number7", "film seldom", "film"], 5)
    monkeypatch.setattr("research_env.retrieval.embedded.bm25._LARGE", 5)
    found = index.search(["film number7", "film seldom", "film"], 5)
    assert [[hit.passage.id for hit in hits] for hits in found[:2]] == [["p7"], ["p7"]]
    assert found[0][0].score < whole[0][0].score
    assert found[2] == whole[2], "unless there is nothing else"


def test_the_index_is_kept_and_found_again(tmp_path):
    first = build(tmp_path, SMALL)

    def never():
        raise AssertionError("the passages were read or counted although the index is there")

    again = open_or_build(tmp_path, Pool("pool", "f", never, never))
    assert again.search(["Orlo Bay"], 5) == first.search(["Orlo Bay"], 5)
    build(tmp_path, SMALL[:2], fingerprint="other")
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 2
    assert build(tmp_path, [], fingerprint="other").corpus.passages == 2


def test_threads_may_search_at_once(small):
    queries = ["Amber Kesh", "Orlo Bay", "Lundor", "Zoë"] * 50
    expected = [small.search([query], 3) for query in queries]
    found: list[list] = [[] for _ in range(4)]

    def work(number: int) -> None:
        found[number] = [small.search([query], 3) for query in queries]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4


SLOW_BUILD = """
import sys, time
from pathlib import Path
from research_env.types import Passage, Pool
from research_env.retrieval.embedded.bm25 import open_or_build
cache, pause = Path(sys.argv[1]), float(sys.argv[2])
def passages():
    with (cache / "builds.txt").open("a") as log:
        log.write("built\\n")
    for i in range(20):
        time.sleep(pause)
        yield Passage(f"p{i}", f"Title {i}", "Orlo Bay " * (i + 1))
index = open_or_build(cache, Pool("pool", "slow", passages, lambda: 20))
print(index.corpus.passages, index.search(["Title 7"], 1)[0][0].passage.id)
"""


def start(cache: Path, pause: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SLOW_BUILD, str(cache), str(pause)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_two_processes_at_once_build_one_index(tmp_path):
    processes = [start(tmp_path, 0.05) for _ in range(2)]
    assert [process.communicate(timeout=60)[0] for process in processes] == ["20 p7\n"] * 2
    assert (tmp_path / "builds.txt").read_text() == "built\n"


def test_a_build_that_was_killed_does_no_harm(tmp_path):
    victim = start(tmp_path, 60)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("pool-*.building/index/*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)  # into the writing
    os.kill(victim.pid, signal.SIGKILL)
    victim.communicate(timeout=60)
    assert list(tmp_path.glob("pool-*.building/index"))
    assert start(tmp_path, 0).communicate(timeout=60)[0] == "20 p7\n"
    assert {path.name for path in tmp_path.iterdir()} == {
        "builds.txt",
        *(p.name for p in tmp_path.glob("pool-*[0-9a-f]")),
    }


def test_a_build_that_fails_leaves_nothing_and_says_why(tmp_path):
    def broken():
        yield SMALL[0]
        raise DataInvalid("dev.jsonl, line 7: question is missing")

    with pytest.raises(DataInvalid, match=r"^dev.jsonl, line 7: question is missing$"):
        open_or_build(tmp_path, Pool("pool", "f", broken, lambda: 5))
    with pytest.raises(RetrievalError, match=r"could not be built[^;]*$"):
        build(tmp_path, [Passage("p", "half a pair", "\ud800")])
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    assert build(tmp_path, SMALL).corpus.passages == 5


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RetrievalError, match=r"could not be built[^;]*$"):
        build(tmp_path / "file" / "indexes", SMALL)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("kept", ["under RESEARCH_HOME", "elsewhere"])
def test_a_full_disk_gets_advice_that_fits(tmp_path, monkeypatch, code, kept):
    monkeypatch.setenv("RESEARCH_HOME", str(tmp_path if kept == "under RESEARCH_HOME" else tmp_path / "other"))

    def full():
        yield SMALL[0]
        raise OSError(code, os.strerror(code))

    advice = ", or point RESEARCH_HOME at a folder with room" if kept == "under RESEARCH_HOME" else ""
    with pytest.raises(RetrievalError, match=rf"free disk space there{advice}$"):
        open_or_build(tmp_path, Pool("pool", "f", full, lambda: 5))


@pytest.mark.parametrize("damage", ["meta.json", "*.store", "*.term", "*.pos", "all"])
@pytest.mark.parametrize("how", ["cut", "zeros", "removed"])
def test_a_damaged_index_is_a_typed_failure_that_names_it(tmp_path, damage, how):
    build(tmp_path, SMALL)
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    for file in folder.glob("*" if damage == "all" else damage):
        content = file.read_bytes()
        file.unlink()  # first, since the index just built has mapped it
        if how == "cut":
            file.write_bytes(content[: len(content) // 2])
        elif how == "zeros":  # with its footer, as after a power cut
            file.write_bytes(bytes(max(0, len(content) - 200)) + content[-200:])
    if damage == "*.pos" and how == "zeros":
        assert ids(build(tmp_path, SMALL), "Amber Kesh")[0] == "p0"  # positions are not looked at
        return
    with pytest.raises(RetrievalError, match="delete it and run again") as error:
        build(tmp_path, SMALL).search(["Amber Kesh"], 5)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)
