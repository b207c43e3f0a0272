"""A core that answers by itself what comes up in the tunnels it knows, as the bearers it was told say."""

from __future__ import annotations

import threading

from gtp_packets import Bearer, gpdu_of, is_pinger, pong
from gtp_peers import Tof
from gtp_wires import Wire


class AnsweringCore:
    """Answers echo requests in ``bearers``, matched by uplink tunnel *and* inner source, in their downlink tunnel.

    Change ``bearers`` at any time: a bearer that is not there (any more) is silence, as after a detach; of a pair the
    first is where a request comes up, the second where the reply goes down.
    """

    def __init__(self, tof: Tof, *bearers: Bearer) -> None:
        self.bearers: list[Bearer | tuple[Bearer, Bearer]] = list(bearers)
        self.asked: list[tuple[int, str]] = []
        self._wire = Wire(tof.netns["core"], "s0")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> AnsweringCore:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._wire.close()

    def _run(self) -> None:
        while not self._over.is_set():
            frame = self._wire.receive(0.05)
            one = gpdu_of(frame) if frame is not None else None
            if one is None or not is_pinger(one):
                continue
            self.asked.append((one.teid, one.inner.source))
            for known in list(self.bearers):
                up, down = known if isinstance(known, tuple) else (known, known)
                wanted = (up.up, up.enb, up.sgw, up.ue, up.vlan)
                if wanted == (one.teid, one.source, one.destination, one.inner.source, one.vlan):
                    self._wire.send(down.downlink(pong(one.message.payload)))
