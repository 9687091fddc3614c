"""What counts as a token: the rules of the tokeniser of Stanford CoreNLP 3.4.1, for `ptb_lexer`.

The notation is that of `ptb_patterns`. Names in capitals of `ptb_abbreviations` are lists of words.
"""

from functools import cache
from unicodedata import category

from limner.metrics import ptb_abbreviations
from limner.metrics.ptb_lexer import Lexer, Rule
from limner.metrics.ptb_patterns import Grammar, characters

_LATER = characters(
    r"\u037f\u0528-\u052f\u0558\u0560\u0588\u058b-\u058c\u05ef\u0860-\u086a\u0870-\u0887\u0889-\u088f"
    r"\u08a1\u08ad-\u08c9\u0978\u0980\u09fc\u0af9\u0c34\u0c5a\u0c5c-\u0c5d\u0c80\u0cdc-\u0cdd\u0d04"
    r"\u0d54-\u0d56\u0d5f\u0e86\u0e89\u0e8c\u0e8e-\u0e93\u0e98\u0ea0\u0ea8-\u0ea9\u0eac\u13f5"
    r"\u13f8-\u13fd\u16f1-\u16f8\u170d\u171f\u1878\u191d-\u191e\u19b0-\u19c0\u19c8-\u19c9\u1b4c"
    r"\u1c80-\u1c8a\u1c90-\u1cba\u1cbd-\u1cbf\u1cf2-\u1cf3\u1cfa\u208f\u209d-\u209f\u2c2f\u2c5f"
    r"\u312e-\u312f\u31bb-\u31bf\u4db6-\u4dbf\u9fcd-\u9fff\ua698-\ua69d\ua78f\ua794-\ua79f\ua7ab-\ua7dd"
    r"\ua7e2\ua7f1-\ua7f7\ua8fd-\ua8fe\ua9e0-\ua9e4\ua9e6-\ua9ef\ua9fa-\ua9fe\uaa7e-\uaa7f\uab30-\uab5a"
    r"\uab5c-\uab69\uab6c-\uab6d\uab70-\uabbf"
)
"""Letters up to U+FFFF that Unicode 7 to 17 added or made letters: the tool does not know them."""

_MARKS = characters(
    r"\u00ad\u0237-\u024f\u02c2-\u02c5\u02d2-\u02df\u02e5-\u02ff\u0300-\u036f\u0370-\u037d\u0384\u0385\u03cf\u03f6\u03fc-\u03ff"
    r"\u0483-\u0487\u04cf\u04f6-\u04ff\u0510-\u0525\u055a-\u055f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0615-\u061a"
    r"\u063b-\u063f\u064b-\u065e\u0670\u06d6-\u06ef\u06fa-\u06ff\u070f\u0711\u0730-\u077f\u07a6-\u07b1\u07ca-\u07f5\u07fa"
    r"\u0900-\u0903\u093c\u093e-\u094e\u0951-\u0955\u0962\u0963\u0981-\u0983\u09bc-\u09c4\u09c7\u09c8\u09cb-\u09cd\u09d7\u09e2"
    r"\u09e3\u0a01-\u0a03\u0a3c\u0a3e-\u0a4f\u0a81-\u0a83\u0abc-\u0acf\u0b82\u0bbe-\u0bc2\u0bc6-\u0bc8\u0bca-\u0bcd\u0c01-\u0c03"
    r"\u0c3e-\u0c56\u0d3e-\u0d44\u0d46-\u0d48\u0e30-\u0e3a\u0e47-\u0e4e\u0eb1-\u0ebc\u0ec8-\u0ecd"
)
"""Signs that may stand in a word beside letters: accents and vowels, mostly."""


def _letter(char: str) -> bool:
    return (category(char)[0] == "L" and char not in _LATER) or char in "\u1885\u1886"


def _plain_digit(char: str) -> bool:
    return category(char) == "Nd" and not ("\u0de6" <= char <= "\u0def" or "\ua9f0" <= char <= "\ua9f9")


def _digit(char: str) -> bool:
    return _plain_digit(char) or "\u07c0" <= char <= "\u07c9"


