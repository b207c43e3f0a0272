"""A session with a VIM as text: ``>>> METHOD :PORT/PATH``, the indented body, ``<<< STATUS (N ms) ANSWER``.

Each answer's duration is real, the time between two requests is not known: what is read here is not ``timed``.
"""

from __future__ import annotations

import re
from typing import Final

from tof.vim.analyzer.messages import Answer, Exchange, Request, Span
from tof.vim.analyzer.reading import Messages

_BEGIN: Final = re.compile(rb"\s*>>> [A-Z]+ ")
_EXCHANGE: Final = re.compile(
    r"^>>> (?P<method>[A-Z]+) (?P<server>[^/\s]*)(?P<target>/\S*)[ \t]*\n"
    r"(?:[ \t]+(?P<body>[^\n]*)\n)?"
    r"<<< (?P<status>[1-5]\d\d)\b(?: \((?P<ms>\d{1,9}) ms\))? ?(?P<answer>[^\n]*)",
    re.MULTILINE,
)


def is_transcript(data: bytes) -> bool:
    """Whether this is such a text."""
    return _BEGIN.match(data) is not None


def read(data: bytes) -> Messages:
    """The exchanges of a transcript, one after the other."""
    messages = Messages(timed=False, notes=["a transcript: only how long each answer took is known"])
    now_ns = 0
    for number, found in enumerate(_EXCHANGE.finditer(data.decode("utf-8", "replace")), 1):
        asked = Span(now_ns, now_ns, number)
        now_ns += int(found["ms"] or 0) * 1_000_000
        request = Request(asked, found["method"], found["target"], {}, (found["body"] or "").encode())
        answer = Answer(Span(now_ns, now_ns, number), int(found["status"]), {}, found["answer"].encode())
        messages.exchanges.append(Exchange(found["server"], request, answer))
    return messages
