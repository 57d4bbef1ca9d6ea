//! The endpoint with real clients: rumqttc, MQTT 3.1.1 and 5, over TCP and TLS, with passwords and certificates.

mod support;

use dunlin_gateway::{
    CloseReason, Limits,
    tls::{self, ClientCertificates, ServerIdentity, TlsError},
};
use rumqttc::{Transport, v5};
use std::{sync::Arc, time::Duration};
use support::{SOON, Server, ack, desired};
use tokio::{sync::mpsc, time::timeout};

/// What a client saw.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Connected {
        session_present: bool,
    },
    Acknowledged,
    Subscribed,
    Message {
        topic: String,
        body: String,
        retained: bool,
    },
    /// The connection failed or ended; the client connects again with the next poll.
    Lost(String),
}

/// Drives a 3.1.1 client's event loop in a task of its own.
fn drive_v4(mut events: rumqttc::EventLoop) -> mpsc::UnboundedReceiver<Seen> {
    use rumqttc::{Event, Packet};
    let (sender, seen) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let what = match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(ack))) => {
                    Seen::Connected { session_present: ack.session_present }
                }
                Ok(Event::Incoming(Packet::PubAck(_))) => Seen::Acknowledged,
                Ok(Event::Incoming(Packet::SubAck(_))) => Seen::Subscribed,
                Ok(Event::Incoming(Packet::Publish(publish))) => Seen::Message {
                    topic: publish.topic,
                    body: String::from_utf8_lossy(&publish.payload).into_owned(),
                    retained: publish.retain,
                },
                Ok(_) => continue,
                Err(error) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    Seen::Lost(error.to_string())
                }
            };
            if sender.send(what).is_err() {
                return;
            }
        }
    });
    seen
}

/// The same for an MQTT 5 client.
fn drive_v5(mut events: v5::EventLoop) -> mpsc::UnboundedReceiver<Seen> {
    use v5::{Event, mqttbytes::v5::Packet};
    let (sender, seen) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let what = match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(ack))) => {
                    Seen::Connected { session_present: ack.session_present }
                }
                Ok(Event::Incoming(Packet::PubAck(_))) => Seen::Acknowledged,
                Ok(Event::Incoming(Packet::SubAck(_))) => Seen::Subscribed,
                Ok(Event::Incoming(Packet::Publish(publish))) => Seen::Message {
                    topic: String::from_utf8_lossy(&publish.topic).into_owned(),
                    body: String::from_utf8_lossy(&publish.payload).into_owned(),
                    retained: publish.retain,
                },
                Ok(_) => continue,
                Err(error) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    Seen::Lost(error.to_string())
                }
            };
            if sender.send(what).is_err() {
                return;
            }
        }
    });
    seen
}

async fn next(seen: &mut mpsc::UnboundedReceiver<Seen>) -> Seen {
    timeout(SOON, seen.recv()).await.expect("something happens").expect("the client runs")
}

fn options_v4(device: &str, port: u16) -> rumqttc::MqttOptions {
    let mut options = rumqttc::MqttOptions::new(device, "127.0.0.1", port);
    options.set_credentials(device, "secret").set_clean_session(false).set_inflight(64);
    options
}

fn options_v5(device: &str, port: u16) -> v5::MqttOptions {
    let mut options = v5::MqttOptions::new(device, "127.0.0.1", port);
    options.set_credentials(device, "secret").set_clean_start(false).set_session_expiry_interval(Some(3600));
    options
}

#[tokio::test]
async fn a_3_1_1_client_works_as_usual() {
    let mut server = Server::start(Limits::default()).await;
    *server.handler.retained.lock().unwrap() = vec![desired("a", "state 1")];
    let (client, events) = rumqttc::AsyncClient::new(options_v4("a", server.port()), 10);
    let mut seen = drive_v4(events);
    // The session is asked for and not had: the application's acknowledgements take its place.
    assert_eq!(next(&mut seen).await, Seen::Connected { session_present: false });
    client.subscribe("d/a/down/#", rumqttc::QoS::AtLeastOnce).await.unwrap();
    assert_eq!(next(&mut seen).await, Seen::Subscribed);
    let topic = "d/a/down/desired".to_owned();
    assert_eq!(next(&mut seen).await, Seen::Message { topic, body: "state 1".into(), retained: true });
    client.publish("d/a/up/report", rumqttc::QoS::AtLeastOnce, false, "report").await.unwrap();
    let message = server.publish().await;
    assert_eq!((&*message.device, &*message.level, &message.payload[..]), ("a", "report", &b"report"[..]));
    message.ack.done();
    assert_eq!(next(&mut seen).await, Seen::Acknowledged);
    server.gateway.send("a", ack("a", "all"));
    let topic = "d/a/down/ack".to_owned();
    assert_eq!(next(&mut seen).await, Seen::Message { topic, body: "all".into(), retained: false });
    client.disconnect().await.unwrap();
    server.until_closed(CloseReason::Device).await;
}