def _upper(char: str) -> bool:
    if "\u2160" <= char <= "\u216f" or "\u24b6" <= char <= "\u24cf":
        return True
    return category(char) == "Lu" and char not in _LATER and not "\u13a0" <= char <= "\u13f5"


def _letter_or_digit(char: str) -> bool:
    return _letter(char) or _plain_digit(char)


def _letter_or_mark(char: str) -> bool:
    return _letter(char) or char in _MARKS


_SETS = {
    "letter": _letter,
    "plain_digit": _plain_digit,
    "digit": _digit,
    "upper": _upper,
    "letter_or_digit": _letter_or_digit,
    "letter_or_mark": _letter_or_mark,
}

_MACROS = {
    # white space
    "space": r"[ \t\u00a0\u2000-\u200a\u3000]",
    "newline": r"\r|\r?\n|[\u2028\u2029\u000b\u000c\u0085]",
    "blank": "{space}|{newline}",
    "sentence_end": "({blank})({blank}|{upper}|{tag})",
    # markup
    "name": r"[A-Za-z][A-Za-z0-9_:.\-]*",
    "attribute": r"""{name}([ ]*=[ ]*('[^'\n]*'|\"[^\"\n]*\"))?""",
    "tag": r"<([!?][A-Za-z\-][^>\r\n]*|{name}([ ]+{attribute})*[ ]*/?|/{name})[ ]*>",
    "accented": "&[aeiouAEIOU](acute|grave|uml);",
    "ampersand": "&amp;",
    # words
    "letters": "({letter_or_mark}|{accented})",
    "part": "{letters}({letters}|{digit})*",
    "word": "{part}([.!?]{part})*",
    "apostrophe": r"['\u0092\u2019]|&apos;",
    "apostrophe_like": r"{apostrophe}|[`\u0091\u2018\u201b]",
    "clitic": "({apostrophe})([msdMSD]|re|ve|ll)",
    "not_stem": r"[A-Za-z\u00ad]*[A-MO-Za-mo-z]\u00ad*",
    "not": "n({apostrophe_like})t",
    "apostrophe_word": (
        "({apostrophe})n({apostrophe})?|[lLdDjJ]({apostrophe})|dunkin({apostrophe})|somethin({apostrophe})|ol({apostrophe})"
        "|({apostrophe})em|[A-HJ-XZn]({apostrophe_like}){letter}{2}{letter}*|({apostrophe})[2-9]0s|({apostrophe})till?"
        "|{letter}{letter}*[aeiouyAEIOUY]({apostrophe_like})[aeiouA-Z]{letter}*|({apostrophe})cause|cont'd\\.?|'twas|nor'easter"
        "|c'mon|e'er|s'mores|ev'ry|li'l|nat'l|o({apostrophe_like})o"
    ),
    "hyphen": r"[\-_\u058a\u2010\u2011]",
    "elided": "([dDoOlL]({apostrophe_like}){letter_or_digit})?{letter_or_digit}+",
    "hyphenated": "{elided}({hyphen}{elided})*",
    "joined": "[A-Z]+(([+&]|{ampersand})[A-Z]+)+",
    "side": "[A-Za-z0-9]+(-[A-Za-z]+){0,2}",
    "slashed": r"{side}(\\?/{side}){1,2}",
    "long_hyphenated": r"[A-Za-z0-9][A-Za-z0-9.,\u00ad]*(-([A-Za-z0-9\u00ad]+|{long_acronym}\.))+",
    "special": (
        "-(RRB|LRB|RCB|LCB|RSB|LSB)-|C\\.D\\.s|pro-|anti-|S(&|&amp;)P-500|S(&|&amp;)Ls|cap({apostrophe})n|c({apostrophe})est"
    ),
    "file": "({letters}|{digit})+([.]({letters}|{digit})+)*[.]({FILE})",
    # addresses
    "url": r"https?://[^ \t\n\f\r\"<>|(){}]+[^ \t\n\f\r\"<>|.!?(){},\-]",
    "likely_url": (
        r"(www\.([^ \t\n\f\r\"<>|.!?(){},]+\.)+[a-zA-Z]{2,4}"
        r"|([^ \t\n\f\r\"`'<>|.!?(){},-_$]+\.)+(com|net|org|edu))"
        r"(/[^ \t\n\f\r\"<>|()]+[^ \t\n\f\r\"<>|.!?(){},\-])?"
    ),
    "mail": (
        r"(&lt;|<)?[a-zA-Z0-9][^ \t\n\f\r\"<>|()\u00a0{}]*@"
        r"([^ \t\n\f\r\"<>|(){}.\u00a0]+\.)*[^ \t\n\f\r\"<>|(){}.\u00a0]+(&gt;|>)?"
    ),
    "handle": "@[a-zA-Z_][a-zA-Z_0-9]*|#{letters}+",
    # numbers
    "date": r"{digit}{1,2}[\-/]{digit}{1,2}[\-/]{digit}{2,4}",
    "number": r"[\-+]?({digit}+|{digit}*([.:,\u00ad\u066b\u066c]{digit}+)+)",
    "small_number": (
        r"[\u207a\u207b\u208a\u208b]?([\u2070\u00b9\u00b2\u00b3\u2074-\u2079]+|[\u2080-\u2089]+)"
    ),
    "fraction": r"({digit}{1,4}[\- \u00a0])?{digit}{1,4}(\\?/|\u2044){digit}{1,4}",
    "fraction_sign": r"[\u00bc\u00bd\u00be\u2153-\u215e]",
    "dollar": r"[A-Z]*$|#",
    "currency": r"[\u00a2\u00a3\u00a4\u00a5\u0080\u20a0\u20ac\u060b\u0e3f\u20a4\uffe0\uffe1\uffe5\uffe6]",
    "gap": r"[\- \u00a0]",
    "phone": (
        r"(\([0-9]{2,3}\)[ \u00a0]?|(\+\+?)?([0-9]{2,4}{gap})?[0-9]{2,4}{gap})[0-9]{3,4}{gap}?[0-9]{3,5}"
        r"|((\+\+?)?[0-9]{2,4}\.)?[0-9]{2,4}\.[0-9]{3,4}\.[0-9]{3,5}"
    ),
    # abbreviations
    "states_side": r"(Canada|Sino|Korean|EU|Japan|non)-U\.S|U\.S\.-(U\.K|U\.S\.S\.R)",
    "acronym": r"[A-Za-z](\.[A-Za-z])*|{states_side}",
    "long_acronym": r"([A-Za-z](\.[A-Za-z])+|{states_side})",
    "before_lower": r"({BEFORE_LOWER})\.",
    "before_upper": "{BEFORE_UPPER}|{acronym}",
    "before_number": r"({BEFORE_NUMBER})\.",
    "opener": "({OPENERS}|{tag})",
    # signs
    "mdash": r"&(MD|mdash|ndash);|[\u0096\u0097\u2013-\u2015]",
    "entity": "&(HT|TL|UR|LR|QC|QL|QR|odq|cdq|#[0-9]+);",
    "dots": r"\.{3,5}|(\.[ \u00a0]){2,4}\.|[\u0085\u2026]",
    "run": r"@+|#+|_+",
    "stars": r"\*+|(\\\*){1,3}",
    "inside": r"[,;:\u3001]",
    "quotes": (r"{apostrophe}|''|[`\u2018-\u201f\u0091-\u0094\u2039\u203a\u00ab\u00bb]{1,2}"),
    "double_quote": r"\"|&quot;",
    "smiley": r"[<>]?[:;=][\-o*']?[()DPdpO\\{@|\[\]]",
    "eyes": r"[\^x=~<>]",
    "sly_eyes": r"[\-\^x=~<>']",
    "eastern_smiley": (
        r"{eyes}\.\[\^x=[^<\n]*<>\]|{sly_eyes}_{sly_eyes}|\({sly_eyes}[_.]?{sly_eyes}\)|\([\^x=~<>']-[\^x=~<>'`]\)"
    ),
    "symbol": (
        r"[+%&~\^|\\\u00a6-\u00a9\u00ac\u00ae-\u00ba\u00d7\u00f7\u0387\u05be\u05c0\u05c3\u05c6\u05f3\u05f4\u0600-\u0603\u0606-\u060a"
        r"\u060c\u0614\u061b\u061e\u066a\u066d\u0703-\u070d\u07f6-\u07f8\u0964\u0965\u0e4f\u1fbd\u2016\u2017\u2020-\u2023\u2030-\u2038"
        r"\u203b\u203e-\u2042\u2044\u207a-\u207f\u208a-\u208e\u2100-\u214f\u2190-\u2bff\u3012\u30fb\uff01-\uff0f\uff1a-\uff20"
        r"\uff3b-\uff40\uff5b-\uff65]"
    ),
} | ptb_abbreviations.LISTS

