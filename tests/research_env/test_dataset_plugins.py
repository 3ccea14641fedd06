"""A data set of somebody else's, wherever a data set is named; and what is said of one that does not fit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

import research_env  # noqa: F401  (registers the ids)
from research_env import loading
from research_env.__main__ import main
from research_env.errors import ResearchError
from research_env.loading import DatasetKey
from research_env.types import Dataset, Hop, Passage, Pool, Question

SYNTHETIC = "ReSearch-Synthetic-v0"
BOOKS = [
    Passage("p0", "Amber Kesh", "Amber Kesh is a novel by Bram Tovik."),
    Passage("p1", "Bram Tovik", "Bram Tovik was born in Lundor Quay."),
]


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """Nothing is loaded when a test begins, and nothing stays loaded when it ends."""
    loading.forget()
    yield
    loading.forget()


def load_books(*, answer: str = "Bram Tovik") -> Dataset:
    question = Question("b0", "Who wrote Amber Kesh?", (answer,), 1, gold_passages=("p0",))
    return Dataset("books", {"train": [question]}, Pool("books", "v1", lambda: BOOKS, lambda: len(BOOKS)))


def load_without_passages() -> Dataset:
    return Dataset("bare", {"train": [Question("b0", "Who?", ("I",), 1)]}, None)


def load_anything(**options: Any) -> Dataset:
    return load_books(answer=options["name"])


def load_nothing() -> None:
    return None


def load_a_list_of_splits() -> Dataset:
    return Dataset("bare", [], None)  # type: ignore[arg-type]


def load_a_list_of_passages() -> Dataset:
    return Dataset("bare", {}, BOOKS)  # type: ignore[arg-type]


def load_a_file(path: str) -> Dataset:
    return load_books()


def load_a_generator() -> Dataset:
    return Dataset("bare", {"train": (q for q in [])}, None)  # type: ignore[dict-item]


def load_strings() -> Dataset:
    return Dataset("bare", {"train": ["Who?"]}, None)  # type: ignore[list-item]


def load_empty() -> Dataset:
    return Dataset("bare", {"train": []}, None)


def load_no_splits() -> Dataset:
    return Dataset("bare", {}, None)


def load_a_count() -> Dataset:
    return Dataset("bare", {"train": load_books().splits["train"]}, Pool("x", "v", list, 3))  # type: ignore[arg-type]


def load_tuples() -> Dataset:
    pool = Pool("tuples", "v1", lambda: [("p0", "Title", "text")], lambda: 1)  # type: ignore[list-item, return-value]
    return Dataset("tuples", load_books().splits, pool)


def load_a_wrong_count() -> Dataset:
    return Dataset("few", load_books().splits, Pool("few", "v1", lambda: BOOKS, lambda: 5))


def load_one_answer() -> Dataset:
    return Dataset("one", {"train": [Question("q", "Who?", "Ada", 1)]}, None)  # type: ignore[arg-type]


def load_a_question_twice() -> Dataset:
    questions = load_books().splits["train"]
    return Dataset("twice", {"train": [*questions, *questions]}, None)


def load_a_passage_twice() -> Dataset:
    return Dataset("twice", load_books().splits, Pool("twice", "v1", lambda: [*BOOKS, BOOKS[0]], lambda: 3))


HALF = "\ud83d"


def load_halves() -> Dataset:
    """Half of a surrogate pair in every text."""
    hop = Hop(f"Who{HALF}?", f"Bram{HALF}", f"p{HALF}")
    question = Question(f"b{HALF}", f"Who wrote Kesh{HALF}?", (f"Bram{HALF}",), 1, (hop,), (f"p{HALF}",))
    books = [Passage(f"p{HALF}", f"Kesh{HALF}", f"Kesh is a novel by Bram{HALF}\ude00{HALF}.")]
    return Dataset("halves", {"train": [question]}, Pool("halves", "v1", lambda: books, lambda: 1))


def load_numbers() -> Dataset:
    return Dataset("numbers", load_books().splits, Pool("n", "v1", lambda: [Passage(1, "T", "x")], lambda: 1))  # type: ignore[arg-type]


def load_and_fail() -> Dataset:
    raise KeyError("no file")


def test_somebody_elses_data_set_in_an_environment() -> None:
    env = gym.make(SYNTHETIC, dataset=f"{__name__}:load_books", answer="Tovik", disable_env_checker=True)
    prompt, info = env.reset(seed=0)
    assert "Who wrote Amber Kesh?" in prompt
    assert info["corpus"] == {"name": "books", "passages": 2, "hash": "v1"}
    *_, info = env.step("<think> x </think> <search> Amber Kesh </search>")
    assert info["passage_ids"] == ["p0"]
    _, reward, *_ = env.step("<think> x </think> <answer> \\boxed{Tovik} </answer>")
    assert reward == 1.0


def test_somebody_elses_data_set_as_a_corpus(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = str(tmp_path / "index")
    assert main(["index", "build", "--corpus", f"{__name__}:load_books", "--to", folder]) == 0
    assert "books, 2 passages, content hash" in capsys.readouterr().out
    env = gym.make(SYNTHETIC, corpus=folder, disable_env_checker=True)
    assert env.reset(seed=0)[1]["corpus"]["name"] == "books"


@pytest.mark.parametrize("corpus", [f"{__name__}:load_books", "synthetic"])
def test_a_data_set_is_served(corpus: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    server = pytest.importorskip("research_env.retrieval.remote.server")
    served: list[str] = []
    monkeypatch.setattr(server, "serve", lambda gateway, *_: gateway.search(["x"], 1) and served.append("searched"))
    for _ in range(2):  # each time a retriever of its own, because the first has been closed
        assert main(["serve", "--corpus", corpus, "--port", "18765"]) == 0
    assert "serving " in capsys.readouterr().out
    assert served == ["searched"] * 2


def test_a_loader_that_takes_any_option() -> None:
    key = DatasetKey(f"{__name__}:load_anything", '{"name": "Ada"}')
    assert loading.dataset(key).splits["train"][0].answers == ("Ada",)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("syntetic", {}, "dataset='syntetic' is unknown; known: musique, synthetic, or module:name; did you mean"),
        ("no_such_module:load", {}, "cannot be loaded (ModuleNotFoundError: No module named 'no_such_module')"),
        (f"{__name__}:load_bokks", {}, "cannot be loaded (AttributeError"),
        (f"{__name__}:BOOKS", {}, "list, which cannot be called"),
        (f"{__name__}:load_nothing", {}, "returns NoneType, not a research_env.types.Dataset"),
        (f"{__name__}:load_a_list_of_splits", {}, "splits is list, not a mapping of split to questions"),
        (f"{__name__}:load_a_list_of_passages", {}, "pool is list, not a research_env.types.Pool or None"),
        (f"{__name__}:load_a_file", {}, "cannot be called with (): missing a required argument: 'path'"),
        (f"{__name__}:load_books", {"anser": "x"}, "anser='x' is not a keyword argument of this environment; did you"),
        (f"{__name__}:load_books", {"zzzz": 1}, "zzzz=1 is not a keyword argument of this environment; known: answer"),
        (f"{__name__}:load_a_count", {}, "passages and count of its pool must be functions"),
        (f"{__name__}:load_and_fail", {}, "failed when it was called (KeyError: 'no file')"),
        (f"{__name__}:load_without_passages", {}, "has no passages of its own: say with corpus= what is searched"),
    ],
)
def test_a_wrong_data_set_is_one_clear_line(name: str, options: dict[str, Any], said: str) -> None:
    makers: list[Callable[[], Any]] = [lambda: gym.make(SYNTHETIC, dataset=name, disable_env_checker=True, **options)]
    if not options and ":" in name:
        makers.append(lambda: loading.open_corpus(name))
        makers.append(lambda: loading.open_gateway(name, {}))
    for make in makers:
        with pytest.raises(ResearchError) as caught:
            make()
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_data_set_without_passages_is_searched_elsewhere() -> None:
    env = gym.make(SYNTHETIC, dataset=f"{__name__}:load_without_passages", corpus="none", disable_env_checker=True)
    assert env.reset(seed=0)[1]["corpus"]["name"] == "none"


def test_halves_of_surrogate_pairs_are_mended() -> None:
    """Everything that comes out can be written as UTF-8, whoever put them in."""
    env = gym.make(SYNTHETIC, dataset=f"{__name__}:load_halves", render_mode="ansi", disable_env_checker=True)
    prompt, info = env.reset(seed=0)
    said: list[Any] = [prompt, info]
    for turn in (
        f"<think> {HALF} </think> <search> Kesh{HALF} </search>",
        f"<think> {HALF} </think> <answer> \\boxed{{Bram{HALF}}} </answer>",
    ):
        text, reward, _, _, info = env.step(turn)
        said += [text, info, env.render()]
    json.dumps(said, ensure_ascii=False).encode()
    assert (reward, info["em"], info["answer"], info["gold_found"]) == (1.0, 1.0, "Bram\ufffd", ["p\ufffd"])
    assert "Kesh is a novel by Bram\U0001f600\ufffd." in said[2]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("load_a_generator", "split 'train' is not a sequence of Question"),
        ("load_strings", "split 'train' is not a sequence of Question"),
        ("load_one_answer", "split 'train' is not a sequence of Question"),
        ("load_empty", "split='train': dataset has no question in it"),
        ("load_no_splits", "split='train': dataset has no splits"),
        ("load_a_question_twice", "questions 0 and 1 of split 'train' have the same id 'b0'"),
    ],
)
def test_questions_that_do_not_fit_are_one_clear_line(name: str, said: str) -> None:
    with pytest.raises(ResearchError) as caught:
        gym.make(SYNTHETIC, dataset=f"{__name__}:{name}", corpus="none", disable_env_checker=True)
    assert said.replace("dataset has", f"{__name__}:{name} has") in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("load_tuples", "its pool yields tuple, not a research_env.types.Passage"),
        ("load_numbers", "its pool yields a Passage whose id, title and text are not all str"),
        ("load_a_passage_twice", "its pool has two passages with the id 'p0'"),
        ("load_a_wrong_count", "its pool says that it has 5 passages, but yields 2"),
    ],
)
def test_passages_that_do_not_fit_leave_no_index(name: str, said: str, research_home: Path, tmp_path: Path) -> None:
    for _ in range(2):  # a wrong index that was kept would be found the second time
        with pytest.raises(ResearchError, match=said):
            loading.retriever(DatasetKey(f"{__name__}:{name}"), "pooled", "{}")
    assert main(["index", "build", "--corpus", f"{__name__}:{name}", "--to", str(tmp_path / "index")]) == 2
