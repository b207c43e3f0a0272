"""Queries of ETSI MEC 009: which objects of a list, and which of their attributes."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tof.errors import BadRequest

OPERATORS: Final = ("eq", "neq", "in", "nin", "gt", "gte", "lt", "lte", "cont", "ncont")
SEVERAL: Final = ("in", "nin", "cont", "ncont")
"""Those that take more than one value."""
NEGATED: Final = ("neq", "nin", "ncont")
MOST_TERMS: Final = 32
_VALUE: Final = re.compile(r"'((?:[^']|'')*)'|([^,()']+)")
_COMPARE: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "gt": lambda mine, given: bool(mine > given),
    "gte": lambda mine, given: bool(mine >= given),
    "lt": lambda mine, given: bool(mine < given),
    "lte": lambda mine, given: bool(mine <= given),
}


@dataclass(frozen=True, slots=True)
class Term:
    """One condition: an attribute (a path with ``/``), an operator, values."""

    operator: str
    path: tuple[str, ...]
    values: tuple[str, ...]

    def holds(self, body: Mapping[str, Any]) -> bool:
        """Whether an object meets it; an attribute that is not there meets only what is negated."""
        found: Any = body
        for step in self.path:
            if not isinstance(found, Mapping) or step not in found:
                return self.operator in NEGATED
            found = found[step]
        if self.operator in _COMPARE:
            return _compared(self.operator, found, self.values[0])
        text = str(found)
        some = any(v in text for v in self.values) if "cont" in self.operator else text in self.values
        return some is not (self.operator in NEGATED)


def parse_filter(text: str | None) -> tuple[Term, ...]:
    """``(eq,attribute,value);(...)``, all of which have to hold; BadRequest if it is something else."""
    if text is None:
        return ()
    terms, rest = [], text
    while True:
        term, rest = _term(rest)
        terms.append(term)
        if not rest:
            return tuple(terms)
        if not rest.startswith(";") or len(terms) == MOST_TERMS:
            raise BadRequest(f"filter: at most {MOST_TERMS} conditions with ; between them", "filter")
        rest = rest[1:]


def selected(
    bodies: Sequence[dict[str, Any]], query: Mapping[str, Any], optional: Collection[str]
) -> list[dict[str, Any]]:
    """Those that ``filter`` chooses; of the ``optional`` attributes those that the other parameters want."""
    terms = parse_filter(query.get("filter"))
    unwanted = _unwanted(query, optional)
    return [
        {field: value for field, value in body.items() if field not in unwanted}
        for body in bodies
        if all(term.holds(body) for term in terms)
    ]


def _unwanted(query: Mapping[str, Any], optional: Collection[str]) -> set[str]:
    if "fields" in query and "exclude_fields" in query:
        raise BadRequest("fields and exclude_fields exclude each other", "fields")
    if "fields" in query:
        return {*optional} - {*query["fields"].split(",")}
    return {*optional} & {*query.get("exclude_fields", "").split(",")}


def _term(text: str) -> tuple[Term, str]:
    head = re.match(r"\(([a-z]+),([^,()']+)", text)
    if head is None or head[1] not in OPERATORS:
        raise BadRequest(f"filter: (OPERATOR,ATTRIBUTE,VALUE) with one of {', '.join(OPERATORS)}", "filter")
    values, at = [], head.end()
    while text[at : at + 1] == ",":
        found = _VALUE.match(text, at + 1)
        if found is None:
            raise BadRequest("filter: a value is missing, or has to be in quotation marks ('...')", "filter")
        values.append(found[2] if found[1] is None else found[1].replace("''", "'"))
        at = found.end()
    if text[at : at + 1] != ")" or not values:
        raise BadRequest("filter: a condition ends with a value and )", "filter")
    if len(values) > 1 and head[1] not in SEVERAL:
        raise BadRequest(f"filter: {head[1]} takes one value", "filter")
    return Term(head[1], tuple(head[2].split("/")), tuple(values)), text[at + 1 :]


def _compared(operator: str, mine: Any, given: str) -> bool:
    if isinstance(mine, str):
        return _COMPARE[operator](mine, given)
    try:
        return isinstance(mine, int | float) and _COMPARE[operator](mine, float(given))
    except ValueError:
        raise BadRequest(f"filter: {given} is not a number", "filter") from None
