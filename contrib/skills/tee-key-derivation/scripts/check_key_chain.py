#!/usr/bin/env python3
"""
Verify the signature chain of a key that dstack derived: key <- app key <- KMS root key.

Reads JSON from FILE or standard input: a reply of Sign as it is, or for GetKey
``{"public_key": HEX, "signature_chain": [HEX, HEX]}``, the public key computed where the private key lives.
A reply that still holds the private ``key`` is refused.

    check_key_chain.py --purpose signing --app-id HEX --kms-root HEX sign-reply.json
    check_key_chain.py --purpose db-encryption < key-chain.json

Without --app-id the KMS signature cannot be checked; without --kms-root the root key is only printed. With
--app-key the chain may end at an app key that is already known, as it must where no KMS signs.

Exit codes: 0 no link failed, 1 a link failed, 2 the input or the call is wrong.

Only public data is handled, so the arithmetic need not run in constant time.

Source: dstack guest-agent get_key() and kms sign_message(); SEC 1 version 2, section 4.1.6 (key recovery);
the Keccak reference, with Ethereum's padding byte 0x01.
"""

import argparse
import json
import signal
import sys

# --- keccak-256 ---------------------------------------------------------------------------------------

MASK = 2**64 - 1
RATE_BYTES = 136


def round_constants() -> list[int]:
    """The 24 constants of Keccak-f[1600], from the linear feedback register that defines them."""
    constants, register = [], 1
    for _ in range(24):
        constant = 0
        for bit in range(7):
            if register & 1:
                constant |= 1 << ((1 << bit) - 1)
            register = (register << 1) ^ (0x171 if register & 0x80 else 0)
        constants.append(constant)
    return constants


ROUND_CONSTANTS = round_constants()


def rotate(value: int, count: int) -> int:
    return ((value << count) | (value >> (64 - count))) & MASK if count else value


