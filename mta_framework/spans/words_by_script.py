"""Words of texts in any script: runs of letters, or single characters where a script writes no spaces."""

from __future__ import annotations

import re
import unicodedata

_UNSPACED = re.compile(
    "[\u0e00-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3040-\u30ff"
    "\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua9e0-\ua9ff\uaa60-\uaa7f\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]"
)
"""Thai, Lao, Tibetan, Burmese, Khmer and Tai scripts, kana and Han."""

_JOINERS = "_\u200c\u200d"
"""The underscore, and joiners that occur within words of Persian and Indic scripts."""

_WORD = re.compile(r"um*|[am]+")


def words_by_script(text: str) -> list[str]:
    """Split a text into words, by the script of each character.

    A word is a run of letters, digits, their marks and underscores. In scripts that write no spaces between words
    (Chinese, Japanese, Thai, Lao, Tibetan, Burmese, Khmer and others), each character with its marks is a word.

    Args:
        text: Any text. Case is kept.
    """
    return [text[slice(*match.span())] for match in _WORD.finditer(text.translate(_CLASSES))]


class _Classes(dict[int, str]):
    """Lazily maps characters to ``u`` (unspaced), ``a`` (other letters and digits), ``m`` (marks) or a space."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if unicodedata.category(character).startswith("M"):
            self[code] = "m"
        elif character.isalnum() or character in _JOINERS:
            self[code] = "u" if _UNSPACED.match(character) else "a"
        else:
            self[code] = " "
        return self[code]


_CLASSES = _Classes()
