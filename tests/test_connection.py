"`connect` and `serve` in programs of others: what they touch, what they raise, and what they leave behind."
import asyncio
import gc
import signal
import socket
import threading
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import ike_lit
import pytest
from canonical import configs
from ike_lit.cli.connection import KEPT, Connection, Peers, connect, serve
from ike_lit.engine.model import ChildEstablished, Config, Established, Lifetime, Rekeyed, Timing
from ike_lit.engine.state import State
from ike_lit.wire.const import AuthenticationFailed, ChildSaNotFound, NoAnswer, NoProposalChosen

SUITE = 'aes256gcm16-prfsha256-x25519'
QUICK = Timing(first=0.05, timeout=0.3, delete_timeout=0.2, grace=0.1, liveness=0,
               child=Lifetime(), ike=Lifetime())


GOODBYE = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


def ends(**changes: object) -> tuple[Config, Config]: return configs(SUITE, timing=QUICK, **changes)


def ports(peers: Peers) -> dict[str, int]: return {'port': peers.port, 'nat_port': peers.nat_port}


def run(what: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    "Run in an event loop of its own, and see that nothing of it is left: no task, no timer, no socket."
    async def inside() -> Any:
        loop, tasks = asyncio.get_running_loop(), asyncio.all_tasks()
        timers = [handle for handle in loop._scheduled if not handle.cancelled()]
        before = loop.get_exception_handler(), *map(signal.getsignal, GOODBYE)
        found = await what()
        await asyncio.sleep(0.01)
        assert asyncio.all_tasks() == tasks
        assert [handle for handle in loop._scheduled if not handle.cancelled()] == timers
        assert not loop._selector.get_map().keys() - {loop._ssock.fileno()}
        assert before == (loop.get_exception_handler(), *map(signal.getsignal, GOODBYE))
        return found
    with asyncio.Runner() as runner: return runner.run(asyncio.wait_for(inside(), 30))


def test_two_ike_sas_beside_other_tasks_of_which_one_ends() -> None:
    left, right = ends()
    ticks = []

    async def tick() -> None:
        while True: ticks.append(await asyncio.sleep(0.001))

    async def program() -> None:
        clock = asyncio.create_task(tick())
        async with AsyncExitStack() as stack:
            bob = await stack.enter_async_context(serve('127.0.0.1', [right], port=0, nat_port=0))
            one, other = [await stack.enter_async_context(connect('127.0.0.1', left, **ports(bob)))
                          for _ in range(2)]
            assert one.ike is not other.ike and one.proof and one.remote_id == left.remote_id
            await one.close()
            assert one.over.is_set() and one.error is None and not one.children
            assert not other.over.is_set() and other.child and len(bob.connections) == 1
            await one.close()  # is over already
        clock.cancel()
        await asyncio.gather(clock, return_exceptions=True)
    run(program)
    assert ticks


def test_in_another_thread_than_the_main_one() -> None:
    left, right = ends()
    found = []

    async def program() -> None:
        async with (serve('127.0.0.1', [right], port=0, nat_port=0) as bob,
                    connect('127.0.0.1', left, **ports(bob)) as sa): found.append(sa.child)
    thread = threading.Thread(target=lambda: run(program))
    thread.start()
    thread.join(30)
    assert found and not thread.is_alive()


@pytest.mark.parametrize('change, error', [
    ({'credential': None}, AuthenticationFailed), ({'ike': 'aes128-sha256-ecp256'}, NoProposalChosen),
    ({'port': 1}, NoAnswer)])
def test_what_goes_wrong_is_raised_and_leaves_nothing(change: dict, error: type[Exception]) -> None:
    left, right = ends()
    if 'credential' in change: left = replace(left, credential=right.credential)
    if 'ike' in change: left = replace(left, ike=configs(change['ike'])[0].ike)

    async def program() -> None:
        async with serve('127.0.0.1', [right], port=0, nat_port=0) as bob:
            where = ports(bob) | {name: value for name, value in change.items() if name == 'port'}
            with pytest.raises(error):
                async with connect('127.0.0.1', left, **where): pytest.fail('there is nobody')
            assert not bob.connections
    run(program)


def test_no_such_peer_and_no_such_port() -> None:
    left, right = ends()

    async def program() -> None:
        with pytest.raises(ike_lit.NoNetwork, match='no.such.host.invalid'):
            async with connect('no.such.host.invalid', left): pass
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(('127.0.0.1', 0))
            port = taken.getsockname()[1]
            with pytest.raises(ike_lit.NoNetwork, match=f'127.0.0.1 port {port}: '):
                async with serve('127.0.0.1', [right], port=0, nat_port=port): pass
    run(program)


@pytest.mark.parametrize('when', ['it begins', 'it is up', 'it asks'])
def test_to_cancel_it_leaves_nothing_behind(when: str) -> None:
    left, right = ends()
    silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    silent.bind(('127.0.0.1', 0))
    reached = asyncio.Event()

    async def user(where: dict[str, int]) -> None:
        if when == 'it begins': asyncio.get_running_loop().call_soon(reached.set)
        async with connect('127.0.0.1', left, **where) as sa:
            reached.set()
            while True:
                if when == 'it asks': await sa.rekey()
                else: await asyncio.sleep(1)

    async def program() -> None:
        async with serve('127.0.0.1', [right], port=0, nat_port=0) as bob:
            where = {'port': silent.getsockname()[1]} if when == 'it begins' else ports(bob)
            task = asyncio.create_task(user(where))
            await reached.wait()
            guests = bob.connections
            task.cancel()
            with pytest.raises(asyncio.CancelledError): await task
            for guest in guests: await asyncio.wait_for(guest.over.wait(), 5)  # it was told goodbye
    run(program)
    silent.close()


def test_an_error_of_the_users_own_says_goodbye_too() -> None:
    left, right = ends()

    async def program() -> None:
        async with serve('127.0.0.1', [right], port=0, nat_port=0) as bob:
            with pytest.raises(ZeroDivisionError):
                async with connect('127.0.0.1', left, **ports(bob)):
                    guest = await bob.next()
                    raise ZeroDivisionError
            await asyncio.wait_for(guest.over.wait(), 5)
            assert guest.error is None
    run(program)


def test_keys_are_renewed_by_both_ends_and_the_connection_stays_the_same() -> None:
    left, right = ends(esp='aes128gcm16-x25519')

    async def program() -> None:
        async with (serve('127.0.0.1', [right], port=0, nat_port=0) as bob,
                    connect('127.0.0.1', left, **ports(bob)) as sa):
            guest = await bob.next()
            seen = [sa.ike, guest.ike]
            for end in sa, guest, sa:
                old = end.child
                await end.rekey()
                new = await end.rekey_child(old)
                assert new == end.child != old and (sa.ike.keys == guest.ike.keys)
                seen += [sa.ike, guest.ike]
            assert len(set(seen)) == 8 and all(ike.state == State.CLOSED for ike in seen[:-2])
            assert bob.connections == [guest]
            await sa.delete_child(sa.child)
            assert not sa.children
            kinds = [type(await anext(sa)) for _ in range(3)]
            assert kinds == [Established, ChildEstablished, Rekeyed]
    run(program)


def test_what_the_peer_refuses_is_raised_and_the_ike_sa_stays() -> None:
    left, right = ends(esp='aes128gcm16-x25519')

    async def program() -> None:
        async with (serve('127.0.0.1', [right], port=0, nat_port=0) as bob,
                    connect('127.0.0.1', left, **ports(bob)) as sa):
            guest = await bob.next()
            guest.ike.config = replace(right, esp=configs(esp='aes256-sha256')[1].esp,
                                       ike=configs('aes256-sha256-modp2048')[1].ike)
            with pytest.raises(NoProposalChosen): await sa.rekey_child(sa.child)
            with pytest.raises(NoProposalChosen): await sa.rekey()
            assert sa.ike.state == State.ESTABLISHED and not sa._waiting
    run(program)


def test_when_it_is_over_nobody_waits_any_longer() -> None:
    left, right = ends()

    async def program() -> None:
        async with (serve('127.0.0.1', [right], port=0, nat_port=0) as bob,
                    connect('127.0.0.1', left, **ports(bob)) as sa):
            guest = await bob.next()
            child, reader = sa.child, asyncio.create_task(anext(aiter(Last(sa))))
            await guest.close()
            with pytest.raises(StopAsyncIteration): await asyncio.wait_for(reader, 5)
            with pytest.raises(NoAnswer, match='closed'): await sa.rekey()
            for ask in sa.rekey_child, sa.delete_child:
                with pytest.raises(ChildSaNotFound): await ask(child)
    run(program)


class Last:
    "Only what comes when all that is there has been read."

    def __init__(self, sa: Connection): self.sa = sa

    def __aiter__(self) -> 'Last': return self

    async def __anext__(self) -> object:
        async for event in self.sa: self.last = event
        raise StopAsyncIteration


def test_events_that_nobody_reads_do_not_pile_up() -> None:
    left, right = ends()

    async def program() -> None:
        async with (serve('127.0.0.1', [right], port=0, nat_port=0) as bob,
                    connect('127.0.0.1', left, **ports(bob)) as sa):
            for _ in range(2 * KEPT): sa.take(Rekeyed(b'', b'', left.ike[0]))
            assert len(sa._events) == KEPT
            for _ in range(2 * KEPT): bob.arrive(sa)
            assert bob.arrived.qsize() == KEPT
    run(program)


def test_a_mistake_of_ours_ends_the_host_and_not_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = ends()

    async def program() -> None:
        async with (serve('127.0.0.1', [right], port=0, nat_port=0) as bob,
                    connect('127.0.0.1', left, **ports(bob)) as sa):
            await bob.next()
            asked = asyncio.create_task(sa.rekey())
            monkeypatch.setattr(sa.driver.host, 'receive_datagram', lambda *args: 1 // 0)
            with pytest.raises(ZeroDivisionError): await asyncio.wait_for(asked, 5)
            assert sa.over.is_set()
    run(program)


def test_nothing_of_a_connection_is_kept_when_it_is_over() -> None:
    left, right = ends()

    async def program() -> None:
        async with serve('127.0.0.1', [right], port=0, nat_port=0) as bob:
            for _ in range(3):
                async with connect('127.0.0.1', left, **ports(bob)): guest = await bob.next()
                await asyncio.wait_for(guest.over.wait(), 5)
            assert not bob.held and not bob.connections
    run(program)
    gc.collect()
    assert not [item for item in gc.get_objects() if isinstance(item, Connection)]
