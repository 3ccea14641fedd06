"""Scripts without spaces, and text that is written in more than one way: what is searched, and that it is found."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from research_env.corpora.reader import open_file
from research_env.retrieval.embedded.bm25 import ABOUT_FILE, ANALYSERS, Bm25Index, _analyser
from research_env.retrieval.embedded.folder import build_folder
from research_env.retrieval.keywords import keywords
from research_env.retrieval.searchable import asked, indexed

TEXTS = [
    ("zh", "北京大学", "北京大学是中国的一所综合性大学，位于北京市海淀区。"),
    ("ja", "東京タワー", "東京タワーは、東京都港区にある電波塔です。葛\U000e0100城市は奈良県。ﾊﾞｽで行く。"),
    ("ko", "서울", normalize("NFD", "서울은 대한민국의 수도이다. 한강이 흐른다.")),
    ("th", "กรุงเทพมหานคร", "กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย ริมแม่น้ำเจ้าพระยา"),
    ("lo", "ວຽງຈັນ", "ວຽງຈັນເປັນນະຄອນຫຼວງຂອງປະເທດລາວ"),
    ("km", "ភ្នំពេញ", "ភ្នំពេញជារាជធានី\u200bនៃប្រទេសកម្ពុជា"),
    ("my", "ရန်ကုန်", "ရန်ကုန်မြို့သည်မြန်မာနိုင်ငံ၏အကြီးဆုံးမြို့ဖြစ်သည်"),
    ("mixed", "Tokyo 東京都", "The iPhone用 case of Shibuya渋谷 costs ＡＢＣ１２３ yen."),
    ("nfd", normalize("NFD", "Zürich"), normalize("NFD", "Ångström née Çelik; Ελλάδα; Йошкар-Ола.")),
    ("ru", "Vladimir", "Влади\u0301мир основал го\u0301род."),
    ("ar", "Muhammad", "مُحَمَّد بن عبد الله"),
    ("he", "Moses", "מֹשֶׁה רַבֵּנוּ"),
    ("breaks", "Karlsruhe", "Bundes\u00adver\u00adfassungs\u00adgericht and super\u200bcali\u200bfragi."),
    ("radicals", "Gold", "\u2f26\u2fa6 \u2f31\u2f2d"),  # the radicals 子金 巾山
    ("shapes", "Film", "The ﬁrst ﬂight; ﻣﺼﺮ."),
    ("hi", "Delhi", "दिल्ली भारत की राजधानी है"),
    ("en", "Amber Kesh", "A novel by Bram Tovik, 26481 words; naïve café."),
]
"""`(id, title, text)`; each is stored as it stands here."""
FOUND = [
    ("北京大学在哪里？", "zh"), ("海淀", "zh"), ("所", "zh"), ("東京", "ja"), ("電波塔", "ja"), ("葛城", "ja"),
    ("バス", "ja"), ("ﾊﾞｽ", "ja"), ("ﾀﾜｰ", "ja"), ("港", "ja"),
    ("서울", "ko"), (normalize("NFD", "수도"), "ko"), ("한강", "ko"),
    ("กรุงเทพ", "th"), ("เมืองหลวง", "th"), ("ประเทศไทย", "th"), ("ລາວ", "lo"), ("ນະຄອນ", "lo"), ("កម្ពុជា", "km"),
    ("រាជធានីនៃ", "km"), ("မြန်မာ", "my"), ("東京都 Tokyo", "mixed"), ("case for iPhone", "mixed"), ("渋谷", "mixed"),
    ("ABC123", "mixed"), ("ｓｈｉｂｕｙａ", "mixed"), ("Zürich", "nfd"), (normalize("NFD", "Ångström"), "nfd"),
    ("Çelik", "nfd"), ("Ελλάδα", "nfd"), ("Йошкар", "nfd"), ("Владимир", "ru"), ("Влади\u0301мир", "ru"),
    ("город", "ru"), ("محمد", "ar"), ("مُحَمَّد", "ar"), ("משה", "he"),
    ("מֹשֶׁה", "he"), ("first flight", "shapes"), ("ﬁrst", "shapes"),
    ("Bundesverfassungsgericht", "breaks"), ("Bundes\u00adverfassungsgericht", "breaks"), ("supercalifragi", "breaks"),
    ("子金", "radicals"), ("\u2f31\u2f2d", "radicals"), ("巾山", "radicals"),
    ("مصر", "shapes"), ("राजधानी", "hi"), ("दिल्ली", "hi"), ("Amber Kesh", "en"), (normalize("NFD", "naïve"), "en"),
]  # fmt: skip
"""`(query, id of the passage that must come first)`."""
NOT_FOUND = ["京北", "海区", "26481u20140", "ไม่มี", "없다"]


@pytest.fixture(scope="module")
def texts_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scripts") / "texts.jsonl"
    rows = ({"id": ident, "title": title, "text": text} for ident, title, text in TEXTS)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def index(texts_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Bm25Index:
    folder = tmp_path_factory.mktemp("scripts") / "index"
    build_folder(open_file(texts_file), folder)
    return Bm25Index(folder)


@pytest.mark.parametrize(("query", "ident"), FOUND)
def test_what_is_written_without_spaces_or_in_another_way_is_found(index: Bm25Index, query: str, ident: str) -> None:
    assert [hit.passage.id for hit in index.search([query], 1)[0]] == [ident]


@pytest.mark.parametrize("query", NOT_FOUND)
def test_neighbours_alone_make_a_pair(index: Bm25Index, query: str) -> None:
    assert index.search([query], 5) == [[]]


def test_passages_come_back_as_they_were_given(index: Bm25Index) -> None:
    found = {hit.passage.id: hit.passage for query, ident in FOUND for hit in index.search([query], 1)[0]}
    assert {(p.id, p.title, p.text) for p in found.values()} == set(TEXTS)


def test_pairs_as_lucenes_cjk_analyser_makes_them() -> None:
    """東京都 is U+6771 U+4EAC U+90FD, 26481 20140 37117; passages have the single characters as well."""
    assert asked("東京都").split() == ["u26481u20140", "u20140u37117"]
    assert asked("東").split() == ["u26481"]
    assert asked("Tokyo東京!").split() == ["Tokyo", "u26481u20140", "!"]
    assert indexed("東京").split() == ["u26481", "u20140", "u26481u20140"]
    assert keywords(asked("Who built 東京 and 東京?")) == "built u26481u20140"


@pytest.mark.parametrize("text", ["", "Plain text.", "naïve café – “Élan” ½ km² € Ølst", "O’Brien…", "Привет, мир"])
def test_text_of_european_languages_stays_as_it_is(text: str) -> None:
    assert indexed(text) == asked(text) == text


@given(st.text())
def test_any_text_has_one_form_and_no_half_characters(text: str) -> None:
    assert asked(normalize("NFD", text)).split() == asked(normalize("NFC", text)).split()


@pytest.mark.parametrize("language", ANALYSERS)
def test_no_language_changes_a_pair(language: str) -> None:
    words = indexed("東京 ด้วยกันที่ 한국 မြန်မာ").split()
    assert _analyser(language).analyze(" ".join(words)) == words


def test_words_with_marks_stay_whole() -> None:
    assert keywords("Who rules दिल्ली and مُحَمَّد?") == "rules दिल्ली مُحَمَّد"


def test_an_index_of_an_earlier_version_is_searched_with_a_warning(
    texts_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build_folder(open_file(texts_file), tmp_path / "index")
    about = json.loads((tmp_path / "index" / ABOUT_FILE).read_text())
    about["settings"]["layout"] = 3
    (tmp_path / "index" / ABOUT_FILE).write_text(json.dumps(about))
    with caplog.at_level(logging.WARNING):
        old = Bm25Index(tmp_path / "index")
    assert "was made by an earlier version" in caplog.text
    assert [hit.passage.id for hit in old.search(["Amber Kesh"], 1)[0]] == ["en"]
