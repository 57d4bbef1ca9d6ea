//! Start and stop.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
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

/// A server whose MQTT endpoint speaks TLS and asks for certificates, and a device's key.
struct MutualTls {
    server: Server,
    http: reqwest::Client,
    /// The server's certificate and key.
    files: [std::path::PathBuf; 2],
    _folder: tempfile::TempDir,
}

impl MutualTls {
    async fn start() -> (MutualTls, rustls::pki_types::CertificateDer<'static>) {
        let folder = tempfile::tempdir().expect("a folder");
        let files = ["mqtt.pem", "mqtt.key"].map(|name| folder.path().join(name));
        let certificate = self_signed(&files[0], &files[1]);
        let [chain, key] = [&files[0], &files[1]].map(|path| path.to_str().expect("a path"));
        let settings = [
            ("mqtt-tls-certificate", chain),
            ("mqtt-tls-key", key),
            ("mqtt-client-certificates", "required"),
        ];
        let server = Server::start(config(folder.path(), &settings), Options::default()).await;
        let server = server.expect("started");
        (MutualTls { server, http: reqwest::Client::new(), files, _folder: folder }, certificate)
    }

    /// Asks the API as administrator.
    async fn post(&self, path: &str, body: serde_json::Value) -> serde_json::Value {
        let token = self.server.admin_token().expect("the first start").reveal();
        let url = format!("http://{}/api/v1/{path}", self.server.http_address());
        let answer = self.http.post(url).bearer_auth(token).json(&body).send().await.expect("an answer");
        assert!(answer.status().is_success(), "{path}: {}", answer.text().await.expect("a text"));
        answer.json().await.expect("JSON")
    }

    /// An MQTT client of the device `pump-1` that trusts `server` and shows this certificate.
    fn connect(
        &self,
        server: &rustls::pki_types::CertificateDer<'static>,
        certificate: &serde_json::Value,
        key: &rcgen::KeyPair,
    ) -> (rumqttc::AsyncClient, rumqttc::EventLoop) {
        use rustls::pki_types::pem::PemObject as _;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let mut roots = rustls::RootCertStore::empty();
        roots.add(server.clone()).expect("a root");
        let chain = certificate["certificate"].as_str().expect("a certificate");
        let chain = vec![CertificateDer::from_pem_slice(chain.as_bytes()).expect("PEM")];
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).expect("a key");
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .expect("a certificate and its key");
        let port = self.server.app().endpoints().mqtt_port;
        let mut options = rumqttc::MqttOptions::new("pump-1", "localhost", port);
        let tls = rumqttc::TlsConfiguration::Rustls(std::sync::Arc::new(tls));
        options.set_transport(rumqttc::Transport::tls_with_config(tls));
        rumqttc::AsyncClient::new(options, 10)
    }
}

/// What the first attempt to connect comes to.
async fn outcome(events: &mut rumqttc::EventLoop) -> Result<(), String> {
    let first = async {
        loop {
            match events.poll().await {
                Ok(rumqttc::Event::Incoming(rumqttc::Packet::ConnAck(_))) => return Ok(()),
                Ok(_) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), first).await.expect("an answer")
}

fn request(key: &rcgen::KeyPair) -> String {
    let request = rcgen::CertificateParams::default().serialize_request(key).expect("a request");
    request.pem().expect("PEM")
}

#[tokio::test]
async fn the_mqtt_endpoint_lets_a_device_in_with_its_current_certificate_only() {
    let (test, own) = MutualTls::start().await;
    test.post("fleets", json!({ "id": "a" })).await;
    let claim = test.post("fleets/a/claims", json!({ "name": "k" })).await["claim"].clone();
    let key = rcgen::KeyPair::generate().expect("a key");
    let body = json!({ "claim": claim, "hardware": "pi", "device": "pump-1", "csr": request(&key) });
    let first = test.post("enroll", body).await;
    let connect = |certificate| test.connect(&own, certificate, &key);
    let (_client, mut events) = connect(&first);
    outcome(&mut events).await.expect("the certificate of the enrolment");

    // Renewed: the old one is good until the new one was shown.
    let body = json!({ "device": "pump-1", "csr": request(&key), "certificate": first["certificate"] });
    let second = test.post("enroll/renew", body).await;
    outcome(&mut connect(&first).1).await.expect("the device may have lost the answer");
    outcome(&mut connect(&second).1).await.expect("the new certificate");
    let refused = outcome(&mut connect(&first).1).await.expect_err("replaced");
    assert!(refused.contains("BadUserNamePassword"), "{refused}");

    // New credentials: whoever is connected with the old ones goes, and does not come back.
    let (_client, mut events) = connect(&second);
    outcome(&mut events).await.expect("the current certificate");
    let third = test.post("devices/pump-1/credentials", json!({ "csr": request(&key) })).await;
    let ended = async { while events.poll().await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(20), ended).await.expect("the connection ends");
    for old in [&first, &second] {
        let refused = outcome(&mut connect(old).1).await.expect_err("revoked");
        assert!(refused.contains("BadUserNamePassword"), "{refused}");
    }
    outcome(&mut connect(&third).1).await.expect("the current certificate");
    test.server.stop().await;
}

#[tokio::test]
async fn the_mqtt_endpoint_serves_its_certificate_and_the_successor() {
    let (test, first) = MutualTls::start().await;
    test.post("fleets", json!({ "id": "a" })).await;
    let key = rcgen::KeyPair::generate().expect("a key");
    let body = json!({ "id": "pump-1", "fleet": "a", "hardware": "pi", "csr": request(&key) });
    let device = test.post("devices", body).await;
    outcome(&mut test.connect(&first, &device, &key).1).await.expect("the first certificate");
    let second = self_signed(&test.files[0], &test.files[1]);
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    while let Err(error) = outcome(&mut test.connect(&second, &device, &key).1).await {
        assert!(tokio::time::Instant::now() < until, "the new certificate is not served: {error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    outcome(&mut test.connect(&first, &device, &key).1).await.expect_err("the old one is gone");
    test.server.stop().await;
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
