//! Files in memory, an authority of their own, and both sides of a handshake.

use std::num::NonZeroUsize;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::*;
use crate::config;
use crate::config::model::Config as Model;

/// Somebody who signs certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: Vec<u8>,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem().into_bytes();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for these names, and its key.
    fn sign(&self, names: &[&str]) -> (Vec<u8>, Vec<u8>) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names.clone()).unwrap();
        params.distinguished_name.push(DnType::CommonName, names.first().map_or("nobody", |name| name));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem().into_bytes(), key.serialize_pem().into_bytes())
    }
}

fn model(listener: &str, upstream: &str) -> Model {
    let text = format!(
        "[[listener]]\nname = 'public'\nlisten = '127.0.0.1:0'\n{listener}\n[[route]]\nname = 'chat'\nupstream = 'app'\n\
         [[upstream]]\nname = 'app'\nservers = ['127.0.0.1:9001']\n{upstream}\n"
    );
    config::parse("test.toml", &text, NonZeroUsize::MIN).unwrap_or_else(|problems| panic!("{problems}"))
}

const ONE: &str = "tls.certificates = [{ certificate = '/a.pem', key = '/a.key' }]";

fn check_problems(config: &Model, files: &Files, expected: &[&str]) {
    let problems = load(config, files, &Known::default()).err().unwrap_or_default();
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(problems, expected);
}

#[test]
fn every_problem_names_its_key_and_its_file() {
    let ca = Authority::new("ca");
    let ((one, one_key), (two, two_key)) = (ca.sign(&["a.example"]), ca.sign(&["b.example"]));
    let config = model(ONE, "");
    let key = "listener.public.tls.certificates";
    let check = |certificate: &[u8], private: &[u8], expected: &[&str]| {
        let files = Files::of([("/a.pem", certificate.to_vec()), ("/a.key", private.to_vec())]);
        check_problems(&config, &files, expected);
    };
    check(&one, &one_key, &[]);
    check(&two, &two_key, &[]);
    check(&one, &two_key, &[&format!("{key}: the key is not that of the certificate: `/a.key`")]);
    check(&one, &one, &[&format!("{key}: no private key in PEM is in it: `/a.key`")]);
    check(&one_key, &one_key, &[&format!("{key}: no certificate in PEM is in it: `/a.pem`")]);
    check(b"", b"", &[&format!("{key}: no certificate in PEM is in it: `/a.pem`")]);
    let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    check(broken, &one_key, &[&format!("{key}: a certificate in it cannot be understood: `/a.pem`")]);
    check_problems(&config, &Files::default(), &[&format!("{key}: cannot be read, entity not found: `/a.pem`")]);
}

#[test]
fn problems_of_both_sides_come_at_once() {
    let listener = format!("{ONE}\ntls.client_certificates = 'required'\ntls.client_ca = '/clients.pem'");
    let config = model(&listener, "tls = { server_name = '1.2.3', ca = '/ca.pem' }");
    check_problems(
        &config,
        &Files::default(),
        &[
            "listener.public.tls.certificates: cannot be read, entity not found: `/a.pem`",
            "listener.public.tls.client_ca: cannot be read, entity not found: `/clients.pem`",
            "upstream.app.tls.server_name: no certificate can be for such a name: `1.2.3`",
        ],
    );
    let config = model("", "tls.server_name = 'app.example'");
    check_problems(
        &config,
        &Files::default(),
        &["upstream.app.tls.ca: the system has no certificates to believe: `the system's`"],
    );
}

fn acceptor(config: &Model, files: &Files, known: &Known) -> Arc<Acceptor> {
    load(config, files, known).unwrap().listeners.remove(0).unwrap()
}

fn known(acceptor: &Arc<Acceptor>) -> Known {
    Known { listeners: HashMap::from([("public".to_owned(), Arc::clone(acceptor))]), upstreams: HashMap::new() }
}

#[test]
fn what_is_made_of_the_same_is_kept() {
    let ca = Authority::new("ca");
    let (certificate, key) = ca.sign(&["a.example"]);
    let files = || Files::of([("/a.pem", certificate.clone()), ("/a.key", key.clone()), ("/ca.pem", ca.pem.clone())]);
    let config = model(ONE, "tls = { server_name = 'a.example', ca = '/ca.pem' }");
    let first = load(&config, &files(), &Known::default()).unwrap();
    let (acceptor, connector) = (first.listeners[0].clone().unwrap(), first.upstreams[0].clone().unwrap());
    let mut known = known(&acceptor);
    known.upstreams.insert("app".to_owned(), Arc::clone(&connector));
    let again = load(&config, &files(), &known).unwrap();
    assert!(Arc::ptr_eq(&acceptor, again.listeners[0].as_ref().unwrap()));
    assert!(Arc::ptr_eq(&connector, again.upstreams[0].as_ref().unwrap()));
    let (certificate, key) = ca.sign(&["a.example"]);
    let renewed = Files::of([("/a.pem", certificate), ("/a.key", key), ("/ca.pem", ca.pem.clone())]);
    let renewed = load(&config, &renewed, &known).unwrap();
    assert!(!Arc::ptr_eq(&acceptor, renewed.listeners[0].as_ref().unwrap()));
    assert!(Arc::ptr_eq(&connector, renewed.upstreams[0].as_ref().unwrap()));
}

