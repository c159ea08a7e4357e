"""A drain as Python's `websockets` and the servers behind the gateway live through it."""

import asyncio
import resource
import signal
import subprocess
import threading
import time

import pytest
import websockets
from crowd import Clients
from gateway import wait_until
from peers import MATRIX, Stage
from reporting import pattern_of

AT_ONCE = 'spread = "0s"'
MIB = 1 << 20
PATIENCE_SECONDS = 20
# What may go by before something that has to happen has happened, on a machine that does other things as well.
SLACK_SECONDS = 2


async def connect(stage, id):
    socket = await websockets.connect(
        f"{stage.url}?id={id}", compression=None, max_size=None, ping_interval=None, proxy=None
    )
    await asyncio.to_thread(stage.server.wait_for, event="opened", id=id)
    return socket


async def closed(socket):
    await asyncio.wait_for(socket.wait_closed(), PATIENCE_SECONDS)
    return socket.close_code, socket.close_reason


def check_server(stage, ids):
    """The server has been told of each of these tunnels, once."""
    for id in ids:
        told = stage.server.wait_for(event="closed", id=id)
        assert (told["code"], told["reason"]) == (1001, "drained"), told
    ends = [event["id"] for event in stage.server.events if event["event"] == "closed"]
    assert sorted(ends) == sorted(ids)


def check_records(stage, server, count, client_code=1001):
    records = stage.gateway.closed_tunnels()
    told = {(end["reason"], end["by"], end.get("client_code"), end.get("backend_code")) for end in records}
    backend_code = MATRIX["servers"][server]["answers_1001_with"]
    assert (len(records), told) == (count, {("drained", "operator", client_code, backend_code)})


@pytest.mark.parametrize("server", MATRIX["servers"])
def test_both_sides_are_told_once_and_the_process_goes_with_the_last_tunnel(server):
    ids = [f"client-{number}" for number in range(5)]

    async def case(stage):
        sockets = [await connect(stage, id) for id in ids]
        await asyncio.to_thread(stage.gateway.begin_drain)
        ends = await asyncio.gather(*map(closed, sockets))
        last = time.monotonic()
        assert ends == [(1001, "drained")] * len(ids)
        assert await asyncio.to_thread(stage.gateway.wait) == 0
        assert time.monotonic() - last < SLACK_SECONDS, "it waits for something after the last tunnel"

    with Stage(server, drain=AT_ONCE) as stage:
        asyncio.run(case(stage))
        check_server(stage, ids)
        check_records(stage, server, len(ids))


async def hold_up(stage, command, resume=True):
    """A tunnel in which the server sends more than there is room for on the way, as the client takes nothing; and then the
    gateway is told to go. Only after that does the client go on."""
    socket = await connect(stage, "client")
    socket.transport.pause_reading()
    await socket.send(command)
    await asyncio.to_thread(
        stage.gateway.wait_for_metric,
        'wsgate_tunnel_bytes_total{direction="to_client",route="r"}',
        lambda passed: passed > MIB / 4,
    )
    await asyncio.to_thread(stage.gateway.begin_drain)
    messages = 'wsgate_tunnel_messages_total{direction="to_client",kind="binary",route="r"}'
    assert stage.gateway.metric(messages) == 0, "the message is still on its way"
    if resume:
        socket.transport.resume_reading()
    return socket


@pytest.mark.parametrize("server", MATRIX["servers"])
def test_a_message_of_one_frame_that_is_on_its_way_arrives_whole(server):
    async def case(stage):
        socket = await hold_up(stage, f"!send {10 * MIB}")
        received = await asyncio.wait_for(socket.recv(), PATIENCE_SECONDS)
        # Not compared by pytest, which would explain a difference byte by byte.
        assert (received == pattern_of(10 * MIB)) is True
        assert await closed(socket) == (1001, "drained")
        assert await asyncio.to_thread(stage.gateway.wait) == 0

    with Stage(server, drain=AT_ONCE) as stage:
        asyncio.run(case(stage))
        check_server(stage, ["client"])
        check_records(stage, server, 1)


@pytest.mark.parametrize("server", [name for name, case in MATRIX["servers"].items() if "send fragments" in case["can"]])
def test_a_message_of_fragments_that_is_on_its_way_ends_behind_a_whole_one(server):
    async def case(stage):
        socket = await hold_up(stage, f"!send {10 * MIB} 10")
        fragments = []
        with pytest.raises(websockets.ConnectionClosed):
            async for fragment in socket.recv_streaming():
                fragments.append(fragment)
        assert 0 < len(fragments) < 10 and {len(fragment) for fragment in fragments} == {MIB}
        received = b"".join(fragments)
        assert (received == pattern_of(10 * MIB)[: len(received)]) is True
        assert await closed(socket) == (1001, "drained")
        assert await asyncio.to_thread(stage.gateway.wait) == 0

    with Stage(server, drain=AT_ONCE) as stage:
        asyncio.run(case(stage))
        check_server(stage, ["client"])
        # RFC 6455 §5.4 allows a Close between two fragments; `websockets` minds the message that it never gets whole.
        check_records(stage, server, 1, client_code=1002)