def permute(lanes: list[list[int]]) -> None:
    """Keccak-f[1600] in place; ``lanes[x][y]``."""
    for constant in ROUND_CONSTANTS:
        columns = [lanes[x][0] ^ lanes[x][1] ^ lanes[x][2] ^ lanes[x][3] ^ lanes[x][4] for x in range(5)]
        for x in range(5):
            mix = columns[x - 1] ^ rotate(columns[(x + 1) % 5], 1)
            for y in range(5):
                lanes[x][y] ^= mix
        x, y, current = 1, 0, lanes[1][0]
        for step in range(24):
            x, y = y, (2 * x + 3 * y) % 5
            current, lanes[x][y] = lanes[x][y], rotate(current, (step + 1) * (step + 2) // 2 % 64)
        for y in range(5):
            row = [lanes[x][y] for x in range(5)]
            for x in range(5):
                lanes[x][y] = row[x] ^ (~row[(x + 1) % 5] & row[(x + 2) % 5] & MASK)
        lanes[0][0] ^= constant


def keccak256(data: bytes) -> bytes:
    padded = bytearray(data) + b"\x01" + bytes(-(len(data) + 1) % RATE_BYTES)
    padded[-1] |= 0x80
    lanes = [[0] * 5 for _ in range(5)]
    for block in range(0, len(padded), RATE_BYTES):
        for lane in range(RATE_BYTES // 8):
            at = block + 8 * lane
            lanes[lane % 5][lane // 5] ^= int.from_bytes(padded[at : at + 8], "little")
        permute(lanes)
    return b"".join(lanes[lane][0].to_bytes(8, "little") for lane in range(4))


# --- secp256k1 ----------------------------------------------------------------------------------------

P = 2**256 - 2**32 - 977
N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
G = (
    0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
    0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8,
)


def add(a: tuple[int, int] | None, b: tuple[int, int] | None) -> tuple[int, int] | None:
    """Sum of two points; None is the point at infinity."""
    if a is None or b is None:
        return b if a is None else a
    if a[0] == b[0]:
        if (a[1] + b[1]) % P == 0:
            return None
        slope = 3 * a[0] * a[0] * pow(2 * a[1], -1, P)
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, P)
    x = (slope * slope - a[0] - b[0]) % P
    return x, (slope * (a[0] - x) - a[1]) % P


def multiply(k: int, point: tuple[int, int] | None) -> tuple[int, int] | None:
    result = None
    while k:
        if k & 1:
            result = add(result, point)
        point = add(point, point)
        k >>= 1
    return result


def lift(x: int, odd: int) -> tuple[int, int] | None:
    """The point with this x and this parity of y, or None if x is not on the curve."""
    y = pow((x * x * x + 7) % P, (P + 1) // 4, P)
    if x >= P or (y * y - x * x * x - 7) % P:
        return None
    return x, y if y % 2 == odd else P - y


def compress(point: tuple[int, int]) -> bytes:
    return bytes([2 + point[1] % 2]) + point[0].to_bytes(32, "big")


def recover(digest: bytes, signature: bytes) -> bytes | None:
    """Compressed public key that made this 65-byte signature (r, s, recovery id), or None."""
    r, s, v = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big"), signature[64]
    # Ethereum's tools add 27 to the recovery id.
    v = v - 27 if v in (27, 28) else v
    if not (0 < r < N and 0 < s < N and v < 4):
        return None
    point = lift(r + N * (v >> 1), v & 1)
    if point is None:
        return None
    inverse, e = pow(r, -1, N), int.from_bytes(digest, "big")
    key = add(multiply(s * inverse % N, point), multiply(-e * inverse % N, G))
    return compress(key) if key else None


# --- the chain ----------------------------------------------------------------------------------------


class InputError(Exception):
    """The input cannot be checked; the message says why."""


def unhex(text: object, what: str) -> bytes:
    try:
        return bytes.fromhex(text.removeprefix("0x"))
    except (ValueError, AttributeError):
        raise InputError(f"{what}: not a hex string") from None


def parse_point(text: str, what: str) -> bytes:
    """A secp256k1 public key, compressed or not, as its 33 compressed bytes. Raises InputError."""
    data = unhex(text, what)
    if len(data) in (64, 65):
        data = data[-64:]
        data = compress((int.from_bytes(data[:32], "big"), int.from_bytes(data[32:], "big")))
    if len(data) != 33 or data[0] not in (2, 3) or lift(int.from_bytes(data[1:], "big"), data[0] & 1) is None:
        raise InputError(f"{what}: not a secp256k1 public key")
    return data


def check(
    reply: dict, purpose: str, app_id: bytes | None, kms_root: bytes | None, known_app_key: bytes | None
) -> list[tuple[str, str, str]]:
    """Each link as (verdict, subject, text). Raises InputError."""
    if "key" in reply:
        raise InputError("the input holds a private key: send only 'public_key' and 'signature_chain'")
    public_key = unhex(reply.get("public_key"), "public_key")
    if len(public_key) not in (32, 33):
        raise InputError(f"public_key: {len(public_key)} bytes; expected 33 (secp256k1) or 32 (ed25519)")
    chain = reply.get("signature_chain")
    if not isinstance(chain, list) or len(chain) not in (2, 3):
        raise InputError("signature_chain: expected a list of 2 (GetKey) or 3 (Sign) hex strings")
    signatures = [unhex(item, f"signature_chain[{index}]") for index, item in enumerate(chain)]
    lines = []
    if len(signatures) == 3:
        if "signature" in reply:
            same = signatures[0] == unhex(reply["signature"], "signature")
            lines.append(
                (
                    "PASS" if same else "FAIL",
                    "signature",
                    "is the first link" if same else "is NOT the first link",
                )
            )
        lines.append(("OPEN", "signature", "over the data: not checked here, use Verify"))
    app_signature, kms_signature = signatures[-2:]

    if len(app_signature) != 65:
        raise InputError(f"app signature: {len(app_signature)} bytes, expected 65")
    app_key = recover(keccak256(f"{purpose}:{public_key.hex()}".encode()), app_signature)
    if app_key is None:
        return [*lines, ("FAIL", "app key", "the signature is none of secp256k1")]
    # Any signature recovers to *some* key: only the next link, or a known app key, gives this one a meaning.
    if known_app_key is None:
        lines.append(("NOTE", "app key", app_key.hex()))
    elif known_app_key == app_key:
        lines.append(("PASS", "app key", f"{app_key.hex()} signed this public key"))
    else:
        lines.append(("FAIL", "app key", f"recovered {app_key.hex()}: wrong purpose, public key or app"))

    if not kms_signature:
        lines.append(
            ("FAIL" if kms_root else "OPEN", "KMS", "no signature: the key provider is local, tpm or none")
        )
        return lines
    if len(kms_signature) != 65:
        raise InputError(f"KMS signature: {len(kms_signature)} bytes, expected 65")
    if app_id is None:
        lines.append(("OPEN", "KMS", "not checked: give --app-id"))
        return lines
    root = recover(keccak256(b"dstack-kms-issued:" + app_id + app_key), kms_signature)
    if root is None:
        lines.append(("FAIL", "KMS root", "the signature is none of secp256k1"))
    elif kms_root is None:
        lines.append(("OPEN", "KMS root", f"{root.hex()}: compare with the key of the KMS that you trust"))
    elif root == kms_root:
        lines.append(("PASS", "KMS root", f"{root.hex()} issued the app key of app {app_id.hex()}"))
    else:
        lines.append(
            ("FAIL", "KMS root", f"recovered {root.hex()}: wrong purpose, app id, public key or KMS")
        )
    return lines


def main() -> int:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    parser = argparse.ArgumentParser(description="Verify the signature chain of a key that dstack derived.")
    parser.add_argument("file", nargs="?", default="-", help="JSON reply; default: standard input")
    parser.add_argument("--purpose", default="signing", help="purpose given to GetKey; Sign uses 'signing'")
    parser.add_argument("--app-id", metavar="HEX", help="20 bytes, from a verified attestation")
    parser.add_argument(
        "--app-key", metavar="HEX", help="secp256k1 key of the app, from an earlier verified chain"
    )
    parser.add_argument("--kms-root", metavar="HEX", help="secp256k1 root key of the KMS that you trust")
    args = parser.parse_args()
    try:
        app_id = None if args.app_id is None else unhex(args.app_id, "--app-id")
        if app_id is not None and len(app_id) != 20:
            raise InputError(f"--app-id: {len(app_id)} bytes, expected 20")
        kms_root = None if args.kms_root is None else parse_point(args.kms_root, "--kms-root")
        app_key = None if args.app_key is None else parse_point(args.app_key, "--app-key")
        if kms_root is not None and app_id is None:
            raise InputError("--kms-root needs --app-id: the KMS signs both together")
        if args.file == "-":
            data = sys.stdin.buffer.read()
        else:
            with open(args.file, "rb") as file:
                data = file.read()
        if not data.strip():
            raise InputError("the input is empty")
        try:
            reply = json.loads(data)
        except (ValueError, RecursionError):
            raise InputError("the input is not JSON") from None
        if isinstance(reply, dict) and isinstance(reply.get("result"), dict):
            reply = reply["result"]
        if not isinstance(reply, dict):
            raise InputError("expected a JSON object")
        lines = check(reply, args.purpose, app_id, kms_root, app_key)
    except OSError as exc:
        print(f"check_key_chain.py: {args.file}: {exc.strerror}", file=sys.stderr)
        return 2
    except InputError as exc:
        print(f"check_key_chain.py: {exc}", file=sys.stderr)
        return 2
    for verdict, subject, text in lines:
        print(f"{verdict}  {subject:<9} {text}")
    return 1 if any(line[0] == "FAIL" for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
