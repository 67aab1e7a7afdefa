"""Debian's libreswan, unpacked by tests/vm/fetch and not installed, on the right side of a lab.

It needs ESP in the kernel. It authenticates by raw RSA keys, or by a secret.
"""
from __future__ import annotations

import shutil
import subprocess
from base64 import b64encode
from contextlib import suppress
from pathlib import Path
from string import Template

from cryptography.hazmat.primitives.serialization import load_pem_public_key

from peers.strongswan import ENV, OVER_USR, VM, Argv, Lab, execute, poll

OLD, NEW = VM / 'libreswan', VM / 'libreswan5'
# addconn's path is compiled in: what is unpacked is laid over it, in a mount namespace of our own. The newer
# one comes with its C library, and sees as /usr what is unpacked
OVER = 'mount -t overlay -o "lowerdir=$0/libexec:/usr/libexec" overlay /usr/libexec && exec "$@"'
# its syntax wants the tabs
CONF = Template('''config setup
	logfile=$home/pluto.log
conn lab
	left=$left
	leftid=@alice.example.org
	right=$right
	rightid=@bob.example.org
	leftupdown=%disabled
	rightupdown=%disabled
	auto=add
	$more
''')


class Libreswan:
    """pluto; `unpacked`: which one."""

    def __init__(self, lab: Lab, unpacked: Path = OLD) -> None:
        self.lab, self.home, self.usr = lab, lab.home.parent / 'libreswan', unpacked / 'usr'
        self._newer = unpacked == NEW
        self.said = ''  # on its terminal
        self._pluto: subprocess.Popen[str] | None = None

    def start(self, proof: Path | str, *, ends: tuple[str, str], ppk_secrets: str = '', **more: str) -> None:
        """Start pluto anew. What proves who is who: a folder with keys, or a secret.

        `ppk_secrets`: lines of ipsec.secrets with a postquantum preshared key.
        `more`: words of ipsec.conf, such as ike, esp, leftsubnet, type or salifetime."""
        self.stop()
        shutil.rmtree(self.home, ignore_errors=True)
        for name in ('nss', 'run', 'd', 'dump'): (self.home / name).mkdir(parents=True)
        nss = f'sql:{self.home}/nss'
        run(self._inside('bin/certutil', '-N', '--empty-password', '-d', nss), env=self._env)
        if isinstance(proof, Path):
            self._import(proof)
            more |= {'authby': 'rsasig', 'leftrsasigkey': dnskey(proof / 'left.pub'),
                     'rightrsasigkey': dnskey(proof / 'right.pub')}
        else: more |= {'authby': 'secret'}
        secrets = ppk_secrets if isinstance(proof, Path) else f': PSK "{proof}"\n{ppk_secrets}'
        (self.home / 'ipsec.secrets').write_text(secrets)
        (self.home / 'ipsec.conf').write_text(CONF.substitute(
            home=self.home, left=ends[0], right=ends[1],
            more='\n\t'.join(f'{name}={value}' for name, value in more.items())))
        places = {'config': 'ipsec.conf', 'secretsfile': 'ipsec.secrets', 'nssdir': 'nss', 'rundir': 'run',
                  'ipsecdir': 'd', 'dumpdir': 'dump', 'logfile': 'pluto.log'}
        self._pluto = self.lab._popen(self.lab.right, [
            *self._inside('libexec/ipsec/pluto', '--nofork', '--no-dnssec',
                          *(f'--{option}={self.home / name}' for option, name in places.items()))],
            env=self._env)
        poll(lambda: self._ended() or 'listening for IKE messages' in self.log(), 60)
        if self._ended():
            self.stop()
            raise RuntimeError(f'pluto does not start\n{self.said}\n{self.log()[-2000:]}')
        self._control('addconn', '--config', self.home / 'ipsec.conf', 'lab')
        self.whack('listen')

    def _ended(self) -> bool: return self._pluto is None or self._pluto.poll() is not None

    def _import(self, keys: Path) -> None:
        """Put our private key into NSS: it comes in a certificate, of which nothing else is used."""
        crt, p12, nss = self.home / 'bob.crt', self.home / 'bob.p12', f'sql:{self.home}/nss'
        key = keys / 'right.key'
        run(['openssl', 'req', '-x509', '-new', '-key', key, '-subj', '/CN=bob', '-out', crt])
        run(['openssl', 'pkcs12', '-export', '-in', crt, '-inkey', key, '-name', 'bob', '-passout', 'pass:',
             '-out', p12])
        run(self._inside('bin/pk12util', '-i', p12, '-W', '', '-K', '', '-d', nss), env=self._env)

    def _control(self, name: str, *words: str | Path, timeout: float = 90) -> str:
        return run(['ip', 'netns', 'exec', self.lab.right, *self._inside(
            f'libexec/ipsec/{name}', '--ctlsocket', self.home / 'run/pluto.ctl', *words)], timeout, self._env)

    def _inside(self, program: str, *words: str | Path) -> Argv:
        """The command for one of libreswan's programs, in a mount namespace of its own."""
        mounted = OVER_USR if self._newer else OVER
        where = '/usr' if self._newer or program.startswith('libexec') else self.usr
        return ['unshare', '--mount', 'sh', '-c', mounted, self.usr, f'{where}/{program}', *words]

    @property
    def _env(self) -> dict[str, str]:
        return ENV if self._newer else {**ENV, 'LD_LIBRARY_PATH': str(self.usr / 'lib/x86_64-linux-gnu')}

    def whack(self, *words: str, timeout: float = 90) -> str:
        """Return what pluto says to `whack`, such as 'trafficstatus'."""
        return self._control('whack', *(f'--{word}' for word in words), timeout=timeout)

    def initiate(self) -> None:
        """Let pluto call, and wait until it has a Child SA."""
        self.whack('name=lab', 'initiate')

    def rekey_child(self) -> None:
        """Let pluto rekey the Child SA."""
        self._rekey('rekey-ipsec')

    def rekey_ike(self) -> None:
        """Let pluto rekey the IKE SA."""
        self._rekey('rekey-ike')

    def _rekey(self, word: str) -> None:
        """whack waits until it is done; but now and then pluto forgets it, and it has to ask again."""
        for _ in range(3):
            with suppress(subprocess.TimeoutExpired):
                self.whack('name=lab', word, timeout=20)
                return
        raise RuntimeError(f'pluto does not {word}: {self.log()[-2000:]}')

    def terminate(self) -> None:
        """Let pluto delete the SAs."""
        self.whack('name=lab', 'terminate')

    def log(self) -> str:
        """Return what pluto has logged."""
        log = self.home / 'pluto.log'
        return log.read_text(errors='replace') if log.exists() else ''

    def stop(self) -> None:
        """End pluto, if it runs."""
        if self._pluto:
            self._pluto.terminate()
            try: self.said = ''.join(self._pluto.communicate(timeout=10))
            except subprocess.TimeoutExpired: self._pluto.kill()
        self._pluto = None


def run(argv: Argv, timeout: float = 90, env: dict[str, str] = ENV) -> str:
    """Run a tool of libreswan's; return what it says. Raise `RuntimeError` if it fails."""
    done = execute(argv, env=env, timeout=timeout)
    if done.returncode: raise RuntimeError(f'{" ".join(map(str, argv))}: {done.stdout}{done.stderr}')
    return done.stdout


def dnskey(public: Path) -> str:
    """Return a public RSA key as RFC 3110 writes it, in base64."""
    numbers = load_pem_public_key(public.read_bytes()).public_numbers()
    exponent, modulus = (n.to_bytes(-(-n.bit_length() // 8), 'big') for n in (numbers.e, numbers.n))
    return f'0s{b64encode(bytes([len(exponent)]) + exponent + modulus).decode()}'
