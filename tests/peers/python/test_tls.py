"""TLS to clients as `openssl s_client` and `curl` see it, and TLS to a server of Python's own `ssl`."""

import http.server
import json
import shutil
import ssl
import subprocess
import threading
from pathlib import Path

import pytest
from certificates import Authority, self_signed
from gateway import Gateway

TEMPLATE = Path(__file__).resolve().parent.parent / "tls.toml"
PATIENCE_SECONDS = 20
HANDSHAKES = 'wsgate_tls_handshakes_total{kind="%s",listener="public",tls="%s"}'


class Backend(http.server.ThreadingHTTPServer):
    """Answers every GET with the header fields that it got, over TLS if it has a context."""

    daemon_threads = True

    def __init__(self, context=None):
        super().__init__(("127.0.0.1", 0), Answering)
        self.asked = 0
        if context:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        pass  # who leaves amid a handshake is the point of some tests

    @property
    def address(self):
        return f"127.0.0.1:{self.server_address[1]}"


class Answering(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked += 1
        body = json.dumps({name.lower(): value for name, value in self.headers.items()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def stage(tmp_path):
    return Stage(tmp_path)


class Stage:
    """Authorities, and what a test starts; all of it is ended after the test."""

    def __init__(self, folder):
        self.folder = folder
        self.ca = Authority(folder, "ca")

    def gateway(self, pairs, listener="", upstream="", server=None):
        server = server or Backend()
        self.backend = server
        pair = "{ certificate = \"%s\", key = \"%s\" }"
        words = {
            "certificates": ", ".join(pair % files for files in pairs),
            "listener": listener,
            "upstream": upstream,
            "server": server.address,
        }
        return Gateway(TEMPLATE, words)


def s_client(gateway, *words, send=b""):
    """What `openssl s_client` prints."""
    command = ["openssl", "s_client", "-connect", gateway.address, *words]
    done = subprocess.run(command, input=send, capture_output=True, timeout=PATIENCE_SECONDS)
    return (done.stdout + done.stderr).decode(errors="replace")


def curl(gateway, name, *words):
    """Exit code, and what it printed."""
    port = gateway.address.rsplit(":", 1)[1]
    resolve = ["--noproxy", "*", "--resolve", f"{name}:{port}:127.0.0.1"]
    command = ["curl", "--silent", "--show-error", "--max-time", "10", *resolve, *words, f"https://{name}:{port}/x"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_s_client_agrees_on_both_versions_and_on_nothing_older(stage):
    gateway = stage.gateway([stage.ca.sign("server", ["a.example"])])
    trust = ["-CAfile", str(stage.ca.pem), "-verify_return_error", "-servername", "a.example"]
    for word, version in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")]:
        said = s_client(gateway, word, *trust, "-alpn", "http/1.1")
        assert f"New, {version}, Cipher is" in said, said
        assert "Verification: OK" in said and "ALPN protocol: http/1.1" in said, said
    said = s_client(gateway, "-tls1_1", *trust, "-cipher", "ALL:@SECLEVEL=0")
    assert "Cipher is (NONE)" in said, said
    gateway.stop()


def test_a_listener_of_1_3_alone_refuses_1_2(stage):
    gateway = stage.gateway([stage.ca.sign("server", ["a.example"])], 'min_version = "1.3"')
    said = s_client(gateway, "-tls1_2")
    assert "alert protocol version" in said, said
    gateway.wait_for_metric(
        'wsgate_tls_handshake_failures_total{listener="public",reason="incompatible"}', lambda count: count == 1
    )
    gateway.stop()


def test_s_client_is_shown_the_certificate_that_it_asks_for(stage):
    pairs = [
        stage.ca.sign("first", ["first.example"]),
        stage.ca.sign("wild", ["*.b.example"]),
        stage.ca.sign("exact", ["a.b.example"]),
    ]
    gateway = stage.gateway(pairs)
    cases = [("x.b.example", "wild"), ("a.b.example", "exact"), ("other.example", "first"), (None, "first")]
    for name, shown in cases:
        said = s_client(gateway, *(["-servername", name] if name else ["-noservername"]))
        assert f"subject=CN = {shown}\n" in said or f"subject=CN={shown}\n" in said, (name, said)
    gateway.stop()


@pytest.mark.parametrize(("word", "version"), [("-tls1_2", "1.2"), ("-tls1_3", "1.3")])
def test_s_client_resumes_its_session(stage, word, version):
    gateway = stage.gateway([stage.ca.sign("server", ["a.example"])])
    session = str(stage.folder / "session")
    # In 1.3 tickets come behind the handshake, so something has to be read.
    request = b"GET /x HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n"
    said = s_client(gateway, word, "-servername", "a.example", "-ign_eof", "-sess_out", session, send=request)
    assert "New, " in said, said
    said = s_client(gateway, word, "-servername", "a.example", "-ign_eof", "-sess_in", session, send=request)
    assert "Reused, " in said, said
    gateway.wait_for_metric(HANDSHAKES % ("full", version), lambda count: count == 1)
    gateway.wait_for_metric(HANDSHAKES % ("resumed", version), lambda count: count == 1)
    gateway.stop()


def test_curl_gets_its_answer_and_believes_no_other_name_and_no_other_authority(stage):
    gateway = stage.gateway([stage.ca.sign("server", ["a.example"])])
    trust = ["--cacert", str(stage.ca.pem)]
    code, said = curl(gateway, "a.example", *trust)
    assert (code, json.loads(said)["x-forwarded-proto"]) == (0, "https"), said
    code, said = curl(gateway, "wrong.example", *trust)
    assert code == 60 and "no alternative certificate subject name matches" in said, said
    other = Authority(stage.folder, "other")
    code, said = curl(gateway, "a.example", "--cacert", str(other.pem))
    assert code == 60, said
    gateway.stop()


def test_curl_sees_what_is_wrong_with_a_certificate(stage):
    for pair in [
        stage.ca.sign("expired", ["a.example"], days=-1),
        self_signed(stage.folder, "alone", ["a.example"]),
    ]:
        gateway = stage.gateway([pair])
        code, said = curl(gateway, "a.example", "--cacert", str(stage.ca.pem))
        assert code == 60, said
        gateway.stop()


def test_plain_http_on_the_port_is_told_so(stage):
    gateway = stage.gateway([stage.ca.sign("server", ["a.example"])])
    command = ["curl", "--silent", "--noproxy", "*", "--max-time", "10", "--write-out", "%{http_code}"]
    done = subprocess.run([*command, f"http://{gateway.address}/x"], capture_output=True, text=True)
    assert done.stdout == "The plain HTTP request was sent to an HTTPS port.\n400", done
    gateway.stop()


def test_curl_shows_who_it_is(stage):
    clients = Authority(stage.folder, "clients")
    listener = (
        f'client_certificates = "required"\nclient_ca = "{clients.pem}"\n'
        'client_certificate_header = "X-Client-Certificate-Subject"'
    )
    gateway = stage.gateway([stage.ca.sign("server", ["a.example"])], listener)
    trust = ["--cacert", str(stage.ca.pem)]

    def as_client(pair):
        return [*trust, "--cert", str(pair[0]), "--key", str(pair[1])]

    good = clients.sign("good", usage="clientAuth", subject="/C=DE/O=Ex, ample/CN=device 1")
    made_up = ["--header", "X-Client-Certificate-Subject: CN=root", "--header", "x_client_certificate_subject: CN=root"]
    code, said = curl(gateway, "a.example", *as_client(good), *made_up)
    told = {name: value for name, value in json.loads(said).items() if "subject" in name}
    assert (code, told) == (0, {"x-client-certificate-subject": "CN=device 1,O=Ex\\, ample,C=DE"}), said
    for words in [
        trust,
        as_client(stage.ca.sign("stranger", usage="clientAuth")),
        as_client(clients.sign("late", usage="clientAuth", days=-1)),
        as_client(clients.sign("server-only", usage="serverAuth")),
        as_client(self_signed(stage.folder, "alone", ["a.example"])),
    ]:
        code, said = curl(gateway, "a.example", *words)
        assert code in (35, 56), (code, said)
    assert stage.backend.asked == 1
    gateway.stop()


def server_context(pair, clients=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)
    if clients:
        context.load_verify_locations(clients)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def test_a_python_server_is_verified_and_verifies(stage):
    clients = Authority(stage.folder, "clients")
    certificate, key = clients.sign("gateway", usage="clientAuth")
    tls = f'server_name = "app.example", ca = "{stage.ca.pem}", certificate = "{certificate}", key = "{key}"'
    front = stage.ca.sign("server", ["a.example"])
    trust = ["--cacert", str(stage.ca.pem)]

    def status(pair, clients_of_it):
        server = Backend(server_context(pair, clients_of_it))
        gateway = stage.gateway([front], upstream=f"tls = {{ {tls} }}", server=server)
        code, said = curl(gateway, "a.example", *trust, "--output", "/dev/null", "--write-out", "%{http_code}")
        gateway.stop()
        assert code == 0, said
        return int(said), server.asked

    right = stage.ca.sign("app", ["app.example"])
    assert status(right, str(clients.pem)) == (200, 1)
    assert status(stage.ca.sign("late", ["app.example"], days=-1), None) == (502, 0)
    assert status(stage.ca.sign("misnamed", ["other.example"]), None) == (502, 0)
    assert status(self_signed(stage.folder, "alone", ["app.example"]), None) == (502, 0)
    assert status(Authority(stage.folder, "other").sign("strange", ["app.example"]), None) == (502, 0)


def test_a_renewal_is_shown_without_a_signal(stage):
    certificate, key = stage.ca.sign("server", ["a.example"])
    gateway = stage.gateway([(certificate, key)])

    def serial():
        said = s_client(gateway, "-servername", "a.example")
        pem = said[said.index("-----BEGIN CERTIFICATE") : said.index("-----END CERTIFICATE")]
        return pem

    before = serial()
    renewed, renewed_key = stage.ca.sign("renewed", ["a.example"])
    shutil.copy(renewed, certificate)
    shutil.copy(renewed_key, key)
    gateway.process.wait_for(message="certificates, keys and CAs reloaded")
    assert serial() != before
    gateway.stop()
