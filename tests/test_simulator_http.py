"""
The guest agent's HTTP: encodings, errors, connections; the double, or the agent of DSTACK_SIMULATOR_ENDPOINT.
"""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from dstack_simulator import http1
from dstack_simulator.keccak import keccak

from tests.simulator import ENDPOINT, PATIENCE_S, Target, raw, request, target

CLOSE = b"Host: localhost\r\nConnection: close\r\n"
JSON = b"Content-Type: application/json\r\n"
PROFILES = ("real",) if ENDPOINT else ("0.5.5", "0.6.0")


@pytest.fixture(scope="module", params=PROFILES)
def agent(request: pytest.FixtureRequest) -> Iterator[Target]:
    """Two versions; HTTP is the same in all."""
    with target(request.param) as running:
        yield running


def ask(agent: Target, line: bytes, headers: bytes = b"", body: bytes | None = None) -> tuple[int, Any, dict[str, str]]:
    """One raw request on a connection that then closes: status, body (parsed if JSON) and headers."""
    length = b"" if body is None else b"Content-Length: %d\r\n" % len(body)
    status, got, text = raw(
        agent.socket_path, line + b" HTTP/1.1\r\n" + CLOSE + headers + length + b"\r\n" + (body or b"")
    )
    assert int(got.get("content-length", -1)) == len(text) or line.startswith(b"HEAD")
    return status, json.loads(text) if got.get("content-type") == "application/json" and text else text, got


