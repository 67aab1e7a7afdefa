"""Debian's libreswan, unpacked by tests/vm/fetch and not installed, on the right side of a lab: it needs ESP in the kernel."""
from __future__ import annotations

import os
import shutil
import subprocess
from base64 import b64encode
from pathlib import Path
from string import Template

from cryptography.hazmat.primitives.serialization import load_pem_public_key

from peers.strongswan import ENV, Lab, execute, poll

UNPACKED = Path(os.environ.get('IKE_LIT_VM', Path(__file__).parents[2] / '.vm')) / 'libreswan'
LIBRARIES = {**ENV, 'LD_LIBRARY_PATH': str(UNPACKED / 'usr/lib/x86_64-linux-gnu')}
# addconn's path is compiled in: what is unpacked is laid over it, in a mount namespace of our own
INSIDE = '''mount -t overlay -o "lowerdir=$1/usr/libexec:/usr/libexec" overlay /usr/libexec && shift && exec "$@"'''
CONF = Template('''config setup
	logfile=$home/pluto.log
conn lab
	ikev2=insist
	authby=$authby
	left=$left
	leftid=@alice.example.org
	right=$right
	rightid=@bob.example.org
	ike=$ike
	esp=$esp
	leftupdown=%disabled
	rightupdown=%disabled
	auto=add
	$more
''')


class Libreswan:
    """pluto, with a raw RSA key or a shared secret."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.home = lab, lab.home.parent / 'libreswan'
        self.said, self._pluto = '', None  # on its terminal

    def start(self, keys: Path, *, ike: str, esp: str, psk: str = '', ends: tuple[str, str] = ('10.9.0.1', '10.9.0.2'),
              **more: str) -> None:
        """Start pluto anew; `more`: words of ipsec.conf, such as leftsubnet, type or salifetime."""
        self.stop()
        shutil.rmtree(self.home, ignore_errors=True)
        for name in ('nss', 'run', 'd', 'dump'): (self.home / name).mkdir(parents=True)
        self._tool('certutil', '-N', '--empty-password')
        if psk:
            (self.home / 'ipsec.secrets').write_text(f'@bob.example.org @alice.example.org : PSK "{psk}"\n')
        else:
            (self.home / 'ipsec.secrets').touch()
            self._import(keys)
            more = {'leftrsasigkey': dnskey(keys / 'left.pub'), 'rightrsasigkey': dnskey(keys / 'right.pub'), **more}
        words = '\n\t'.join(f'{name}={value}' for name, value in more.items())
        (self.home / 'ipsec.conf').write_text(CONF.substitute(
            home=self.home, authby='secret' if psk else 'rsasig', left=ends[0], right=ends[1], ike=ike, esp=esp, more=words))
        folders = [f'--{a}={self.home / b}' for a, b in (
            ('config', 'ipsec.conf'), ('secretsfile', 'ipsec.secrets'), ('nssdir', 'nss'), ('rundir', 'run'),
            ('ipsecdir', 'd'), ('dumpdir', 'dump'), ('logfile', 'pluto.log'))]
        self._pluto = subprocess.Popen(
            ['ip', 'netns', 'exec', self.lab.right, 'sh', '-c', INSIDE, 'sh', UNPACKED, '/usr/libexec/ipsec/pluto', '--nofork',
             '--no-dnssec', *folders], env=LIBRARIES, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if not poll(lambda: self._pluto.poll() is not None or 'listening for IKE messages' in self.log(), 20) or \
                self._pluto.poll() is not None:
            self.stop()
            raise RuntimeError(f'pluto does not start\n{self.said}\n{self.log()[-2000:]}')
        self._run('addconn', '--config', self.home / 'ipsec.conf', '--ctlsocket', self.home / 'run/pluto.ctl', 'lab')
        self.whack('listen')

    def _import(self, keys: Path) -> None:
        """Put our private key into NSS: it has to be in a certificate, of which nothing else is used."""
        crt, p12 = self.home / 'bob.crt', self.home / 'bob.p12'
        for words in (['req', '-x509', '-new', '-key', keys / 'right.key', '-subj', '/CN=bob', '-out', crt],
                      ['pkcs12', '-export', '-in', crt, '-inkey', keys / 'right.key', '-name', 'bob', '-passout', 'pass:',
                       '-out', p12]):
            done = execute(['openssl', *words])
            if done.returncode: raise RuntimeError(done.stderr)
        self._tool('pk12util', '-i', p12, '-W', '', '-K', '')

    def _tool(self, name: str, *words: str | Path) -> None:
        done = execute([UNPACKED / 'usr/bin' / name, '-d', f'sql:{self.home}/nss', *words], env=LIBRARIES)
        if done.returncode: raise RuntimeError(f'{name}: {done.stdout}{done.stderr}')

    def _run(self, name: str, *words: str | Path, timeout: float = 30) -> str:
        program = UNPACKED / 'usr/libexec/ipsec' / name
        done = execute(['ip', 'netns', 'exec', self.lab.right, program, *words], env=LIBRARIES, timeout=timeout)
        if done.returncode: raise RuntimeError(f'{name} {words}: {done.stdout}{done.stderr}\n{self.log()[-3000:]}')
        return done.stdout

    def whack(self, *words: str) -> str:
        """Return what pluto says to `whack`, such as 'initiate', 'rekey-child', 'rekey-ike', 'trafficstatus'."""
        return self._run('whack', '--ctlsocket', self.home / 'run/pluto.ctl', *(f'--{word}' for word in words))

    def initiate(self) -> None: self.whack('name=lab', 'initiate')

    def rekey_child(self) -> None: self.whack('name=lab', 'rekey-ipsec')

    def rekey_ike(self) -> None: self.whack('name=lab', 'rekey-ike')

    def terminate(self) -> None: self.whack('name=lab', 'terminate')

    def log(self) -> str:
        """Return what pluto has logged."""
        log = self.home / 'pluto.log'
        return log.read_text(errors='replace') if log.exists() else ''

    def stop(self) -> None:
        """End pluto, if it runs."""
        if self._pluto:
            self._pluto.terminate()
            self.said, _ = self._pluto.communicate(timeout=10)
        self._pluto = None


def dnskey(public: Path) -> str:
    """Return a public RSA key as RFC 3110 writes it, in base64."""
    numbers = load_pem_public_key(public.read_bytes()).public_numbers()
    exponent = numbers.e.to_bytes(-(-numbers.e.bit_length() // 8), 'big')
    modulus = numbers.n.to_bytes(-(-numbers.n.bit_length() // 8), 'big')
    return f'0s{b64encode(bytes([len(exponent)]) + exponent + modulus).decode()}'
