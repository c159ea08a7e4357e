"""Old peers with each other and with modern ones: without the gateway where both speak one version, so that what fails
there is not its fault, and through it wherever it translates."""

import base64
import hashlib
import itertools
import random

import pytest
from everything import HIXIE, MATRIX, Connection, Everything, text_of

DIRECT, THROUGH = "without the gateway", "through the gateway"
NO_CODE = 1005
NO_CLOSE = 1006
CLIENT_IS_GONE = 1001
SERVER_IS_GONE = 1011
DRAINING = 1001
REASON = "that is all"
BYTES = random.Random(0).randbytes(1000)


class Pair:
    """A client and a server, each in one version, and how they are connected."""

    def __init__(self, way, client, client_version, server, server_version):
        self.is_direct = way == DIRECT
        self.client, self.client_version = client, client_version
        self.server, self.server_version = server, server_version
        self.client_can = MATRIX["clients"][client]["versions"][client_version]
        self.server_can = MATRIX["servers"][server]["versions"][server_version]

    def __str__(self):
        way = "directly" if self.is_direct else "gateway"
        return f"{self.client}-{self.client_version}-{way}-{self.server}-{self.server_version}"

    @property
    def client_is_hixie(self):
        return self.client_version in HIXIE

    @property
    def server_is_hixie(self):
        return self.server_version in HIXIE

    def connect(self, everything, *, gateway=None, binary="refuse", query="", **options):
        server = everything.servers[self.server]
        address = server.address if self.is_direct else (gateway or everything.gateway).address
        client = everything.client(self.client, self.client_version)
        url = f"ws://{address}/{self.server}-{self.server_version}-{binary}{query}"
        return Connection(client, server, url, **options)

    def open(self, everything, **options):
        """A connection that both sides have reported; the server in the version that it is meant to see."""
        connection = self.connect(everything, **options)
        connection.client_subprotocol = connection.client_hears("opened").get("subprotocol")
        opened = connection.server_hears("opened")
        assert opened["version"] == self.server_version
        connection.server_subprotocol = opened["subprotocol"]
        return connection


def all_pairs():
    for way, groups in MATRIX["pairs"].items():
        for group in groups:
            for client, server in itertools.product(versions_of(group["clients"]), versions_of(group["servers"])):
                yield Pair(way, *client, *server)


def versions_of(peers):
    return [(name, version) for name, versions in peers.items() for version in versions]


PAIRS = list(all_pairs())


def pairs(wanted=lambda _pair: True, client_can=None, server_can=None):
    """Runs a case with every pair of which both sides can do what it takes."""
    able = [
        pytest.param(pair, id=str(pair))
        for pair in PAIRS
        if client_can is None or client_can in pair.client_can
        if server_can is None or server_can in pair.server_can
        if wanted(pair)
    ]
    assert able, "a case without a pair proves nothing"
    return pytest.mark.parametrize("pair", able)


@pytest.fixture(scope="session")
def everything():
    started = Everything()
    yield started
    assert started.stop() == 0, "the gateway drains and exits with 0"


def check_message(message, expected):
    """`expected` is what a text is made of."""
    assert message["binary"] is False
    assert message["bytes"] == len(expected)
    assert message["sha1"] == hashlib.sha1(expected).hexdigest()


@pairs()
@pytest.mark.parametrize("size", MATRIX["text_bytes"])
def test_a_text_of_any_length_comes_back(everything, pair, size):
    with pair.open(everything) as connection:
        connection.tell(send_size=size)
        check_message(connection.server_hears("message"), text_of(size))
        check_message(connection.client_hears("message"), text_of(size))


@pairs()
def test_characters_of_every_length_come_back_in_order(everything, pair):
    with pair.open(everything) as connection:
        for text in MATRIX["texts"]:
            connection.tell(send=text)
        assert [connection.server_hears("message")["text"] for _ in MATRIX["texts"]] == MATRIX["texts"]
        assert [connection.client_hears("message")["text"] for _ in MATRIX["texts"]] == MATRIX["texts"]


@pairs()
def test_a_server_that_speaks_first_is_heard(everything, pair):
    with pair.open(everything, query="?greet=yes") as connection:
        assert connection.client_hears("message")["text"] == "welcome"
        connection.tell(send="hello")
        assert connection.client_hears("message")["text"] == "hello"


@pairs(client_can="bytes", server_can="bytes")
def test_bytes_come_back(everything, pair):
    with pair.open(everything) as connection:
        connection.tell(send_binary=base64.b64encode(BYTES).decode())
        message = connection.client_hears("message")
        assert message["binary"] is True
        assert message["sha1"] == hashlib.sha1(BYTES).hexdigest()


