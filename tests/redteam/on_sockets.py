"""Attacks over sockets: the guest agent's and the daemon's own, the network, the host behind the VM."""

from __future__ import annotations

import array
import ctypes
import os
import socket
import stat

from tests.redteam.catalogue import attack
from tests.redteam.kernel import Absent, call, call_number, number, run_machine_code

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tests.redteam.catalogue import World

AGENT = "Call the guest agent or any other Unix socket by its path"
PROC = "Reach such a socket through `/proc/PID/root` or `/proc/self/cwd`"
DATAGRAM = "Send datagrams to a Unix socket, also from a pair that is addressed anew"
ABSTRACT = "Connect to abstract Unix sockets"
NETWORK = "TCP and UDP, IPv4 and IPv6, on loopback"
FAMILIES = "Sockets of other families: vsock, netlink, packet, raw, ping, XDP, ALG, RxRPC"
ENTRIES = "System calls past the filter: io_uring, the i386 entry, x32, a 32-bit program"


def _connects(path: str, kind: int = socket.SOCK_STREAM) -> bool:
    """Connect by a path of any length, as far as a directory can be entered."""
    with socket.socket(socket.AF_UNIX, kind) as one:
        os.chdir(os.path.dirname(path) or "/")
        one.connect(os.path.basename(path))
    return True


@attack(AGENT)
def agent_socket(world: World) -> bool:
    return _connects(world["agent"])


@attack(AGENT)
def other_agent_sockets(world: World) -> bool:
    for path in world["other_agents"]:
        try:
            return _connects(path)
        except OSError as exc:
            error = exc
    raise error


@attack(AGENT)
def daemon_socket(world: World) -> bool:
    return _connects(world["daemon_socket"])


@attack(AGENT)
def seqpacket_socket(world: World) -> bool:
    return _connects(world["seqpacket"], socket.SOCK_SEQPACKET)


@attack(AGENT)
def socket_without_libc(world: World) -> bool:
    """The same with raw system calls."""
    family = array.array("H", [socket.AF_UNIX]).tobytes()
    descriptor = call("socket", socket.AF_UNIX, socket.SOCK_STREAM, 0)
    address = family + world["agent"].encode() + b"\0"
    return call("connect", descriptor, address, len(address)) == 0


@attack(AGENT)
def any_socket_found(world: World) -> bool:
    """Look for sockets where they usually lie, and connect to any."""
    for top in ("/run", "/var/run", "/var/lib", "/tmp", "/dev", "/work", "/mnt", "/srv", world["directory"]):
        for directory, names, files in os.walk(top):
            if directory.count("/") > top.count("/") + 1:
                names.clear()
            for name in files:
                path = f"{directory}/{name}"
                try:
                    if stat.S_ISSOCK(os.lstat(path).st_mode) and _connects(path):
                        return True
                except OSError:
                    continue
    return False


@attack(AGENT)
def listen_for_others(world: World) -> bool:
    """Offer a socket of its own to the host."""
    os.chdir(world["drop"])
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("listener")
        one.listen()
    return True


@attack(PROC)
def socket_through_victim_root(world: World) -> bool:
    return _connects(f"/proc/{world['victim']}/root{world['agent']}")


@attack(PROC, as_root=True, absent=(13,))
def socket_through_init_root(world: World) -> bool:
    return _connects(f"/proc/1/root{world['agent']}")


@attack(PROC)
def socket_through_own_root(world: World) -> bool:
    return _connects(f"/proc/self/root{world['agent']}")


@attack(PROC)
def socket_through_cwd(world: World) -> bool:
    return _connects("/proc/self/cwd/" + "../" * 16 + world["agent"][1:])


@attack(DATAGRAM)
def datagram_sendto(world: World) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        return one.sendto(b"sendto", world["datagram"]) > 0


@attack(DATAGRAM)
def datagram_pair_sendto(world: World) -> bool:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, right:
        return left.sendto(b"pair", world["datagram"]) > 0


@attack(DATAGRAM)
def datagram_pair_sendmsg(world: World) -> bool:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, right:
        return left.sendmsg([b"sendmsg"], [], 0, world["datagram"]) > 0


@attack(DATAGRAM)
def datagram_pair_connect(world: World) -> bool:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, right:
        left.connect(world["datagram"])
        return left.send(b"connect") > 0


@attack(ABSTRACT)
def abstract_stream(world: World) -> bool:
    with socket.socket(socket.AF_UNIX) as one:
        one.connect("\0" + world["abstract"])
    return True


@attack(ABSTRACT)
def abstract_datagram(world: World) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        return one.sendto(b"abstract", "\0" + world["abstract_datagram"]) > 0


@attack(NETWORK)
def tcp_loopback(world: World) -> bool:
    with socket.create_connection(("127.0.0.1", world["tcp"]), 2):
        return True


@attack(NETWORK)
def tcp_loopback_v6(world: World) -> bool:
    if not world["tcp6"]:
        raise Absent("no IPv6")
    with socket.create_connection(("::1", world["tcp6"]), 2):
        return True


@attack(NETWORK)
def udp_loopback(world: World) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        # Port numbers without a listener take datagrams, too; a connected socket hears of it.
        one.settimeout(2)
        one.sendto(b"ping", ("127.0.0.1", world["udp"]))
        return one.recv(4) == b"pong"


