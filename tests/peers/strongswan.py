"""Debian's strongSwan, in a network namespace: a real peer for the tests, as responder or as initiator.

    lab: left, 10.9.0.1 and fd09::1 (the program under test) ---- right, 10.9.0.2 and fd09::2 (charon)
    inner networks: 10.1.0.0/24 and fd01::/64 ---- 10.2.0.0/24 and fd02::/64
    10.9.0.3, left: a relay that loses, doubles and reorders what either end sends to it (relay.py)

charon does ESP in user space (kernel-libipsec), so the kernel needs none, but only inside UDP: without
NAT_DETECTION_*_IP notifies from our program it refuses the Child SA. Needs root: see in_user_namespace.
"""
from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from string import Template
from subprocess import PIPE
from typing import Any, TypeVar

T = TypeVar('T')
Settings = Mapping[str, Any]  # of a section in strongSwan's files; a value may be a section itself
PACKAGES = ('iproute2 charon-systemd strongswan-swanctl libcharon-extra-plugins'
            ' libstrongswan-standard-plugins libstrongswan-extra-plugins tshark')
PATH = os.environ.get('PATH', os.defpath) + ':/usr/sbin:/sbin'  # a user's own may lack the last two
ENV = {**os.environ, 'PATH': PATH}
Argv = Sequence[str | Path]
HERE = Path(__file__).resolve().parent
LEFT, RIGHT, RELAY = '10.9.0.1', '10.9.0.2', '10.9.0.3'
USR = Path('/usr')
LIBIPSEC = USR / 'lib/ipsec/plugins/libstrongswan-kernel-libipsec.so'
VM = Path(os.environ.get('IKE_LIT_VM', HERE.parents[1] / '.vm'))
# a newer one, with the C library that it wants, is unpacked by tests/vm/fetch: its programs see it as /usr,
# in a mount namespace of their own
NEWER = VM / 'strongswan6' / 'usr'
OVER_USR = 'mount --bind "$0" /usr && exec "$@"'
# openssl, if it is installed, does what it can, the others do the rest
CRYPTO = ('openssl gcrypt gmp aes sha1 sha2 mgf1 hmac kdf xcbc cmac ccm gcm chapoly curve25519'
          ' random nonce pem pkcs1 pkcs8 pubkey x509 constraints')
AS_ROOT = ('unshare', '--user', '--map-root-user', '--mount', '--net', '--pid', '--fork', '--mount-proc',
           '--kill-child')
# ip keeps its namespaces in /run; sysfs shows the network devices of whoever mounted it
IN_NAMESPACE = '''PATH=$PATH:/usr/sbin:/sbin
mount -t tmpfs run /run && mkdir /run/netns && ip link set lo up || exit 125
mount -t sysfs sys /sys 2>/dev/null
exec "$@"'''

ADDRESSES = Template('''link set lo up
addr add 10.9.0.$n/24 dev veth
addr add fd09::$n/64 dev veth nodad
addr add 10.$n.0.1/24 dev lo
addr add fd0$n::1/64 dev lo nodad
''')
# the paths are relative, for a Unix socket's may have no more than 107 octets
STRONGSWAN_CONF = Template('''charon {
  load = $crypto $kernel socket-default vici $plugins
  plugins {
    kernel-libipsec { allow_peer_ts = yes }
    vici { socket = unix://charon.vici }
  }
  filelog { lab {
    path = charon.log
    flush_line = yes
    time_format = %H:%M:%S
    time_add_ms = yes
  } }
  $extra
}
swanctl {
  socket = unix://charon.vici
  load = $crypto
}
''')
SWANCTL_CONF = Template('''connections { lab {
  version = 2
  local_addrs = %any
  remote_addrs = 10.9.0.1, %any
  proposals = $ike
  mobike = no
  $connection
  local {
    auth = $local_auth
    pubkeys = right.pub
    id = "$right_id"
  }
  remote {
    auth = $remote_auth
    pubkeys = left.pub
    id = "$left_id"
  }
  children { net {
    local_ts = $local_ts
    remote_ts = $remote_ts
    esp_proposals = $esp
    $child
  } }
} }
pools {
  $pools
}
''')


