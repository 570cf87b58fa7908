#!/usr/bin/env python3
"""
Call a JSON-RPC or HTTP service on a Unix socket, where curl or socat are not at hand.

    usock.py /run/skilld.sock rpc skills.search '{"query": "csv"}'
    usock.py /run/skilld.sock get '/skills?limit=5'
    usock.py /run/dstack.sock post /GetQuote '{"report_data": "c0ffee"}'
    usock.py /tmp/echo.sock serve                 an echo server, to try a client against
    usock.py --self-test                          server and client in one process

The last argument may be - to read it from standard input. The reply goes to standard output, the reason for
its absence to standard error.

Exit codes: 0 answered, 1 the service answered with an error, 2 wrong call, 3 no answer (not reachable,
time-out, broken reply).
"""

import argparse
import errno
import http.client
import json
import os
import signal
import socket
import socketserver
import stat
import sys
import tempfile
import threading

# Longest path that fits into sockaddr_un with its final NUL, see unix(7).
LIMIT_PATH_BYTES = 107
LIMIT_REPLY_BYTES = 64 * 1024 * 1024


class NoAnswer(Exception):
    """The service could not be reached or did not reply properly; the message says why and what to try."""


class ServiceError(Exception):
    """The service replied, with an error."""


# --- connecting ---------------------------------------------------------------------------------------


def explain(path: str, exc: OSError) -> str:
    """What a failed connect() means for a Unix socket, in one line."""
    if isinstance(exc, TimeoutError):
        return f"{path}: no answer in time: the service is busy or hangs"
    if exc.errno == errno.ENOENT:
        return f"{path}: does not exist: service not started, other path, or not mounted into this container"
    if exc.errno == errno.EACCES:
        return f"{path}: no permission: wants write access to the socket and search access to its directories"
    if exc.errno == errno.ECONNREFUSED:
        is_socket = os.path.exists(path) and stat.S_ISSOCK(os.stat(path).st_mode)
        if not is_socket:
            return f"{path}: not a socket (a bind mount of a missing socket makes a directory)"
        return f"{path}: nobody listens: the service died, or this is a bind mount of an older socket"
    if exc.errno == errno.EPROTOTYPE:
        return f"{path}: is a datagram or seqpacket socket, not a stream"
    if exc.errno == errno.EAGAIN:
        return f"{path}: the queue of waiting connections is full"
    return f"{path}: {exc.strerror or exc}"


def connect(path: str, timeout_s: float) -> socket.socket:
    """A connected stream socket. Raises NoAnswer."""
    if len(os.fsencode(path)) > LIMIT_PATH_BYTES:
        raise NoAnswer(
            f"{path}: longer than {LIMIT_PATH_BYTES} bytes; change directory and use a relative path"
        )
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(timeout_s)
    try:
        sock.connect(path)
    except OSError as exc:
        sock.close()
        raise NoAnswer(explain(path, exc)) from None
    return sock


# --- the two protocols --------------------------------------------------------------------------------


def call_rpc(path: str, method: str, params: object, timeout_s: float) -> object:
    """
    One JSON-RPC 2.0 request as a line; the result of the reply with the same id.

    Lines without an id are notifications and are passed over. Raises NoAnswer, ServiceError.
    """
    request = {"jsonrpc": "2.0", "id": 1, "method": method}
    if params is not None:
        request["params"] = params
    with connect(path, timeout_s) as sock, sock.makefile("rb") as replies:
        try:
            sock.sendall(json.dumps(request).encode() + b"\n")
            # The write side stays open: some servers take its end for a hang-up and cancel the call.
            while line := replies.readline(LIMIT_REPLY_BYTES):
                reply = json.loads(line)
                if not isinstance(reply, dict) or "id" not in reply:
                    continue
                if reply.get("error") is not None:
                    raise ServiceError(json.dumps(reply["error"], ensure_ascii=False))
                if reply["id"] == 1:
                    return reply.get("result")
        except OSError as exc:
            raise NoAnswer(explain(path, exc)) from None
        except (ValueError, RecursionError):
            raise NoAnswer(
                f"{path}: the reply is not JSON: is this an HTTP service? ({line[:60]!r})"
            ) from None
    raise NoAnswer(f"{path}: connection closed without a reply")


