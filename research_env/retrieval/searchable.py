"""Text in the form in which both engines index and search it; what they store and hand out is the original.

Each character is written in one way (NFC), letters of another width or shape are the usual ones, and marks that may be
left out (stress in Russian, vowels in Arabic and Hebrew, soft hyphens) are. Scripts without spaces become words:
all pairs of neighbours, as in Lucene's CJK analyser, and single characters beside them, which queries of one character
find. ASCII text stays as it is, and so does almost all other text of European languages.
"""

from __future__ import annotations

import re
from itertools import pairwise
from unicodedata import category, normalize

# Blocks of which only some characters are letters or marks: Thai and Lao, Burmese, Khmer, Tai scripts, Balinese,
# Javanese, kana. These and the ranges below are what Unicode breaks into lines without spaces.
_BLOCKS = (
    (0x0E00, 0x0F00), (0x1000, 0x10A0), (0x1780, 0x17E0), (0x1950, 0x19E0), (0x1A20, 0x1AB0), (0x1B00, 0x1B80),
    (0x302A, 0x3030), (0x3040, 0x3100), (0xA980, 0xAA00), (0xAA60, 0xAAE0),
)  # fmt: skip
_IN_BLOCKS = [chr(code) for start, stop in _BLOCKS for code in range(start, stop)]
_HAN = r"\u3005\u3007\u3021-\u3029\u303b\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_HANGUL = r"\u1100-\u11ff\u3131-\u318e\ua960-\ua97c\uac00-\ud7a3\ud7b0-\ud7fb"  # spaced, but particles end its words
_BOPOMOFO_YI = r"\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff\ua000-\ua48c"
_LETTERS = "".join(c for c in _IN_BLOCKS if category(c)[0] == "L") + _HAN + _HANGUL + _BOPOMOFO_YI
_MARKS = "".join(c for c in _IN_BLOCKS if category(c)[0] == "M")

# A mark of width zero may stand between two letters, to show where a line may be broken.
_RUN = re.compile(rf"[{_LETTERS}{_MARKS}](?:[\u200b-\u200d\u2060]*[{_LETTERS}{_MARKS}])*")
# A letter with its marks counts as one. At most 4 marks, because the embedded index leaves out words of 64 letters.
_CHARACTER = re.compile(rf"[{_LETTERS}{_MARKS}][{_MARKS}]{{0,4}}")
# Radicals of ideographs, ligatures, Arabic by position, half and full width.
_SHAPE = r"\u2e80-\u2fdf\ufb00-\ufdff\ufe70-\ufefc\uff00-\uffef"
_SHAPES = re.compile(f"[{_SHAPE}]+")
_OPTIONAL = (
    r"\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u065f"
    r"\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed\ufe00-\ufe0f\U000e0100-\U000e01ef"
)
_OPTIONALS = re.compile(f"[{_OPTIONAL}]+")
_BREAK = r"\u00ad\u200b"  # where a line may be broken inside a word
_BREAKS = re.compile(rf"(?<=[^\W\d_])[{_BREAK}]+(?=[^\W\d_])")
_ANY = re.compile(f"[{_LETTERS}{_MARKS}{_SHAPE}{_OPTIONAL}{_BREAK}]")


def indexed(text: str) -> str:
    """`text` as it is put into an index: `"Tokyo 東京"` -> `"Tokyo  u26481 u20140 u26481u20140 "`."""
    return _searchable(text, singles=True)


def asked(query: str) -> str:
    """`query` as it is searched for: pairs, and a single character only where it stands alone."""
    return _searchable(query, singles=False)


def _searchable(text: str, singles: bool) -> str:
    if text.isascii():
        return text
    text = normalize("NFC", text)
    if not _ANY.search(text):
        return text
    text = normalize("NFC", _SHAPES.sub(lambda found: normalize("NFKC", found.group()), text))
    text = _BREAKS.sub("", _OPTIONALS.sub("", text))
    return _RUN.sub(lambda run: f" {' '.join(_words(run.group(), singles))} ", text)


def _words(run: str, singles: bool) -> list[str]:
    # Written as code points: Elasticsearch's tokenizer would split a pair of ideographs, the embedded index's would
    # split at a mark, and no stemmer of any language changes a word that ends with a digit.
    characters = ["".join(f"u{ord(c)}" for c in character) for character in _CHARACTER.findall(run)]
    pairs = [first + second for first, second in pairwise(characters)]
    return characters + pairs if singles else pairs or characters