class TestEncodings:
    """JSON where the request says so, protobuf elsewhere."""

    def test_a_reply_is_compact_json(self, agent: Target) -> None:
        """With its length, and the headers of the web framework below."""
        status, _, headers = ask(agent, b"POST /GetKey", JSON, b"{}")
        assert status == 200
        del headers["date"]
        assert not agent.is_double or headers.pop("server") == "dstack guest agent"
        headers.pop("server", None)
        assert headers == {
            "content-type": "application/json",
            "content-length": headers["content-length"],
            "connection": "close",
            "x-frame-options": "SAMEORIGIN",
            "x-content-type-options": "nosniff",
            "permissions-policy": "interest-cohort=()",
        }
        text = raw(agent.socket_path, b"GET /GetKey HTTP/1.1\r\n" + CLOSE + b"\r\n")[2]
        assert text == json.dumps(json.loads(text), separators=(",", ":")).encode()

    def test_an_error_is_400_and_json_on_lines(self, agent: Target) -> None:
        """Whatever the error is."""
        text = raw(agent.socket_path, b"GET /Nope HTTP/1.1\r\n" + CLOSE + b"\r\n")
        assert (text[0], text[2]) == (400, b'{\n  "error": "Service not found: Nope"\n}')

    @pytest.mark.parametrize(
        ("line", "headers", "body"),
        [
            (b"POST /GetKey", JSON, b'{"path":"a","purpose":"b"}'),
            (b"POST /GetKey", b"Content-Type: Application/JSON; charset=utf-8\r\n", b'{"path":"a","purpose":"b"}'),
            (b"POST /GetKey?json", b"", b'{"path":"a","purpose":"b"}'),
            (b"POST /GetKey?x=1&json=true", b"", b'{"path":"a","purpose":"b"}'),
            (b"POST /GetKey?json=1", b"Content-Type: text/plain\r\n", b' {"purpose":"b", "x":null, "path":"a"} '),
            (b"POST /GetKey", JSON, b'["a","b"]'),
            (b"GET /GetKey?path=a&purpose=b", b"", None),
            (b"GET /GetKey?path=%61&x=1&purpose=b", JSON, None),
            (b"POST /Get%4bey?json", b"", b'{"path":"a","purpose":"b"}'),
            (b"POST /GetKey", JSON + b"Transfer-Encoding: chunked\r\n", None),
        ],
    )
    def test_the_same_question_in_many_ways(
        self, agent: Target, line: bytes, headers: bytes, body: bytes | None
    ) -> None:
        """One answer."""
        if b"chunked" in headers:
            content = b'7\r\n{"path"\r\n13;x=y\r\n:"a","purpose":"b"}\r\n0\r\nX: y\r\n\r\n'
            text = raw(agent.socket_path, line + b" HTTP/1.1\r\n" + CLOSE + headers + b"\r\n" + content)[2]
            got = json.loads(text)
        else:
            got = ask(agent, line, headers, body)[1]
        assert got == agent.call("GetKey", path="a", purpose="b")

    def test_an_empty_body_is_a_request_of_defaults(self, agent: Target) -> None:
        """In JSON, in a query and in protobuf."""
        expected = agent.call("GetKey")
        assert ask(agent, b"POST /GetKey", JSON, b"")[1] == ask(agent, b"GET /GetKey")[1] == expected
        status, text, headers = ask(agent, b"POST /GetKey", b"", b"")
        assert (status, headers["content-type"]) == (200, "application/octet-stream")
        links = [bytes.fromhex(link) for link in expected["signature_chain"]]
        assert text == delimited(1, bytes.fromhex(expected["key"])) + b"".join(delimited(2, link) for link in links)

    def test_protobuf_is_spoken_to_who_does_not_say_json(self, agent: Target) -> None:
        """Requests, replies and errors; fields that nobody knows are passed over."""
        expected = agent.call("GetKey", path="a", purpose="b")
        body = delimited(1, b"a") + b"\xf8\x07\x05" + delimited(99, b"x") + delimited(2, b"b") + b"\xa5\x06abcd"
        text = ask(agent, b"POST /GetKey", b"Content-Type: application/octet-stream\r\n", body)[1]
        assert text.startswith(delimited(1, bytes.fromhex(expected["key"])))
        assert delimited(2, bytes.fromhex(expected["signature_chain"][0])) in text
        status, text, headers = ask(agent, b"POST /GetQuote", b"", delimited(1, bytes(65)))
        assert (status, headers["content-type"]) == (400, "application/octet-stream")
        assert text == delimited(1, b"Report data is too long")

    def test_a_flag_is_a_number_in_protobuf(self, agent: Target) -> None:
        """One, or nothing at all."""
        agent.needs((0, 5, 6), "Verify")
        assert ask(agent, b"POST /Sign", b"", delimited(1, b"ed25519"))[1].startswith(b"\x0a\x40")
        signed = agent.call("Sign", algorithm="ed25519", data=b"x")
        body = delimited(1, b"ed25519") + delimited(2, b"x")
        body += delimited(3, bytes.fromhex(signed["signature"])) + delimited(4, bytes.fromhex(signed["public_key"]))
        assert ask(agent, b"POST /Verify", b"", body)[1] == b"\x08\x01"
        assert ask(agent, b"POST /Verify", b"", body.replace(delimited(2, b"x"), delimited(2, b"y")))[1] == b""

    def test_a_form_is_no_protobuf(self, agent: Target) -> None:
        """What ``curl -d '{...}'`` sends."""
        form = b"Content-Type: application/x-www-form-urlencoded\r\n"
        status, text, headers = ask(agent, b"POST /GetKey", form, b'{"path":"a"}')
        assert (status, headers["content-type"]) == (400, "application/octet-stream")
        assert b"failed to decode Protobuf message" in text

    @pytest.mark.parametrize("text", ["6162", "0x6162", "0x0x6162", "6162".upper()])
    def test_hex_may_carry_0x(self, agent: Target, text: str) -> None:
        """As often as it likes; the answer never does."""
        expected = agent.call("GetQuote", report_data=b"ab")["report_data"]
        assert expected == "6162" + "00" * 62
        assert agent.call("GetQuote", report_data=text)["report_data"] == expected
        assert ask(agent, b"GET /GetQuote?report_data=" + text.encode())[1]["report_data"] == expected

    @pytest.mark.parametrize(
        ("method", "body", "text"),
        [
            ("GetQuote", '{"report_data":"4"}', "Odd number of digits"),
            ("GetQuote", '{"report_data":"0X41"}', "Invalid character 'X' at position 1"),
            ("GetQuote", '{"report_data":"zz"}', "Invalid character 'z' at position 0"),
            ("GetQuote", '{"report_data":"\u00e9"}', "Invalid character '\u00c3' at position 0"),
            ("GetQuote", '{"report_data":[1]}', "invalid type: sequence, expected a string"),
            ("GetKey", '{"path":1}', "invalid type: integer `1`, expected a string"),
            ("GetKey", '{"path":1.5}', "invalid type: floating point `1.5`, expected a string"),
            ("GetKey", '{"path":18446744073709551616}', "invalid type: floating point `1.8446744073709552e"),
            ("GetKey", '[1,"b","c","d"]', "invalid type: integer `1`, expected a string"),
            ("GetKey", '{"path":true}', "invalid type: boolean `true`, expected a string"),
            ("GetKey", '{"path":null}', "invalid type: null, expected a string"),
            ("GetKey", '{"path":{}}', "invalid type: map, expected a string"),
            ("GetKey", '{"path":"a","path":"b"}', "duplicate field `path`"),
            ("GetKey", '["a","b","c","d"]', "trailing characters"),
            ("GetKey", "null", "invalid type: null, expected"),
            ("GetKey", '"x"', 'invalid type: string "x", expected'),
            ("GetTlsKey", '{"usage_ra_tls":1}', "invalid type: integer `1`, expected a boolean"),
            ("GetTlsKey", '{"alt_names":"a"}', 'invalid type: string "a", expected a sequence'),
            ("GetTlsKey", '{"not_after":"x"}', 'invalid type: string "x", expected u64'),
            ("GetTlsKey", '{"not_after":-1}', "invalid value: integer `-1`, expected u64"),
            ("GetTlsKey", '{"not_after":1.0}', "invalid type: floating point `1.0`, expected u64"),
        ],
    )
    def test_a_value_of_another_type_is_refused(self, agent: Target, method: str, body: str, text: str) -> None:
        """With the parser's words; where in the text, is left out by the double."""
        if "not_after" in body:
            agent.needs((0, 5, 6), "not_after")
        status, reply, _ = ask(agent, b"POST /" + method.encode(), JSON, body.encode())
        assert (status, list(reply)) == (400, ["error"])
        assert reply["error"].startswith(text)

    @pytest.mark.parametrize("body", [b"{", b"{bad", b'{"path":"a"} x', b'{"path":"\xff"}', b"\xff", b"[" * 5_000])
    def test_what_is_no_json_is_refused(self, agent: Target, body: bytes) -> None:
        """Before the method sees it."""
        status, reply, _ = ask(agent, b"POST /GetKey", JSON, body)
        assert (status, list(reply)) == (400, ["error"])

    @pytest.mark.parametrize(
        ("query", "text"),
        [
            (b"GetKey?path=%FF", "invalid utf-8 sequence of 1 bytes from index 0"),
            (b"GetTlsKey?usage_ra_tls=1", "provided string was not `true` or `false`"),
            (b"GetTlsKey?alt_names=a", 'invalid type: string "a", expected a sequence'),
            (b"GetTlsKey?not_after=x", "invalid digit found in string"),
            (b"GetQuote?report_data=4", "Odd number of digits"),
        ],
    )
    def test_a_query_is_refused_likewise(self, agent: Target, query: bytes, text: str) -> None:
        """In its own words."""
        if b"not_after" in query:
            agent.needs((0, 5, 6), "not_after")
        assert ask(agent, b"GET /" + query)[:2] == (400, {"error": text})

    def test_a_query_carries_lists_and_flags(self, agent: Target) -> None:
        """``name[0]=`` and ``true``."""
        reply = ask(agent, b"GET /GetTlsKey?alt_names[0]=a.b&alt_names[1]=c.d&usage_client_auth=true")[1]
        assert len(reply["certificate_chain"]) in (2, 3)


