"""RFC 7296 §2.9, §2.19: what an IKE SA may ever carry follows from its connection and its lease.

A peer with a valid credential does what it likes, in any order (tests/authentic.py); the gateway
grants, offers and installs nothing beyond that, and lends no address twice.
"""
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from itertools import combinations
from pathlib import Path

import pytest
from authentic import DRAW, INFORM, Line, Peer, address, child, connection, said, ts
from ike_lit.cli.options import ResponderOptions
from ike_lit.engine.create_child_sa import create_child, rekey_child, rekey_ike_sa
from ike_lit.engine.host import Host
from ike_lit.engine.informational import delete_child, delete_ike_sa, liveness
from ike_lit.engine.model import ChildEstablished, Config, Lifetime, Timing
from ike_lit.engine.protocol import IKE
from ike_lit.engine.state import State
from ike_lit.responder import configs_from
from ike_lit.wire.auth import Identity
from ike_lit.wire.configuration import Pool
from ike_lit.wire.const import CfgType, MessageType, ProtocolID
from ike_lit.wire.nonce import Nonce
from ike_lit.wire.payload import Notify, Packet, Vendor
from ike_lit.wire.proposal import SA
from ike_lit.wire.ts import TSi, TSr, TrafficSelector

LOCAL = '10.2.0.0/24'
ANY, ANY_ADDRESS = '0.0.0.0/0', '0.0.0.0'  # noqa: S104
NOT_FOUND, NO_PROPOSAL = MessageType.CHILD_SA_NOT_FOUND, MessageType.NO_PROPOSAL_CHOSEN
FAILED_CP = MessageType.FAILED_CP_REQUIRED


def gateway(*peers: str, remote: str = ANY, **changes: object) -> Host:
    "Return a gateway with a connection for each of these peers, all alike."
    configs = tuple(connection('gw', peer, LOCAL, remote, **changes) for peer in peers)
    return Host(configs, random=DRAW.randbytes)


def caller(host: Host, name: str = 'alice', at: str = '192.0.2.1', **changes: object) -> Peer:
    return Peer(host, connection(name, 'gw', ANY, ANY), at, **changes)


def only(host: Host) -> IKE:
    ike, = host.established
    return ike


def traffic(host: Host) -> list[tuple[TrafficSelector, ...]]:
    "Return the peer's side of each Child SA."
    return [c.remote_ts for named in host.sas.values() for ike in named for c in ike.children.values()]


def sides(packet: Packet | None) -> tuple[tuple[TrafficSelector, ...], tuple[TrafficSelector, ...]]:
    return packet.one(TSi).selectors, packet.one(TSr).selectors


# A peer gets no more than its lease

def leasing() -> Host:
    return gateway('alice', pool=Pool(['10.9.0.0/24']), require_request=True)


def test_after_failed_cp_required_there_is_no_child_sa_either() -> None:
    host = leasing()
    line = caller(host).call(*child('10.1.0.0/24'))
    assert said(line.answers[-1]) == FAILED_CP
    assert said(line.create(*child('10.1.0.0/24'))) == FAILED_CP
    assert said(line.create(*child('10.9.0.1/32'))) == FAILED_CP and traffic(host) == []


def test_who_came_without_a_child_sa_has_no_lease_and_gets_none() -> None:
    host = leasing()
    line = caller(host).call()
    assert line.ike.state != State.CLOSED and only(host).agreed.peer_addresses == ()
    assert said(line.create(*child(ANY))) == FAILED_CP and traffic(host) == []


@pytest.mark.parametrize('kind', [k for k in CfgType if k != CfgType.CFG_REQUEST], ids=str)
def test_what_is_no_cfg_request_brings_no_lease_and_no_child_sa(kind: CfgType) -> None:
    host = leasing()
    line = caller(host).call(address('10.9.0.7', kind=kind), *child('10.9.0.7/32'))
    assert said(line.answers[-1]) == FAILED_CP
    assert said(line.create(*child('10.9.0.7/32'))) == FAILED_CP and traffic(host) == []
    # nor does a request that comes after IKE_AUTH
    assert said(line.create(address(ANY_ADDRESS), *child(ANY))) == FAILED_CP and traffic(host) == []


