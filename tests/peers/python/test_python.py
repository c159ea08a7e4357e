"""Python's `websockets` and `aiohttp` as clients of every server, through the gateway."""

import asyncio
import random

import pytest
from clients import CLIENTS, Refused, WebsocketsClient, fresh_id
from peers import MATRIX, Everything

PAIRS = [(client, server) for client in CLIENTS for server in MATRIX["servers"]]


@pytest.fixture(scope="session")
def everything():
    started = Everything()
    yield started
    assert started.stop() == 0, "the gateway drains and exits with 0"


class Pair:
    """A client, a server, and the gateway between them."""

    def __init__(self, client, server, everything):
        self.client = CLIENTS[client]
        self.url = everything.url(server)
        self.server = everything.servers[server]

    def open(self, **options):
        return self.client(self.url, **options)

    async def server_sees(self, event, client):
        # In a thread, because the client's own sockets need the loop meanwhile.
        return await asyncio.to_thread(self.server.wait_for, event=event, id=client.id)


def pairs(client_can=None, server_can=None):
    """Runs a case with every pair of which both sides can do what it takes."""
    able = [
        pytest.param((client, server), id=f"{client}-{server}")
        for client, server in PAIRS
        if client_can is None or client_can in CLIENTS[client].CAN
        if server_can is None or server_can in MATRIX["servers"][server]["can"]
    ]
    return pytest.mark.parametrize("pair", able, indirect=True)


@pytest.fixture
def pair(request, everything):
    return Pair(*request.param, everything)


@pairs()
@pytest.mark.parametrize("text", MATRIX["texts"])
def test_a_text_comes_back(pair, text):
    async def case():
        async with pair.open() as client:
            await client.send(text)
            assert await client.receive() == text

    asyncio.run(case())


@pairs()
@pytest.mark.parametrize("size", MATRIX["message_bytes"])
def test_bytes_come_back(pair, size):
    sent = random.Random(size).randbytes(size)

    async def case():
        async with pair.open() as client:
            await client.send(sent)
            received = await client.receive()
            assert len(received) == len(sent)
            # Not compared by pytest, which would explain a difference byte by byte.
            assert (received == sent) is True

    asyncio.run(case())


@pairs()
def test_messages_come_back_in_order(pair):
    sent = [f"message {number}" for number in range(500)]

    async def case():
        async with pair.open() as client:
            for text in sent:
                await client.send(text)
            assert [await client.receive() for _ in sent] == sent

    asyncio.run(case())


@pairs()
def test_a_ping_of_the_client_is_answered(pair):
    async def case():
        async with pair.open() as client:
            await client.ping("hello")

    asyncio.run(case())


@pairs()
def test_a_ping_of_the_server_is_answered(pair):
    async def case():
        async with pair.open() as client:
            await client.send("!ping hello")
            assert await client.receive() == "pong hello"

    asyncio.run(case())


@pairs(client_can="send fragments")
def test_fragments_of_the_client_with_a_ping_between_arrive_as_one_message(pair):
    async def case():
        async with pair.open() as client:
            await client.send_fragments("one ", "two")
            assert await client.receive() == "one two"

    asyncio.run(case())


@pairs(server_can="send fragments")
def test_fragments_of_the_server_with_a_ping_between_arrive_as_one_message(pair):
    async def case():
        async with pair.open() as client:
            await client.send("!fragments one two three")
            assert await client.receive() == "onetwothree"

    asyncio.run(case())


@pairs()
@pytest.mark.parametrize("code", MATRIX["close_codes"])
def test_the_server_sees_the_close_of_the_client(pair, code):
    async def case():
        async with pair.open() as client:
            answered = await client.close(code, "that is all")
            seen = await pair.server_sees("closed", client)
            assert (seen["code"], seen["reason"]) == (code, "that is all")
            assert answered != 1006

    asyncio.run(case())


@pairs()
@pytest.mark.parametrize("code", MATRIX["close_codes"])
def test_the_client_sees_the_close_of_the_server(pair, code):
    async def case():
        async with pair.open() as client:
            await client.send(f"!close {code} that is all")
            assert await client.wait_closed() == (code, "that is all")

    asyncio.run(case())


@pairs(server_can="close without a code")
def test_the_client_sees_the_close_of_the_server_without_a_code(pair):
    async def case():
        async with pair.open() as client:
            await client.send("!close")
            assert (await client.wait_closed())[0] == 1005

    asyncio.run(case())


@pairs()
@pytest.mark.parametrize("subprotocols", MATRIX["subprotocols"], ids=lambda case: str(case["chosen"]))
def test_both_sides_choose_one_subprotocol(pair, subprotocols):
    async def case():
        async with pair.open(subprotocols=subprotocols["offered"]) as client:
            assert client.subprotocol == subprotocols["chosen"]
            opened = await pair.server_sees("opened", client)
            assert opened["subprotocol"] == subprotocols["chosen"]

    asyncio.run(case())


@pairs()
@pytest.mark.parametrize("deflate", [True, False], ids=["offered", "not-offered"])
def test_permessage_deflate_is_used_exactly_where_it_is_offered(pair, deflate):
    text = "the same words again and again, " * (32 * 1024)

    async def case():
        async with pair.open(deflate=deflate) as client:
            expected = "permessage-deflate" if deflate else ""
            assert client.extensions.split(";")[0] == expected
            opened = await pair.server_sees("opened", client)
            assert opened["extensions"].split(";")[0] == expected
            await client.send(text)
            assert await client.receive() == text

    asyncio.run(case())


@pytest.mark.parametrize("client", CLIENTS)
def test_a_route_that_strips_extensions_serves_both_sides_without_them(everything, client):
    async def case():
        async with CLIENTS[client](everything.url("without-extensions"), deflate=True) as opened:
            assert opened.extensions == ""
            await opened.send("plain")
            assert await opened.receive() == "plain"

    asyncio.run(case())


@pairs()
def test_many_connections_in_a_row_each_have_their_echo_and_their_close(pair):
    async def case():
        for number in range(MATRIX["connections_in_a_row"]):
            async with pair.open() as client:
                await client.send(str(number))
                assert await client.receive() == str(number)
                assert await client.close(1000, "") == 1000

    asyncio.run(case())


@pairs(client_can="claim another version")
@pytest.mark.parametrize("version", ["8", "7", "14"])
def test_another_version_gets_426_with_the_list_and_the_server_never_hears_of_it(pair, version):
    refused = asyncio.run(refusal_of(pair, version, status=426))
    asyncio.run(make_heard(pair))
    assert not pair.server.saw(id=refused)


def test_two_version_headers_get_400_with_the_list_and_the_server_never_hears_of_it(everything):
    pair = Pair(WebsocketsClient.NAME, "websockets", everything)
    refused = asyncio.run(refusal_of(pair, "8", status=400))
    asyncio.run(make_heard(pair))
    assert not pair.server.saw(id=refused)


async def refusal_of(pair, version, status):
    """Asserts that a client which claims this version is refused; gives the id that it had."""
    id = fresh_id(pair.client.NAME)
    with pytest.raises(Refused) as refusal:
        async with pair.open(version=version, id=id):
            pass
    assert refusal.value.status == status
    assert refusal.value.headers["Sec-WebSocket-Version"] == "13"
    return id


async def make_heard(pair):
    """A connection that the server must hear of, later than whatever came before it."""
    async with pair.open() as client:
        await pair.server_sees("opened", client)
