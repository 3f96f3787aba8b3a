#!/usr/bin/env python3
"""Captures what a classic BPF program selects: capture.py DEVICE PROGRAM [COUNT] | tcpdump -n -r -

PROGRAM is a file that `nft-offload compile --target cbpf` wrote (format ddd), made with `--dialect linux`
where tags matter. Needs root or CAP_NET_RAW; ends after COUNT packets.
"""
import ctypes
import socket
import struct
import sys
import time

SO_ATTACH_FILTER = 26  # include/uapi/asm-generic/socket.h
ETH_P_ALL = 3  # include/uapi/linux/if_ether.h
LINKTYPE_ETHERNET = 1  # pcap's file header


def attach(sock, path):
    """setsockopt() with struct sock_fprog: how many instructions, and where they are."""
    with open(path) as file:
        count, *rows = file.read().strip().split("\n")
    insns = b"".join(struct.pack("HBBI", *map(int, row.split())) for row in rows)
    buffer = ctypes.create_string_buffer(insns)
    program = struct.pack("HP", int(count), ctypes.addressof(buffer))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


def main():
    device, path, count = (sys.argv[1:] + ["0"])[:3]
    out = sys.stdout.buffer
    # Without a protocol nothing comes in before the filter is there.
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    attach(sock, path)
    sock.bind((device, ETH_P_ALL))
    out.write(struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, LINKTYPE_ETHERNET))
    out.flush()
    left = int(count)
    while True:
        frame = sock.recv(262144)
        now = time.time()
        head = struct.pack("=IIII", int(now), int(now % 1 * 1e6), len(frame), len(frame))
        out.write(head + frame)
        out.flush()
        left -= 1
        if left == 0:
            return


if __name__ == "__main__":
    try:
        main()
    except (BrokenPipeError, KeyboardInterrupt):
        pass