def test_every_later_grant_is_inside_the_lease() -> None:
    host = leasing()
    line = caller(host).call(address('10.9.0.7'), *child(ANY, ANY, spi=b'AAAA'))
    lease = ts('10.9.0.7/32')
    assert sides(line.answers[-1]) == (lease, ts(LOCAL))
    assert sides(line.create(*child(ANY, ANY, b'BBBB'))) == (lease, ts(LOCAL))
    assert sides(line.create(*child(ANY, ANY, b'CCCC', rekeys=b'AAAA'))) == (lease, ts(LOCAL))
    assert said(line.create(*child('10.9.0.8/32'))) == MessageType.TS_UNACCEPTABLE
    heir = line.rekey()
    assert heir and sides(heir.create(*child(ANY, ANY, b'DDDD'))) == (lease, ts(LOCAL))
    assert set(traffic(host)) == {lease}


# and is offered no more

@pytest.mark.parametrize('refusal', [NOT_FOUND, NO_PROPOSAL, MessageType.TS_UNACCEPTABLE], ids=str)
def test_the_gateway_offers_no_more_than_the_lease(refusal: MessageType) -> None:
    host = leasing()
    peer = caller(host)
    line = peer.call(address('10.9.0.7'), *child(ANY, ANY, spi=b'AAAA'))
    gateway, lease = only(host), (ts(LOCAL), ts('10.9.0.7/32'))
    spi, = gateway.children
    host.start(gateway, rekey_child, spi, now=0)
    peer.take()
    assert sides(line.asked[0]) == lease
    line.answer(line.asked[0], Notify(refusal))
    if not gateway.busy: host.start(gateway, create_child, now=0)
    peer.take()
    if refusal != NOT_FOUND: assert line.asked == []  # there is one that carries all of it
    else:
        assert sides(line.asked[0]) == lease
        line.grant_child(line.asked[0], tsr=ANY)  # which is wider
        assert traffic(host) == []


# Nobody else has it

def test_connections_that_share_a_pool_lend_different_addresses() -> None:
    pool = Pool(['10.9.0.0/24'])
    host = gateway('alice', 'carol', pool=pool, require_request=True)
    lines = [caller(host, name, at).call(address('10.9.0.7'), *child(ANY))
             for name, at in (('alice', '192.0.2.1'), ('carol', '192.0.2.3'))]
    assert lines[0].told == ts('10.9.0.7/32') and len({*lines[0].told, *lines[1].told}) == 2


@pytest.mark.parametrize(('one', 'other'), [
    (['10.9.0.0/24'], ['10.9.0.0/24']), (['10.9.0.0/24'], ['10.9.0.128/25']),
    (['fd00::/64', '10.9.0.0/24'], ['10.0.0.0/8']), (['fd00::/64'], ['10.9.0.0/24', 'fd00::/120'])])
def test_pools_that_overlap_are_refused(one: list[str], other: list[str]) -> None:
    configs = [connection('gw', name, LOCAL, ANY, pool=Pool(networks))
               for name, networks in (('alice', one), ('carol', other))]
    with pytest.raises(ValueError, match='addresses in common'): Host(tuple(configs))
    apart = replace(configs[1], pool=Pool(['10.10.0.0/24', 'fd01::/64']))
    assert Host((configs[0], apart)).configs[1] is apart


ALICE = ['[connections.alice]', 'remote-id = "alice"', 'pool = "10.9.0.0/24"']
CAROL = ['[connections.carol]', 'remote-id = "carol"', 'pool = "{pool}"']


def from_file(folder: Path, *lines: str) -> tuple[Config, ...]:
    "Return the connections of a configuration file; all share one key."
    secret = folder / 'psk'
    secret.touch(mode=0o600)
    secret.write_text('a' * 32)
    words = f'psk-file = "{secret}"', 'local-id = "gw"', f'local-ts = "{LOCAL}"'
    text = [line for each in lines for line in ([each, *words] if each.startswith('[') else [each])]
    (folder / 'gw.toml').write_text('\n'.join(text) + '\n')
    given = {'config': folder / 'gw.toml'}
    return configs_from(ResponderOptions(**given), given)


