"""Peers that stop and networks that break: real processes around the gateway, and what it makes of their silence."""

import signal
import time

import pytest
from network import GATEWAY, Network
from peers import Stage

PINGS = 'ping_interval = "500ms"\nping_timeout = "1s"'
PING_SECONDS = 1.5
# What may go by before something that has to happen has happened, on a machine that does other things as well.
SLACK_SECONDS = 3

CLIENTS = [
    pytest.param(("node", "node/one_client.mjs"), id="ws"),
    pytest.param(("python", "python/websockets_client.py"), id="websockets"),
]


def check(gateway, since, within, *, reason, by, code="none", client_code=None, backend_code=None):
    """The only tunnel ended in time after `since`, with this record and these counts."""
    record = gateway.wait_for_end()
    took = time.monotonic() - since
    assert took <= within + SLACK_SECONDS, f"{took} s"
    told = {name: record.get(name) for name in ["reason", "by", "client_code", "backend_code"]}
    assert told == {"reason": reason, "by": by, "client_code": client_code, "backend_code": backend_code}
    assert gateway.metric(f'wsgate_tunnel_closes_total{{by="{by}",code="{code}",route="r"}}') == 1
    for side in ["client", "backend"]:
        missed = 1 if reason == f"{side}-unresponsive" else 0
        assert gateway.metric(f'wsgate_pong_timeouts_total{{side="{side}"}}') == missed, side


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_that_is_stopped_is_found_out_and_the_backend_is_told(client):
    with Stage("websockets", tunnel=PINGS) as stage:
        client = stage.start_client(*client, "hello")
        client.wait_for(event="heard")
        # Alive for longer than a dead one would be left alone: it answers.
        stage.gateway.wait_for_metric('wsgate_pings_total{side="client"}', lambda pings: pings >= 4)
        client.signal(signal.SIGSTOP)
        stopped = time.monotonic()
        told = stage.server.wait_for(event="closed", id="client")
        assert (told["code"], told["reason"]) == (1001, "client-unresponsive")
        check(stage.gateway, stopped, PING_SECONDS, reason="client-unresponsive", by="client", backend_code=1001)
        # Nothing was said to the client, which finds its connection gone when it wakes up.
        client.signal(signal.SIGCONT)
        assert client.wait_for(event="closed")["code"] == 1006


@pytest.mark.parametrize("server", ["ws", "websockets", "aiohttp"])
def test_a_backend_that_is_stopped_is_found_out_and_the_client_is_told(server):
    with Stage(server, tunnel=PINGS) as stage:
        client = stage.start_client("python", "python/websockets_client.py", "hello")
        client.wait_for(event="heard")
        stage.gateway.wait_for_metric('wsgate_pings_total{side="backend"}', lambda pings: pings >= 4)
        stage.server.signal(signal.SIGSTOP)
        stopped = time.monotonic()
        told = client.wait_for(event="closed")
        assert (told["code"], told["reason"]) == (1011, "backend-unresponsive")
        check(stage.gateway, stopped, PING_SECONDS, reason="backend-unresponsive", by="backend", client_code=1011)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_that_takes_no_bytes_is_found_out_while_the_backend_streams(client):
    # So long that every buffer on the way is full before a Ping would be due.
    with Stage("websockets", tunnel='ping_interval = "3s"\nping_timeout = "1s"') as stage:
        client = stage.start_client(*client, "!stream 65536")
        client.wait_for(event="heard")
        client.signal(signal.SIGSTOP)
        stopped = time.monotonic()
        told = stage.server.wait_for(event="closed", id="client")
        assert (told["code"], told["reason"]) == (1001, "client-unresponsive")
        check(stage.gateway, stopped, 4, reason="client-unresponsive", by="client", backend_code=1001)
        assert stage.gateway.metric('wsgate_pings_total{side="client"}') == 0, "there was no room for a Ping"


def test_a_client_that_takes_no_bytes_ends_at_the_idle_timeout_without_pings():
    with Stage("websockets", tunnel='idle_timeout = "2s"\nclose_timeout = "1s"') as stage:
        client = stage.start_client("python", "python/websockets_client.py", "!stream 65536")
        client.wait_for(event="heard")
        client.signal(signal.SIGSTOP)
        stopped = time.monotonic()
        told = stage.server.wait_for(event="closed", id="client")
        assert (told["code"], told["reason"]) == (1001, "idle-timeout")
        stage.gateway.wait_for_end()
        assert time.monotonic() - stopped <= 3 + SLACK_SECONDS
        [record] = stage.gateway.closed_tunnels()
        assert (record["reason"], record["by"]) == ("idle-timeout", "gateway")


def cut_off(stage, network):
    """A client beyond a wire that is cut once it has heard something. When that was."""
    client = stage.start_client("python", "python/websockets_client.py", "hello", within=network.far)
    client.wait_for(event="heard")
    network.cut()
    return time.monotonic()


def test_a_client_whose_network_is_gone_is_found_out_by_pings():
    with Network() as network, Stage("websockets", tunnel=PINGS, listen=f"{GATEWAY}:0", within=network.near) as stage:
        cut = cut_off(stage, network)
        told = stage.server.wait_for(event="closed", id="client")
        assert (told["code"], told["reason"]) == (1001, "client-unresponsive")
        check(stage.gateway, cut, PING_SECONDS, reason="client-unresponsive", by="client", backend_code=1001)


def test_a_client_whose_network_is_gone_ends_at_the_idle_timeout_without_pings():
    tunnel = 'idle_timeout = "2s"\nclose_timeout = "1s"'
    with Network() as network, Stage("websockets", tunnel=tunnel, listen=f"{GATEWAY}:0", within=network.near) as stage:
        cut = cut_off(stage, network)
        told = stage.server.wait_for(event="closed", id="client")
        assert (told["code"], told["reason"]) == (1001, "idle-timeout")
        check(stage.gateway, cut, 3, reason="idle-timeout", by="gateway", code="1001", backend_code=1001)
