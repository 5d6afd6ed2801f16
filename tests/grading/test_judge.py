"""A judge model behind a real server on this machine: both orders, cache, failures, nonsense, and where texts go."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from judge_server import judge_server, texts_in

from open_r1.common.errors import UserError
from open_r1.grading.judge import endpoint as endpoints
from open_r1.grading.judge.endpoint import Endpoint, endpoint_of, leaves_the_machine
from open_r1.grading.judge.judgements import LONGEST, Judge, Question, Verdict

ASKED = [
    Question("Where is it?", "the lung on the left", "left lung"),
    Question("Where is it?", "right lung", "left lung"),
]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "_PAUSE", 0.0)


def by_side(prompt: str, _: int) -> str:
    texts = texts_in(prompt)
    sides = [("left" in texts[name], "right" in texts[name]) for name in ("answer 1", "answer 2")]
    return "SAME" if sides[0] == sides[1] else "Different."


def test_an_answer_is_judged_in_both_orders() -> None:
    with judge_server(by_side) as server:
        judge = Judge(Endpoint(server.url, "medgemma"))
        assert judge.verdicts(ASKED) == [Verdict.SAME, Verdict.DIFFERENT]
    pairs = {(texts_in(prompt)["answer 1"], texts_in(prompt)["answer 2"]) for prompt in server.prompts}
    assert pairs == {
        *(("the lung on the left", "left lung"), ("left lung", "the lung on the left")),
        *(("right lung", "left lung"), ("left lung", "right lung")),
    }
    assert {(r["model"], r["temperature"], r["seed"]) for r in server.requests} == {("medgemma", 0, 0)}


def test_a_judge_that_prefers_an_order_is_inconsistent() -> None:
    def first_is_longer(prompt: str, _: int) -> str:
        texts = texts_in(prompt)
        return "SAME" if len(texts["answer 1"]) > len(texts["answer 2"]) else "DIFFERENT"

    with judge_server(first_is_longer) as server:
        judge = Judge(Endpoint(server.url, "m"))
        assert judge.verdicts(ASKED[:1]) == [Verdict.INCONSISTENT]
    assert judge.counts == {"calls": 2, Verdict.INCONSISTENT: 1}


def test_what_was_judged_is_not_asked_again(tmp_path: Path) -> None:
    cache = tmp_path / "deep" / "cache.jsonl"
    with judge_server(by_side) as server:
        first = Judge(Endpoint(server.url, "m"), cache).verdicts([*ASKED, ASKED[0]])
        assert len(server.requests) == 4  # the third is the first once more
        cache.write_text(cache.read_text() + '["torn')
        second = Judge(Endpoint(server.url, "m"), cache)
        assert second.verdicts(ASKED) == first[:2]
        assert len(server.requests) == 4
        assert second.counts["calls"] == 0
        Judge(Endpoint(server.url, "another"), cache).verdicts(ASKED[:1])
        assert len(server.requests) == 6
    assert "lung" not in cache.read_text()  # hashes and verdicts alone


def test_a_thought_before_the_word_does_not_count() -> None:
    with judge_server(lambda *_: "<think>They look DIFFERENT.</think> **SAME**") as server:
        assert Judge(Endpoint(server.url, "m")).verdicts(ASKED[:1]) == [Verdict.SAME]


@pytest.mark.parametrize("reply", ["", "yes", "SAME or DIFFERENT", "<think>SAME", "samedifferent", "\ud83d\ude00"])
def test_nonsense_is_no_judgement(reply: str) -> None:
    with judge_server(lambda *_: reply) as server:
        judge = Judge(Endpoint(server.url, "m"))
        assert judge.verdicts(ASKED) == [Verdict.NONSENSE] * 2
    assert judge.counts[Verdict.NONSENSE] == 2


@pytest.mark.slow
def test_a_call_that_fails_is_tried_three_times_and_then_counted() -> None:
    with judge_server(lambda prompt, number: (503, "busy") if number < 2 else by_side(prompt, number)) as server:
        assert Judge(Endpoint(server.url, "m")).verdicts(ASKED[:1]) == [Verdict.SAME]
    with judge_server(lambda *_: (500, "broken")) as server:
        judge = Judge(Endpoint(server.url, "m"))
        assert judge.verdicts(ASKED[:1]) == [Verdict.FAILED]
        assert len(server.requests) == 6
    assert judge.last_error == "HTTP 500"
    with judge_server(lambda *_: (404, "no such model")) as server:
        Judge(Endpoint(server.url, "m")).verdicts(ASKED[:1])
        assert len(server.requests) == 2  # once for each order: trying again would not help


@pytest.mark.parametrize(
    "body", ["no json", "[]", "{}", '{"choices": []}', '{"choices": [{"message": {"content": 3}}]}']
)
def test_a_reply_of_another_form_is_a_failure(body: str) -> None:
    with judge_server(lambda *_: (200, body)) as server:
        assert Judge(Endpoint(server.url, "m")).verdicts(ASKED[:1]) == [Verdict.FAILED]


def test_nobody_there_is_a_failure_and_is_asked_again_later(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    judge = Judge(Endpoint(url, "m"), tmp_path / "cache.jsonl")
    assert judge.verdicts(ASKED) == [Verdict.FAILED] * 2
    assert not (tmp_path / "cache.jsonl").exists()
    with judge_server(by_side) as server:
        judge.endpoint = Endpoint(server.url, "m")
        assert judge.verdicts(ASKED) == [Verdict.SAME, Verdict.DIFFERENT]


@pytest.mark.slow
def test_a_server_that_is_gone_does_not_hold_up_a_batch() -> None:
    asked = [Question("Where?", f"place {number}", "left lung") for number in range(500)]
    with judge_server(lambda *_: (500, "broken")) as server:
        judge = Judge(Endpoint(server.url, "m"))
        assert judge.verdicts(asked) == [Verdict.FAILED] * 500
        assert len(server.requests) < 3 * 3 * 16 + 3 * 16  # of 3,000
        assert judge.last_error is not None
    with judge_server(by_side) as server:  # and the next batch is asked again
        judge.endpoint = Endpoint(server.url, "m")
        assert judge.verdicts(ASKED) == [Verdict.SAME, Verdict.DIFFERENT]


def test_texts_go_to_no_other_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with judge_server(lambda *_: (307, "")) as server:
        assert Judge(Endpoint(server.url, "m")).verdicts(ASKED[:1]) == [Verdict.FAILED]
    with judge_server(by_side) as server:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        assert Judge(Endpoint(server.url, "m")).verdicts(ASKED[:1]) == [Verdict.SAME]


def test_a_key_is_sent_and_not_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPEN_R1_JUDGE_KEY", "letmein")
    with judge_server(by_side) as server:
        Judge(Endpoint(server.url, "m"), tmp_path / "cache.jsonl").verdicts(ASKED[:1])
    assert server.headers[0]["Authorization"] == "Bearer letmein"
    assert "letmein" not in (tmp_path / "cache.jsonl").read_text()


def test_long_and_odd_texts_are_sent_in_part() -> None:
    with judge_server(by_side) as server:
        Judge(Endpoint(server.url, "m")).verdicts([Question("\ud800", 'left "{}" ' * 5000, "left")])
    texts = texts_in(server.prompts[0])
    assert len(texts["answer 1"]) <= LONGEST + 4
    assert json.dumps(texts)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://localhost:8000", "http://localhost:8000/v1/chat/completions"),
        ("http://localhost:8000/v1/", "http://localhost:8000/v1/chat/completions"),
        ("https://x.org/a/v1/chat/completions", "https://x.org/a/v1/chat/completions"),
    ],
)
def test_an_address_may_be_written_in_three_ways(url: str, address: str) -> None:
    assert endpoint_of([url, "m"]).address == address


@pytest.mark.parametrize(
    "words",
    [
        ["m"],
        ["localhost:8000", "m"],
        ["ftp://x", "m"],
        ["http://", "m"],
        ["http://x", ""],
        ["http://[", "m"],
        ["http://u:key@x", "m"],
    ],
)
def test_what_is_no_address_is_refused(words: list[str]) -> None:
    with pytest.raises(UserError, match="--judge"):
        endpoint_of(words)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "10.1.2.3", "192.168.0.7", "[::1]"])
def test_this_machine_and_private_networks_are_not_outside(host: str) -> None:
    assert leaves_the_machine(Endpoint(f"http://{host}:8000", "m")) is None


@pytest.mark.parametrize("host", ["8.8.8.8", "[2001:4860:4860::8888]", "judge.invalid"])
def test_anything_else_is_said_in_one_line(host: str) -> None:
    line = leaves_the_machine(Endpoint(f"https://{host}/v1", "m"))
    assert line is not None
    assert "outside this machine" in line
    assert host.strip("[]") in line
    assert "\n" not in line


@contextmanager
def raw_server(*pieces: bytes, pause: float = 0.0) -> Iterator[str]:
    """A server that sends bytes as they are, whatever it is asked, with a pause before each."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1 << 16)
                    try:
                        for piece in pieces:
                            time.sleep(pause)
                            connection.sendall(piece)
                    except OSError:
                        pass

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


