"""Debian's OpenIKED, unpacked by tests/vm/fetch and not installed, on the right side of a lab, as responder.

It needs PF_KEY, and ESP in the kernel. It has no Camellia, and through PF_KEY no ESP with HMAC-SHA2-256
(it thinks of 128 bits, and the kernel of 96). AEADs it drops from the configuration of ESP, without a word,
and answers NO_PROPOSAL_CHOSEN. It authenticates by raw RSA keys.
"""
from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from peers.strongswan import ENV, Lab, end, execute, poll

UNPACKED = Path(os.environ.get('IKE_LIT_VM', Path(__file__).parents[2] / '.vm')) / 'openiked'
LIBRARIES = {**ENV, 'LD_LIBRARY_PATH': str(UNPACKED / 'usr/lib/x86_64-linux-gnu')}
# its paths and its user are fixed: they are laid over /etc, in a mount namespace of our own
INSIDE = '''cd "$1" && mount -t tmpfs tmpfs over || exit 1
mkdir over/upper over/work over/empty && chmod 755 over over/empty
mount -t overlay -o lowerdir=/etc,upperdir=over/upper,workdir=over/work overlay /etc || exit 1
echo "_iked:x:998:998::$1/over/empty:/usr/sbin/nologin" >> /etc/passwd
echo "_iked:x:998:" >> /etc/group
mkdir -p /etc/iked/private /etc/iked/certs /etc/iked/ca /etc/iked/crls /etc/iked/pubkeys/fqdn
cp right.key /etc/iked/private/local.key && cp right.pub /etc/iked/local.pub
cp left.pub /etc/iked/pubkeys/fqdn/alice.example.org && cp iked.conf /etc/iked.conf
chmod 600 /etc/iked/private/local.key /etc/iked.conf
exec "$2" -d -vv -f /etc/iked.conf -s "$1/iked.sock" > "$1/iked.log" 2>&1'''

READY = 'config_getstatic: no stickyaddress'


class OpenIKED:
    """iked."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.home = lab, lab.home.parent / 'openiked'
        self._iked: subprocess.Popen[str] | None = None

    def start(self, keys: Path, *, ike: str, esp: str, flows: str, ends: tuple[str, str],
              mode: str = 'tunnel') -> None:
        """Start iked anew; `ike`, `esp` and `flows` as iked.conf(5) writes them."""
        self.stop()
        shutil.rmtree(self.home, ignore_errors=True)
        (self.home / 'over').mkdir(parents=True)
        for name in ('left.pub', 'right.key', 'right.pub'): shutil.copy(keys / name, self.home / name)
        (self.home / 'iked.conf').write_text(
            f'ikev2 "lab" passive {mode} esp {flows} local {ends[1]} peer {ends[0]} ikesa {ike} '
            f'childsa {esp} srcid bob.example.org dstid alice.example.org rsa\n')
        self._iked = self.lab._popen(
            self.lab.right, ['sh', '-c', INSIDE, 'sh', self.home, UNPACKED / 'usr/sbin/iked'],
            env=LIBRARIES)
        # before that, the configuration may be loaded late, which ends SAs
        poll(lambda: self._ended() or READY in self.log(), 60)
        if self._ended() or READY not in self.log():
            self.stop()
            raise RuntimeError(f'iked does not start\n{self.log()[-2000:]}')

    def _ended(self) -> bool: return self._iked is None or self._iked.poll() is not None

    def ikectl(self, *words: str) -> str:
        """Return what `ikectl` says, such as to 'show sa'."""
        done = execute(['ip', 'netns', 'exec', self.lab.right, UNPACKED / 'usr/sbin/ikectl',
                        '-s', self.home / 'iked.sock', *words], env=LIBRARIES)
        if done.returncode: raise RuntimeError(f'ikectl {words}: {done.stdout}{done.stderr}')
        return done.stdout

    def terminate(self) -> None:
        """Let iked delete the SAs."""
        self.ikectl('reset', 'id', 'FQDN/alice.example.org')

    def log(self) -> str:
        """Return what iked has logged."""
        log = self.home / 'iked.log'
        return log.read_text(errors='replace') if log.exists() else ''

    def stop(self) -> None:
        """End iked, if it runs."""
        if self._iked: end(self._iked)
        self._iked = None