@pairs(client_can="fragments")
def test_fragments_of_the_client_arrive_as_one_message(everything, pair):
    with pair.open(everything) as connection:
        connection.tell(fragments=["one €", "", "two ", "three"])
        assert connection.server_hears("message")["text"] == "one €two three"
        assert connection.client_hears("message")["text"] == "one €two three"


@pairs(server_can="fragments")
def test_fragments_of_the_server_arrive_as_one_message(everything, pair):
    with pair.open(everything) as connection:
        connection.tell(send="!fragments one€ two three")
        assert connection.client_hears("message")["text"] == "one€twothree"


@pairs(client_can="ping")
def test_a_ping_of_the_client_is_answered(everything, pair):
    with pair.open(everything) as connection:
        connection.tell(ping="hello")
        assert connection.client_hears("pong")["data"] == "hello"
        # It was no message to the server.
        connection.tell(send="then")
        assert connection.server_hears("message")["text"] == "then"


@pairs(server_can="ping")
def test_a_ping_of_the_server_is_answered(everything, pair):
    with pair.open(everything) as connection:
        connection.tell(send="!ping hello")
        assert connection.client_hears("message")["text"] == "pong hello"


@pairs(client_can="close with a code")
@pytest.mark.parametrize("code", MATRIX["close_codes"])
def test_the_code_of_the_client_arrives_where_there_are_codes(everything, pair, code):
    with pair.open(everything) as connection:
        connection.tell(close=code, reason=REASON)
        answer = connection.client_hears("closed")
        assert answer["clean"] is True
        # Towards hixie it is the gateway that answers. Of the others this one answers without a code.
        assert answer["code"] == (NO_CODE if pair.server == "tornado" and not pair.server_is_hixie else code)
        heard = connection.server_hears("closed")
        if "knows the code" in pair.server_can:
            assert (heard["code"], heard["reason"]) == (code, REASON)
        check_clean(heard)


@pairs(client_can="close without a code")
def test_a_close_of_the_client_without_a_code_arrives_without_one(everything, pair):
    with pair.open(everything) as connection:
        connection.tell(close=None)
        assert connection.client_hears("closed")["clean"] is True
        heard = connection.server_hears("closed")
        if "knows the code" in pair.server_can:
            # Some name the absence of a code in their own way.
            assert heard["code"] == {"ws-0-4": 1000, "eventlet": None}.get(pair.server, NO_CODE)
        check_clean(heard)


@pairs(lambda pair: pair.client_is_hixie)
def test_the_close_of_a_hixie_client_arrives_as_1000(everything, pair):
    with pair.open(everything) as connection:
        connection.tell(close=None)
        answer = connection.client_hears("closed")
        if pair.client_version == "0" and not (pair.is_direct and pair.server == "eventlet"):
            assert answer["clean"] is True, "FF 00 is answered with FF 00"
        heard = connection.server_hears("closed")
        if "knows the code" in pair.server_can:
            assert heard["code"] == 1000
        check_clean(heard)


@pairs(server_can="close with a code")
@pytest.mark.parametrize("code", MATRIX["close_codes"])
def test_the_code_of_the_server_arrives_where_there_are_codes(everything, pair, code):
    with pair.open(everything) as connection:
        connection.tell(send=f"!close {code} {REASON}")
        heard = connection.client_hears("closed")
        if pair.client_is_hixie:
            check_clean_end_of_hixie_client(pair, heard)
        else:
            assert (heard["code"], heard["reason"], heard["clean"]) == (code, REASON, True)
        answer = connection.server_hears("closed")
        # From a hixie client there is no answer, so it is the gateway's; others answer as they like.
        if pair.client_is_hixie and "knows the code" in pair.server_can and pair.server != "eventlet":
            assert answer["code"] == code
        check_clean(answer)


@pairs(server_can="close without a code")
def test_a_close_of_the_server_without_a_code_arrives_without_one(everything, pair):
    with pair.open(everything) as connection:
        connection.tell(send="!close")
        heard = connection.client_hears("closed")
        if pair.client_is_hixie:
            check_clean_end_of_hixie_client(pair, heard)
        # This one calls the absence of a code an abrupt end.
        elif pair.client != "websocket":
            assert (heard["code"], heard["clean"]) == (NO_CODE, True)
        check_clean(connection.server_hears("closed"))


@pairs(lambda pair: pair.server_is_hixie)
def test_the_close_of_a_hixie_server_arrives_as_1000(everything, pair):
    with pair.open(everything) as connection:
        connection.tell(send="!close")
        heard = connection.client_hears("closed")
        if not pair.client_is_hixie:
            assert (heard["code"], heard["reason"], heard["clean"]) == (1000, "", True)
        elif not pair.is_direct or "FF 00" in pair.server_can:
            check_clean_end_of_hixie_client(pair, heard)
        connection.server_hears("closed")


