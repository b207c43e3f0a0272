"""The OpenFlow channel to br-ue, over the bridge's management socket: read what is there, apply a plan."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Final, Self

from tof.dataplane.flow import text
from tof.dataplane.plan import Plan
from tof.drivers import openflow_codec as codec
from tof.drivers.openflow_codec import Message
from tof.errors import BackendError

# Encoding a rule takes 0.1 ms: let packets be answered in between.
_RULES_PER_SLICE: Final = 32


class _Exchange:
    """What came back for a request; ``done`` when its last message was answered."""

    def __init__(self, last_xid: int) -> None:
        self.last_xid = last_xid
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.parts: list[Message] = []
        self.errors: list[Message] = []

    def receive(self, message: Message) -> None:
        """Take a reply or an error into account."""
        (self.errors if message.kind == codec.ERROR else self.parts).append(message)
        unfinished = message.kind == codec.MULTIPART_REPLY and not codec.is_last_part(message)
        if message.xid == self.last_xid and not unfinished and not self.done.done():
            self.done.set_result(None)


class OpenFlowChannel(asyncio.Protocol):
    """One connection to a switch; when it ends ``closed`` is set and the caller connects anew."""

    def __init__(self, timeout_s: float) -> None:
        self.closed = asyncio.Event()
        self._timeout_s = timeout_s
        self._buffer = bytearray()
        self._xids = count(1)
        self._bundles = count(1)
        self._exchanges: dict[int, _Exchange] = {}
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def connect(cls, socket_path: Path, timeout_s: float = 5.0) -> Self:
        """Connect to a bridge's management socket and agree on OpenFlow 1.4, or raise BackendError."""
        try:
            async with asyncio.timeout(timeout_s):
                loop = asyncio.get_running_loop()
                _, channel = await loop.create_unix_connection(lambda: cls(timeout_s), str(socket_path))
        except (OSError, TimeoutError) as error:
            raise BackendError(f"no OpenFlow switch at {socket_path}: {error or 'timeout'}") from error
        try:
            xid = next(channel._xids)
            await channel._exchange([codec.hello(0), codec.features_request(xid)], [xid])
        except BaseException:
            await channel.close()
            raise
        return channel

    async def close(self) -> None:
        """End the connection; calling it again does nothing."""
        if self._transport is not None:
            self._transport.abort()
            await self.closed.wait()

    async def read_cookies(self) -> dict[int, int]:
        """The TOF's own flows in the switch: cookie -> table."""
        xid = next(self._xids)
        exchange = await self._exchange([codec.list_our_flows(xid)], [xid])
        self._raise_first(exchange, {})
        return dict(pair for part in exchange.parts for pair in codec.flow_tables(part))

    async def read_packets(self, table: int) -> dict[int, int]:
        """What each of the TOF's own flows in a table has counted: cookie -> packets."""
        xid = next(self._xids)
        exchange = await self._exchange([codec.list_our_flows(xid, table)], [xid])
        self._raise_first(exchange, {})
        return dict(pair for part in exchange.parts for pair in codec.flow_packets(part))

    async def apply(self, plan: Plan) -> None:
        """Put and drop all of ``plan`` at once; BackendError means that nothing of it is in force."""
        if plan.empty:
            return
        bundle = next(self._bundles)
        messages, subjects = await self._encode(plan, bundle)
        opening, fence = next(self._xids), next(self._xids)
        messages = [codec.bundle_control(opening, bundle, codec.BUNDLE_OPEN), *messages, codec.barrier(fence)]
        filled = await self._exchange(messages, [opening, *subjects, fence])
        last = next(self._xids)
        if filled.errors:
            await self._exchange([codec.bundle_control(last, bundle, codec.BUNDLE_DISCARD)], [last])
            self._raise_first(filled, subjects)
        # The switch reports a refused rule under that rule's own transaction, then the bundle.
        commit = codec.bundle_control(last, bundle, codec.BUNDLE_COMMIT)
        self._raise_first(await self._exchange([commit], [*subjects, last]), subjects)

    async def flush_zone(self, zone: int) -> None:
        """Forget the tracked connections of a conntrack zone."""
        xid, fence = next(self._xids), next(self._xids)
        request = [codec.forget_connections(xid, zone), codec.barrier(fence)]
        self._raise_first(await self._exchange(request, [xid, fence]), {})

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (called by asyncio)."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Hand messages to whoever waits for them (called by asyncio)."""
        self._buffer += data
        for message in codec.split(self._buffer):
            if message.kind == codec.ECHO_REQUEST:
                self._write([codec.echo_reply(message)])
            elif message.xid in self._exchanges:
                self._exchanges[message.xid].receive(message)
            elif message.kind == codec.ERROR and message.xid == 0:
                self._fail(f"the switch refuses OpenFlow 1.4 ({codec.error_text(message)})")

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail whoever waits (called by asyncio)."""
        self._fail(f"the OpenFlow connection was lost ({exc or 'closed'})")
        self.closed.set()

    async def _encode(self, plan: Plan, bundle: int) -> tuple[list[bytes], dict[int, str]]:
        messages: list[bytes] = []
        subjects: dict[int, str] = {}
        for xid, message, subject in self._modifications(plan, bundle):
            messages.append(message)
            subjects[xid] = subject
            if len(messages) % _RULES_PER_SLICE == 0:
                await asyncio.sleep(0)
        return messages, subjects

    def _modifications(self, plan: Plan, bundle: int) -> Iterator[tuple[int, bytes, str]]:
        for flow, xid in zip(plan.put, self._xids, strict=False):
            yield xid, codec.put_in_bundle(xid, bundle, flow), text(flow)
        for cookie, xid in zip(plan.drop, self._xids, strict=False):
            yield xid, codec.drop_in_bundle(xid, bundle, cookie), f"removal of cookie {cookie:#x}"

    async def _exchange(self, messages: Sequence[bytes], xids: Sequence[int]) -> _Exchange:
        if self.closed.is_set():
            raise BackendError("the OpenFlow connection is closed")
        exchange = _Exchange(xids[-1])
        self._exchanges.update(dict.fromkeys(xids, exchange))
        try:
            self._write(messages)
            async with asyncio.timeout(self._timeout_s):
                await exchange.done
        except TimeoutError as error:
            # Whether the switch has acted is unknown now: only a new connection can tell.
            await self.close()
            raise BackendError(f"the OpenFlow switch did not answer in {self._timeout_s} s") from error
        finally:
            for xid in xids:
                del self._exchanges[xid]
        return exchange

    def _write(self, messages: Sequence[bytes]) -> None:
        if self._transport is not None:
            self._transport.writelines(messages)

    def _fail(self, why: str) -> None:
        for exchange in set(self._exchanges.values()):
            if not exchange.done.done():
                exchange.done.set_exception(BackendError(why))

    @staticmethod
    def _raise_first(exchange: _Exchange, subjects: dict[int, str]) -> None:
        if exchange.errors:
            first = exchange.errors[0]
            subject = subjects.get(first.xid, "a request")
            raise BackendError(f"OVS refused {subject} ({codec.error_text(first)})")
