"""Notifications: every one, in order, or a word that some are missing."""

from __future__ import annotations

import json

from skilld.rpc.subscribers import Feed, Note, Subscribers, catch_up, note_of, notification_line
from tests.serving import Change, Events


def note(number: int, size: int = 0) -> Note:
    return Note(f"run:{number}", b'"%s"' % (b"x" * size))


class Reader:
    """A subscriber whose unread bytes the test decides."""

    def __init__(self, limit_bytes: int = 100) -> None:
        self.got: list[bytes] = []
        self.unread_bytes = 0
        self.feed = Feed(self.take, lambda: self.unread_bytes, limit_bytes)

    def take(self, note: Note) -> None:
        self.got.append(note.params)


def test_note_is_a_line_and_an_event() -> None:
    """One change is written as a JSON-RPC notification and as a Server-Sent Event."""
    one = note_of(Change("run:7", ("a",), ("b", "c"), ()))
    params = {"revision": "run:7", "added": ["a"], "updated": ["b", "c"], "removed": []}
    assert json.loads(one.line) == {"jsonrpc": "2.0", "method": "skills.changed", "params": params}
    assert one.line.endswith(b"\n")
    head, _, data = one.event.partition(b"data: ")
    assert head == b"event: skills.changed\nid: run:7\n"
    assert data.endswith(b"\n\n")
    assert json.loads(data) == params


def test_incomplete_change_is_a_word_to_catch_up() -> None:
    """A change that cannot be told is told so."""
    assert note_of(Change("run:7", is_complete=False)) == catch_up("run:7")
    assert json.loads(catch_up("run:7").params) == {"complete": False}


def test_method_names_are_quoted() -> None:
    """Any notification is one line of JSON."""
    assert json.loads(notification_line('a"b', b"[]")) == {"jsonrpc": "2.0", "method": 'a"b', "params": []}


def test_feed_sends_in_order() -> None:
    """A subscriber that reads gets everything."""
    reader = Reader()
    for number in range(3):
        reader.feed.offer(note(number, number))
    assert reader.got == [b'""', b'"x"', b'"xx"']


def test_slow_subscriber_is_told_once_and_goes_on() -> None:
    """What comes while too much is unread is dropped; once it reads again it is told so, and gets what comes next."""
    reader = Reader(limit_bytes=100)
    reader.unread_bytes = 100
    reader.feed.offer(note(1, 1))
    reader.unread_bytes = 101
    reader.feed.offer(note(2, 2))
    # Once something is missing, what follows would be out of order.
    reader.unread_bytes = 0
    reader.feed.offer(note(3, 3))
    reader.feed.resume()
    reader.feed.resume()
    reader.feed.offer(note(4, 4))
    assert reader.got == [b'"x"', b'{"complete":false}', b'"xxxx"']


def test_held_notes_follow_the_release() -> None:
    """Notes wait for the reply to the subscription, then come in order."""
    reader = Reader()
    reader.feed.hold()
    reader.feed.offer(note(1, 1))
    reader.feed.offer(note(2, 2))
    reader.feed.resume()
    assert reader.got == []
    reader.feed.release()
    reader.feed.offer(note(3, 3))
    assert reader.got == [b'"x"', b'"xx"', b'"xxx"']


def test_held_notes_are_bounded() -> None:
    """A subscription whose reply takes long loses notes at the same limit, and is told so after the rest."""
    reader = Reader(limit_bytes=100)
    reader.feed.hold()
    for number in range(200):
        reader.feed.offer(note(number, 8))
    reader.feed.resume()
    reader.feed.release()
    assert reader.got == [b'"xxxxxxxx"'] * 11 + [b'{"complete":false}']


def test_subscribers_hear_of_every_change() -> None:
    """Every feed gets every note, until it is discarded."""
    events = Events()
    events.change("before")
    subscribers = Subscribers(events)
    first, second = Reader(), Reader()
    subscribers.add(first.feed)
    events.change("a")
    subscribers.add(second.feed)
    events.change("b")
    subscribers.discard(first.feed)
    events.change("c")
    assert [json.loads(params)["added"] for params in first.got] == [["a"], ["b"]]
    assert [json.loads(params)["added"] for params in second.got] == [["b"], ["c"]]
    assert (subscribers.revision, len(subscribers)) == ("run:4", 1)
    subscribers.close()
    subscribers.close()
    assert (len(subscribers), events.callbacks) == (0, [])


def test_what_a_subscriber_missed_is_one_note() -> None:
    """A revision says what came after it; one of another run says that it cannot be told."""
    events = Events()
    subscribers = Subscribers(events)
    for name in "abc":
        events.change(name)
    missed = subscribers.missed_since("run:1")
    assert missed is not None
    assert json.loads(missed.params)["added"] == ["b", "c"]
    assert missed.revision == "run:3"
    assert subscribers.missed_since("run:3") is None
    assert subscribers.missed_since("other:3") == catch_up("run:3")