def test_a_client_that_does_not_take_its_message_does_not_hold_up_the_others_for_long():
    async def case(stage):
        other = await connect(stage, "other")
        socket = await hold_up(stage, f"!send {10 * MIB}", resume=False)
        told = time.monotonic()
        assert await closed(other) == (1001, "drained")
        assert await asyncio.to_thread(stage.gateway.wait) == 0
        assert time.monotonic() - told < 1 + SLACK_SECONDS
        # In the middle of a frame there is no place for a Close.
        socket.transport.resume_reading()
        assert (await closed(socket))[0] == 1006

    with Stage("ws", drain=AT_ONCE, tunnel='close_timeout = "1s"') as stage:
        asyncio.run(case(stage))
        check_server(stage, ["client", "other"])


def test_the_ends_of_many_are_spread():
    count, spread = 40, 2
    ids = [f"client-{number}" for number in range(count)]

    async def case(stage):
        sockets = [await connect(stage, id) for id in ids]
        ended = []

        async def when(socket):
            end = await closed(socket)
            ended.append(time.monotonic() - told)
            return end

        waiting = asyncio.gather(*map(when, sockets))
        told = time.monotonic()
        await asyncio.to_thread(stage.gateway.begin_drain)
        assert await waiting == [(1001, "drained")] * count
        assert await asyncio.to_thread(stage.gateway.wait) == 0
        return ended

    with Stage("ws", drain=f'spread = "{spread}s"') as stage:
        check_spread(asyncio.run(case(stage)), spread)
        check_server(stage, ids)
        check_records(stage, "ws", count)


def check_spread(ended, spread, delay=0, slack=SLACK_SECONDS):
    """Each in its turn. A busy machine makes ends late, but nothing may make them early."""
    for place, after in enumerate(ended):
        turn = delay + spread * place / len(ended)
        assert turn <= after <= turn + slack, f"{place}: {after} s, its turn was at {turn} s"


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(second):
    async def case(stage):
        sockets = [await connect(stage, f"client-{number}") for number in range(4)]
        await asyncio.to_thread(stage.gateway.begin_drain)
        # Only the first one's turn has come.
        await asyncio.to_thread(wait_until, stage.gateway.closed_tunnels, lambda ends: len(ends) == 1, "the first end")
        stage.gateway.process.signal(second)
        signalled = time.monotonic()
        assert await asyncio.to_thread(stage.gateway.wait) == 0
        assert time.monotonic() - signalled < SLACK_SECONDS
        ends = await asyncio.gather(*map(closed, sockets))
        assert sorted(code for code, _ in ends) == [1001, 1006, 1006, 1006]

    with Stage("websockets", drain='spread = "25s"') as stage:
        asyncio.run(case(stage))
        reasons = sorted(end["reason"] for end in stage.gateway.closed_tunnels())
        assert reasons == ["drain-timeout"] * 3 + ["drained"]


COUNT = 9_000
FILES = 20_000
CLOSE = b"\x88\x09\x03\xe9drained"
CLOSE_OF_CLIENT = b"\x88\x82\0\0\0\0\x03\xe9"
REMAINING = "wsgate_drain_remaining"


def allow_files():
    """The gateway needs two for each tunnel, and inherits the limit of this process."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard == resource.RLIM_INFINITY or hard >= FILES, f"a process may open only {hard} files"
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, hard))


class Samples(threading.Thread):
    """What is left of a drain, again and again until the gateway is gone."""

    def __init__(self, gateway):
        super().__init__(daemon=True)
        self.gateway = gateway
        self.values = []

    def run(self):
        try:
            while True:
                self.values.append(self.gateway.metric(REMAINING))
                time.sleep(0.05)
        except subprocess.CalledProcessError:
            pass


def test_nine_thousand_are_told_one_after_the_other(capsys):
    allow_files()
    started = time.monotonic()

    def check_time():
        assert time.monotonic() - started < 50, "it takes too long"

    server = ["python", "python/crowd_server.py", f"{COUNT}"]
    with Stage(server, drain='delay = "1s"\nspread = "5s"\ntimeout = "30s"') as stage:
        empty = stage.gateway.metric("process_resident_memory_bytes")
        host, port = stage.gateway.address.split(":")
        clients = Clients()
        clients.open((host, int(port)), COUNT, check_time)
        stage.server.wait_for(event="open", count=COUNT)
        opened = time.monotonic() - started
        stage.gateway.wait_for_metric('wsgate_tunnels{route="r",upstream="u",version="13"}', lambda now: now == COUNT)
        full = stage.gateway.metric("process_resident_memory_bytes")

        told, ended = time.monotonic(), []
        stage.gateway.begin_drain()
        samples = Samples(stage.gateway)
        samples.start()
        clients.hear_out(CLOSE, CLOSE_OF_CLIENT, lambda: ended.append(time.monotonic() - told), check_time)
        assert stage.gateway.wait() == 0
        gone = time.monotonic() - told
        samples.join()

        assert all(member.heard == CLOSE for member in clients.members), "each hears one Close and no more"
        assert stage.server.wait_for(event="closed")["heard"] == {CLOSE.hex(): COUNT}
        check_spread(ended, spread=5, delay=1, slack=5)
        assert gone - ended[-1] < SLACK_SECONDS, "it waits for something after the last tunnel"
        assert samples.values[0] == COUNT, "during the delay all are left"
        assert samples.values == sorted(samples.values, reverse=True), samples.values
        check_records(stage, "ws", COUNT)
        assert len(set(samples.values)) > 10 and samples.values[-1] < COUNT / 10, samples.values
    with capsys.disabled():
        print(
            f"\n{COUNT} tunnels: open after {opened:.1f} s, gone {gone:.1f} s after the signal; "
            f"the gateway holds {full / MIB:.1f} MiB, {(full - empty) / COUNT / 1024:.1f} KiB a tunnel"
        )
