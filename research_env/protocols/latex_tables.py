r"""Commands of LaTeX that occur in short answers, by what they do."""

from __future__ import annotations

import unicodedata

_FONTS = """
    text textbf textit textrm textsf texttt textsc textsl textup textmd textnormal mbox hbox fbox emph underline uline
    overline mathrm mathbf mathit mathsf mathtt mathcal mathbb mathfrak mathscr mathnormal boldsymbol bm operatorname
    ensuremath textsuperscript textsubscript boxed bold textlf textls textbb mathds mathsfit pmb uwave uuline dashuline
    dotuline ul hl underbrace overbrace widehat widetilde vec overrightarrow framebox makebox smash llap rlap clap
    uppercase lowercase MakeUppercase MakeLowercase MakeTextUppercase MakeTextLowercase enquote num
    si unit
"""
WRAPPERS = frozenset(_FONTS.split())
"""Commands that only change how their argument looks."""

_SIZES = """
    tiny scriptsize footnotesize small normalsize large Large LARGE huge Huge displaystyle textstyle scriptstyle bf it
    rm sf tt sc sl em bfseries mdseries itshape slshape scshape upshape rmfamily sffamily ttfamily normalfont left right
    big Big bigl bigr bigm Bigl Bigr Bigm bigg Bigg biggl biggr biggm Biggl Biggr Biggm middle selectfont boldmath
    unboldmath strut noindent centering raggedright raggedleft protect relax limits nolimits
"""
SWITCHES = frozenset(_SIZES.split())
"""Commands that change how the text after them looks."""

_GAPS = """
    quad qquad enspace enskip space nobreakspace thinspace medspace thickspace newline par hfill hfil hss smallskip
    medskip bigskip linebreak
"""
SPACES = frozenset(_GAPS.split())
"""Commands that show a space."""
LENGTHS = frozenset({"hskip", "vskip", "kern"})
"""Commands before a length without braces. They show a space."""
HIDDEN = {
    "textcolor": 1, "color": 1, "colorbox": 1, "fcolorbox": 2, "href": 1, "hspace": 1, "vspace": 1, "fontsize": 2,
    "raisebox": 1, "parbox": 1, "scalebox": 1, "resizebox": 2, "rotatebox": 1, "foreignlanguage": 1,
    "selectlanguage": 1, "phantom": 1, "hphantom": 1, "vphantom": 1, "begin": 1, "end": 1,
}  # fmt: skip
"""Command -> how many of its first arguments are not shown."""
GAPS = frozenset({"hspace", "phantom", "hphantom", "begin", "end"})
"""Those of them that show a space."""
PAIRS = {"frac": "/", "dfrac": "/", "tfrac": "/", "cfrac": "/", "nicefrac": "/", "sfrac": "/", "SI": " ", "qty": " "}
"""Command of two arguments -> what stands between them."""

_SMALL = """
    alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi chi psi omega
"""
_VARIANTS = "varepsilon vartheta varkappa varpi varrho varphi"  # other shapes of the same letters
_CAPITAL = "Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega"  # the others look Latin and have no command
_SIGNS = r"""
    aa=å AA=Å ae=æ AE=Æ oe=œ OE=Œ o=ø O=Ø l=ł L=Ł ss=ß i=ı j=ȷ dh=ð DH=Ð th=þ TH=Þ dj=đ DJ=Đ ng=ŋ NG=Ŋ S=§ P=¶ dag=†
    ddag=‡ copyright=© textregistered=® texttrademark=™ pounds=£ textsterling=£ euro=€ texteuro=€ yen=¥ textyen=¥
    textcent=¢ textdegree=° degree=° textdollar=$ textpercent=% textunderscore=_ textbackslash=\ backslash=\
    textasciitilde=~ textasciicircum=^ textless=< textgreater=> textbar=| textbraceleft={ textbraceright=} lbrace={
    rbrace=} lq=‘ rq=’ textendash=– textemdash=— textquoteleft=‘ textquoteright=’ textquotedblleft=“ textquotedblright=”
    textquotedbl=" textquotesingle=' quotesinglbase=‚ quotedblbase=„ guillemotleft=« guillemotright=» guilsinglleft=‹
    guilsinglright=› textexclamdown=¡ textquestiondown=¿ textordfeminine=ª textordmasculine=º textellipsis=… ldots=…
    dots=… textbullet=• bullet=• times=× cdot=· pm=± div=÷ le=≤ leq=≤ ge=≥ geq=≥ ne=≠ neq=≠ approx=≈ infty=∞ to=→
    rightarrow=→ leftarrow=← sqrt=√ circ=∘ prime=′ slash=/ TeX=TeX LaTeX=LaTeX cdots=⋯ dotsc=… dotsb=⋯ dotso=…
    varsigma=ς textonehalf=½ textonequarter=¼ textthreequarters=¾ textonesuperior=¹ texttwosuperior=²
    textthreesuperior=³ textmu=µ textnumero=№ textcopyright=© textsection=§ textparagraph=¶ textdagger=† textdaggerdbl=‡
    textohm=Ω textperthousand=‰ textcelsius=°C texttimes=× textdiv=÷ textpm=± textminus=− textwon=₩ textlira=₤
    textpeso=₱ textnaira=₦ textdong=₫ celsius=°C guillemetleft=« guillemetright=»
"""


def _greek(names: str, size: str) -> dict[str, str]:
    # Unicode spells it LAMDA.
    return {n: unicodedata.lookup(f"GREEK {size} LETTER {n.upper().replace('LAMBDA', 'LAMDA')}") for n in names.split()}


SYMBOLS: dict[str, str] = {
    **dict(sign.split("=", 1) for sign in _SIGNS.split()), **_greek(_SMALL, "SMALL"), **_greek(_CAPITAL, "CAPITAL"),
    **{name: _greek(name[3:], "SMALL")[name[3:]] for name in _VARIANTS.split()},
}  # fmt: skip
"""Command -> what it shows."""

OPERATORS = frozenset("×·±÷≤≥≠≈→←")
"""Signs with a space of their own on either side."""

MARKS = {
    "'": "\u0301", "`": "\u0300", "^": "\u0302", '"': "\u0308", "~": "\u0303", "=": "\u0304", ".": "\u0307",
    "u": "\u0306", "v": "\u030c", "H": "\u030b", "c": "\u0327", "k": "\u0328", "r": "\u030a", "b": "\u0331",
    "d": "\u0323", "acute": "\u0301", "grave": "\u0300", "hat": "\u0302", "ddot": "\u0308", "tilde": "\u0303",
    "bar": "\u0304", "dot": "\u0307", "breve": "\u0306", "check": "\u030c", "mathring": "\u030a",
    "t": "\u0361", "h": "\u0309", "f": "\u0311", "G": "\u030f", "U": "\u030d", "textcommabelow": "\u0326",
}  # fmt: skip
"""Command of an accent -> the combining character."""
