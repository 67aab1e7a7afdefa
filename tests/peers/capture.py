"""Write what passes an interface to a pcap file: Lab.capture runs this in the left namespace."""
import select
import socket
import struct
import sys
import time
from pathlib import Path


def record(interface: str, path: str, which: str = 'all') -> None:
    """Write what passes an interface to a pcap file, until stdin is closed and nothing is left to read.

    With 'outgoing' only what leaves: what arrives through a tunnel is seen twice, once in the clear."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as frames, Path(path).open('wb') as pcap:
        frames.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        frames.bind((interface, 3))  # from here on every protocol (ETH_P_ALL), of no other interface
        pcap.write(struct.pack('<IHHiIII', 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        print('listening', flush=True)
        while frames in select.select([frames, sys.stdin], [], [])[0]:
            (frame, (_, _, kind, *_)), now = frames.recvfrom(65535), time.time()
            if which == 'outgoing' and kind != socket.PACKET_OUTGOING: continue
            pcap.write(struct.pack('<IIII', int(now), int(now % 1 * 1e6), len(frame), len(frame)) + frame)
        _, lost = struct.unpack('II', frames.getsockopt(263, 6, 8))  # SOL_PACKET, PACKET_STATISTICS
    if lost:
        sys.exit(f'{lost} frames came too fast')


if __name__ == '__main__':
    record(*sys.argv[1:])