class UnixConnection(http.client.HTTPConnection):
    """http.client over a Unix socket. The Host header says localhost, as curl's does."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self.socket_path = path

    def connect(self) -> None:
        self.sock = connect(self.socket_path, self.timeout)


def call_http(path: str, verb: str, target: str, body: object, timeout_s: float) -> bytes:
    """The body of an HTTP reply. Raises NoAnswer, and ServiceError for a status of 400 and above."""
    connection = UnixConnection(path, timeout_s)
    # Without this header dstack's agent takes a body for protobuf.
    headers = {} if body is None else {"Content-Type": "application/json"}
    try:
        connection.request(verb, target, None if body is None else json.dumps(body), headers)
        reply = connection.getresponse()
        if (reply.length or 0) > LIMIT_REPLY_BYTES:
            raise NoAnswer(f"{path}: a reply of {reply.length} bytes is too large")
        # Without a size: only then does http.client notice that the body ends early.
        data = reply.read()
    except OSError as exc:
        raise NoAnswer(explain(path, exc)) from None
    except http.client.HTTPException as exc:
        raise NoAnswer(f"{path}: not an HTTP reply ({exc!r})") from None
    finally:
        connection.close()
    if reply.status >= 400:
        raise ServiceError(f"{reply.status} {reply.reason}: {data.decode('utf-8', 'replace').strip()}")
    return data


# --- the echo server ----------------------------------------------------------------------------------


class EchoHandler(socketserver.StreamRequestHandler):
    """Speaks both protocols, told apart by the first byte, as skilld does."""

    def handle(self) -> None:
        first = self.rfile.peek(1)[:1]
        if first in (b"{", b"["):
            for line in self.rfile:
                self.answer_rpc(line)
        elif first:
            self.answer_http()

    def answer_rpc(self, line: bytes) -> None:
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise ValueError("a batch")
        except ValueError:
            reply = {"jsonrpc": "2.0", "id": None, "error": {"code": -32700, "message": "Parse error"}}
        else:
            reply = {"jsonrpc": "2.0", "id": request.get("id")}
            if request.get("method") == "echo":
                reply["result"] = request.get("params")
            else:
                reply["error"] = {"code": -32601, "message": f"no method {request.get('method')!r}"}
        notification = {"jsonrpc": "2.0", "method": "echo.noticed", "params": {}}
        self.wfile.write(json.dumps(notification).encode() + b"\n" + json.dumps(reply).encode() + b"\n")

    def answer_http(self) -> None:
        verb, target, *_ = self.rfile.readline(65536).decode("latin-1").split()
        length = 0
        while (header := self.rfile.readline(65536).decode("latin-1").strip()) != "":
            if header.lower().startswith("content-length:"):
                length = int(header.partition(":")[2])
        seen = {"verb": verb, "target": target, "body": self.rfile.read(length).decode("utf-8", "replace")}
        status = "404 Not Found" if target == "/missing" else "200 OK"
        body = json.dumps(seen).encode() + b"\n"
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        self.wfile.write(head.encode() + b"Connection: close\r\n\r\n" + body)


class EchoServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


def serve(path: str) -> None:
    """Run until interrupted; the socket file is removed at the end. Raises NoAnswer."""
    try:
        server = EchoServer(path, EchoHandler)
    except OSError as exc:
        raise NoAnswer(f"{path}: cannot listen: {exc.strerror}") from None
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        os.unlink(path)


def self_test() -> int:
    """Call an echo server in this process in every way; 0 if all answers are right."""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "echo.sock")
        with EchoServer(path, EchoHandler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            params = {"text": "\N{SNOWMAN}"}
            got = json.loads(call_http(path, "POST", "/x?y=1", params, 5))
            results = {
                "rpc result": call_rpc(path, "echo", params, 5) == params,
                "http post": (got["verb"], got["target"], json.loads(got["body"]))
                == ("POST", "/x?y=1", params),
                "http get": json.loads(call_http(path, "GET", "/", None, 5))["body"] == "",
                "rpc error": raises(ServiceError, lambda: call_rpc(path, "nope", None, 5)),
                "http error": raises(ServiceError, lambda: call_http(path, "GET", "/missing", None, 5)),
            }
            server.shutdown()
        # The server is gone, its socket file is not: what a crashed service leaves behind.
        results["nobody listens"] = raises(NoAnswer, lambda: call_rpc(path, "echo", None, 5))
        os.unlink(path)
        results["no socket"] = raises(NoAnswer, lambda: call_rpc(path, "echo", None, 5))
    for name, is_right in results.items():
        print(f"{'ok  ' if is_right else 'FAIL'} {name}")
    return 0 if all(results.values()) else 1


def raises(kind: type[Exception], call) -> bool:
    try:
        call()
    except kind:
        return True
    return False


# --- the command --------------------------------------------------------------------------------------


def parse_json(text: str | None) -> object:
    if text == "-":
        text = sys.stdin.buffer.read().decode("utf-8")
    return None if text is None else json.loads(text)


def main() -> int:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    parser = argparse.ArgumentParser(description="Call a JSON-RPC or HTTP service on a Unix socket.")
    parser.add_argument("socket", nargs="?", help="path of the socket")
    parser.add_argument("action", nargs="?", choices=("rpc", "get", "post", "put", "delete", "serve"))
    parser.add_argument("target", nargs="?", help="method of rpc, or path and query of the HTTP verbs")
    parser.add_argument("body", nargs="?", help="params or body as JSON; - reads standard input")
    parser.add_argument("--timeout-s", type=float, default=30, metavar="S", help="for each step; default: 30")
    parser.add_argument("--self-test", action="store_true", help="try client and server, without any service")
    args = parser.parse_args()
    if args.self_test:
        return self_test()
    if not args.socket or not args.action or (args.action != "serve" and not args.target):
        parser.error("want SOCKET ACTION TARGET [BODY], SOCKET serve, or --self-test")
    if args.action not in ("rpc", "serve") and not args.target.startswith("/"):
        parser.error(f"{args.target}: an HTTP target begins with /")
    if args.timeout_s <= 0:
        parser.error("--timeout-s must be above 0")
    try:
        body = parse_json(args.body)
    except (ValueError, RecursionError) as exc:
        print(f"usock.py: the body is not JSON: {exc}", file=sys.stderr)
        return 2
    try:
        if args.action == "serve":
            serve(args.socket)
        elif args.action == "rpc":
            print(json.dumps(call_rpc(args.socket, args.target, body, args.timeout_s), ensure_ascii=False))
        else:
            reply = call_http(args.socket, args.action.upper(), args.target, body, args.timeout_s)
            sys.stdout.buffer.write(reply if reply.endswith(b"\n") or not reply else reply + b"\n")
    except ServiceError as exc:
        print(f"usock.py: {exc}", file=sys.stderr)
        return 1
    except NoAnswer as exc:
        print(f"usock.py: {exc}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