OK = b"HTTP/1.1 200 OK\r\n"
DEEP = b"[" * 200_000


@pytest.mark.parametrize(
    "data",
    [
        b"\x1b[31m\x00\xff no http at all\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        OK + b"A: " + b"x" * 100_000 + b"\r\n\r\n",
        OK + b"Content-Length: 200000\r\n\r\n" + DEEP,
        OK + b"Content-Length: 50\r\n\r\n{}",
        OK + b"Content-Length: 9000000000\r\n\r\n" + b"x" * (3 << 20),
        b"",
    ],
    ids=["no http", "bad chunk", "long header", "deep JSON", "cut off", "huge body", "nothing"],
)
def test_a_server_that_answers_garbage_is_a_failure_and_stops_nothing(data: bytes) -> None:
    with raw_server(data) as url:
        judge = Judge(Endpoint(url, "m"))
        assert judge.verdicts(ASKED[:1]) == [Verdict.FAILED]
        assert judge.last_error is not None
        assert judge.last_error.isprintable()


def test_a_reply_that_never_ends_is_given_up_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "_TIMEOUT", 0.2)
    monkeypatch.setattr(endpoints, "_ATTEMPTS", 1)
    with raw_server(OK + b"Content-Length: 1000\r\n\r\n", *[b"x"] * 100, pause=0.05) as url:
        start = time.monotonic()
        assert Judge(Endpoint(url, "m")).verdicts(ASKED[:1]) == [Verdict.FAILED]
        assert time.monotonic() - start < 2.0