def test_two_connections_of_a_file_with_one_pool_share_its_leases(tmp_path: Path) -> None:
    one, other = from_file(tmp_path, *ALICE, *CAROL[:2], CAROL[2].format(pool='10.9.0.0/24'))
    assert one.pool is other.pool
    given = [c.pool.answer(address('10.9.0.7'), c.remote_id) for c in (one, other)]
    assert given[0] != given[1] and len(one.pool.leases) == 2


def test_two_connections_of_a_file_with_half_a_pool_in_common_are_refused(tmp_path: Path) -> None:
    half = from_file(tmp_path, *ALICE, *CAROL[:2], CAROL[2].format(pool='10.9.0.128/25'))
    with pytest.raises(ValueError, match='addresses in common'): Host(half)
    apart = from_file(tmp_path, *ALICE, *CAROL[:2], CAROL[2].format(pool='10.10.0.0/24'))
    assert len({id(c.pool) for c in Host(apart).configs}) == 2


# Without --remote-ts

def test_a_responder_without_remote_ts_grants_the_peers_address_and_nothing_else(tmp_path: Path) -> None:
    config, = from_file(tmp_path, *ALICE[:2])
    host = Host((replace(config, credential=connection('gw', 'alice', LOCAL, '').credential,
                         trust=connection('gw', 'alice', LOCAL, '').trust),))
    line = caller(host).call(*child(ANY, ANY))
    assert sides(line.answers[-1]) == (ts('192.0.2.1/32'), ts(LOCAL))
    assert said(line.create(*child('192.0.2.3/32'))) == MessageType.TS_UNACCEPTABLE


def test_a_responder_with_a_pool_and_without_remote_ts_grants_the_lease(tmp_path: Path) -> None:
    config, = from_file(tmp_path, *ALICE)
    assert config.remote_ts == ()
    host = gateway('alice', remote='', pool=config.pool)
    line = caller(host).call(address('10.9.0.7'), *child(ANY))
    assert sides(line.answers[-1])[0] == ts('10.9.0.7/32')
    without = caller(gateway('alice', remote='', pool=Pool(['10.9.0.0/24']))).call(*child(ANY))
    assert sides(without.answers[-1])[0] == ts('192.0.2.1/32')


def test_what_is_written_down_is_granted(tmp_path: Path) -> None:
    config, = from_file(tmp_path, *ALICE[:2], f'remote-ts = "{ANY}"')
    assert config.remote_ts == ts(ANY)
    line = caller(gateway('alice')).call(*child(ANY))
    assert sides(line.answers[-1])[0] == ts(ANY)


# A lease goes with the last IKE SA of its owner

def test_a_lease_goes_with_the_last_ike_sa_and_not_before() -> None:
    host = leasing()
    pool, peer = host.configs[0].pool, caller(host)
    first, second = (peer.call(address('10.9.0.7'), *child(ANY)) for _ in range(2))
    assert first.told == second.told and len(pool.leases) == 1
    first.delete()
    assert len(pool.leases) == 1
    heir = second.rekey()
    second.delete()
    assert heir and len(pool.leases) == 1 and only(host).agreed.peer_addresses == first.told
    heir.delete()
    assert pool.leases == {}


def test_a_new_start_of_the_peer_keeps_its_address() -> None:
    host = leasing()
    pool, peer = host.configs[0].pool, caller(host)
    first = peer.call(address(ANY_ADDRESS), *child(ANY))
    second = peer.call(address(ANY_ADDRESS), *child(ANY), Notify(MessageType.INITIAL_CONTACT))
    assert first.told == second.told and len(pool.leases) == 1
    assert only(host).agreed.peer_addresses == second.told
    peer.call(Notify(MessageType.INITIAL_CONTACT))  # this one asks for none
    assert pool.leases == {}