@pairs(client_can="abort")
def test_the_server_hears_of_an_abrupt_end_of_the_client(everything, pair):
    with pair.open(everything) as connection:
        connection.tell(abort=True)
        heard = connection.server_hears("closed")
        # These two report no code but that of a Close.
        if "knows the code" in pair.server_can and pair.server not in ("ws-0-4", "eventlet"):
            assert heard["code"] == (NO_CLOSE if pair.is_direct else CLIENT_IS_GONE)


@pairs(server_can="abort")
def test_the_client_hears_of_an_abrupt_end_of_the_server(everything, pair):
    with pair.open(everything) as connection:
        connection.tell(send="!abort")
        heard = connection.client_hears("closed")
        if not pair.client_is_hixie:
            assert heard["code"] == (NO_CLOSE if pair.is_direct else SERVER_IS_GONE)


@pairs(client_can="subprotocol", server_can="subprotocol")
def test_the_subprotocol_that_is_offered_is_the_one_that_is_chosen(everything, pair):
    with pair.open(everything, subprotocol="chat") as connection:
        assert connection.client_subprotocol == "chat"
        assert connection.server_subprotocol == "chat"


def through(wanted):
    return lambda pair: not pair.is_direct and wanted(pair)


@pairs(through(lambda pair: pair.server_is_hixie), client_can="bytes")
def test_bytes_for_a_hixie_server_are_refused_with_1003(everything, pair):
    with pair.open(everything) as connection:
        connection.tell(send_binary=base64.b64encode(BYTES).decode())
        heard = connection.client_hears("closed")
        assert (heard["code"], heard["clean"]) == (1003, True)
        check_clean(connection.server_hears("closed"))


@pairs(through(lambda pair: pair.client_is_hixie), server_can="send bytes")
def test_bytes_for_a_hixie_client_are_refused_with_1003(everything, pair):
    with pair.open(everything) as connection:
        connection.tell(send="!binary AP8=")
        assert connection.server_hears("closed")["code"] == 1003
        check_clean_end_of_hixie_client(pair, connection.client_hears("closed"))


# Behind the byte FF would begin what the client likes to have said in the name of the gateway.
@pairs(through(lambda pair: pair.server_is_hixie), client_can="any text")
@pytest.mark.parametrize("text", [b"one\xff\x00two", b"\xff\x00", b"\xc0\x80", b"\xed\xa0\x80", b"one\xe2\x82"])
def test_a_text_that_is_no_utf8_never_reaches_a_hixie_server(everything, pair, text):
    with pair.open(everything) as connection:
        connection.tell(send_as_text=base64.b64encode(text).decode())
        heard = connection.client_hears("closed")
        assert (heard["code"], heard["clean"]) == (1007, True)
        check_clean(connection.server_hears("closed"))
        assert connection.events_of(connection.server, "message") == []


@pairs(through(lambda pair: pair.server_is_hixie), client_can="bytes")
@pytest.mark.parametrize("size", [0, 1, 2, 3, 100_000])
def test_bytes_for_a_hixie_server_are_base64_where_the_route_says_so(everything, pair, size):
    sent = random.Random(size).randbytes(size)
    encoded = base64.b64encode(sent)
    with pair.open(everything, binary="base64") as connection:
        connection.tell(send_binary=encoded.decode())
        check_message(connection.server_hears("message"), encoded)
        message = connection.client_hears("message")
        assert message["binary"] is True
        assert message["sha1"] == hashlib.sha1(sent).hexdigest()


@pairs(through(lambda pair: pair.client_is_hixie and not pair.server_is_hixie), server_can="bytes")
def test_texts_of_a_hixie_client_are_base64_of_bytes_where_the_route_says_so(everything, pair):
    encoded = base64.b64encode(BYTES)
    with pair.open(everything, binary="base64") as connection:
        connection.tell(send=encoded.decode())
        message = connection.server_hears("message")
        assert message["binary"] is True
        assert message["sha1"] == hashlib.sha1(BYTES).hexdigest()
        check_message(connection.client_hears("message"), encoded)


@pairs(through(lambda pair: not pair.server_is_hixie), client_can="any code", server_can="knows the code")
def test_1004_of_the_client_is_1009_today(everything, pair):
    with pair.open(everything) as connection:
        connection.tell(close=1004, reason=REASON)
        connection.client_hears("closed")
        assert connection.server_hears("closed")["code"] == 1009


@pairs(through(lambda pair: pair.client in ("ws", "chromium") and pair.client_version == "13"), server_can="any code")
def test_1004_of_the_server_is_1009_today(everything, pair):
    with pair.open(everything) as connection:
        connection.tell(send=f"!close 1004 {REASON}")
        assert connection.client_hears("closed")["code"] == 1009
        connection.server_hears("closed")