#[test]
fn a_bad_pair_leaves_the_old_one_in_its_place() {
    let ca = Authority::new("ca");
    let (certificate, key) = ca.sign(&["a.example"]);
    let config = model(ONE, "");
    let files = Files::of([("/a.pem", certificate), ("/a.key", key)]);
    let before = acceptor(&config, &files, &Known::default());
    let (other, _) = ca.sign(&["a.example"]);
    let (_, another) = ca.sign(&["a.example"]);
    let (loaded, problems) = renew(&config, &Files::of([("/a.pem", other), ("/a.key", another)]), &known(&before));
    assert_eq!(problems[0].fault, Fault::Mismatch);
    assert!(Arc::ptr_eq(&before, loaded.listeners[0].as_ref().unwrap()));
}

#[test]
fn a_certificate_is_chosen_by_name_then_by_wildcard_else_the_first() {
    let ca = Authority::new("ca");
    let config = model(
        "tls.certificates = [{ certificate = '/0', key = '/0k' }, { certificate = '/1', key = '/1k' }, \
         { certificate = '/2', key = '/2k' }]",
        "",
    );
    let pairs = [ca.sign(&["first.example"]), ca.sign(&["*.a.example"]), ca.sign(&["Chat.a.example", "b.example"])];
    let [(one, one_key), (two, two_key), (three, three_key)] = pairs;
    let files =
        Files::of([("/0", one), ("/0k", one_key), ("/1", two), ("/1k", two_key), ("/2", three), ("/2k", three_key)]);
    let rules = &config.listeners[0].tls.as_ref().unwrap().certificates;
    let pairs: Vec<_> = rules.iter().map(|rules| pair::pair("", rules, &files, &provider()).ok().unwrap()).collect();
    let chooser = chooser::Chooser::new(&pairs);
    let check = |name: Option<&str>, expected: usize| assert_eq!(chooser.choose(name), expected, "{name:?}");
    check(None, 0);
    check(Some("first.example"), 0);
    check(Some("other.example"), 0);
    check(Some("x.a.example"), 1);
    check(Some("X.A.EXAMPLE"), 1);
    check(Some("chat.a.example"), 2);
    check(Some("b.example"), 2);
    check(Some("a.example"), 0);
    check(Some("x.y.a.example"), 0);
}

/// A client that believes `ca`, and shows a certificate if it has one.
fn client(ca: &[u8], identity: Option<&(Vec<u8>, Vec<u8>)>) -> Arc<ClientConfig> {
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    Arc::new(match identity {
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate).unwrap()];
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key).unwrap()).unwrap()
        }
        None => builder.with_no_client_auth(),
    })
}

/// What the acceptor says of a client; the client hears one byte, so that it has its tickets.
async fn meet(acceptor: &Acceptor, client: &Arc<ClientConfig>) -> Result<Met, Failure> {
    let (ours, theirs) = duplex(1 << 16);
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(client));
    let name = ServerName::try_from("a.example").unwrap();
    let client = async move {
        if let Ok(mut stream) = connector.connect(name, theirs).await {
            let _ = stream.read_u8().await;
        }
    };
    let accept = async {
        let mut accepted = acceptor.accept(ours).await.map_err(|refused| refused.failure)?;
        accepted.stream.write_u8(1).await.unwrap();
        accepted.stream.shutdown().await.unwrap();
        Ok(accepted.met)
    };
    tokio::join!(client, accept).1
}

fn with_clients(mode: &str) -> Model {
    model(&format!("{ONE}\ntls.client_certificates = '{mode}'\ntls.client_ca = '/clients.pem'"), "")
}