# Any sequence of all of it

# so short that a test sees them end; the local part is the same for all
LIVES = Timing(child=Lifetime(100, 150), ike=Lifetime(400, 500), retry=5, timeout=20, liveness=60)
# by peer: what it may have without a lease, and whether its connection has the pool that many share
CONNECTIONS: dict[str, tuple[str, str, dict[str, object]]] = {
    'alice': ('', 'shared', {'require_request': True}),
    'bert': (ANY, 'shared', {'require_request': True}),
    'carol': ('10.3.0.0/24', 'shared', {}),
    'dora': ('', 'own', {}),
    'emil': ('', '', {}),
    'fred': ('10.4.0.0/24,fd04::/64', '', {}),
    'gerd': ('10.5.0.0/24', '', {'single_pair': True}),
    'hans': ('10.5.0.128/25', '', {'childless': 'allow'}),  # which overlaps with the one before
    'ines': (ANY, 'own', {}),  # she is trusted with everything
}
OVERLAP = {frozenset(('gerd', 'hans')), *(frozenset(('ines', name)) for name in CONNECTIONS)}
WISHES = (ANY, '10.0.0.0/8', '10.3.0.7/32', '10.4.0.0-10.4.0.9', '10.5.0.129/32', '10.9.0.1/32',
          '10.9.0.2/32', '10.9.0.1/32[tcp/80]', '192.0.2.101/32', '192.0.2.105/32', '10.3.0.0/24,10.4.0.0/24',
          'fd04::/64', '::/0', f'::/0,{ANY}', f'10.9.0.3/32,{ANY}', '192.0.2.0/24')


def inside(selectors: tuple[TrafficSelector, ...], allowed: tuple[TrafficSelector, ...]) -> bool:
    "Tell whether each selector lies in one of these, none of which touches another."
    def within(one: TrafficSelector, wide: TrafficSelector) -> bool:
        return one.start.version == wide.start.version and wide.start <= one.start and one.end <= wide.end
    return all(any(within(one, wide) for wide in allowed) for one in selectors)


def overlap(one: tuple[TrafficSelector, ...], other: tuple[TrafficSelector, ...]) -> bool:
    return any(a.start.version == b.start.version and a.start <= b.end and b.start <= a.end
               for a in one for b in other)


