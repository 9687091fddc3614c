"""Lists of words that the tokeniser of Stanford CoreNLP 3.4.1 knows, as patterns for `ptb_grammar`.

A capital in brackets matches only the capital, since the other case is a common word.
"""

_MONTHS_AND_DAYS = "Jan Feb Mar Apr Jun Jul Aug Sept? Oct Nov Dec Mon Tues? Wed Thu(rs)? Fri"
_STATES = (
    "Ala Ariz [A]z [A]rk Calif Colo Conn Ct Dak [D]el Fla Ga [I]ll Ind Kans? Ky [L]a [M]ass Md Mich Minn "
    "[M]iss Mo Mont Neb Nev Okla [O]re [P]a Penn Tenn [T]ex Va Vt [W]ash Wisc? Wyo"
)
_COMPANIES = "Inc Cos? Corp Pp?t[ye]s? Ltd Plc Rt Bancorp Bhd Assn Univ Intl Sys"
_OTHER = r"tel est ext sq Jr Sr Bros (Ed|Ph)\.D Blvd Rd Esq etc al seq Bldg"
_TITLES = (
    "Mr Mrs Ms [M]iss Drs? Profs? Sens? Reps? Attys? Lt Col Gen Messrs Govs? Adm Rev Maj Sgt Cpl Pvt Capt "
    "Ste? Ave Pres Lieut Hon Brig Co?mdr Pfc Spc Supts? Det Mt Ft Adj Adv Asst Assoc Ens Insp Mlle "
    "Mme Msgr Sfc"
)
_NAMES = r"vs Alex Wm Jos Cie a\.k\.a cf TREAS Ph Invt Elec Natl M[ft]g Dept"
_OPENERS = (
    "[A]bout [A]ccording [A]dditionally [A]fter [A]n [A] [A]s [A]t [B]ut [E]arlier [H]e [H]er [H]ere "
    "[H]owever [I]f [I]n [I]t [L]ast [M]any [M]ore [M]r\\. [M]s\\. [N]ow [O]nce [O]ne [O]ther [O]ur [S]he "
    "[S]ince [S]o [S]ome [S]uch [T]hat [T]he [T]heir [T]hen [T]here [T]hese [T]hey [T]his [W]e [W]hen "
    "[W]hile [W]hat [Y]et [Y]ou"
)
_FILES = (
    "bat bmp c class cgi cpp dll doc docx exe gif gz h htm html jar java jpeg jpg mov mp3 pdf php pl png "
    "ppt ps py sql tar txt wav x xml zip"
)


def _any(*lists: str) -> str:
    return "|".join(word for words in lists for word in words.split())


LISTS = {
    "BEFORE_LOWER": _any(_MONTHS_AND_DAYS, _STATES, _COMPANIES, _OTHER),
    "BEFORE_UPPER": _any(_TITLES, _NAMES),
    "BEFORE_NUMBER": "ca|figs?|prop|nos?|art|bldg|pp|op",
    "OPENERS": _any(_OPENERS),
    "FILE": _any(_FILES),
}
"""Patterns by name.

BEFORE_LOWER: abbreviations that a word in lower case follows mostly; before a capital a sentence ends.
BEFORE_UPPER: those that a capital follows mostly. BEFORE_NUMBER: those that are one only before a number.
OPENERS: words that open a sentence behind an acronym. FILE: endings of file names.
"""