class TestRoutes:
    """What is no method is the web framework's own answer."""

    @pytest.mark.parametrize(
        "line",
        [b"POST /a/b", b"GET /prpc/Tappd.Info", b"POST /Version/", b"PUT /Version", b"DELETE /", b"OPTIONS /Info"],
    )
    def test_other_paths_and_verbs_are_a_page(self, agent: Target, line: bytes) -> None:
        """Of HTML, with 404."""
        status, text, headers = ask(agent, line, JSON, b"{}")
        assert (status, headers["content-type"]) == (404, "text/html; charset=utf-8")
        assert b"<title>404 Not Found</title>" in text

    def test_json_is_an_object_there(self, agent: Target) -> None:
        """For who accepts it: the error is no text then."""
        assert ask(agent, b"POST /a/b", b"Accept: application/json\r\n")[:2] == (
            404,
            {
                "error": {
                    "code": 404,
                    "reason": "Not Found",
                    "description": "The requested resource could not be found.",
                }
            },
        )

    def test_no_path_is_unprocessable(self, agent: Target) -> None:
        """A page, too."""
        status, text, _ = ask(agent, b"GET /")
        assert (status, b"422: Unprocessable Entity" in text) == (422, True)


class TestConnections:
    """HTTP/1.1, one connection for many requests."""

    def test_a_connection_is_kept(self, agent: Target) -> None:
        """Requests that are sent ahead are answered in order."""
        first = b"GET /GetKey HTTP/1.1\r\nHost: x\r\n\r\n"
        body = b'{"path":"a"}'
        second = b"POST /GetKey HTTP/1.1\r\nHost: x\r\n" + JSON + b"Content-Length: %d\r\n\r\n" % len(body) + body
        last = b"GET /Nope HTTP/1.1\r\n" + CLOSE + b"\r\n"
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE_S)
            connection.connect(agent.socket_path)
            connection.sendall(first + second + last)
            text = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        keys = [agent.call("GetKey", path=path)["key"].encode() for path in ("", "a")]
        starts = [text.index(mark) for mark in (*keys, b"Service not found: Nope")]
        assert starts == sorted(starts)
        assert text.count(b"HTTP/1.1 ") == 3

    def test_http_1_0_closes(self, agent: Target) -> None:
        """After the one answer, which is HTTP/1.0 too."""
        status, _, text = raw(agent.socket_path, b"GET /GetKey HTTP/1.0\r\n\r\n")
        assert (status, json.loads(text)) == (200, agent.call("GetKey"))

    def test_head_has_headers_alone(self, agent: Target) -> None:
        """Those of GET."""
        status, text, headers = ask(agent, b"HEAD /GetKey")
        assert (status, text) == (200, b"")
        assert headers["content-length"] == ask(agent, b"GET /GetKey")[2]["content-length"]

    @pytest.mark.parametrize(
        "content",
        [
            b"garbage\r\n\r\n",
            b"GET /GetKey\r\n\r\n",
            b"GET /GetKey HTTP/1.1\r\nno colon\r\n\r\n",
            b"POST /Info HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
        ],
    )
    def test_what_is_no_http_ends_the_connection(self, agent: Target, content: bytes) -> None:
        """With an empty 400."""
        status, headers, text = raw(agent.socket_path, content)
        assert (status, headers["connection"], text) == (400, "close", b"")

    @pytest.mark.parametrize("is_json", [False, True])
    def test_more_than_10_mib_are_refused(self, agent: Target, is_json: bool) -> None:
        """In protobuf unless the query, and not the content type, asks for JSON."""
        line = b"POST /GetKey?json" if is_json else b"POST /GetKey"
        status, text, _ = ask(agent, line, JSON, b" " * (10 * 1024 * 1024 + 1))
        is_oldest = agent.version < (0, 5, 6)
        error = "failed to read data" + ("\n\nCaused by:\n    " if is_oldest else ": ") + "payload too large"
        assert (status, text) == (400, {"error": error} if is_json else delimited(1, error.encode()))
        assert ask(agent, line, JSON, b" " * (10 * 1024 * 1024 - 2) + b"{}")[0] == 200

    def test_who_waits_for_100_is_told_to_go_on(self, agent: Target) -> None:
        """As curl does before it sends a large body."""
        head = b"POST /GetKey HTTP/1.1\r\n" + CLOSE + JSON + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE_S)
            connection.connect(agent.socket_path)
            connection.sendall(head)
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 100 ")
            connection.sendall(b"{}")
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 ")

    @pytest.mark.parametrize("content", [b"GET /Get", b"GET /GetKey HTTP/1.1\r\nHost: x\r\n\r\n"])
    def test_who_stays_silent_is_closed(self, agent: Target, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
        """In the middle of a head and between two requests (dstack's own after 15 seconds, measured)."""
        if not agent.is_double:
            pytest.skip("takes 15 seconds")
        monkeypatch.setattr(http1, "HEADER_TIMEOUT_S", 0.05)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE_S)
            connection.connect(agent.socket_path)
            connection.sendall(content)
            answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        assert answer.startswith(b"HTTP/1.1 200 ") == content.endswith(b"\r\n\r\n")