def missing() -> str | None:
    """Say what this machine lacks and what to do about it, None if nothing."""
    lacking = [name for name in ('ip', 'charon-systemd', 'swanctl') if not shutil.which(name, path=PATH)]
    lacking += [] if LIBIPSEC.exists() else [LIBIPSEC.name]
    if lacking:
        return f'no {", ".join(lacking)}: apt-get install {PACKAGES}'
    if not Path('/dev/net/tun').exists():
        return 'no /dev/net/tun: modprobe tun'
    unshare = ['unshare', '--net', 'true'] if os.geteuid() == 0 else [*AS_ROOT, 'true']
    if (done := execute(unshare)).returncode:
        return f'no namespaces ({done.stderr.strip()}): run as root or allow user namespaces'
    return None


def no_newer() -> str | None:
    """Fetch the newer strongSwan, if it is not there yet; say why it can't be had, None if it is there."""
    if NEWER.exists(): return None
    done = execute([HERE.parent / 'vm' / 'fetch', 'strongswan6'], timeout=300)
    return f'no strongSwan 6: {done.stderr.strip()}' if done.returncode else None


def in_user_namespace(argv: Sequence[str]) -> list[str]:
    """Return the command that runs `argv` as root of a user namespace of its own, where a Lab works."""
    return [*AS_ROOT, 'sh', '-c', IN_NAMESPACE, 'sh', *argv]


def settings(tree: Settings | None) -> str:
    """Return the lines of a section; what is said there later replaces what was said before."""
    return '\n'.join(f'{key} {{\n{settings(value)}\n}}' if isinstance(value, Mapping) else f'{key} = {value}'
                     for key, value in (tree or {}).items())


def parse_raw(text: str) -> dict[str, Any]:
    """Read what `swanctl --raw` prints; a list, as of traffic selectors, becomes a list."""
    stack: list[dict[str, Any]] = [{}]
    for section, key, value, _ in re.findall(r'(\S+) \{|([^\s={}]+)=(\[[^]]*\]|[^\s}]*)|(\})', text):
        if section: stack.append(stack[-1].setdefault(section, {}))
        elif key: stack[-1][key] = value[1:-1].split() if value[:1] == '[' else value
        else: stack.pop()
    return stack[0]


def poll(condition: Callable[[], T], timeout: float = 10) -> T:
    """Return what the condition returns as soon as that is true, or the last of it after the timeout."""
    deadline = time.monotonic() + timeout
    while not (found := condition()) and time.monotonic() < deadline: time.sleep(0.02)
    return found


