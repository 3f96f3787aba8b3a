"""Real flows between network namespaces, all at once, a thread each.

argv[1] is JSON: {"namespaces": {"near", "far", "beyond": name}, "addresses": {"4"|"6": {"near", "reach", "far",
"beyond"}}, "only": [names] or null, "hops": from `near` to `beyond`}. `near` is the machine whose rules are tried (or one behind it), `far` one hop
away, `beyond` one hop behind `far`. `reach` is the address by which `far` gets to `near`. Prints {name: outcome}:
`ok` when everything came as it would without any firewall, else what went wrong first.

Ports: 5000-5019 and 40000 are services of `near`, 6000-6019 of `far` and `beyond`; nobody listens on 5003 and 6099;
7000-7009 are bound at `near`, and no ruleset is to let anything in there; 40100-40109 are `near`'s own choice.
"""

import ctypes
import errno
import hashlib
import json
import os
import select
import socket
import struct
import sys
import threading
import time

SETUP = json.loads(sys.argv[1])
WAIT = 3.4  # seconds: two retransmissions of a SYN
CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)
IP_MTU_DISCOVER, IP_MTU, IP_RECVERR = 10, 14, 11
IPV6_MTU_DISCOVER, IPV6_MTU, IPV6_RECVERR = 23, 24, 25
SCENARIOS = {}


class Wrong(Exception):
    """What an outcome says."""


def scenario(*versions):
    def add(function):
        for version in versions or (4, 6):
            SCENARIOS[f"{function.__name__} {version}"] = (function, version)
        return function

    return add