#[tokio::test]
async fn sessions_survive_a_renewal_but_no_change_of_whom_is_believed() {
    let (ca, clients, others) = (Authority::new("ca"), Authority::new("clients"), Authority::new("others"));
    let config = with_clients("required");
    let files = |clients: &Authority| {
        let (certificate, key) = ca.sign(&["a.example"]);
        Files::of([("/a.pem", certificate), ("/a.key", key), ("/clients.pem", clients.pem.clone())])
    };
    let first = acceptor(&config, &files(&clients), &Known::default());
    let identity = clients.sign(&["device-1"]);
    let client = client(&ca.pem, Some(&identity));
    let met = meet(&first, &client).await.unwrap();
    assert_eq!((met.is_resumed, met.version), (false, "1.3"));
    assert!(meet(&first, &client).await.unwrap().is_resumed);
    let renewed = acceptor(&config, &files(&clients), &known(&first));
    let met = meet(&renewed, &client).await.unwrap();
    assert!(met.is_resumed);
    assert_eq!(met.subject.as_deref(), Some("CN=device-1"));
    let changed = acceptor(&config, &files(&others), &known(&renewed));
    assert_eq!(meet(&changed, &client).await, Err(Failure::CertificateRefused));
}

#[tokio::test]
async fn who_is_asked_for_a_certificate_has_to_show_a_right_one() {
    let (ca, clients) = (Authority::new("ca"), Authority::new("clients"));
    let (certificate, key) = ca.sign(&["a.example"]);
    let files = Files::of([("/a.pem", certificate), ("/a.key", key), ("/clients.pem", clients.pem.clone())]);
    let (right, wrong) = (clients.sign(&["device-1"]), ca.sign(&["device-1"]));
    let named = |met: Result<Met, Failure>| met.map(|met| met.subject.map(|subject| subject.to_string()));
    for (mode, without) in [("optional", Ok(None)), ("required", Err(Failure::CertificateMissing))] {
        let acceptor = acceptor(&with_clients(mode), &files, &Known::default());
        assert_eq!(named(meet(&acceptor, &client(&ca.pem, None)).await), without, "{mode}");
        let shown = meet(&acceptor, &client(&ca.pem, Some(&right))).await;
        assert_eq!(named(shown), Ok(Some("CN=device-1".to_owned())), "{mode}");
        let refused = meet(&acceptor, &client(&ca.pem, Some(&wrong))).await;
        assert_eq!(named(refused), Err(Failure::CertificateRefused), "{mode}");
    }
}

async fn refused(acceptor: &Acceptor, say: &[u8]) -> (NotAccepted<DuplexStream>, DuplexStream) {
    let (ours, mut theirs) = duplex(1 << 16);
    theirs.write_all(say).await.unwrap();
    let refused = acceptor.accept(ours).await.err().unwrap();
    (refused, theirs)
}

#[tokio::test(start_paused = true)]
async fn what_is_no_tls_is_told_apart() {
    let (certificate, key) = Authority::new("ca").sign(&["a.example"]);
    let files = Files::of([("/a.pem", certificate), ("/a.key", key)]);
    let acceptor = acceptor(&model(ONE, ""), &files, &Known::default());
    let (plain, _) = refused(&acceptor, b"GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(plain.failure, Failure::NotTls);
    assert!(plain.stream.is_some());
    let (nonsense, _) = refused(&acceptor, b"\x16\x03\x01\x00\x05nonsense").await;
    assert_eq!(nonsense.failure, Failure::Protocol);
    let begun = tokio::time::Instant::now();
    let (silent, _client) = refused(&acceptor, b"\x16\x03").await;
    assert_eq!((silent.failure, begun.elapsed()), (Failure::Timeout, Duration::from_secs(5)));
}

#[tokio::test]
async fn a_server_is_believed_for_one_name_only() {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let connect = async |server: (Vec<u8>, Vec<u8>), name: &str| {
        let files = Files::of([("/a.pem", server.0), ("/a.key", server.1), ("/ca.pem", ca.pem.clone())]);
        let config = model(ONE, &format!("tls = {{ server_name = '{name}', ca = '/ca.pem' }}"));
        let loaded = load(&config, &files, &Known::default()).unwrap();
        let (ours, theirs) = duplex(1 << 16);
        let connector = loaded.upstreams[0].clone().unwrap();
        let accept = loaded.listeners[0].as_ref().unwrap().accept(theirs);
        let (connected, _) = tokio::join!(connector.connect(ours), accept);
        connected.map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(connect(ca.sign(&["a.example"]), "a.example").await, Ok(()));
    assert_eq!(connect(ca.sign(&["*.b.example"]), "a.b.example").await, Ok(()));
    assert_eq!(connect(ca.sign(&["10.0.0.7"]), "10.0.0.7").await, Ok(()));
    let said = connect(ca.sign(&["b.example"]), "a.example").await.unwrap_err();
    assert!(said.contains("not valid for name"), "{said}");
    let said = connect(other.sign(&["a.example"]), "a.example").await.unwrap_err();
    assert!(said.contains("UnknownIssuer"), "{said}");
}