class TestTappd:
    """The legacy service on its own socket."""

    @pytest.fixture
    def tappd(self, agent: Target) -> str:
        """Its socket."""
        if agent.tappd_path is None:
            pytest.skip("TAPPD_SIMULATOR_ENDPOINT names no socket")
        return agent.tappd_path

    @pytest.mark.parametrize("prefix", ["/prpc/", "/prpc/Tappd."])
    def test_its_methods_have_a_prefix(self, agent: Target, tappd: str, prefix: str) -> None:
        """Or none; those of the other socket are not there, and it knows its version where the other does."""
        info = {name: text for name, text in agent.call("Info").items() if name != "app_cert"}
        status, reply = request(tappd, "POST", f"{prefix}Info", {})
        assert (status, {name: text for name, text in reply.items() if name != "app_cert"}) == (200, info)
        assert request(tappd, "POST", f"{prefix}GetKey", {}) == (400, {"error": "Service not found: GetKey"})
        assert request(tappd, "POST", "/Info", {})[0] == 404
        assert request(tappd, "POST", f"{prefix}Version", {})[0] == agent.ask("Version")[0]

    def test_its_key_is_that_of_get_key(self, agent: Target, tappd: str) -> None:
        """Under other names."""
        key = agent.call("GetKey", path="a", purpose="b")
        assert request(tappd, "POST", "/prpc/Tappd.DeriveK256Key", {"path": "a", "purpose": "b"}) == (
            200,
            {"k256_key": key["key"], "k256_signature_chain": key["signature_chain"]},
        )

    def test_a_tls_key_is_derived_unless_it_shall_be_random(self, agent: Target, tappd: str) -> None:
        """From the path: the 32 bytes are those of GetKey, on another curve."""
        first, second, third = (
            request(tappd, "POST", "/prpc/Tappd.DeriveKey", {"path": path, "random_seed": is_random})[1]["key"]
            for path, is_random in (("a", False), ("a", False), ("a", True))
        )
        assert (first == second, first == third) == (True, False)
        key = load_pem_private_key(first.encode(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        assert f"{key.private_numbers().private_value:064x}" == agent.call("GetKey", path="a")["key"]
        other = request(tappd, "POST", "/prpc/Tappd.DeriveKey", {"path": "b"})[1]["key"]
        assert other != first

    @pytest.mark.parametrize(
        ("params", "expected", "told"),
        [
            ({}, hashlib.sha512(b"app-data:x").digest(), ("sha512", "app-data")),
            ({"hash_algorithm": "sha256"}, hashlib.sha256(b"app-data:x").digest(), ("sha256", "app-data")),
            ({"hash_algorithm": "sha3-384", "prefix": "p"}, hashlib.sha3_384(b"p:x").digest(), ("sha3-384", "p")),
            ({"hash_algorithm": "keccak512"}, keccak(b"app-data:x", 64), ("keccak512", "app-data")),
        ],
    )
    def test_a_quote_is_over_a_hash(
        self, agent: Target, tappd: str, params: dict[str, str], expected: bytes, told: tuple[str, str]
    ) -> None:
        """Tag, colon, data; padded on the right. Before 0.6 another tag is not told."""
        if agent.version < (0, 6):
            told = told[0], "app-data"
        reply = request(tappd, "POST", "/prpc/Tappd.TdxQuote", {"report_data": b"x".hex(), **params})[1]
        assert bytes.fromhex(reply["quote"])[568:632] == expected.ljust(64, b"\0")
        assert list(reply) == ["quote", "event_log", "hash_algorithm", "prefix"]
        assert (reply["hash_algorithm"], reply["prefix"]) == told

    def test_a_raw_quote_wants_64_bytes(self, tappd: str) -> None:
        """No more and no less."""
        reply = request(tappd, "POST", "/prpc/Tappd.RawQuote", {"report_data": "ab" * 64})[1]
        assert bytes.fromhex(reply["quote"])[568:632] == b"\xab" * 64
        assert (reply["hash_algorithm"], reply["prefix"]) == ("raw", "")
        short = request(tappd, "POST", "/prpc/Tappd.RawQuote", {"report_data": "ab"})
        assert short == (400, {"error": "invalid content length"})
        unknown = request(tappd, "POST", "/prpc/Tappd.TdxQuote", {"report_data": "ab", "hash_algorithm": "md5"})
        assert unknown == (400, {"error": "invalid hash algorithm"})


def delimited(number: int, content: bytes) -> bytes:
    """A field of protobuf that has a length."""
    output = b""
    for value in (number << 3 | 2, len(content)):
        while value >= 0x80:
            output += bytes([value & 0x7F | 0x80])
            value >>= 7
        output += bytes([value])
    return output + content