@attack(NETWORK)
def tcp_listener(world: World) -> bool:
    """Wait for connections of the host's processes."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", world["free_tcp"]))
        one.listen()
        # Only the host's own loopback knows the other port as taken.
        with socket.socket() as other:
            try:
                other.bind(("127.0.0.1", world["tcp"]))
            except OSError:
                return True
    return False


def _opens(family: int, kind: int, protocol: int = 0) -> bool:
    descriptor = call("socket", family, kind, protocol)
    os.close(descriptor)
    return True


# EPROTONOSUPPORT, ESOCKTNOSUPPORT, EAFNOSUPPORT
UNSUPPORTED = (93, 94, 97)


@attack(FAMILIES, absent=UNSUPPORTED)
def vsock(world: World) -> bool:
    """The way out of a confidential VM to the host that it does not trust."""
    return _opens(40, socket.SOCK_STREAM)


@attack(FAMILIES, absent=UNSUPPORTED)
def netlink(world: World) -> bool:
    return _opens(16, socket.SOCK_RAW)


@attack(FAMILIES, as_root=True, absent=UNSUPPORTED)
def packet(world: World) -> bool:
    return _opens(17, socket.SOCK_RAW, 0x0300)


@attack(FAMILIES, absent=UNSUPPORTED)
def alg(world: World) -> bool:
    return _opens(38, socket.SOCK_SEQPACKET)


@attack(FAMILIES, absent=UNSUPPORTED)
def rxrpc(world: World) -> bool:
    return _opens(33, socket.SOCK_DGRAM, socket.AF_INET)


@attack(FAMILIES, as_root=True, absent=UNSUPPORTED)
def xdp(world: World) -> bool:
    return _opens(44, socket.SOCK_RAW)


@attack(FAMILIES, as_root=True)
def raw_icmp(world: World) -> bool:
    return _opens(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)


@attack(FAMILIES, as_root=True, absent=(13,))
def ping_socket(world: World) -> bool:
    return _opens(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)


@attack(FAMILIES)
def any_other_family(world: World) -> bool:
    """Every number that a family can have, in every kind; AF_UNIX alone may be had."""
    for family in range(2, 64):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
            try:
                return _opens(family, kind)
            except OSError:
                continue
    return False


@attack(FAMILIES)
def pair_of_another_family(world: World) -> bool:
    """AF_TIPC and AF_SMC could make pairs; a kernel that looks at them says something else than the sandbox."""
    pair = ctypes.create_string_buffer(8)
    try:
        call("socketpair", socket.AF_INET, socket.SOCK_STREAM, 0, pair)
    except OSError as exc:
        return exc.errno == 95  # EOPNOTSUPP: the socket was made, only the pair was not
    return True


@attack(ENTRIES)
def io_uring(world: World) -> bool:
    params = ctypes.create_string_buffer(256)
    return call("io_uring_setup", 1, params) >= 0


@attack(ENTRIES)
def i386_entry(world: World) -> bool:
    """socket(AF_INET, SOCK_STREAM, 0) by ``int 0x80``, where the numbers are other ones."""
    code = bytes.fromhex("53 b867010000 bb02000000 b901000000 31d2 cd80 5b c3".replace(" ", ""))
    return run_machine_code(code) >= 0


@attack(ENTRIES, absent=(38,))
def x32_entry(world: World) -> bool:
    return call_number(0x40000000 | number("socket"), socket.AF_INET, socket.SOCK_STREAM, 0) >= 0


@attack(ENTRIES)
def program_of_32_bits(world: World) -> bool:
    """A static i386 program that calls ``socketcall``, made of 84 bytes of headers and a little code."""
    number("socket")  # only on x86-64
    base = 0x08048000
    code_at = 84
    code = bytes.fromhex(
        "b866000000"  # mov eax, 102 (socketcall)
        "bb01000000"  # mov ebx, 1 (SYS_SOCKET)
        "b9" + (base + code_at + 37).to_bytes(4, "little").hex() +  # mov ecx, its three words
        "cd80"  # int 0x80
        "c1e81f"  # shr eax, 31
        "83c02a"  # add eax, 42
        "89c3"  # mov ebx, eax
        "b801000000"  # mov eax, 1 (exit)
        "cd80"  # int 0x80
        + "90" * 5
    )  # fmt: skip
    assert len(code) == 37, len(code)
    image = code + b"".join(word.to_bytes(4, "little") for word in (socket.AF_INET, socket.SOCK_STREAM, 0))
    size = code_at + len(image)
    words = [
        b"\x7fELF\x01\x01\x01" + bytes(9),
        b"\x02\0\x03\0\x01\0\0\0",
        *(word.to_bytes(4, "little") for word in (base + code_at, 52, 0, 0)),
        b"\x34\0\x20\0\x01\0\0\0\0\0\0\0",
        *(word.to_bytes(4, "little") for word in (1, 0, base, base, size, size, 5, 4096)),
    ]
    descriptor = os.memfd_create("elf", 0)
    os.write(descriptor, b"".join(words) + image)
    child = os.fork()
    if child == 0:
        try:
            os.execve(descriptor, ["elf"], {})
        finally:
            os._exit(43)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