class Net:
    """One scenario's view: sockets in any namespace, for one IP version."""

    def __init__(self, version):
        self.version = version
        self.family = socket.AF_INET if version == 4 else socket.AF_INET6
        self.level = socket.IPPROTO_IP if version == 4 else socket.IPPROTO_IPV6
        self.address = SETUP["addresses"][str(version)]
        self.open = []

    def pick(self, of4, of6):
        return of4 if self.version == 4 else of6

    def socket(self, where, kind=socket.SOCK_STREAM, protocol=0, port=None):
        with open(f"/run/netns/{SETUP['namespaces'][where]}") as netns:
            if LIBC.setns(netns.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
        made = socket.socket(self.family, kind, protocol)
        made.settimeout(WAIT)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.open.append(made)
        if port is not None:
            made.bind((self.address[where], port))
        return made

    def listen(self, where, port):
        made = self.socket(where, port=port)
        made.listen(8)
        return made

    def connect(self, where, to, port, source=None):
        made = self.socket(where, port=source)
        attempt("connect", made.connect, (to, port))
        return made

    def pair(self, inbound, port):
        """(far's end, near's end) of a connection opened by far (inbound) or by near."""
        server, client = ("near", "far") if inbound else ("far", "near")
        listener = self.listen(server, port)
        opened = self.connect(client, self.address["reach" if inbound else "far"], port)
        accepted = attempt("accept", listener.accept)[0]
        accepted.settimeout(WAIT)
        self.open.append(accepted)
        return (opened, accepted) if inbound else (accepted, opened)

    def udp(self, where, port=None):
        return self.socket(where, socket.SOCK_DGRAM, port=port)


def attempt(what, function, *args):
    try:
        return function(*args)
    except TimeoutError:
        raise Wrong(f"{what}: timeout")
    except OSError as error:
        raise Wrong(f"{what}: {errno.errorcode.get(error.errno, error.errno)}")


def content(size, seed):
    return hashlib.shake_128(str(seed).encode()).digest(size)


def read_exactly(end, size):
    data = b""
    while len(data) < size:
        part = attempt("read", end.recv, size - len(data))
        if not part:
            raise Wrong(f"read: end after {len(data)} of {size}")
        data += part
    return data


def pass_on(sender, receiver, size, seed):
    """Sends and receives at once; the bytes must be the same."""
    data = content(size, seed)
    failures = []

    def send():
        try:
            attempt("send", sender.sendall, data)
        except Wrong as wrong:
            failures.append(wrong)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        if read_exactly(receiver, size) != data:
            raise Wrong("other bytes arrived")
    finally:
        thread.join()
    if failures:
        raise failures[0]


def talk(far, near, rounds=4, size=9000):
    for turn in range(rounds):
        pass_on(far, near, size, (turn, "in"))
        pass_on(near, far, size, (turn, "out"))


def close_both(far, near):
    """An orderly end seen by both."""
    near.shutdown(socket.SHUT_WR)
    if attempt("end", far.recv, 1):
        raise Wrong("data behind the end")
    far.close()
    if attempt("end", near.recv, 1):
        raise Wrong("data behind the end")


def expect_error(what, expected, function, *args):
    try:
        function(*args)
    except TimeoutError:
        raise Wrong(f"{what}: timeout")
    except OSError as error:
        if error.errno == expected:
            return
        raise Wrong(f"{what}: {errno.errorcode.get(error.errno, error.errno)}")
    raise Wrong(f"{what}: no error")


# TCP


@scenario()
def tcp_in(net):
    far, near = net.pair(True, 5000)
    talk(far, near)
    close_both(far, near)


@scenario()
def tcp_out(net):
    far, near = net.pair(False, 6000)
    talk(far, near)
    close_both(far, near)


@scenario()
def tcp_in_high(net):
    """A service on a port that the machine also opens connections from."""
    talk(*net.pair(True, 40000))


def half_close(ender, other):
    """One side ends at once, the other goes on sending for a while."""
    ender.shutdown(socket.SHUT_WR)
    if attempt("end", other.recv, 1):
        raise Wrong("data behind the end")
    for turn in range(8):
        pass_on(other, ender, 3000, turn)
        time.sleep(0.1)
    other.close()
    if attempt("end", ender.recv, 1):
        raise Wrong("data behind the end")


@scenario()
def tcp_in_half_closed_by_far(net):
    half_close(*net.pair(True, 5001))


@scenario()
def tcp_in_half_closed_by_near(net):
    half_close(*reversed(net.pair(True, 5002)))


@scenario()
def tcp_out_half_closed_by_far(net):
    half_close(*net.pair(False, 6001))


@scenario()
def tcp_out_half_closed_by_near(net):
    half_close(*reversed(net.pair(False, 6002)))


def reset(far, near, resetter):
    talk(far, near, rounds=1, size=100)
    other = near if resetter is far else far
    resetter.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    resetter.close()
    expect_error("reset", errno.ECONNRESET, other.recv, 1)


@scenario()
def tcp_in_reset_by_far(net):
    far, near = net.pair(True, 5004)
    reset(far, near, far)


@scenario()
def tcp_in_reset_by_near(net):
    far, near = net.pair(True, 5005)
    reset(far, near, near)


@scenario()
def tcp_out_reset_by_far(net):
    far, near = net.pair(False, 6003)
    reset(far, near, far)


@scenario()
def tcp_out_reset_by_near(net):
    far, near = net.pair(False, 6004)
    reset(far, near, near)


@scenario()
def tcp_in_refused(net):
    client = net.socket("far")
    expect_error("connect", errno.ECONNREFUSED, client.connect, (net.address["reach"], 5003))


@scenario()
def tcp_in_rejected(net):
    """Rulesets may reject port 113."""
    client = net.socket("far")
    expect_error("connect", errno.ECONNREFUSED, client.connect, (net.address["reach"], 113))


@scenario()
def tcp_out_refused(net):
    client = net.socket("near")
    expect_error("connect", errno.ECONNREFUSED, client.connect, (net.address["far"], 6099))


def idle(far, near, keeper):
    """Keepalives alone keep it up: two that get no answer end the connection."""
    for option, value in ((4, 1), (5, 1), (6, 2)):  # TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT
        keeper.setsockopt(socket.IPPROTO_TCP, option, value)
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    talk(far, near, rounds=1)
    time.sleep(3.2)
    talk(far, near, rounds=2)
    close_both(far, near)


@scenario()
def tcp_in_idle(net):
    far, near = net.pair(True, 5006)
    idle(far, near, near)


@scenario()
def tcp_in_idle_watched_by_far(net):
    far, near = net.pair(True, 5007)
    idle(far, near, far)


@scenario()
def tcp_out_idle(net):
    far, near = net.pair(False, 6005)
    idle(far, near, near)


@scenario()
def tcp_out_idle_watched_by_far(net):
    far, near = net.pair(False, 6006)
    idle(far, near, far)


@scenario()
def tcp_in_lossy(net):
    """`far` loses some packets of ports 5010 and 6010 either way, the first SYN/ACK or SYN among them."""
    talk(*net.pair(True, 5010), rounds=2, size=6000)


@scenario()
def tcp_out_lossy(net):
    talk(*net.pair(False, 6010), rounds=2, size=6000)


@scenario()
def tcp_simultaneous_open(net):
    """`far` never sees SYNs to port 6011; its own SYN meets `near`'s half-open connection."""
    near = net.socket("near", port=40100)
    near.setblocking(False)
    near.connect_ex((net.address["far"], 6011))
    far = net.socket("far", port=6011)
    attempt("connect", far.connect, (net.address["reach"], 40100))
    near.settimeout(WAIT)
    talk(far, near, rounds=1)


@scenario()
def tcp_out_path_mtu(net):
    """The path behind `far` takes 1400 bytes, and both ends would send 1500."""
    listener = net.listen("beyond", 6012)
    near = net.connect("near", net.address["beyond"], 6012)
    beyond = attempt("accept", listener.accept)[0]
    net.open.append(beyond)
    beyond.settimeout(WAIT)
    talk(beyond, near, rounds=1, size=30000)
    option = net.pick(IP_MTU, IPV6_MTU)
    if near.getsockopt(net.level, option) != 1400:
        raise Wrong("the path's MTU was not learnt")


# UDP


def ask(asker, to, server, rounds=3, size=600, pause=0.0):
    for turn in range(rounds):
        question, answer = content(size, (turn, "?")), content(size, (turn, "!"))
        attempt("ask", asker.sendto, question, to)
        got, back = attempt("question", server.recvfrom, 65535)
        if got != question:
            raise Wrong("other bytes arrived")
        attempt("answer", server.sendto, answer, back)
        if attempt("reply", asker.recvfrom, 65535)[0] != answer:
            raise Wrong("other bytes came back")
        time.sleep(pause)


@scenario()
def udp_in(net):
    ask(net.udp("far"), (net.address["reach"], 5000), net.udp("near", 5000))


@scenario()
def udp_out(net):
    ask(net.udp("near"), (net.address["far"], 6000), net.udp("far", 6000), pause=0.4)


@scenario()
def udp_out_connected(net):
    near, far = net.udp("near"), net.udp("far", 6001)
    near.connect((net.address["far"], 6001))
    attempt("ask", near.send, b"who")
    back = attempt("question", far.recvfrom, 100)[1]
    for turn in range(4):  # and more comes unasked
        far.sendto(b"%d" % turn, back)
        if attempt("reply", near.recv, 100) != b"%d" % turn:
            raise Wrong("other bytes came back")
        time.sleep(0.3)


@scenario()
def udp_out_from_123(net):
    ask(net.udp("near", 123), (net.address["far"], 6002), net.udp("far", 6002))


@scenario()
def udp_in_fragments(net):
    ask(net.udp("far"), (net.address["reach"], 5001), net.udp("near", 5001), size=4000)


@scenario()
def udp_out_fragments(net):
    ask(net.udp("near"), (net.address["far"], 6003), net.udp("far", 6003), size=4000)


@scenario()
def udp_in_unreachable(net):
    far = net.udp("far")
    far.connect((net.address["reach"], 5003))
    far.send(b"anyone?")
    expect_error("reply", errno.ECONNREFUSED, far.recv, 100)


@scenario()
def udp_out_unreachable(net):
    near = net.udp("near")
    near.connect((net.address["far"], 6099))
    near.send(b"anyone?")
    expect_error("reply", errno.ECONNREFUSED, near.recv, 100)


@scenario()
def udp_out_path_mtu(net):
    near = net.udp("near")
    near.setsockopt(net.level, net.pick(IP_MTU_DISCOVER, IPV6_MTU_DISCOVER), 2)  # PMTUDISC_DO
    server = net.socket("beyond", socket.SOCK_DGRAM)
    other = net.address["beyond"][:-1] + "3"  # TCP has learnt the MTU to the first address
    server.bind((other, 6013))
    near.connect((other, 6013))
    deadline = time.monotonic() + WAIT
    attempt("send", near.send, bytes(1440))
    while near.getsockopt(net.level, net.pick(IP_MTU, IPV6_MTU)) != 1400:
        if time.monotonic() > deadline:
            raise Wrong("the path's MTU was not learnt")
        time.sleep(0.05)
    near.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # EMSGSIZE, from the router's answer
    attempt("send", near.send, bytes(1300))
    if len(attempt("read", server.recv, 2000)) != 1300:
        raise Wrong("other bytes arrived")


# ICMP


@scenario()
def traceroute_out(net):
    """Time exceeded from every hop on the way, port unreachable from the last one."""
    near = net.udp("near")
    near.setsockopt(net.level, net.pick(IP_RECVERR, IPV6_RECVERR), 1)
    hops = net.pick(socket.IP_TTL, socket.IPV6_UNICAST_HOPS)
    path = []
    for limit in range(1, SETUP["hops"] + 1):
        near.setsockopt(net.level, hops, limit)
        near.sendto(b"where", (net.address["beyond"], 6098))
        if not select.select([near], [], [], WAIT)[0]:  # POLLERR counts as readable
            raise Wrong(f"hop {limit}: timeout")
        for _, _, data in near.recvmsg(100, 500, socket.MSG_ERRQUEUE)[1]:
            path.append(tuple(data[5:7]))  # sock_extended_err: type, code (linux/errqueue.h)
    exceeded, unreachable = net.pick(((11, 0), (3, 3)), ((3, 0), (1, 4)))
    if path != [exceeded] * (SETUP["hops"] - 1) + [unreachable]:
        raise Wrong(f"other answers: {path}")


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def echo(net, where, to, number):
    kind = net.pick(socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6)
    request, reply = net.pick((8, 0), (128, 129))
    pinger = net.socket(where, socket.SOCK_RAW, kind)
    for turn in range(3):
        message = struct.pack("!BBHHH", request, 0, 0, number, turn) + b"echo"
        if net.version == 4:
            message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
        attempt("ping", pinger.sendto, message, (to, 0))
        deadline = time.monotonic() + WAIT
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([pinger], [], [], left)[0]:
                raise Wrong("reply: timeout")
            data = pinger.recv(2000)
            data = data[20:] if net.version == 4 else data
            if data[0] == reply and struct.unpack("!HH", data[4:8]) == (number, turn):
                break


@scenario()
def echo_in(net):
    echo(net, "far", net.address["reach"], 0x1111)


@scenario()
def echo_out(net):
    echo(net, "near", net.address["far"], 0x2222)


# Helpers and expectations


@scenario(4)
def ftp_active(net):
    """The client says where it waits; the server's connection from port 20 is `related`."""
    listener = net.listen("far", 21)
    near = net.connect("near", net.address["far"], 21)
    control = attempt("accept", listener.accept)[0]
    net.open.append(control)
    waiting = net.listen("near", 40101)
    where = ",".join(net.address["near"].split(".") + [str(40101 >> 8), str(40101 & 255)])
    control.settimeout(WAIT)
    for line in ("USER anonymous", f"PORT {where}"):  # the helper looks behind the first line's end
        attempt("command", near.sendall, f"{line}\r\n".encode())
        said = attempt("command", control.recv, 100).decode().strip()
    numbers = said.removeprefix("PORT ").split(",")  # NAT writes another address, perhaps another port
    to = (".".join(numbers[:4]), int(numbers[4]) * 256 + int(numbers[5]))
    far = net.socket("far", port=20)
    attempt("data", far.connect, to)
    data = attempt("data", waiting.accept)[0]
    data.settimeout(WAIT)
    net.open.append(data)
    talk(far, data, rounds=1)


@scenario(4)
def expected_in(net):
    """A connection to port 6014 makes one back, to port 40102, `related`."""
    first = net.pair(False, 6014)
    talk(*first, rounds=1, size=100)
    talk(*net.pair(True, 40102), rounds=1)


# What nobody asked for


@scenario()
def unsolicited_tcp(net):
    """No ruleset lets these in; listeners would answer. `ok` means that they got nothing."""
    for port in range(7000, 7010):
        net.listen("near", port)
    probes = [net.socket("far") for _ in range(10)]
    for port, probe in enumerate(probes, 7000):
        probe.setblocking(False)
        probe.connect_ex((net.address["reach"], port))
    answered = select.select([], probes, [], 2)[1]
    if answered:
        raise Wrong(f"{len(answered)} answered")


@scenario()
def unsolicited_udp(net):
    bound = [net.udp("near", port) for port in range(7000, 7010)]
    far = net.udp("far")
    for port in range(7000, 7010):
        far.sendto(b"hello", (net.address["reach"], port))
    heard = select.select(bound, [], [], 2)[0]
    if heard:
        raise Wrong(f"{len(heard)} heard it")


@scenario(4)
def stray_segments(net):
    """ACK, SYN/ACK, RST, FIN and nothing at all to closed ports: no answer."""
    far = net.socket("far", socket.SOCK_RAW, socket.IPPROTO_TCP)
    source, target = net.address["far"], net.address["reach"]
    addresses = socket.inet_aton(source) + socket.inet_aton(target)
    for flags in (0x10, 0x12, 0x04, 0x11, 0x00):
        head = struct.pack("!HHIIBBHHH", 6050, 7500, 1, 1, 5 << 4, flags, 1024, 0, 0)
        total = checksum(addresses + struct.pack("!HH", 6, 20) + head)
        far.sendto(head[:16] + struct.pack("!H", total) + head[18:], (target, 0))
    deadline = time.monotonic() + 1
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([far], [], [], left)[0]:
            break
        data = far.recv(2000)
        if data[9] == 6 and struct.unpack("!HH", data[20:24]) == (7500, 6050):
            raise Wrong("answered")


def run(name, outcomes):
    function, version = SCENARIOS[name]
    net = Net(version)
    try:
        function(net)
        outcomes[name] = "ok"
    except Wrong as wrong:
        outcomes[name] = str(wrong)
    except Exception as error:  # a fault of the scenario itself: said, never equal to `ok`
        outcomes[name] = f"{type(error).__name__}: {error}"
    finally:
        for made in net.open:
            made.close()


def hold():
    """One connection from `far` to port 5000, kept; one exchange, and its outcome, for every line of input."""
    far, near = Net(4).pair(True, 5000)
    print("ready", flush=True)
    for _ in sys.stdin:
        try:
            talk(far, near, rounds=1, size=100)
            print("ok", flush=True)
        except Wrong as wrong:
            print(wrong, flush=True)


def main():
    if SETUP.get("hold"):
        return hold()
    names = [name for name in SCENARIOS if SETUP["only"] is None or name.split()[0] in SETUP["only"]]
    outcomes = {}
    threads = [threading.Thread(target=run, args=(name, outcomes)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({name: outcomes[name] for name in names}))


main()
