//! The same work in each gateway's own words: one worker, no access log, generous time-outs, default buffers;
//! another version than 13 is answered by the gateway with 426 and the list, and any other request goes to the
//! backend with the usual forwarding headers. No limit is in the way of 9,000 tunnels.

use std::net::SocketAddr;
use std::path::Path;

use crate::cases::Carrier;
use crate::identity::Files;

/// Both sockets of each of 9,000 tunnels, and some.
const FILES: usize = 20_000;

/// Of one connection of HTTP/2, at once.
const STREAMS: u32 = 100;

/// Where clients come in, and in what.
pub struct Listen {
    pub address: SocketAddr,
    pub carrier: Carrier,
    pub files: Files,
}

/// Frame tracking and every timer that an operator would have are on.
/// `spoken` is what the backend is said to speak.
pub fn wsgate(listen: &Listen, admin: SocketAddr, backend: SocketAddr, spoken: u8) -> String {
    let carrier = match listen.carrier {
        Carrier::Plain => String::new(),
        Carrier::Tls => format!(
            "\n[listener.tls]\ncertificates = [{{ certificate = \"{}\", key = \"{}\" }}]\n",
            listen.files.certificate.display(),
            listen.files.key.display()
        ),
        Carrier::Http2 => format!("http2 = true\nhttp2_streams = {STREAMS}\n"),
    };
    let listen = listen.address;
    format!(
        r#"[gateway]
threads = 1

[admin]
listen = "{admin}"

[log]
level = "warn"
access = "off"

[[listener]]
name = "public"
listen = "{listen}"
max_connections = {FILES}
{carrier}
[[route]]
name = "bench"
upstream = "echo"

[route.versions]
accept = [13]

[route.tunnel]
idle_timeout = "1h"
ping_interval = "30s"
ping_timeout = "10s"

[[upstream]]
name = "echo"
versions = [{spoken}]
servers = ["{backend}"]

[upstream.health]
check = "off"
"#
    )
}

/// Without HTTP/2, in which it has no tunnels.
pub fn nginx(listen: &Listen, backend: SocketAddr, folder: &Path) -> String {
    let folder = folder.display();
    let (flag, tls) = match listen.carrier {
        Carrier::Plain | Carrier::Http2 => ("", String::new()),
        Carrier::Tls => (" ssl", nginx_tls(&listen.files)),
    };
    let listen = listen.address;
    // As root, nginx gives its worker another user unless told not to.
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    format!(
        r#"daemon off;
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr crit;
events {{
    worker_connections {FILES};
}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    scgi_temp_path {folder}/scgi;
    uwsgi_temp_path {folder}/uwsgi;
    map $http_sec_websocket_version $version_refused {{
        default 1;
        "" 0;
        13 0;
    }}
    map $http_upgrade $connection_upgrade {{
        default upgrade;
        "" "";
    }}
    server {{
        listen {listen}{flag} backlog=4096;
        {tls}
        location / {{
            if ($version_refused) {{
                add_header Upgrade websocket always;
                add_header Sec-WebSocket-Version 13 always;
                return 426 "this server speaks version 13 of the WebSocket protocol\n";
            }}
            proxy_pass http://{backend};
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host $http_host;
            proxy_read_timeout 1h;
            proxy_send_timeout 1h;
        }}
    }}
}}
"#
    )
}

fn nginx_tls(files: &Files) -> String {
    format!(
        "ssl_certificate {};\n        ssl_certificate_key {};\n        ssl_protocols TLSv1.3;\n        \
         ssl_ecdh_curve X25519;",
        files.certificate.display(),
        files.key.display()
    )
}

pub fn haproxy(listen: &Listen, backend: SocketAddr) -> String {
    let (carrier, scheme) = match listen.carrier {
        Carrier::Plain => (String::new(), "http"),
        Carrier::Tls => {
            let files = listen.files.both.display();
            (format!(" ssl crt {files} ssl-min-ver TLSv1.3 curves X25519"), "https")
        }
        Carrier::Http2 => (" proto h2".to_owned(), "http"),
    };
    let listen = listen.address;
    format!(
        r#"global
    nbthread 1
    maxconn 9500
    ulimit-n {FILES}
    tune.h2.max-concurrent-streams {STREAMS}

defaults
    mode http
    maxconn 9500
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout tunnel 1h
    timeout http-request 30s

frontend public
    bind {listen} backlog 4096{carrier}
    http-request set-header X-Forwarded-For %[src]
    http-request set-header X-Forwarded-Proto {scheme}
    http-request set-header X-Forwarded-Host %[req.hdr(Host)]
    acl versioned req.fhdr(Sec-WebSocket-Version) -m found
    acl version_served req.fhdr(Sec-WebSocket-Version) -m str 13
    http-request return status 426 content-type "text/plain" string "this server speaks version 13 of the WebSocket protocol\n" hdr "Upgrade" "websocket" hdr "Sec-WebSocket-Version" "13" if versioned !version_served
    default_backend echo

backend echo
    server echo {backend}
"#
    )
}

/// Without HTTP/2, in which it leaves the key to the client that has none.
pub fn envoy(listen: &Listen, backend: SocketAddr) -> String {
    let transport = match listen.carrier {
        Carrier::Plain | Carrier::Http2 => String::new(),
        Carrier::Tls => envoy_tls(&listen.files),
    };
    let (listen, backend) = (envoy_address(listen.address), envoy_address(backend));
    format!(
        r#"static_resources:
  listeners:
  - name: public
    address:
      {listen}
    tcp_backlog_size: 4096
    filter_chains:
    - {transport}filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: public
          use_remote_address: true
          stream_idle_timeout: 0s
          upgrade_configs:
          - upgrade_type: websocket
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match:
                  prefix: "/"
                  headers:
                  - name: sec-websocket-version
                    present_match: true
                  - name: sec-websocket-version
                    string_match: {{ exact: "13" }}
                    invert_match: true
                direct_response:
                  status: 426
                  body: {{ inline_string: "this server speaks version 13 of the WebSocket protocol\n" }}
                response_headers_to_add:
                - header: {{ key: sec-websocket-version, value: "13" }}
              - match: {{ prefix: "/" }}
                route: {{ cluster: echo, timeout: 0s, idle_timeout: 0s }}
  clusters:
  - name: echo
    type: STATIC
    connect_timeout: 5s
    circuit_breakers:
      thresholds:
      - {{ max_connections: {FILES}, max_pending_requests: {FILES}, max_requests: {FILES} }}
    load_assignment:
      cluster_name: echo
      endpoints:
      - lb_endpoints:
        - endpoint:
            address:
              {backend}
"#
    )
}

fn envoy_address(address: SocketAddr) -> String {
    format!("socket_address: {{ address: {}, port_value: {} }}", address.ip(), address.port())
}

fn envoy_tls(files: &Files) -> String {
    format!(
        r#"transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            tls_params: {{ tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3, ecdh_curves: [X25519] }}
            tls_certificates:
            - certificate_chain: {{ filename: "{}" }}
              private_key: {{ filename: "{}" }}
      "#,
        files.certificate.display(),
        files.key.display()
    )
}
