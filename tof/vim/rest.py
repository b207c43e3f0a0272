"""HTTP towards a VIM: one question, one answer, and every way in which that can fail as an error of the tree."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiohttp

from tof.vim.errors import (
    AlreadyExists,
    AuthFailed,
    BackendFault,
    Rejected,
    TimedOut,
    Unavailable,
    VimError,
)

LONGEST_WORDS: Final = 400
NOT_FOUND: Final = 404
_UNTRUSTED: Final = (401, 403)
_BY_STATUS: Final[Mapping[int, type[VimError]]] = {
    **dict.fromkeys(_UNTRUSTED, AuthFailed),
    408: TimedOut,
    409: AlreadyExists,
    429: Unavailable,
    502: Unavailable,
    503: Unavailable,
    504: TimedOut,
}

Words = Sequence[tuple[str, type[VimError]]]
"""What a VIM's own words mean, as regular expressions: looked at before the status, the first that fits counts."""


@dataclass(frozen=True, slots=True)
class Access:
    """Where a VIM is and how it is asked; ``https`` in ``url`` means TLS.

    ``token_file``: what is in it is sent as the header ``token_header``. ``ca_file``: who is trusted, instead of the
    system's authorities. ``cert_file``, ``key_file``: who we are. ``answer_s``: how long an answer may take.
    """

    url: str
    token_header: str = ""
    token_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    answer_s: float = 10.0


class Answer(NamedTuple):
    """What the VIM said: ``body`` is its JSON, None if what was asked for is not there."""

    body: Any
    headers: Mapping[str, str]


class Rest:
    """One VIM's API."""

    def __init__(self, access: Access, words: Words) -> None:
        self._access, self._words = access, words
        self._session: aiohttp.ClientSession | None = None

    async def ask(
        self, method: str, path: str, *, step: str, body: object = None, wait_s: float = 0.0,
        query: Mapping[str, str] | None = None, absent_ok: bool = False,
    ) -> Answer:  # fmt: skip
        """The answer; VimError says in which ``step``, and what the VIM said.

        ``wait_s``: how much longer than usual it may take. ``absent_ok``: 404 is an answer.
        """
        within_s = self._access.answer_s + wait_s
        try:
            async with (
                asyncio.timeout(within_s),
                self._opened().request(
                    method,
                    self._access.url + path,
                    params=query,
                    json=body,
                    headers=self._who(),
                    allow_redirects=False,
                ) as response,
            ):
                raw = await response.text(errors="replace")
                status, headers = response.status, response.headers.copy()
        except TimeoutError:
            raise TimedOut(f"{step}: no answer from {self._access.url} within {within_s:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            said = str(error) or "the connection broke"
            raise Unavailable(f"{step}: {self._access.url}: {said}") from error
        if status == NOT_FOUND and absent_ok:
            return Answer(None, headers)
        if not 200 <= status < 300:
            raise judged(status, _said(raw), step, self._words)
        return Answer(_parsed(raw, step), headers)

    async def close(self) -> None:
        """Let go; asking again opens anew."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self._tls())
            self._session = aiohttp.ClientSession(connector=connector)
        return self._session

    def _who(self) -> dict[str, str]:
        """Read anew each time: tokens are renewed."""
        at = self._access
        if at.token_file is None:
            return {}
        try:
            return {at.token_header: at.token_file.read_text(encoding="ascii").strip()}
        except (OSError, ValueError) as error:
            raise AuthFailed(f"token_file {at.token_file} cannot be read: {error}") from error

    def _tls(self) -> ssl.SSLContext | bool:
        at = self._access
        if at.ca_file is None and at.cert_file is None:
            return True
        try:
            context = ssl.create_default_context(cafile=at.ca_file)
            if at.cert_file is not None:
                context.load_cert_chain(at.cert_file, at.key_file)
        except (OSError, ValueError) as error:
            raise AuthFailed(f"the certificates cannot be read: {error}") from error
        return context


def judged(status: int, said: str, step: str, words: Words) -> VimError:
    """What a refusal means."""
    message = f"{step}: {said or f'HTTP status {status}'}"
    for pattern, kind in words:
        if re.search(pattern, said, re.IGNORECASE) and not (kind is Rejected and status in _UNTRUSTED):
            return kind(message)
    usual = Rejected if 400 <= status < 500 else BackendFault
    return _BY_STATUS.get(status, usual)(message)


@contextmanager
def shaped(step: str) -> Iterator[None]:
    """What is read of an answer within is there, and of the kind expected; else BackendFault."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        message = f"{step}: an answer of an unknown shape ({type(error).__name__}: {error})"
        raise BackendFault(message, "see whether the VIM's url leads to its API, and its version") from error


def _parsed(raw: str, step: str) -> Any:
    try:
        parsed = json.loads(raw)
    except ValueError:
        parsed = None
    if parsed is None:
        hint = "see whether the VIM's url leads to its API"
        raise BackendFault(f"{step}: an answer that is no JSON, or nothing: {raw[:60]!r}", hint)
    return parsed


def _said(raw: str) -> str:
    """The VIM's own words, in one line: of ``{"error": {"description"}}`` the description."""
    with suppress(ValueError, LookupError, TypeError):
        raw = str(json.loads(raw)["error"]["description"])
    return " ".join(raw.split())[:LONGEST_WORDS]