#[tokio::test]
async fn an_mqtt_5_client_works_as_usual() {
    let mut server = Server::start(Limits::default()).await;
    *server.handler.retained.lock().unwrap() = vec![desired("a", "state 1")];
    let (client, events) = v5::AsyncClient::new(options_v5("a", server.port()), 10);
    let mut seen = drive_v5(events);
    assert_eq!(next(&mut seen).await, Seen::Connected { session_present: false });
    client.subscribe("d/a/down/#", v5::mqttbytes::QoS::AtLeastOnce).await.unwrap();
    assert_eq!(next(&mut seen).await, Seen::Subscribed);
    let topic = "d/a/down/desired".to_owned();
    assert_eq!(next(&mut seen).await, Seen::Message { topic, body: "state 1".into(), retained: true });
    client.publish("d/a/up/report", v5::mqttbytes::QoS::AtLeastOnce, false, "report").await.unwrap();
    server.publish().await.ack.done();
    assert_eq!(next(&mut seen).await, Seen::Acknowledged);
    server.gateway.send("a", ack("a", "all"));
    let topic = "d/a/down/ack".to_owned();
    assert_eq!(next(&mut seen).await, Seen::Message { topic, body: "all".into(), retained: false });
    client.disconnect().await.unwrap();
    server.until_closed(CloseReason::Device).await;
}

#[tokio::test]
async fn a_message_that_is_not_committed_comes_again() {
    let mut server = Server::start(Limits::default()).await;
    let (client, events) = rumqttc::AsyncClient::new(options_v4("a", server.port()), 10);
    let mut seen = drive_v4(events);
    assert_eq!(next(&mut seen).await, Seen::Connected { session_present: false });
    client.publish("d/a/up/report", rumqttc::QoS::AtLeastOnce, false, "first").await.unwrap();
    drop(server.publish().await);
    assert!(matches!(next(&mut seen).await, Seen::Lost(_)), "no PUBACK, the end");
    // This library drops what is unacknowledged when there is no session; a device publishes from its own queue.
    assert_eq!(next(&mut seen).await, Seen::Connected { session_present: false });
    client.publish("d/a/up/report", rumqttc::QoS::AtLeastOnce, false, "first").await.unwrap();
    server.publish().await.ack.done();
    assert_eq!(next(&mut seen).await, Seen::Acknowledged);
}

#[tokio::test]
async fn many_publishes_are_in_flight_at_once() {
    let mut server = Server::start(Limits::default()).await;
    let (client, events) = rumqttc::AsyncClient::new(options_v4("a", server.port()), 200);
    let mut seen = drive_v4(events);
    assert_eq!(next(&mut seen).await, Seen::Connected { session_present: false });
    for index in 0..200 {
        client.publish("d/a/up/report", rumqttc::QoS::AtLeastOnce, false, index.to_string()).await.unwrap();
    }
    let mut held = Vec::new();
    for index in 0..200 {
        if held.len() == 64 {
            // A "commit" of everything there is, completed in the wrong order.
            held.drain(..).rev().for_each(|ack: dunlin_gateway::AckToken| ack.done());
        }
        let message = server.publish().await;
        assert_eq!(message.payload, index.to_string());
        held.push(message.ack);
    }
    held.drain(..).for_each(|ack| ack.done());
    for _ in 0..200 {
        assert_eq!(next(&mut seen).await, Seen::Acknowledged);
    }
}

#[tokio::test]
async fn a_wrong_password_is_refused() {
    let server = Server::start(Limits::default()).await;
    let mut options = options_v4("a", server.port());
    options.set_credentials("a", "guess");
    let (_client, events) = rumqttc::AsyncClient::new(options, 10);
    let Seen::Lost(error) = next(&mut drive_v4(events)).await else { panic!("let in") };
    assert!(error.contains("BadUserNamePassword"), "{error}");
}

