//! Memory of an idle connection and CPU time of a connect.
//!
//! `cargo run --release -p dunlin-gateway --example idle -- [--connections 5000] [--tls 1]`
//!
//! Each connection does CONNECT (MQTT 3.1.1, keep-alive 600 s) and one SUBSCRIBE; memory is the growth of this process'
//! resident memory, read 2 s after the last one. The open-file limit must be above the number of connections.

mod support;

use dunlin_gateway::tls::ServerIdentity;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

/// How the clients get the server's certificate (PEM); without it they connect without TLS.
const CERTIFICATE: &str = "DUNLIN_IDLE_CERTIFICATE";

#[tokio::main]
async fn main() {
    if std::env::args().nth(1).as_deref() == Some("client") {
        return client().await;
    }
    let connections = support::option("--connections", 5_000);
    let is_tls = support::option("--tls", 0) > 0;
    let signed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let (certificate, key) = (signed.cert.pem(), signed.signing_key.serialize_pem());
    let identity = ServerIdentity::new(certificate.as_bytes(), key.as_bytes()).expect("a good certificate");
    let tls = || dunlin_gateway::tls::server_config(identity, None);
    let tls = is_tls.then(tls).transpose().expect("a good certificate");
    let gateway = support::gateway(support::Batches::start(Duration::from_millis(3)), tls).await;
    let port = gateway.addresses()[0].port();
    let (memory, cpu) = (support::resident(), support::cpu_us());

    let arguments =
        ["--connections", &connections.to_string(), "--port", &port.to_string()].map(String::from);
    let variables = is_tls.then_some((CERTIFICATE, certificate));
    let mut clients = support::start_clients(&arguments, variables);
    // The clients say one byte when all are subscribed.
    let mut ready = [0];
    clients.stdout.as_mut().expect("piped").read_exact(&mut ready).await.expect("all clients connect");
    let connecting = support::cpu_us() - cpu;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let grown = support::resident().saturating_sub(memory);
    assert_eq!(gateway.connected(), connections, "every client stays connected");

    let idle_from = support::cpu_us();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let idle = support::cpu_us() - idle_from;
    println!("connections                      {connections} {}", if is_tls { "TLS 1.3" } else { "plain" });
    println!("memory per idle connection       {:.2} KiB", grown as f64 / connections as f64 / 1024.0);
    println!("CPU per connect and subscribe    {:.1} us", connecting as f64 / connections as f64);
    println!("CPU of all, idle                 {:.1} ms/s", idle as f64 / 1000.0 / 5.0);
    clients.kill().await.expect("the clients end");
}

async fn client() {
    let port = support::option("--port", 0) as u16;
    let tls = std::env::var(CERTIFICATE).ok().map(|certificate| connector(&certificate));
    let mut connections = Vec::new();
    for index in 0..support::option("--connections", 0) {
        let name = format!("device-{index}");
        let mut stream = open(port, &tls).await;
        stream.write_all(&support::connect(&name)).await.expect("CONNECT");
        stream.write_all(&support::subscribe(&format!("d/{name}/down/#"))).await.expect("SUBSCRIBE");
        let mut answers = [0; 9];
        stream.read_exact(&mut answers).await.expect("CONNACK and SUBACK");
        assert_eq!(answers, [0x20, 2, 0, 0, 0x90, 3, 0, 1, 1], "{name}");
        connections.push(stream);
    }
    let mut output = tokio::io::stdout();
    output.write_all(b"!").await.expect("the parent waits");
    output.flush().await.expect("the parent waits");
    // Until the parent ends this process.
    tokio::time::sleep(Duration::from_secs(600)).await;
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

async fn open(port: u16, tls: &Option<tokio_rustls::TlsConnector>) -> Box<dyn Stream> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("connects");
    // The small packets of a handshake would wait for each other.
    stream.set_nodelay(true).expect("a TCP option");
    match tls {
        None => Box::new(stream),
        Some(tls) => {
            let name = ServerName::try_from("localhost").expect("a name");
            Box::new(tls.connect(name, stream).await.expect("a handshake"))
        }
    }
}

fn connector(certificate: &str) -> tokio_rustls::TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM")).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = builder.expect("versions").with_root_certificates(roots).with_no_client_auth();
    tokio_rustls::TlsConnector::from(Arc::new(config))
}
