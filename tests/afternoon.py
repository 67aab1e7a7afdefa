"""The initiator of the chapter "An initiator in an afternoon" as a program: its cells, one by one."""
from ipaddress import ip_network

from chapters import AFTERNOON
from test_house import cells, source


def initiator() -> str:
    "Return the code of the cells that are the initiator."
    return '\n\n\n'.join(source(cell) for cell in cells(AFTERNOON)
                          if 'initiator' in cell['metadata'].get('tags', []))


def configured(host: str, port: int, *, secret: str, alice: str = 'alice.example.org',
               bob: str = 'bob.example.org', mine: str = '10.1.0.0/24', yours: str = '10.2.0.0/24') -> str:
    "Return what the one cell that an operator changes would say."
    networks = [(network[0].packed, network[-1].packed) for network in map(ip_network, (mine, yours))]
    return (f'peer, secret = {(host, port)!r}, {secret.encode()!r}\n'
            f'me, you = {alice.encode()!r}, {bob.encode()!r}\n'
            f'my_network, your_network = {networks!r}\n')


def script(configuration: str) -> str: return f'{configuration}\n{initiator()}\n'
