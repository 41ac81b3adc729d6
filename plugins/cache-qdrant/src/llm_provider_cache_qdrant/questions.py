"""What of a request may be said in other words: its last question, where that is one, and what in it may not."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from providers.caches import CacheKey, UncacheableError
from providers.types import Message, Messages, Request, Role

Literals = Callable[[str], Iterable[str]]

# A word alone ("dog", sent to a translator) has no other wording.
_FEWEST_WORDS: Final = 3

# What stands in quotation marks of any kind, or is marked as code.
_QUOTES: Final = (
    r"```.*?```|`[^`]+`|\"[^\"]+\"|\u201c[^\u201d]+\u201d|\u201e[^\u201c\u201d]+[\u201c\u201d]|\u00ab[^\u00bb]+\u00bb"
    r"|\u00bb[^\u00ab]+\u00ab|\u2039[^\u203a]+\u203a|\u300c[^\u300d]+\u300d|\u300e[^\u300f]+\u300f"
    r"|(?<!\w)['\u2018][^'\u2019]+['\u2019](?!\w)"
)
_PIECES: Final = re.compile(rf"({_QUOTES})|\S+", re.DOTALL)
_SENTENCE_ENDS: Final = (".", "!", "?", ":", "\u2026", "\u3002")
_I: Final = re.compile(r"I(['\u2019]|$)")
_POSSESSIVE: Final = re.compile(r"['\u2019]s$|['\u2019]$")
# Between two letters these are part of a word: apostrophes and hyphens. Any other mark there makes it an address, a
# path or a name in code.
_IN_WORDS: Final = frozenset("'\u2019-\u2010\u2011")
# Marks that are no symbols for Unicode, and decide nevertheless.
_SIGNS: Final = frozenset("-\u2010\u2011\u2013*/%^#@&\\_")

# Words that turn a question round, which vectors hardly show: all-MiniLM-L6-v2 finds "why is the sky blue" and "why is
# the sky not blue" 0.95 alike, "before sleeping" and "after sleeping" too. English, German, Dutch,
# French, Spanish, Italian, Portuguese; for other languages a caller writes his own `literals`.
_TURNS: Final = frozenset(
    re.findall(
        r"\w+",
        """not no never none nobody nothing nor neither without except before after
        nicht nichts nie niemals niemand kein keine keinen keinem keiner keines ohne außer weder bevor nachdem vor nach
        niet geen nooit niets zonder voor na
        ne pas jamais rien personne aucun aucune sans sauf avant après
        nunca jamás nada nadie ningún ninguna ninguno sin excepto salvo antes después
        non mai niente nessuno nessuna senza tranne prima dopo
        não nenhum nenhuma ninguém sem exceto depois""",
    )
)
# Numbers, times, degrees and sides: "top five" and "top ten" are 0.95 alike for the same model, "minimum" and "maximum"
# 0.96, "this year" and "last year" 0.97, "left" and "right" 0.95. "One" is left out: in these languages it is an
# article, or stands for a thing ("which one").
_DEGREES: Final = frozenset(
    re.findall(
        r"\w+",
        """two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty hundred thousand million
        billion dozen half quarter double triple once twice first second third fourth fifth last next previous
        more less fewer min max minimum maximum only rarely seldom often always ascending descending off down pm
        left right north south east west northern southern eastern western yesterday today tomorrow
        zwei drei vier fünf sechs sieben acht neun zehn elf zwölf zwanzig hundert tausend halb erste zweite dritte
        mehr weniger nur selten oft immer links rechts gestern heute morgen letzte letztes nächste nächstes
        twee drie vijf zes zeven negen tien honderd duizend meer minder alleen zelden vaak altijd gisteren vandaag
        deux trois quatre cinq sept huit neuf dix cent mille plus moins premier deuxième dernier prochain gauche droite
        dos tres cuatro cinco siete ocho nueve diez cien mil más menos solo primero segundo último izquierda derecha
        due tre quattro cinque sette otto nove dieci cento più meno sinistra destra ieri oggi domani
        dois três quatro sete oito dez cem mais apenas esquerda direita ontem hoje amanhã ayer hoy mañana""",
    )
)
# Prefixes that deny: "safe" and "unsafe" are 0.98 alike, "legal" and "illegal" too.
_DENIES: Final = re.compile(
    r"non-?\w{3}|(?!under|unter|until|uncle|unser|uni)un\w{3}|il+eg|im(?:poss|prop|pure|moral|mature)"
    r"|in(?:valid|correct|active|complete|secure|visible|direct|defin)|ir(?:reg|rel|rev)|(?:dis|de)(?:abl|activ|connect)",
)
# As many type them.
_BARE: Final = frozenset(
    re.findall(
        r"\w+",
        "dont cant wont isnt arent wasnt werent doesnt didnt hasnt havent hadnt shouldnt couldnt wouldnt",
    )
)


@dataclass(frozen=True, slots=True)
class Question:
    """A question that another wording may stand for.

    Attributes:
        text: the question.
        rest: the request with that text taken out.
        literals: what must be the same in the other wording, in this order.
    """

    text: str
    rest: Request
    literals: tuple[str, ...]

    @property
    def words(self) -> list[str]:
        """The words, in small letters and without punctuation."""
        return [word for piece in self.text.lower().split() if (word := _stripped(piece))]


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as it is kept: by digests, without its text.

    Attributes:
        text: itself, to be embedded.
        place: digest of all of the request but the text, and of what must be the same in it.
        bag: digest of its words in the order of the alphabet.
        order: digest of its words.
    """

    text: str
    place: str
    bag: str
    order: str