/// A CA with a certificate for the server, and certificates for devices.
struct Authority {
    ca: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

/// A certificate and its key, as PEM.
struct Issued {
    chain: String,
    key: String,
    serial: Vec<u8>,
}

impl Issued {
    fn identity(&self) -> Arc<ServerIdentity> {
        ServerIdentity::new(self.chain.as_bytes(), self.key.as_bytes()).unwrap()
    }
}

impl Authority {
    fn new(name: &str) -> Authority {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).unwrap();
        Authority { ca, issuer: rcgen::Issuer::new(params, key) }
    }

    fn issue(&self, name: &str, not_after_year: i32) -> Issued {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(not_after_year, 1, 1);
        // Like the control plane's: positive, and of full length in DER.
        let serial: Vec<u8> = b"@".iter().chain(&key.public_key_raw()[1..16]).copied().collect();
        params.serial_number = Some(rcgen::SerialNumber::from_slice(&serial));
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Issued { chain: certificate.pem(), key: key.serialize_pem(), serial }
    }

    /// A client's TLS that trusts this CA and shows `client`.
    fn transport(&self, client: Option<&Issued>) -> Transport {
        use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.ca.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.unwrap().with_root_certificates(roots);
        let config = match client {
            None => builder.with_no_client_auth(),
            Some(issued) => {
                let chain =
                    CertificateDer::pem_slice_iter(issued.chain.as_bytes()).map(Result::unwrap).collect();
                let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        Transport::tls_with_config(rumqttc::TlsConfiguration::Rustls(Arc::new(config)))
    }
}

async fn tls_server(authority: &Authority, certificates: ClientCertificates) -> Server {
    let server = authority.issue("localhost", 2100);
    let ca = authority.ca.pem();
    let clients = Some((ca.as_bytes(), certificates));
    let config = tls::server_config(server.identity(), clients).unwrap();
    Server::start_with(Limits::default(), Some(config)).await
}

/// What a client with these credentials sees first.
async fn first_seen(server: &Server, device: &str, transport: Transport, password: bool) -> Seen {
    let mut options = rumqttc::MqttOptions::new(device, "localhost", server.port());
    options.set_transport(transport);
    if password {
        options.set_credentials(device, "secret");
    }
    let (_client, events) = rumqttc::AsyncClient::new(options, 10);
    next(&mut drive_v4(events)).await
}

#[tokio::test]
async fn a_certificate_is_an_identity() {
    let authority = Authority::new("device CA");
    let mut server = tls_server(&authority, ClientCertificates::Required).await;
    let issued = authority.issue("a", 2100);
    let mut options = v5::MqttOptions::new("a", "localhost", server.port());
    options.set_transport(authority.transport(Some(&issued)));
    let (client, events) = v5::AsyncClient::new(options, 10);
    let mut seen = drive_v5(events);
    assert_eq!(next(&mut seen).await, Seen::Connected { session_present: false });
    client.publish("d/a/up/report", v5::mqttbytes::QoS::AtLeastOnce, false, vec![7; 8000]).await.unwrap();
    let message = server.publish().await;
    assert_eq!((&*message.device, message.payload.len()), ("a", 8000));
    message.ack.done();
    assert_eq!(next(&mut seen).await, Seen::Acknowledged);

    // Another device's client id with this certificate is refused.
    let thief = first_seen(&server, "b", authority.transport(Some(&issued)), true).await;
    let Seen::Lost(error) = thief else { panic!("let in: {thief:?}") };
    assert!(error.contains("BadClientId"), "{error}");
    assert_eq!(server.gateway.connected(), 1);
}

#[tokio::test]
async fn certificates_that_are_expired_foreign_or_missing_are_refused() {
    let authority = Authority::new("device CA");
    let server = tls_server(&authority, ClientCertificates::Required).await;
    let expired = authority.issue("a", 2021);
    let foreign = Authority::new("device CA").issue("a", 2100);
    for (number, client) in [Some(&expired), Some(&foreign), None].into_iter().enumerate() {
        let seen = first_seen(&server, "a", authority.transport(client), true).await;
        assert!(matches!(seen, Seen::Lost(_)), "{seen:?}");
        server.until(|metrics| metrics.closed(CloseReason::TlsRefused) > number as u64).await;
    }
    // Plain MQTT on the TLS port.
    let mut raw = support::Raw::open(&server).await;
    raw.send(&support::connect(4, "a", "a", "secret", 60)).await;
    server.until(|metrics| metrics.closed(CloseReason::TlsRefused) > 3).await;
    assert_eq!(server.gateway.metrics().logins, 0);
}

#[tokio::test]
async fn a_password_works_where_certificates_are_optional() {
    let authority = Authority::new("device CA");
    let server = tls_server(&authority, ClientCertificates::Optional).await;
    let seen = first_seen(&server, "a", authority.transport(None), true).await;
    assert_eq!(seen, Seen::Connected { session_present: false });
    // A certificate that is shown must be good, whatever the password.
    let expired = authority.issue("a", 2021);
    let seen = first_seen(&server, "a", authority.transport(Some(&expired)), true).await;
    assert!(matches!(seen, Seen::Lost(_)), "{seen:?}");
}

#[tokio::test]
async fn a_tls_handshake_that_does_not_come_is_cut_off() {
    let authority = Authority::new("device CA");
    let server = authority.issue("localhost", 2100);
    let config = tls::server_config(server.identity(), None).unwrap();
    let limits = Limits { login_timeout: Duration::from_millis(200), ..Limits::default() };
    let server = Server::start_with(limits, Some(config)).await;
    let mut raw = support::Raw::open(&server).await;
    raw.closed().await;
    server.until_closed(CloseReason::LoginTimeout).await;
    // And one that hangs does not hold up a shutdown.
    let _raw = support::Raw::open(&server).await;
    server.until(|metrics| metrics.connections == 1).await;
    assert_eq!(server.gateway.shutdown(SOON).await.unfinished, 0);
}

#[tokio::test]
async fn the_handler_tells_certificates_of_a_device_apart() {
    let authority = Authority::new("device CA");
    let server = tls_server(&authority, ClientCertificates::Required).await;
    let (old, new) = (authority.issue("a", 2100), authority.issue("a", 2100));
    let seen = first_seen(&server, "a", authority.transport(Some(&old)), false).await;
    assert_eq!(seen, Seen::Connected { session_present: false });
    server.handler.revoked.lock().unwrap().push(old.serial.clone());
    let seen = first_seen(&server, "a", authority.transport(Some(&old)), true).await;
    assert!(matches!(&seen, Seen::Lost(error) if error.contains("BadUserNamePassword")), "{seen:?}");
    let seen = first_seen(&server, "a", authority.transport(Some(&new)), false).await;
    assert_eq!(seen, Seen::Connected { session_present: false });
}

#[tokio::test]
async fn the_servers_certificate_can_be_replaced_while_it_runs() {
    let (before, after) = (Authority::new("before"), Authority::new("after"));
    let identity = before.issue("localhost", 2100).identity();
    let config = tls::server_config(identity.clone(), None).unwrap();
    let server = Server::start_with(Limits::default(), Some(config)).await;
    let connected = Seen::Connected { session_present: false };
    assert_eq!(first_seen(&server, "a", before.transport(None), true).await, connected);
    let (next, other) = (after.issue("localhost", 2100), after.issue("localhost", 2100));
    let error = identity.replace(next.chain.as_bytes(), other.key.as_bytes()).unwrap_err();
    assert!(matches!(error, TlsError::Identity(_)), "{error}");
    assert_eq!(first_seen(&server, "a", before.transport(None), true).await, connected, "the old one stays");
    identity.replace(next.chain.as_bytes(), next.key.as_bytes()).unwrap();
    assert_eq!(first_seen(&server, "a", after.transport(None), true).await, connected);
    assert!(matches!(first_seen(&server, "a", before.transport(None), true).await, Seen::Lost(_)));
}

#[test]
fn bad_pem_is_named() {
    let authority = Authority::new("device CA");
    let server = authority.issue("localhost", 2100);
    let error = ServerIdentity::new(b"nonsense", server.key.as_bytes()).unwrap_err();
    assert_eq!(error.to_string(), "the server certificate contains no certificate");
    let error = ServerIdentity::new(server.chain.as_bytes(), b"nonsense").unwrap_err();
    assert!(error.to_string().starts_with("the private key cannot be read as PEM"), "{error}");
    let other = authority.issue("localhost", 2100);
    let error = ServerIdentity::new(server.chain.as_bytes(), other.key.as_bytes()).unwrap_err();
    assert!(error.to_string().contains("cannot be used"), "{error}");
}
