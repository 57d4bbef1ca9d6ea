//! Devices with certificates at the embedded endpoint: which ones are good, and the server's own.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dunlin_agent::{Agent, Enrolment, Identity, Settings};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;

use super::{Options, Server, config, self_signed};

/// A server whose MQTT endpoint speaks TLS and asks for certificates, and a device's key.
struct MutualTls {
    server: Server,
    http: reqwest::Client,
    token: String,
    /// The server's certificate and key.
    files: [PathBuf; 2],
    folder: tempfile::TempDir,
}

impl MutualTls {
    /// With these settings besides; returns the server's certificate too.
    async fn start(more: &[(&str, &str)]) -> (MutualTls, CertificateDer<'static>) {
        let folder = tempfile::tempdir().expect("a folder");
        let files = ["mqtt.pem", "mqtt.key"].map(|name| folder.path().join(name));
        let certificate = self_signed(&files[0], &files[1]);
        let server = MutualTls::serve(folder.path(), &files, more).await;
        let token = server.admin_token().expect("the first start").reveal().to_owned();
        (MutualTls { server, http: reqwest::Client::new(), token, files, folder }, certificate)
    }

    async fn serve(folder: &Path, files: &[PathBuf; 2], more: &[(&str, &str)]) -> Server {
        let [chain, key] = [&files[0], &files[1]].map(|path| path.to_str().expect("a path"));
        let own = [
            ("mqtt-tls-certificate", chain),
            ("mqtt-tls-key", key),
            ("mqtt-client-certificates", "required"),
        ];
        let settings = [&own[..], more].concat();
        Server::start(config(folder, &settings), Options::default()).await.expect("started")
    }

    /// Stops the server and starts it again with other settings.
    async fn restart(self, more: &[(&str, &str)]) -> MutualTls {
        self.server.stop().await;
        let server = MutualTls::serve(self.folder.path(), &self.files, more).await;
        MutualTls { server, ..self }
    }

    /// Asks the API as administrator.
    async fn post(&self, path: &str, body: serde_json::Value) -> serde_json::Value {
        let url = format!("http://{}/api/v1/{path}", self.server.http_address());
        let answer =
            self.http.post(url).bearer_auth(&self.token).json(&body).send().await.expect("an answer");
        assert!(answer.status().is_success(), "{path}: {}", answer.text().await.expect("a text"));
        answer.json().await.expect("JSON")
    }

    /// An MQTT client of the device `pump-1` that trusts `server` and shows this certificate.
    fn connect(
        &self,
        server: &CertificateDer<'static>,
        certificate: &serde_json::Value,
        key: &rcgen::KeyPair,
    ) -> (rumqttc::AsyncClient, rumqttc::EventLoop) {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(server.clone()).expect("a root");
        let chain = certificate["certificate"].as_str().expect("a certificate");
        let chain = vec![CertificateDer::from_pem_slice(chain.as_bytes()).expect("PEM")];
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .expect("a certificate and its key");
        let port = self.server.app().endpoints().mqtt_port;
        let mut options = rumqttc::MqttOptions::new("pump-1", "localhost", port);
        let tls = rumqttc::TlsConfiguration::Rustls(Arc::new(tls));
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
    let (test, own) = MutualTls::start(&[]).await;
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
    let (test, first) = MutualTls::start(&[]).await;
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

/// Everything as in the field: the agent enrols itself, is off until its certificate has expired, and comes back.
#[tokio::test]
async fn an_agent_that_was_off_for_long_comes_back_by_itself() {
    let (test, _) = MutualTls::start(&[("devices-certificate-life", "1s")]).await;
    test.post("fleets", json!({ "id": "a" })).await;
    let claim = test.post("fleets/a/claims", json!({ "name": "k" })).await["claim"].clone();
    let enrolment = Enrolment {
        server: format!("http://{}", test.server.http_address()),
        claim: claim.as_str().expect("a claim").to_owned(),
        device: Some("pump-1".to_owned()),
        hardware: "pi".to_owned(),
        ..Enrolment::default()
    };
    let mut identity = dunlin_agent::enrol(&enrolment).await.expect("enrolled");
    let expires_s = identity.expires_at().expect("a date").expect("a certificate");
    let now_s = || std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
    while now_s() <= expires_s {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The ports are others after a restart.
    let test = test.restart(&[]).await;
    identity.server = format!("http://{}", test.server.http_address());
    identity.mqtt.port = test.server.app().endpoints().mqtt_port;
    "localhost".clone_into(&mut identity.mqtt.host);
    let folder = tempfile::tempdir().expect("a folder");
    let agent = |identity: &Identity| {
        let settings = Settings { state_dir: Some(folder.path().to_owned()), ..Settings::default() };
        Agent::start(identity.clone(), settings).expect("started")
    };
    let coming = agent(&identity);
    let mut status = coming.watch();
    let up = status.wait_for(|status| status.connected);
    tokio::time::timeout(Duration::from_secs(60), up).await.expect("a connection").expect("an agent");
    let status = coming.stop_async(Duration::from_secs(60)).await;
    assert_eq!((status.waiting, status.unacknowledged), (0, 0), "the server counts what it says");
    let renewed = Identity::load(folder.path()).expect("readable").expect("kept");
    assert!(renewed.expires_at().expect("a date") > Some(now_s() + 86_400));

    // A blocked device does not.
    test.post("devices/pump-1/block", json!({ "reason": "stolen" })).await;
    let blocked = agent(&identity);
    let mut status = blocked.watch();
    let advice = status.wait_for(|status| {
        let because = status.disconnected_because.as_deref();
        because.is_some_and(|because| because.contains("enrol the device again"))
    });
    tokio::time::timeout(Duration::from_secs(60), advice).await.expect("advice").expect("an agent");
    assert_eq!(blocked.stop_async(Duration::ZERO).await.connections, 0);
    test.server.stop().await;
}
