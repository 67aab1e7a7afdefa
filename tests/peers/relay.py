"""A bad network between two IKE ends: a UDP relay that loses, doubles, delays and reorders.

    left 10.9.0.1  <---->  10.9.0.3, ports 500 and 4500  <---->  10.9.0.2 right

Either end takes it for the other one, so NAT detection finds a NAT, which is what this is. What comes from
`right` goes to `left`, at the port that left last sent from; all else is from left and goes to `right`.

The fate of a datagram depends on the seed and on how many came the same way before it. Nothing but asyncio.
"""
from __future__ import annotations

import argparse
import asyncio
import json
import signal
from collections import Counter
from random import Random
from typing import Any

PORTS = 500, 4500
QUEUE = 1000  # datagrams on their way; more are lost


class Network:
    """What happens between the two ends."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        # a way has a generator of its own, for how the two ways interleave is chance
        self.chance = {'left': Random(f'left {args.seed}'), 'right': Random(f'right {args.seed}')}  # noqa: S311
        self.counts = Counter[str](passed=0, dropped=0, duplicated=0)
        self.under_way = 0

    def carry(self, transport: asyncio.DatagramTransport, data: bytes, to: str, end: Any) -> None:
        """Lose a datagram, or send one or two of it, each after a delay of its own."""
        chance = self.chance[to]
        # always as many numbers for a datagram, so that a rate that is 0 changes nothing else
        lost, doubled, *delays = (chance.random() for _ in range(4))
        copies = 1 + (100 * doubled < self.args.duplicate)
        if 100 * lost < self.args.loss or self.under_way + copies > QUEUE:
            self.counts['dropped'] += 1
            return
        self.counts['passed'] += 1
        self.counts['duplicated'] += copies - 1
        for delay in delays[:copies]:
            self.under_way += 1
            loop = asyncio.get_running_loop()
            loop.call_later(delay * self.args.delay / 1000, self.arrive, transport, data, end)

    def arrive(self, transport: asyncio.DatagramTransport, data: bytes, end: Any) -> None:
        """Send a datagram to the end that it is for."""
        self.under_way -= 1
        transport.sendto(data, end)


class Port(asyncio.DatagramProtocol):
    """One UDP port of the relay."""

    def __init__(self, network: Network, port: int) -> None:
        self.network = network
        self.left, self.right = (network.args.left, port), (network.args.right, port)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Send it on."""
        if addr[0] == self.right[0]:
            self.network.carry(self.transport, data, 'left', self.left)
        else:
            self.left = addr
            self.network.carry(self.transport, data, 'right', self.right)


async def main(args: argparse.Namespace) -> None:
    """Relay until SIGTERM, then say what has happened."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    network = Network(args)
    for port in PORTS:
        await loop.create_datagram_endpoint(lambda port=port: Port(network, port),  # type: ignore[misc]
                                            local_addr=(args.here, port))
    print('relaying', flush=True)
    await stop.wait()
    print(json.dumps(network.counts), flush=True)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description='Relay UDP ports 500 and 4500 between two hosts, badly.')
    parser.add_argument('here', help='our address')
    parser.add_argument('left', help='where a datagram from `right` goes until left has sent one')
    parser.add_argument('right', help='where all other datagrams go')
    parser.add_argument('--loss', type=float, default=0, help='per cent, each way')
    parser.add_argument('--duplicate', type=float, default=0, help='per cent, each way')
    parser.add_argument('--delay', type=float, default=0, help='at most so many ms; reorders')
    parser.add_argument('--seed', type=int, default=0)
    asyncio.run(main(parser.parse_args()))