class World:
    "A gateway, all who may call it, and the rule that is looked at after each step."

    def __init__(self, seed: int):
        self.chance, self.now = DRAW, 0.0
        DRAW.seed(seed)
        self.pools = {'shared': Pool(['10.9.0.0/28', 'fd09::/64']), 'own': Pool(['10.8.0.0/29'])}
        configs = tuple(connection('gw', name, LOCAL, remote, pool=self.pools.get(pool), timing=LIVES, **more)
                        for name, (remote, pool, more) in CONNECTIONS.items())
        self.host, friends = Host(configs, random=DRAW.randbytes), list[Peer]()
        self.peers = {name: Peer(self.host, connection(name, 'gw', ANY, ANY), f'192.0.2.{101 + n}',
                                 lambda: self.now, friends) for n, name in enumerate(CONNECTIONS)}
        self.home = {name: ts(f'{peer.at.host}/32') for name, peer in self.peers.items()}
        self.late: list[tuple[Line, Packet]] = []
        self.checked = 0
        for peer in friends: peer.seen = self.hears

    # the rule

    def may(self, name: str, told: tuple[TrafficSelector, ...]) -> tuple[TrafficSelector, ...]:
        "Return what a peer may have, written anew from the table of connections."
        remote, pool, more = CONNECTIONS[name]
        if told: return told
        leases = self.pools[pool].leases.items() if pool else []
        lent = tuple(TrafficSelector(a, a) for (owner, version), (_, number) in leases
                     for a in [(IPv4Address if version == 4 else IPv6Address)(number)]
                     if owner == Identity.from_text(name))
        return lent if more.get('require_request') else (*lent, *(ts(remote) or self.home[name]))

    def hears(self, line: Line, packet: Packet) -> None:
        "Look at every selector that the gateway says."
        name = str(line.peer.config.local_id)
        if not packet.all(TSi): return
        tsi, tsr = sides(packet)
        theirs, ours = (tsi, tsr) if packet.header.response else (tsr, tsi)
        assert inside(ours, ts(LOCAL)), (name, packet)
        assert inside(theirs, self.may(name, line.told)), (name, packet, self.may(name, line.told))
        self.checked += 1

    def look(self) -> None:
        "Look at all that the gateway holds."
        holders: dict[str, set[TrafficSelector]] = {name: set() for name in self.peers}
        for peer in self.peers.values():
            for ike, event in peer.events:
                if isinstance(event, ChildEstablished): self.fits(ike, event.child)
            peer.events.clear()
        lent: set[tuple[object, int]] = set()
        for ike in [ike for named in self.host.sas.values() for ike in named]:
            # a replaced one has given up all that it had
            if ike.state != State.ESTABLISHED or ike.lineage.successor: continue
            for one in ike.children.values(): self.fits(ike, one)
            holders[str(ike.config.remote_id)] |= {s for c in ike.children.values() for s in c.remote_ts}
            for s in ike.agreed.peer_addresses:
                lease = ike.config.pool.leases.get((ike.config.remote_id, s.start.version))
                assert lease and lease[1] == int(s.start), (ike, s)  # not gone before the last of them
            lent |= {(ike.config.remote_id, s.start.version) for s in ike.agreed.peer_addresses}
        for one, other in combinations(holders, 2):
            if frozenset((one, other)) not in OVERLAP:
                assert not overlap(tuple(holders[one]), tuple(holders[other])), (one, other, holders)
        for pool in self.pools.values():
            numbers = [(version, number) for (_, version), (_, number) in pool.leases.items()]
            assert len(set(numbers)) == len(numbers)
            owners = {owner for owner, _ in lent}
            assert {owner for owner, _ in pool.leases} <= owners, 'a lease outlives its last IKE SA'

    def fits(self, ike: IKE, child: object) -> None:
        name = str(ike.config.remote_id)
        assert inside(child.local_ts, ts(LOCAL)), (ike, child.local_ts)
        lease = ike.agreed.peer_addresses
        assert inside(child.remote_ts, lease or self.may(name, ())), (name, child.remote_ts, lease)

    # what may happen

    def step(self) -> None:
        lines = self.lines()
        moves: list[Callable[[], object]] = [self.calls] * (1 if len(lines) > 6 else 4)
        if lines:
            line = self.chance.choice(lines)
            moves += [lambda: self.asks(line)] * 6 + [lambda: self.goes(line), lambda: self.rekeys(line)]
            if line.asked: moves += [lambda: self.answers(line)] * 20
        if self.late: moves += [lambda: self.answers(*self.late.pop(0))]
        moves += [self.gateway_does] * 4 + [self.passes]
        self.chance.choice(moves)()
        self.look()

    def lines(self) -> list[Line]:
        "Return the peers' ends of all IKE SAs that are up."
        return [line for peer in self.peers.values() for line in peer.lines
                if line.other and line.other.state == State.ESTABLISHED]

    def wish(self) -> str:
        return self.chance.choice((ANY, f'::/0,{ANY}', self.chance.choice(WISHES)))

    def spi(self, line: Line) -> bytes:
        return self.chance.choice([*line.children, bytes(4), b'\xff' * 4])

    def calls(self) -> None:
        "Someone calls, asks for an address or not, for a Child SA or not."
        name, draw = self.chance.choice(list(self.peers)), self.chance.random
        wanted = self.chance.choice(((ANY_ADDRESS,), ('10.9.0.1',), ('10.9.0.2', '::'), ('::',),
                                     ('10.8.0.1',), ('10.5.0.1',), ()))
        kind = CfgType.CFG_REQUEST if draw() < 0.8 else self.chance.choice(list(CfgType))
        more = [address(*wanted, kind=kind)] * (draw() < 0.6)
        if draw() < 0.8: more += child(self.wish(), self.chance.choice((LOCAL, ANY)))
        if draw() < 0.2: more.append(Notify(MessageType.INITIAL_CONTACT))
        if draw() < 0.03: more = [p for p in more if not isinstance(p, (TSi, Nonce))]
        self.peers[name].call(*(p for p in more if not isinstance(p, Nonce)))

    def asks(self, line: Line) -> None:
        "A peer asks for another Child SA, or for a new one in place of an old one."
        rekeys = self.spi(line) if self.chance.random() < 0.5 else b''
        wanted = list(child(self.wish(), self.chance.choice((LOCAL, ANY, '10.6.0.0/24')),
                            spi=self.chance.choice((b'', b'AAAA')), rekeys=rekeys))
        kind = self.chance.choice(list(CfgType))
        if self.chance.random() < 0.2: wanted.append(address(ANY_ADDRESS, kind=kind))
        if self.chance.random() < 0.1: wanted.append(Vendor(b'?'))
        line.create(*wanted)

    def goes(self, line: Line) -> None:
        "A peer deletes a Child SA, or the IKE SA."
        if self.chance.random() < 0.7: line.delete(self.spi(line))
        else: line.delete()

    def rekeys(self, line: Line) -> None:
        if line.rekey() and self.chance.random() < 0.7: line.delete()

    def answers(self, line: Line, asked: Packet | None = None) -> None:
        "A peer answers something that the gateway asks, perhaps much later, perhaps with nonsense."
        asked = asked or self.chance.choice(line.asked)
        if asked.exchange_type == INFORM: return line.answer(asked)
        choice = self.chance.randrange(8)
        if choice == 0 and asked in line.asked:
            line.asked.remove(asked)
            return self.late.append((line, asked))
        if choice < 4 and asked.one(SA).proposals[0].protocol == ProtocolID.IKE:
            return None if line.grant_rekey(asked) else None
        if choice < 3: return line.grant_child(asked) if asked.all(TSi) else line.answer(asked)
        if choice < 5 and asked.all(TSi):
            return line.grant_child(asked, tsr=self.wish(), tsi=self.chance.choice(('', ANY)))
        refusal = self.chance.choice((NOT_FOUND, NOT_FOUND, NO_PROPOSAL, MessageType.TEMPORARY_FAILURE,
                                      MessageType.TS_UNACCEPTABLE, MessageType.NO_ADDITIONAL_SAS))
        return line.answer(asked, Notify(refusal))

    def gateway_does(self) -> None:
        "The gateway asks for something."
        if not (ours := self.host.established): return
        ike = self.chance.choice(ours)
        does: list[tuple] = [(rekey_ike_sa,), (liveness,), (create_child,), (delete_ike_sa,)]
        does += [(what, spi) for spi in ike.children for what in (rekey_child, rekey_child, delete_child)]
        self.host.start(ike, *self.chance.choice(does), now=self.now)
        next(iter(self.peers.values())).take()

    def passes(self) -> None:
        "Time passes, and the gateway is woken as often as it wants to be."
        until = self.now + self.chance.choice((1, 5, 25, 110))
        while (at := self.host.next_timer()) is not None and at <= until:
            self.now = max(self.now, at)
            self.host.handle_timer(self.now)
            next(iter(self.peers.values())).take()
            for line in self.lines():
                for asked in [a for a in line.asked if a.exchange_type == INFORM]:
                    if self.chance.random() < 0.9: line.answer(asked)
        self.now = until


@pytest.mark.parametrize('seed', range(12))
def test_whatever_peers_do_nobody_has_more_than_the_connection_and_the_lease_allow(seed: int) -> None:
    world = World(seed)
    for _ in range(150): world.step()
    assert world.checked > 20  # selectors were said


def test_what_all_have_is_given_back_when_all_are_gone() -> None:
    world = World(99)
    for _ in range(150): world.step()
    for line in world.lines(): line.delete()
    for _ in range(40):
        world.passes()
        world.look()
    assert all(not pool.leases for pool in world.pools.values()) and not world.host.peers