def execute(argv: Argv, **kw: Any) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and keep what it says."""
    defaults = {'env': ENV, 'text': True, 'timeout': 30, 'stdout': PIPE, 'stderr': PIPE}
    return subprocess.run(argv, check=False, **{**defaults, **kw})  # noqa: S603


def end(process: subprocess.Popen[str]) -> None:
    """Terminate a process that still runs, and kill it if it does not listen."""
    with process:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()


class Lab:
    """Join two network namespaces: charon runs in the right one, the program under test in the left one."""

    def __init__(self, tmp_path: Path, usr: Path = USR) -> None:
        self.usr = usr  # whose strongSwan it is
        self.home = Path(tmp_path).resolve() / 'strongswan'
        name = f'{os.getpid()}-{secrets.token_hex(2)}'  # a process id alone may be that of an aborted run
        self.left, self.right = f'ikeL-{name}', f'ikeR-{name}'
        self._cleanup = ExitStack()
        self._charon: subprocess.Popen[str] | None = None

    def __enter__(self) -> Lab:
        """Make the namespaces, or nothing."""
        with ExitStack() as cleanup:
            for side in (self.left, self.right):
                self._ip('netns', 'add', side)
                cleanup.callback(self._ip, 'netns', 'del', side)
            self._ip('link', 'add', 'veth', 'netns', self.left, 'type', 'veth',
                     'peer', 'name', 'veth', 'netns', self.right)
            for side in (self.left, self.right):
                self._ip('-n', side, 'link', 'set', 'veth', 'up')
            for n, side in enumerate((self.left, self.right), 1):
                self._ip('-n', side, '-batch', '-', input=ADDRESSES.substitute(n=n))
            self._ip('-n', self.left, 'addr', 'add', f'{RELAY}/24', 'dev', 'veth')
            cleanup.callback(self.stop)
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        """End what runs and remove the namespaces; the files in `home` stay, to be looked at."""
        self._cleanup.close()

    def start(self, *, left_pub: Path, right_key: Path, right_pub: Path,
              ike: str = 'camellia256-sha256-modp2048', esp: str = 'camellia256-sha256',
              left_id: str = 'alice.example.org', right_id: str = 'bob.example.org',
              remote_auth: str = 'pubkey', local_auth: str = 'pubkey',
              local_ts: str = '10.2.0.0/24', remote_ts: str = '10.1.0.0/24', extra: str = '',
              plugins: str = '', files: Mapping[str, Path] | None = None,
              connection: Settings | None = None, child: Settings | None = None,
              pools: Settings | None = None, kernel: str = 'kernel-libipsec kernel-netlink') -> None:
        """Start charon anew with this configuration (`extra`: lines for charon { }).

        `plugins` are loaded in addition, `files` are put where the keys say, below swanctl's folder.
        The last three are added to connections { lab { } }, to its children { net { } }, and to pools { }.
        As initiator charon calls 10.9.0.1, or what `connection` has for remote_addrs.
        With 'kernel-netlink' alone as `kernel`, ESP is the kernel's."""
        self.stop()
        shutil.rmtree(self.home, ignore_errors=True)
        files = {'pubkey/left.pub': left_pub, 'pubkey/right.pub': right_pub, 'private/right.pem': right_key,
                 **(files or {})}
        # AppArmor, where it is enforced, knows the installed programs and would keep them from our files
        files |= {x: self.usr / 'sbin' / x for x in ('charon-systemd', 'swanctl')}
        for name, source in files.items():
            (self.home / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, self.home / name)
        plugin = str(self.usr / 'lib/ipsec/plugins/libstrongswan-{}.so')
        crypto = ' '.join(x for x in CRYPTO.split() if Path(plugin.format(x)).exists())
        (self.home / 'strongswan.conf').write_text(STRONGSWAN_CONF.substitute(
            crypto=crypto, extra=extra, plugins=plugins, kernel=kernel))
        (self.home / 'swanctl.conf').write_text(SWANCTL_CONF.substitute(
            ike=ike, esp=esp, left_id=left_id, right_id=right_id, remote_auth=remote_auth,
            local_auth=local_auth, local_ts=local_ts, remote_ts=remote_ts,
            connection=settings(connection), child=settings(child), pools=settings(pools)))
        with (self.home / 'charon.log').open('a') as log:  # charon itself opens it a second time
            self._charon = self._popen(self.right, self._program('charon-systemd'), stdout=log, stderr=log,
                                       start_new_session=True, **self._place())
        self._wait()
        if 'loaded private key' not in self.swanctl('--load-all', '--noprompt'):
            raise RuntimeError(f'charon cannot use {right_key}\n{self._tail()}')

    def load(self, connections: Settings, secrets: Settings | None = None) -> None:
        """Replace what swanctl.conf has in connections { } and secrets { }."""
        conf = {'connections': connections, 'secrets': secrets or {}}
        (self.home / 'swanctl.conf').write_text(settings(conf))
        self.swanctl('--load-all', '--clear', '--noprompt')

    def stop(self) -> None:
        """End charon, if it runs."""
        if self._charon:
            end(self._charon)
            self._charon = None

    def run(self, argv: Argv, timeout: float = 30, **kw: Any) -> subprocess.CompletedProcess[str]:
        """Run a program on the left side to its end."""
        return execute(['ip', 'netns', 'exec', self.left, *argv], timeout=timeout, **kw)

    def popen(self, argv: Argv, **kw: Any) -> subprocess.Popen[str]:
        """Start a program on the left side; it is ended with the lab."""
        process = self._popen(self.left, argv, **kw)
        self._cleanup.callback(end, process)
        return process

    def swanctl(self, *args: str, timeout: float = 30) -> str:
        """Return what swanctl says to charon's side, such as `--initiate --child net`,
        `--rekey --ike lab`, `--terminate --child net`. Raise `RuntimeError` if charon could not do it."""
        argv = ['ip', 'netns', 'exec', self.right, *self._program('swanctl'), *args]
        done = execute(argv, timeout=timeout, **self._place())
        if done.returncode:
            # --load-all tries a dozen directories that we don't have
            said = [line for line in done.stderr.splitlines() if not line.startswith('opening directory')]
            raise RuntimeError('\n'.join([f'swanctl {" ".join(args)}:', done.stdout, *said, self._tail()]))
        return done.stdout

    def sas(self) -> str:
        """Return charon's SAs for people."""
        return self.swanctl('--list-sas')

    def list_sas(self) -> list[dict[str, Any]]:
        """Return charon's IKE SAs: the keys of vici's list-sa event, and under `child-sas` a list."""
        lines = self.swanctl('--list-sas', '--raw').splitlines()
        found = [sa for line in lines for sa in parse_raw(line).get('event', {}).values()]
        return [{**sa, 'child-sas': list(sa.get('child-sas', {}).values())} for sa in found]

    def log(self) -> str:
        """Return what charon has logged since its start."""
        return (self.home / 'charon.log').read_text(errors='replace')

    @contextmanager
    def capture(self, name: str = 'ike.pcap') -> Iterator[Path]:
        """Record every frame that passes the left side; the file is complete after the context."""
        pcap = self.home.parent / name
        process = self.popen([sys.executable, HERE / 'capture.py', 'veth', pcap], start_new_session=True)
        if process.stdout is None or not process.stdout.readline():
            raise RuntimeError(f'no capture: {process.communicate()[1]}')
        try:
            yield pcap
        finally:
            _, trouble = process.communicate(timeout=10)  # closes its stdin: the sign to finish
        if process.returncode:
            raise RuntimeError(f'capture: {trouble}')

    @contextmanager
    def relay(self, **options: float) -> Iterator[dict[str, int]]:
        """Run the relay (see relay.py for its options); it counts in the dictionary, after the context."""
        argv = [sys.executable, HERE / 'relay.py', RELAY, LEFT, RIGHT]
        process = self.popen([*argv, *(f'--{name}={value}' for name, value in options.items())])
        if process.stdout is None or not process.stdout.readline():
            raise RuntimeError(f'no relay: {process.communicate()[1]}')
        counts: dict[str, int] = {}
        try:
            yield counts
        finally:
            process.terminate()
            told, trouble = process.communicate(timeout=10)
        if process.returncode:
            raise RuntimeError(f'relay: {trouble}')
        counts |= json.loads(told)

    def _wait(self, timeout: float = 10) -> None:
        deadline = time.monotonic() + timeout
        while True:
            try:
                self.swanctl('--stats')
                return
            except RuntimeError as error:
                if self._charon is None or self._charon.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f'charon does not start\n{self._tail()}') from error
                time.sleep(0.01)

    def _tail(self) -> str:
        return '\n'.join(['charon.log ends:', *self.log().splitlines()[-20:]])

    def _program(self, name: str) -> list[str]:
        """Return the beginning of the command that runs one of strongSwan's programs."""
        return [f'./{name}'] if self.usr == USR else ['sh', '-c', OVER_USR, str(self.usr), f'./{name}']

    def _place(self) -> dict[str, Any]:
        env = {**ENV, 'STRONGSWAN_CONF': 'strongswan.conf', 'SWANCTL_DIR': str(self.home)}
        return {'cwd': self.home, 'env': env}

    def _popen(self, side: str, argv: Argv, **kw: Any) -> subprocess.Popen[str]:
        defaults = {'env': ENV, 'text': True, 'stdin': PIPE, 'stdout': PIPE, 'stderr': PIPE}
        argv = ['ip', 'netns', 'exec', side, *argv]
        return subprocess.Popen(argv, **{**defaults, **kw})  # noqa: S603

    def _ip(self, *args: str, **kw: Any) -> None:
        done = execute(['ip', *args], **kw)
        if done.returncode:
            raise RuntimeError(f'ip {" ".join(args)}: {done.stderr}')