def asked_of(key: CacheKey, longest: int, literals: Literals | None = None) -> Asked | None:
    """The question of a key; `None` where no other request may have its answer. Arguments as for `question_of`."""
    if key.request is None or key.digest_of is None:
        return None
    question = question_of(key.request, longest, literals)
    if question is None:
        return None
    try:
        rest = key.digest_of(question.rest)
    except UncacheableError:
        return None
    words = question.words
    return Asked(question.text, _digest(rest, question.literals), _digest(sorted(words)), _digest(words))


def _digest(*about: object) -> str:
    return hashlib.sha256(json.dumps(about).encode("ascii")).hexdigest()


def question_of(request: Request, longest: int, literals: Literals | None = None) -> Question | None:
    """The last question of a request; `None` where no other request may have its answer.

    That is so where

    * tools are offered: an answer may be an action, and its arguments are taken from the very words;
    * the last message is not the user's (a tool's result, the beginning of an answer), or holds a picture or a
      document: what is asked for does not stand in its text alone;
    * the text is longer than `longest`: of a long text, which mostly is material, a vector does not show one changed
      word; and embedders cut long texts off, each elsewhere;
    * the text has fewer than three words.

    Args:
        request: the call.
        longest: most characters of a question.
        literals: finds what must be the same in both wordings; `literals_of` where left out.
    """
    messages = getattr(request, "messages", None)
    if not messages or request.tools:
        return None
    found = _split(messages)
    if found is None:
        return None
    text, rest = found
    if len(text) > longest or _words(text) < _FEWEST_WORDS:
        return None
    return Question(text, request.replace(messages=Messages.of(rest)), tuple((literals or literals_of)(text)))


def literals_of(text: str) -> list[str]:
    """What of a text must be the same in another wording of it, in order.

    * words with a digit or a number sign of any script in them, signs of arithmetic, comparison and money, emoji, and
      letters that stand alone;
    * what stands in quotation marks or is marked as code;
    * addresses, paths and names in code: words with a sign inside;
    * names: words with a capital letter, but for one that begins a sentence, and "I";
    * words that deny, or begin with what denies ("unsafe"), and those for numbers, times, degrees and sides ("two",
      "before", "more", "left"), of seven languages.

    It is meant to find too much: what it finds in vain costs a hit.
    """
    found: list[str] = []
    begins = True
    for match in _PIECES.finditer(unicodedata.normalize("NFC", text)):
        piece = match[0]
        if match[1] is not None:
            found.append(piece)
            begins = False
            continue
        word = _POSSESSIVE.sub("", _stripped(piece))
        if _is_literal(word, begins):
            found.append(word)
        else:
            small = word.lower()
            if small.endswith(("n't", "n\u2019t", "cannot")) or small in _BARE:
                found.append("not")
            elif small in _TURNS or small in _DEGREES or _DENIES.match(small):
                found.append(small)
        begins = piece.endswith(_SENTENCE_ENDS)
    return found


def _is_literal(word: str, begins: bool) -> bool:
    if not word:
        return False
    if any(char.isnumeric() or (_is_sign(char) and char not in _IN_WORDS) for char in word):
        return True
    if word[0] in _IN_WORDS or any(not char.isalpha() and char not in _IN_WORDS for char in _unmarked(word[1:-1])):
        return True
    if any(char.isupper() for char in word[1:]):
        return True
    if len(word) == 1 and word.isascii() and word not in "aAiI":
        return True  # a variable
    return word[0].isupper() and not begins and not _I.match(word)


def _is_sign(char: str) -> bool:
    return char in _SIGNS or unicodedata.category(char).startswith("S")


def _stripped(piece: str) -> str:
    """A word without the punctuation at its edges."""
    start, end = 0, len(piece)
    while start < end and _is_edge(piece[start]):
        start += 1
    while end > start and _is_edge(piece[end - 1]):
        end -= 1
    return piece[start:end]


def _is_edge(char: str) -> bool:
    return unicodedata.category(char).startswith("P") and char not in _SIGNS


def _unmarked(word: str) -> str:
    """A word without marks that combine with its letters, as many scripts have."""
    return "".join(char for char in word if not unicodedata.category(char).startswith("M"))


def _words(text: str) -> int:
    """How many words a text has; each letter of a script that leaves no blanks is one."""
    count, inside = 0, False
    for char in text:
        if not char.isalpha():
            inside = False
        elif unicodedata.east_asian_width(char) in "WF":
            count, inside = count + 1, False
        elif not inside:
            count, inside = count + 1, True
    return count


def _split(messages: Messages) -> tuple[str, list[Any]] | None:
    """The last text, and the messages without it."""
    if messages.plain is not None:
        *before, last = messages.plain
        if last["role"] != Role.USER.value:
            return None
        return last["content"], [*before, {**last, "content": ""}]
    *earlier, end = messages
    if end.role is not Role.USER or end.tool_calls:
        return None
    found = _without_text(end)
    return None if found is None else (found[0], [*earlier, found[1]])


def _without_text(message: Message) -> tuple[str, Message] | None:
    content = message.content
    if isinstance(content, str):
        return content, replace(message, content="")
    if not content or not all(_is_text(part) for part in content):
        return None
    *parts, last = content
    return last["text"], replace(message, content=[*parts, {**last, "text": ""}])


def _is_text(part: Mapping[str, Any]) -> bool:
    return part.get("type") in ("text", "input_text") and isinstance(part.get("text"), str)
