"""A network for the chapters and the tests: it loses, repeats, delays and reorders datagrams.

Its time is a number and its chance is a seed, so that it does the same in every run.
"""
import random
from collections.abc import Callable, Mapping
from heapq import heappop, heappush
from itertools import count

from ike_lit.engine.host import Host
from ike_lit.engine.model import Datagram, Event
from ike_lit.engine.protocol import IKE
from ike_lit.wire.nat import Endpoint


class Network:
    "Hosts, what is on its way between them, and the time."

    def __init__(self, hosts: Mapping[Endpoint, Host], *, seed: int = 0, loss: float = 0,
                 twice: float = 0, delay: float = 0, tap: Callable[[Datagram], None] | None = None):
        self.hosts, self.loss, self.twice, self.delay, self.tap = hosts, loss, twice, delay, tap
        self.chance = random.Random(seed)  # noqa: S311  # the same in every run is the point
        self.now = 0.0
        self.sent = self.lost = self.doubled = 0
        self._way: list[tuple[float, int, Datagram]] = []  # a heap: when it arrives, what
        self._serial = count()
        self._events: dict[int, list[tuple[IKE | None, Event]]] = {}

    def carry(self, d: Datagram) -> None:
        "Take a datagram: lose it, or deliver it later, once or twice."
        self.sent += 1
        if self.tap: self.tap(d)
        if self.chance.random() < self.loss:
            self.lost += 1
            return
        copies = 1 + (self.chance.random() < self.twice)
        self.doubled += copies - 1
        for _ in range(copies):
            at = self.now + self.chance.random() * self.delay
            heappush(self._way, (at, next(self._serial), d))

    def collect(self) -> None:
        "Take what the hosts have to say."
        for host in self.hosts.values():
            for d in host.datagrams_to_send(): self.carry(d)
            while found := host.next_event():
                self._events.setdefault(id(host), []).append(found)

    def run(self, until: float) -> None:
        "Let time pass: deliver datagrams and wake hosts, in order."
        self.collect()
        while True:
            wakes = [at for h in self.hosts.values() if (at := h.next_timer()) is not None]
            arrivals = [self._way[0][0]] if self._way else []
            at = min(wakes + arrivals, default=None)
            if at is None or at > until: break
            self.now = max(self.now, at)
            if arrivals and arrivals[0] <= at:
                d = heappop(self._way)[2]
                host = self.hosts.get(d.destination)
                if host: host.receive_datagram(d.data, d.source, self.now, d.destination)
            else:
                for host in self.hosts.values(): host.handle_timer(self.now)
            self.collect()
        self.now = until

    def events(self, host: Host) -> list[tuple[IKE | None, Event]]:
        "Return what a host has told so far, and forget it."
        self.collect()
        return self._events.pop(id(host), [])

    def __repr__(self) -> str:
        return f'<{self.sent} datagrams, {self.lost} lost, {self.doubled} doubled>'
