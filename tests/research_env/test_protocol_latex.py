r"""LaTeX as the plain text that it shows."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research_env.protocols.boxed import box, last_boxed
from research_env.protocols.latex import escape, plain

SHOWN = {
    # fonts and sizes
    r"\mbox{Ada}": "Ada",
    r"\underline{Ada}": "Ada",
    r"\textsc{Ada}": "Ada",
    r"\emph{Ada} \textit{L.}": "Ada L.",
    r"\texttt{x}\mathbf{y}\mathrm{z}": "xyz",
    r"{\Large Ada}": "Ada",
    r"\Huge Ada": "Ada",
    r"\displaystyle Ada": "Ada",
    r"{\bf Ada} L.": "Ada L.",
    r"\textbf{\large Ada {L}.}": "Ada L.",
    r"\\text{Ada}": "Ada",
    r"\text {Ada}": "Ada",
    r"\operatorname*{Ada}": "Ada",
    r"\left(1, 2\right)": "(1, 2)",
    r"\fontsize{12}{14}\selectfont Ada": "Ada",
    r"\Bigl( 1 \Bigr) \Bigg|": "( 1 ) |",
    r"\boldmath Ada": "Ada",
    r"\MakeUppercase{Ada} \uppercase{L}. \textlf{A} \textls{B} \mathds{C} \bold{D}": "Ada L. A B C D",
    r"\uwave{A} \ul{B} \hl{C} \underbrace{D} \widehat{E} \vec{v}": "A B C D E v",
    # boxes
    r"\framebox{A} \framebox[3cm][c]{A} \makebox{B} \smash{C} \llap{D} \rlap{E}": "A A B C D E",
    r"\raisebox{2pt}{A} \raisebox{2pt}[0pt][0pt]{A} \parbox[t]{3cm}{B} \scalebox{2}{C}": "A A B C",
    r"\fcolorbox{red}{blue}{Ada} \textcolor[rgb]{1,0,0}{L}.": "Ada L.",
    r"\begin{center}Ada\end{center}": "Ada",
    r"\url{http://x.edu/~ada/a--b\_c}": "http://x.edu/~ada/a--b_c",
    r"\enquote{Ada} L.": '"Ada" L.',
    r"\foreignlanguage{french}{Ada}": "Ada",
    r"\textcolor{red}{Ada} L.": "Ada L.", r"\color{red} Ada": "Ada", r"\mathrm Ada": "Ada",
    # spaces
    r"Bram~Tovik": "Bram Tovik",
    r"Dr.~Tovik": "Dr. Tovik",
    r"Bram\ Tovik": "Bram Tovik",
    r"5\,million": "5 million",
    r"a\quad b": "a b",
    r"a \quad b": "a b",
    r"a\qquad{}b": "a b",
    r"a\;b\:c\!d": "a b cd",
    r"a \\ b": "a b",
    r"a\hskip 1em b\hskip-0.5pt c\kern 2mu d": "a b c d",
    r"a\hfill b\smallskip c\phantom{x}d": "a b c d",
    # escaped signs
    r"20\% \& \$5 \_x\_ \#1 \{a\}": "20% & $5 _x_ #1 {a}",
    r"\\$5 \\& 20\\%": "$5 & 20%",
    r"AC\/DC": "AC/DC",
    r"\textbackslash{}x \textasciitilde{}y": r"\x ~y",
    r"\~{}x\^{}2": "~x^2",
    # accents
    r"Pel\'e": "Pelé",
    r"Pel\'{e}": "Pelé",
    r"Pel\'{ e }": "Pelé",
    r"G\"odel, G\"{o}del": "Gödel, Gödel",
    r"S\~ao Paulo": "São Paulo",
    r"S\~{a}o": "São",
    r"cr\^eme br\^{u}l\'ee": "crême brûlée",
    r"Fran\c cois": "François",
    r"Fran\c{c}ois": "François",
    r"\c{S}": "Ş",
    r"\v{S}koda, \v Skoda": "Škoda, Škoda",
    r"Erd\H{o}s, Erd\H os": "Erdős, Erdős",
    r"\AA ngstr\"om": "Ångström",
    r"\r{A}": "Å",
    r"\.Istanbul": "İstanbul",
    r"\=a\u{a}\k{a}\d{s}\b{b}": "āăąṣḇ",
    r"na\"\i ve": "naïve",
    r"na\"{\i}ve": "naïve",
    r"na\"\i{}ve": "naïve",
    r"Mart\'{\i}n": "Martín",
    r"\`a \`{e}": "à è",
    r"\tilde{n}, \acute{e}, \ddot{o}": "ñ, é, ö",
    r"\\'e \\\"o": "é ö",
    r"\'{\ae}": "ǽ",
    r"\t{oo} \h{a} \f{a} \G{a} \U{a} \textcommabelow{s}": "o͡o ả ȃ ȁ a̍ ș",
    r"Caf\' e, Jos\' e, G\" odel": "Café, José, Gödel",
    r"\. Izmir, cr\^ eme": "İzmir, crême",
    r"CAF\'E": "CAFÉ",
    r"\'Eireann": "Éireann",
    r"Wi\'sniewski, Gda\'nsk": "Wiśniewski, Gdańsk",
    r"Ko\'sciuszko": "Kościuszko",
    r"Nguy\~{\^e}n, Nguy\~\^en, \'{\^{e}}, \d{\^o}": "Nguyễn, Nguyễn, ế, ộ",
    # letters and signs
    r"\aa\o\ss\ae\L\i": "åøßæŁı",
    r"Troms\o": "Tromsø",
    r"Stra\ss e": "Straße",
    r"Stra\ss{}e": "Straße",
    r"{\AE}r\o{}": "Ærø",
    r"\L\'od\'z": "Łódź",
    r"\L{}\'{o}d\'{z}": "Łódź",
    r"\OE uvre, \oe{}uvre": "Œuvre, œuvre",
    r"\TH\'or \dh": "Þór ð",
    r"\textquotedblleft Ada\textquotedblright": "“Ada”",
    r"\textquoteleft Ada\textquoteright{} L.": "‘Ada’ L.",
    r"\pounds 5, \texteuro{}6": "£5, €6",
    r"90^\circ, 90^{\circ}\text{C}, 5\textdegree": "90°, 90°C, 5°",
    r"5 ^\circ C, 5 ^{\circ} F, 5^\circ N": "5 °C, 5 °F, 5° N",
    r"\SI{5}{km}, \SI[mode=text]{5}{\textdegree C}": "5 km, 5 °C",
    r"\textonehalf, \textmu m, \textnumero{}5, \textcopyright, \cdots, \varphi\varepsilon": "½, µm, №5, ©, ⋯, φε",
    r"$\alpha$ and \(\Omega\)": "α and Ω",
    r"2 \times 3": "2 × 3",
    r"wait\ldots": "wait…",
    # dashes
    "1990--1995": "1990–1995",
    r"Paris---Nice": "Paris—Nice",
    r"\textbf{a}--\textbf{b}": "a–b",
    r"a\textendash b": "a–b",
    # mathematics
    r"$x$": "x",
    r"$$x + 1$$": "x + 1",
    r"\(x\)": "x",
    r"\[x\]": "x",
    r"$\text{in }\{1,2\}$": "in {1,2}",
    r"$1{,}000$": "1,000",
    r"\frac{1}{2}": "1/2",
    r"1\frac{1}{2}": "1 1/2",
    r"\dfrac12": "1/2",
    r"\frac{\text{a}}{\frac{b}{c}}": "a/b/c",
    r"19^{\text{th}} century": "19^th century",
    r"the $19$th": "the 19th",
}  # fmt: skip


@pytest.mark.parametrize("latex", SHOWN)
def test_what_is_shown(latex: str) -> None:
    assert plain(latex) == SHOWN[latex]
    assert plain(rf"\text{{{latex}}}") == SHOWN[latex]


@pytest.mark.parametrize(
    "text",
    [
        "Paris",
        "$5 million",
        "$5 and $6",
        "$5-$6",
        "$",
        "100% sure",
        "AT&T",
        "#1",
        "a_b",
        "x^2",
        "*",
        "---",
        "--",
        "-",
        "~5 million",
        "http://x.edu/~ada",
        "1990~1995",
        "~",
        "a ~ b",
        "{a}{b{c}}",
        "{Paris}",
        r"C:\Users\ada",
        r"C:\new\to\it",
        r"in D:\o\c x",
        r"AC\DC",
        r"\foo{bar}",
        r"\foo{bar}{b}",
        r"\unknown",
        r"a\1",
        "well -- no",
        "10 July -- 31 October 1940",
        "#$%&",
        "rock 'n' roll",
        "Ke$ha",
        "A$AP",
        r"\frac",
        "50% off $20",
        "U.S.",
        "don't",
        "“Heroes”",
    ],
)
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert plain(text) == text
    assert plain(f"  {text}\n") == text
    assert plain("\\") == "\\"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (r"It\'s a King\'s game", "It's a King's game"),
        (r"O\'Brien", "O'Brien"),
        (r"O\'Connor", "O'Connor"),
        (r"D\'Artagnan, L\'Oréal", "D'Artagnan, L'Oréal"),
        (r"Côte d\'Ivoire", "Côte d'Ivoire"),
        (r"the boys\' album", "the boys' album"),
        (r"\"Heroes\" album", '"Heroes" album'),
        (r"the U.S\. army", "the U.S. army"),
        (r"rock \'n\' roll", "rock 'n' roll"),
        (r"we\'re, I\'ll, don\'t, I\'m", "we're, I'll, don't, I'm"),
        (r"\"Heroes\"", '"Heroes"'),
        (r"\'Allo \'Allo\'", "'Allo 'Allo'"),
        (r"U\.S\.", "U.S."),
    ],
)
def test_signs_escaped_as_in_a_string_literal_are_the_signs(text: str, shown: str) -> None:
    assert plain(text) == shown


PIECES = st.sampled_from(
    [
        "\\",
        "{",
        "}",
        "$",
        "~",
        "-",
        "--",
        "'",
        '"',
        " ",
        "a",
        "e",
        "\\text{",
        "\\'",
        "\\c",
        "\\frac",
        "\\o",
        "^",
        "\\circ",
        "{}",
        "\\foo",
        "\n",
        "1",
        "\\\\",
    ]
)
ANY = st.lists(PIECES | st.text(max_size=5), max_size=14).map("".join)


@settings(deadline=None)
@given(ANY)
def test_what_is_written_is_read_back(text: str) -> None:
    assert plain(escape(text)) == text.strip()
    assert last_boxed(box(text)) is not None
    assert plain(last_boxed(box(text)) or "") == text.strip()


@settings(deadline=None)
@given(ANY)
def test_any_text_is_read(text: str) -> None:
    assert isinstance(plain(text), str)


@pytest.mark.parametrize(
    "unit",
    [
        "\\",
        "{",
        "}",
        "$",
        "$ ",
        "$a",
        "~",
        "a~",
        "-",
        "a-",
        "\\'",
        "\\'{",
        "\\c",
        "\\c ",
        "\\text{",
        "\\frac{",
        "\\foo{",
        "\\foo{}",
        "\\'\\i",
        "^\\circ",
        "^",
        "^ ",
        "^{",
        "\\, ",
        "\\quad",
        "\\ ",
        "\\'{a",
        "a\\'s",
        "\\'\\'",
        "\\'{\\'",
        "\\c{\\c",
        "\\' ",
        '\\" a',
        "\\text[",
        "\\text[]",
        "\\begin[]",
        "\\begin{",
        "\\SI{",
    ],
)
def test_no_text_takes_long(unit: str) -> None:
    begin = time.process_time()
    for size in (10_000, 1_000_000):
        plain((unit * (size // len(unit) + 1))[:size])
    assert time.process_time() - begin < 1.0


def test_what_is_no_latex_is_written_as_it_is() -> None:
    assert escape("10 July -- 31 October 1940, 50%") == "10 July -- 31 October 1940, 50%"
    assert escape("1990--95---x") == r"1990-\mbox{}-95-\mbox{}-\mbox{}-x"