RULES = (
    Rule("keep", r"c\+\+|[cC]#|[fF]#"),
    Rule("split 3", "cannot|'twas"),
    Rule("split 2", "'tis|gonna|gotta|lemme|gimme|wanna"),
    Rule("spaces", "{tag}"),
    Rule("dash", "{mdash}"),
    Rule("ampersand", "{ampersand}"),
    Rule("keep", "{entity}"),
    Rule("soft", "{word}", "{clitic}"),
    Rule("soft", "{not_stem}", "{not}"),
    Rule("soft", "{word}"),
    Rule("keep", "{apostrophe_word}"),
    Rule("keep", "y({apostrophe})", "{letter}"),
    Rule("keep", "{url}|{likely_url}|{mail}|{handle}"),
    Rule("quote", "{clitic}|{not}", "[^A-Za-z]"),
    Rule("keep", "{date}"),
    Rule("soft", "{number}"),
    Rule("keep", "{small_number}"),
    Rule("spaces", "{fraction}"),
    Rule("fraction", "{fraction_sign}"),
    Rule("ampersand", "{special}"),
    Rule("keep", "{slashed}|{dollar}"),
    Rule("currency", "{currency}"),
    Rule("opener", r"({acronym})\.", "({blank})+{opener}({blank})"),
    Rule("keep", "{before_number}", "({blank})?{plain_digit}"),
    Rule("keep", r"(pt[eyEY]|co)\.", "{space}(ltd|lim)"),
    Rule("again", "{before_lower}", "{sentence_end}"),
    Rule("keep", "{before_lower}", ".."),
    Rule("again", "{before_lower}"),
    Rule("keep", r"({before_upper})\."),
    Rule("keep", "{before_upper}", "{space}"),
    Rule("keep", "{acronym}", "{blank}"),
    Rule("keep", "({apostrophe})[0-9][0-9]", "{blank}"),
    Rule("keep", "{file}", "{blank}|[.?!,]"),
    Rule("soft", r"{word}\.", "{inside}"),
    Rule("phone", "{phone}"),
    Rule("open quote", "{double_quote}", "[A-Za-z0-9$]"),
    Rule("quote", "{double_quote}"),
    Rule("nothing", r"\u007f"),
    Rule("less", "<|&lt;"),
    Rule("greater", ">|&gt;"),
    Rule("parentheses", "{smiley}", "[^A-Za-z0-9]"),
    Rule("parentheses", "{eastern_smiley}"),
    Rule("bracket", r"[()\[\]{}]"),
    Rule("hyphens", "-+"),
    Rule("ellipsis", "{dots}"),
    Rule(
        "keep",
        r"{run}|{stars}|{inside}|[?!]+|[.\u00a1\u00bf\u037e\u0589\u061f\u06d4\u0700-\u0702\u07fa\u3002=/]",
    ),
    Rule("soft", r"{long_hyphenated}\.", "{inside}"),
    Rule("soft", "{long_hyphenated}"),
    Rule("keep", r"{hyphenated}\.", "{inside}"),
    Rule("keep", "{hyphenated}"),
    Rule("ampersand", r"{joined}\.", "{inside}"),
    Rule("ampersand", "{joined}"),
    Rule("open quote", "'", r"[A-Za-z][^ \t\n\r\u00a0]"),
    Rule("quote", "{clitic}|{not}|{quotes}"),
    Rule("keep", "<<|>>|{symbol}"),
    Rule("nothing", r"[\0\u200b\u200e\u200f\ufeff]|{space}+|{newline}|&nbsp;"),
    Rule("nothing", "."),
)
"""In order of preference among matches of equal length. An action is what `ptb` does with the text."""


@cache
def lexer() -> Lexer:
    """The lexer of these rules; made once, on first use."""
    return Lexer(RULES, Grammar(_MACROS, _SETS))