@pairs(through(lambda pair: pair.server == "ws"), client_can="any code")
@pytest.mark.parametrize("code", MATRIX["codes_never_sent"])
def test_a_code_that_may_not_be_sent_never_reaches_the_server(everything, pair, code):
    with pair.open(everything) as connection:
        connection.tell(close=code, reason=REASON)
        connection.client_hears("closed")
        heard = connection.server_hears("closed")
        assert heard["error"] is None, "what came was no valid Close"
        assert heard["code"] == NO_CODE


@pairs(through(lambda pair: pair.client == "ws" and pair.client_version == "13"), server_can="any code")
@pytest.mark.parametrize("code", MATRIX["codes_never_sent"])
def test_a_code_that_may_not_be_sent_never_reaches_the_client(everything, pair, code):
    with pair.open(everything) as connection:
        connection.tell(send=f"!close {code} {REASON}")
        heard = connection.client_hears("closed")
        assert heard["error"] is None, "what came was no valid Close"
        assert heard["code"] == NO_CODE
        connection.server_hears("closed")


CLIENT_OF_VERSION = {
    "hixie-75": "protocol-websocket",
    "0": "websocket-client",
    "7": "ruby-websocket",
    "8": "websocket",
    "13": "ws",
}


@pytest.mark.parametrize(
    ("choice", "client_version", "server_version"),
    [
        pytest.param(number, *versions, id=f"{choice['about']}: {versions[0]}")
        for number, choice in enumerate(MATRIX["choices"])
        for versions in choice["chosen"].items()
    ],
)
def test_the_gateway_chooses_the_version_towards_the_server(everything, choice, client_version, server_version):
    name, query = MATRIX["choices"][choice]["server"], MATRIX["choices"][choice].get("query", "")
    client = everything.client(CLIENT_OF_VERSION[client_version], client_version)
    url = f"ws://{everything.gateway.address}/choice-{choice}-refuse{query}"
    with Connection(client, everything.servers[name], url) as connection:
        connection.client_hears("opened")
        assert connection.server_hears("opened")["version"] == server_version
        connection.tell(send="hello")
        assert connection.client_hears("message")["text"] == "hello"


DRAINED = [
    Pair(THROUGH, "protocol-websocket", "hixie-75", "ws", "13"),
    Pair(THROUGH, "websocket-client", "0", "protocol-websocket", "8"),
    Pair(THROUGH, "ruby-websocket", "7", "em-websocket", "0"),
    Pair(THROUGH, "websocket", "8", "websocket-driver", "0"),
    Pair(THROUGH, "ws", "13", "eventlet", "hixie-75"),
    Pair(THROUGH, "chromium", "13", "tornado", "0"),
]


def test_a_drain_tells_both_sides_in_their_own_way(everything):
    gateway = everything.start_gateway()
    connections = [pair.open(everything, gateway=gateway) for pair in DRAINED]
    gateway.begin_drain()
    for pair, connection in zip(DRAINED, connections, strict=True):
        heard = connection.client_hears("closed")
        if pair.client_is_hixie:
            check_clean_end_of_hixie_client(pair, heard)
        else:
            assert (heard["code"], heard["clean"]) == (DRAINING, True)
        heard = connection.server_hears("closed")
        if "knows the code" in pair.server_can:
            assert heard["code"] == DRAINING
        check_clean(heard)
    assert gateway.wait() == 0
    gateway.clear()


# A page is not told why it was refused.
TOLD_WHY = [
    (name, version)
    for name, client in MATRIX["clients"].items()
    if name != "chromium"
    for version in client["versions"]
]


@pytest.mark.parametrize("client", TOLD_WHY, ids="-".join)
@pytest.mark.parametrize("server_version", ["0", "8"])
def test_the_refusal_of_an_old_server_reaches_every_client_as_http(everything, client, server_version):
    pair = Pair(THROUGH, *client, "ws-0-4", server_version)
    with pair.connect(everything, query="?refuse=403") as connection:
        assert connection.client_hears("refused")["status"] == 403


@pytest.mark.parametrize("client", TOLD_WHY, ids="-".join)
def test_a_server_that_does_not_prove_that_it_understood_is_a_bad_gateway(everything, client):
    url = f"ws://{everything.gateway.address}/wrong-digest-refuse"
    with Connection(everything.client(*client), everything.scripted, url) as connection:
        assert connection.client_hears("refused")["status"] == 502


def check_clean(heard):
    """The end was no abrupt one, as far as this side can tell the difference."""
    assert heard.get("clean") is not False
    assert heard["code"] != NO_CLOSE


def check_clean_end_of_hixie_client(pair, heard):
    # In hixie-75 there is no other end than that of the connection.
    assert pair.client_version == "hixie-75" or heard["clean"] is True
