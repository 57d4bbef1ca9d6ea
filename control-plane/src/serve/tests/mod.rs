//! Start and stop.

mod fetch;
mod mutual_tls;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Options, Server, StartError};
use crate::config::Config;

fn config(folder: &Path, more: &[(&str, &str)]) -> Config {
    let data = folder.join("data");
    let data = data.to_str().expect("a path");
    let mut flags: BTreeMap<String, String> =
        [("data-dir", data), ("http-listen", "127.0.0.1:0"), ("mqtt-listen", "127.0.0.1:0")]
            .into_iter()
            .chain(more.iter().copied())
            .map(|(flag, value)| (flag.to_owned(), value.to_owned()))
            .collect();
    flags.retain(|_, value| !value.is_empty());
    Config::load(None, &BTreeMap::new(), &flags).expect("settings").0
}

/// Sends bytes and reads until the other end closes.
async fn talk(server: &Server, request: &str) -> String {
    let mut stream = TcpStream::connect(server.http_address()).await.expect("a connection");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer
}

#[tokio::test]
async fn it_starts_with_nothing_and_shows_its_token_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(config(folder.path(), &[]), Options::default()).await.expect("started");
    let token = server.admin_token().expect("the first start").reveal().to_owned();
    let request = format!(
        "GET /api/v1/me HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
    );
    let answer = talk(&server, &request).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"role\":\"admin\""), "{answer}");
    server.stop().await;

    let server = Server::start(config(folder.path(), &[]), Options::default()).await.expect("started");
    assert!(server.admin_token().is_none());
    let answer = talk(&server, &request).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "the token still works: {answer}");
    server.stop().await;

    let options = Options { new_admin_token: true };
    let server = Server::start(config(folder.path(), &[]), options).await.expect("started");
    assert!(server.admin_token().is_some());
    server.stop().await;
}

#[tokio::test]
async fn a_stop_finishes_what_is_under_way_and_takes_nothing_new() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(config(folder.path(), &[]), Options::default()).await.expect("started");
    let address = server.http_address();
    let token = server.admin_token().expect("a token").reveal().to_owned();
    let body = r#"{"name": "late", "role": "viewer"}"#;
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let head = format!(
        "POST /api/v1/tokens HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut live = TcpStream::connect(address).await.expect("a connection");
    let request = format!("GET /api/v1/live HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n");
    live.write_all(request.as_bytes()).await.expect("sent");
    let mut first = [0; 12];
    live.read_exact(&mut first).await.expect("an answer");
    assert_eq!(&first, b"HTTP/1.1 200");
    // The head of the POST has arrived too when a later request is answered.
    tokio::time::sleep(Duration::from_millis(100)).await;

    let stopping = tokio::spawn(server.stop());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!stopping.is_finished(), "a request is under way");
    assert!(TcpStream::connect(address).await.is_err(), "nothing new is accepted");
    stream.write_all(body.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    stopping.await.expect("stopped");
    let mut rest = Vec::new();
    live.read_to_end(&mut rest).await.expect("the live stream has ended");
    assert!(rest.ends_with(b"0\r\n\r\n"), "in good order: {}", String::from_utf8_lossy(&rest));
}

#[tokio::test]
async fn a_start_that_fails_says_why() {
    let folder = tempfile::tempdir().expect("a folder");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let blocked = folder.path().join("file");
    std::fs::write(&blocked, "").expect("a file");
    let missing = folder.path().join("none.pem").display().to_string();
    let cases = [
        (vec![("http-listen", address.as_str())], "http.listen 127.0.0.1:"),
        (vec![("data-dir", blocked.to_str().expect("a path"))], "data_dir "),
        (
            vec![("http-tls-certificate", missing.as_str())],
            "http.tls_key: http.tls_certificate and http.tls_key belong",
        ),
        (
            vec![("http-tls-certificate", missing.as_str()), ("http-tls-key", missing.as_str())],
            "http.tls_certificate: ",
        ),
        (vec![("database-url", "mysql://user:secret@x/y")], "database_url: the database URL must be"),
        (vec![("database-url", "postgres://user:secret@127.0.0.1:1/y")], "database_url: database: "),
        (vec![("artifacts-url", "ftp://x")], "artifacts.url: "),
    ];
    for (settings, expected) in cases {
        let result = Server::start(config(folder.path(), &settings), Options::default()).await;
        let error: StartError = result.err().expect("no start");
        assert!(error.to_string().starts_with(expected), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

/// A self-signed certificate for `localhost` in two files; returns the certificate.
fn self_signed(chain: &Path, key: &Path) -> rustls::pki_types::CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    std::fs::write(key, made.signing_key.serialize_pem()).expect("a key");
    std::fs::write(chain, made.cert.pem()).expect("a certificate");
    made.cert.der().clone()
}

#[tokio::test]
async fn https_serves_the_certificate_and_its_successor() {
    let folder = tempfile::tempdir().expect("a folder");
    let (chain, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
    let first = self_signed(&chain, &key);
    let (chain_path, key_path) = (chain.display().to_string(), key.display().to_string());
    let settings = [("http-tls-certificate", chain_path.as_str()), ("http-tls-key", key_path.as_str())];
    let server = Server::start(config(folder.path(), &settings), Options::default()).await.expect("started");
    assert!(server.app().endpoints().http_url.starts_with("https://127.0.0.1:"));
    let port = server.http_address().port();
    let status = async |certificate: &rustls::pki_types::CertificateDer<'static>| {
        let certificate = reqwest::Certificate::from_der(certificate).expect("a certificate");
        let client = reqwest::Client::builder()
            .tls_certs_only([certificate])
            .resolve("localhost", server.http_address())
            .build()
            .expect("a client");
        let answer = client.get(format!("https://localhost:{port}/healthz")).send().await;
        answer.ok().map(|answer| answer.status().as_u16())
    };
    assert_eq!(status(&first).await, Some(200));
    std::fs::write(&key_path, "half written").expect("a key");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(status(&first).await, Some(200), "what cannot be used leaves the old one in place");
    let second = self_signed(&chain, &key);
    let mut tries = 0;
    while status(&second).await != Some(200) {
        tries += 1;
        assert!(tries < 50, "the new certificate is not served");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(status(&first).await, None, "the old one is gone");
    server.stop().await;
}
