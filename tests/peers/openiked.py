"""Debian's OpenIKED, unpacked by tests/vm/fetch and not installed, on the right side of a lab: it needs PF_KEY.

It has no Camellia, and through PF_KEY no ESP with HMAC-SHA2-256 (128 bits) and no AEAD: take hmac-sha2-512.
"""
from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from peers.strongswan import ENV, Lab, end, execute, poll

UNPACKED = Path(os.environ.get('IKE_LIT_VM', Path(__file__).parents[2] / '.vm')) / 'openiked'
# its paths and its user are fixed: they are laid over /etc, in a mount namespace of our own
INSIDE = '''cd "$1" && mount -t tmpfs tmpfs over && mkdir over/upper over/work over/empty && chmod 755 over over/empty || exit 1
mount -t overlay -o lowerdir=/etc,upperdir=over/upper,workdir=over/work overlay /etc || exit 1
echo "_iked:x:998:998::$1/over/empty:/usr/sbin/nologin" >> /etc/passwd
echo "_iked:x:998:" >> /etc/group
mkdir -p /etc/iked/private /etc/iked/certs /etc/iked/ca /etc/iked/crls /etc/iked/pubkeys/fqdn
cp right.key /etc/iked/private/local.key && cp right.pub /etc/iked/local.pub && chmod 600 /etc/iked/private/local.key
cp left.pub /etc/iked/pubkeys/fqdn/alice.example.org
cp iked.conf /etc/iked.conf && chmod 600 /etc/iked.conf
exec "$2" -d -vv -f /etc/iked.conf -s "$1/iked.sock"'''


class OpenIKED:
    """iked as responder, with a raw RSA key or a shared secret."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.home = lab, lab.home.parent / 'openiked'
        self._iked: subprocess.Popen[str] | None = None

    def start(self, keys: Path, *, ike: str, esp: str, psk: str = '', flows: str = 'from 10.2.0.0/24 to 10.1.0.0/24',
              ends: tuple[str, str] = ('10.9.0.1', '10.9.0.2'), mode: str = 'tunnel', more: str = '') -> None:
        """Start iked anew; `ike` and `esp` as iked.conf(5) writes them, such as 'enc aes-256 auth hmac-sha2-512'."""
        self.stop()
        shutil.rmtree(self.home, ignore_errors=True)
        (self.home / 'over').mkdir(parents=True)
        for name in ('left.pub', 'right.key', 'right.pub'): shutil.copy(keys / name, self.home / name)
        (self.home / 'iked.conf').write_text(
            f'ikev2 "lab" passive {mode} esp {flows} local {ends[1]} peer {ends[0]} ikesa {ike} childsa {esp} '
            f'srcid bob.example.org dstid alice.example.org {more} ' + (f'psk "{psk}"\n' if psk else 'rsa\n'))
        (self.home / 'iked.conf').chmod(0o600)
        with (self.home / 'iked.log').open('w') as log:
            self._iked = subprocess.Popen(
                ['ip', 'netns', 'exec', self.lab.right, 'sh', '-c', INSIDE, 'sh', self.home, UNPACKED / 'usr/sbin/iked'],
                env=ENV, text=True, stdout=log, stderr=subprocess.STDOUT)
        # before that, the configuration may be loaded late, which ends SAs
        if not poll(lambda: self._iked.poll() is not None or 'config_getstatic: no stickyaddress' in self.log(), 20) or \
                self._iked.poll() is not None:
            raise RuntimeError(f'iked does not start\n{self.log()[-2000:]}')

    def ikectl(self, *words: str) -> str:
        """Return what `ikectl` says, such as to 'show sa' or 'reset id alice.example.org'."""
        done = execute(['ip', 'netns', 'exec', self.lab.right, UNPACKED / 'usr/sbin/ikectl', '-s', self.home / 'iked.sock', *words])
        if done.returncode: raise RuntimeError(f'ikectl {words}: {done.stdout}{done.stderr}')
        return done.stdout

    def terminate(self) -> None: self.ikectl('reset', 'id', 'alice.example.org')

    def log(self) -> str:
        """Return what iked has logged."""
        log = self.home / 'iked.log'
        return log.read_text(errors='replace') if log.exists() else ''

    def stop(self) -> None:
        """End iked, if it runs."""
        if self._iked: end(self._iked)
        self._iked = None
