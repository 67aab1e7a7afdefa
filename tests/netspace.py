"""What tests of a kernel's SAD and SPD stand on: a network of their own, what it holds,
and programs of ours as processes without the time that Python needs to start.
"""
import asyncio  # noqa: F401 - a copy of ours that goes on as nobody may not be able to read it
import ctypes
import encodings.idna  # noqa: F401
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

LIBC = ctypes.CDLL(None, use_errno=True)
NEW_NETWORK, NEW_MOUNTS = 0x40000000, 0x00020000
LIMIT = 30  # seconds for whatever has to happen
IP = '/usr/bin/ip'


def unshare(what: int) -> None:
    if LIBC.unshare(what): raise OSError(ctypes.get_errno(), 'unshare')


@contextmanager
def home() -> Iterator[None]:
    "Come back to the network that we are in, whatever others we go to."
    here = os.open('/proc/thread-self/ns/net', os.O_RDONLY)
    try: yield
    finally:
        LIBC.setns(here, NEW_NETWORK)
        os.close(here)


def ip(script: str) -> None:
    "Have `ip` do what a script says."
    subprocess.run([IP, '-batch', '-'], input=script, text=True, check=True, timeout=LIMIT)


# What the kernel holds, as it says itself

class SA(NamedTuple):
    source: str
    destination: str
    spi: str
    reqid: int
    all: str


class Policy(NamedTuple):
    way: str
    source: str
    destination: str
    reqids: tuple[int, ...]
    ends: tuple[str, str]  # of the last template
    all: str


def dump(kind: int) -> Iterator[bytes]:
    "Yield what the kernel answers to XFRM_MSG_GETSA or XFRM_MSG_GETPOLICY for everything."
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 6) as sock:
        sock.settimeout(LIMIT)
        sock.send(struct.pack('=IHHII', 16, kind, 0x301, 1, 0))
        while True:
            data = sock.recv(1 << 20)
            while data:
                size, type_ = struct.unpack_from('=IH', data)
                if type_ == 3: return
                yield data[16:size]
                data = data[(size + 3) & ~3:]


def address(data: bytes, family: int) -> str:
    return str(ip_address(data[:4 if family == socket.AF_INET else 16]))


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        size, kind = struct.unpack_from('=HH', data)
        yield kind, data[4:size]
        data = data[(size + 3) & ~3:]


def sas() -> list[SA]:
    "Return the SAs, with all that the kernel shows of each, keys and counters included."
    found = []
    for data in dump(18):
        reqid, family = struct.unpack_from('=IH', data, 208)
        found.append(SA(address(data[80:], family), address(data[56:], family),
                        data[72:76].hex(), reqid, data.hex()))
    return sorted(found)


def policies() -> list[Policy]:
    "Return the policies but for those of sockets."
    found = []
    for data in dump(21):
        family, = struct.unpack_from('=H', data, 40)
        way = data[160]
        if way > 2: continue
        templates = [value[n:n + 64] for kind, value in attributes(data[168:]) if kind == 5
                     for n in range(0, len(value), 64)]
        outer = struct.unpack_from('=H', templates[-1], 24)[0] if templates else 0
        ends = (address(templates[-1][28:], outer), address(templates[-1], outer)) \
            if templates else ('', '')
        found.append(Policy(('in', 'out', 'fwd')[way], f'{address(data[16:], family)}/{data[43]}',
                            f'{address(data, family)}/{data[42]}',
                            tuple(struct.unpack_from('=I', t, 44)[0] for t in templates), ends,
                            data.hex()))
    return sorted(found)


def held_by_kernel() -> list[SA | Policy]:
    return [*sas(), *policies()]


# Programs of ours

class Process:
    "A copy of this process that runs something else, and what it prints."

    def __init__(self, run: Callable[[], int | None], env: dict[str, str] | None = None):
        self.text, self.status = '', None
        self.pipe, theirs = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(theirs)
            return
        status = 1
        try:
            os.dup2(theirs, 1)
            os.dup2(theirs, 2)
            os.close(theirs)
            os.close(self.pipe)
            sys.stdout, sys.stderr = os.fdopen(1, 'w'), os.fdopen(2, 'w', buffering=1)
            os.environ.update(env or {})
            try: status = run() or 0
            except SystemExit as gone: status = int(gone.code or 0)
            except BaseException: traceback.print_exc()
            for file in sys.stdout, sys.stderr:
                with suppress(OSError): file.flush()
        finally: os._exit(status)

    def read(self, until: float) -> bool:
        "Take what it has printed; return whether there may be more."
        ready, _, _ = select.select([self.pipe], [], [], max(until - time.monotonic(), 0))
        assert ready, f'nothing more in {LIMIT} s after {self.text!r}'
        data = os.read(self.pipe, 65536)
        self.text += data.decode()
        return bool(data)

    def until(self, words: str) -> str:
        "Wait until it has printed something; return the line."
        end = time.monotonic() + LIMIT
        while words not in self.text.rpartition('\n')[0]:
            assert self.read(end), f'{words!r} is not in {self.text!r}'
        return next(line for line in self.text.splitlines() if words in line)

    def wait(self) -> int:
        "Wait for its end; return its exit status, or minus the signal that has ended it."
        end = time.monotonic() + LIMIT
        while self.read(end): continue
        if self.status is None:
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status

    def send(self, number: int) -> None: os.kill(self.pid, number)

    def close(self) -> None:
        if self.status is None:
            self.send(signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.pipe)


def stand_in(folder: Path, text: str) -> dict[str, str]:
    "Make an `ip` that is a script of ours; return the environment in which it comes first."
    folder.mkdir(exist_ok=True)
    (folder / 'ip').write_text(f'#!/bin/sh\nreal={IP} here={folder}\n{text}\n')
    (folder / 'ip').chmod(0o755)
    return {'PATH': f'{folder}:{os.environ["PATH"]}'}


def nobody(*capabilities: int) -> None:
    "Go on as nobody, who has these capabilities and no others, and so have all that it starts."
    LIBC.prctl(8, 1, 0, 0, 0)  # PR_SET_KEEPCAPS
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    bits = sum(1 << one for one in capabilities)
    header, data = struct.pack('=Ii', 0x20080522, 0), struct.pack('=6I', bits, bits, bits, 0, 0, 0)
    if LIBC.capset(header, data): raise OSError(ctypes.get_errno(), 'capset')
    for one in capabilities:
        if LIBC.prctl(47, 2, one, 0, 0): raise OSError(ctypes.get_errno(), 'prctl')
