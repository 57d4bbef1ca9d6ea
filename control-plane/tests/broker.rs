//! The bus over a real broker. Ignored unless asked for, since it needs Mosquitto: the test command runs it.

use bytes::Bytes;
use dunlin_control_plane::bus::{
    DeviceBus, DeviceId, DownKind, ExternalBus, Inbound, UpKind,
    external::{BrokerTls, ExternalConfig},
};
use dunlin_test_servers::Mosquitto;
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    time::{Duration, Instant},
};
use tokio::{sync::mpsc, time::timeout};

/// Longest wait for something that should happen, on a busy machine.
const SOON: Duration = Duration::from_secs(60);

fn config(url: &str, name: &str) -> ExternalConfig {
    ExternalConfig::from_url(url, name.to_owned(), "dunlin", || panic!("plain")).expect("a URL")
}

async fn connect(config: ExternalConfig) -> ExternalBus {
    let bus = ExternalBus::start(config);
    ready(&bus).await;
    bus
}

async fn ready(bus: &ExternalBus) {
    let from = Instant::now();
    while !bus.is_ready() {
        assert!(from.elapsed() < SOON, "the bus connects");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn next(bus: &ExternalBus) -> Inbound {
    let mut batch = timeout(SOON, bus.next(1)).await.expect("a message arrives");
    batch.pop().expect("the bus is open")
}

/// A device: a client that publishes, and what it is sent.
struct Device {
    client: AsyncClient,
    seen: mpsc::UnboundedReceiver<Packet>,
}

impl Device {
    async fn connect(options: MqttOptions) -> Device {
        let (client, mut events) = AsyncClient::new(options, 100);
        let (sender, seen) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(packet)) => {
                        if sender.send(packet).is_err() {
                            return;
                        }
                    }
                    Ok(Event::Outgoing(_)) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        });
        let mut device = Device { client, seen };
        device.until(|packet| matches!(packet, Packet::ConnAck(_))).await;
        device
    }

    async fn plain(broker: &Mosquitto, name: &str) -> Device {
        Device::connect(MqttOptions::new(name, "127.0.0.1", broker.port())).await
    }

    async fn until(&mut self, wanted: impl Fn(&Packet) -> bool) -> Packet {
        let found = async {
            loop {
                let packet = self.seen.recv().await.expect("the client runs");
                if wanted(&packet) {
                    return packet;
                }
            }
        };
        timeout(SOON, found).await.expect("such a packet")
    }

    async fn report(&self, name: &str, body: impl ToString) {
        let topic = format!("d/{name}/up/report");
        self.client.publish(topic, QoS::AtLeastOnce, false, body.to_string()).await.expect("the client runs");
    }

    async fn subscribe(&mut self, name: &str) {
        self.client.subscribe(format!("d/{name}/down/#"), QoS::AtLeastOnce).await.expect("the client runs");
        self.until(|packet| matches!(packet, Packet::SubAck(_))).await;
    }

    /// The body of the next message to the device, and whether it was retained.
    async fn message(&mut self) -> (String, bool) {
        let is_publish = |packet: &Packet| matches!(packet, Packet::Publish(_));
        let Packet::Publish(publish) = self.until(is_publish).await else { unreachable!("waited for it") };
        (String::from_utf8(publish.payload.to_vec()).expect("text"), publish.retain)
    }
}

fn url(broker: &Mosquitto) -> String {
    format!("mqtt://127.0.0.1:{}", broker.port())
}

fn body(message: &Inbound) -> u32 {
    std::str::from_utf8(&message.payload).expect("text").parse().expect("a number")
}

#[tokio::test]
#[ignore = "needs Mosquitto"]
async fn processes_share_the_messages_and_devices_get_theirs() {
    let broker = Mosquitto::start("").expect("a broker");
    let buses = [connect(config(&url(&broker), "one")).await, connect(config(&url(&broker), "two")).await];
    let mut device = Device::plain(&broker, "a").await;
    device.subscribe("a").await;
    for index in 0..100 {
        device.report("a", index).await;
    }
    let mut got = [0, 0];
    let mut bodies = BTreeSet::new();
    while bodies.len() < 100 {
        let (which, message) = tokio::select! {
            message = next(&buses[0]) => (0, message),
            message = next(&buses[1]) => (1, message),
        };
        assert_eq!((message.device.as_str(), message.kind), ("a", UpKind::Report));
        assert!(bodies.insert(body(&message)), "each message goes to one process, once");
        got[which] += 1;
        message.ack.done();
    }
    assert!(got.iter().all(|count| *count > 20), "{got:?}");

    let id = DeviceId::new("a").expect("an id");
    buses[0].send(&id, DownKind::Ack, Bytes::from_static(b"committed")).await.expect("sent");
    assert_eq!(device.message().await, ("committed".to_owned(), false));
    buses[1].send(&id, DownKind::Desired, Bytes::from_static(b"generation 7")).await.expect("sent");
    assert_eq!(device.message().await, ("generation 7".to_owned(), false));
    device.client.publish("d/a/up/fetch", QoS::AtMostOnce, false, "piece").await.expect("the client runs");
    let asked = tokio::select! {
        asked = next(&buses[0]) => asked,
        asked = next(&buses[1]) => asked,
    };
    assert_eq!((asked.device.as_str(), asked.kind, &*asked.payload), ("a", UpKind::Fetch, &b"piece"[..]));
    asked.ack.done();
    buses[0].send(&id, DownKind::Chunk, Bytes::from_static(b"its bytes")).await.expect("sent");
    assert_eq!(device.message().await, ("its bytes".to_owned(), false));
    // Retained: there for who comes later.
    let mut later = Device::plain(&broker, "later").await;
    later.subscribe("a").await;
    assert_eq!(later.message().await, ("generation 7".to_owned(), true));
}

#[tokio::test]
#[ignore = "needs Mosquitto"]
async fn what_is_not_committed_comes_again() {
    let broker = Mosquitto::start("").expect("a broker");
    let bus = connect(config(&url(&broker), "one")).await;
    let device = Device::plain(&broker, "a").await;
    for index in 0..5 {
        device.report("a", index).await;
    }
    let mut first = Vec::new();
    for _ in 0..5 {
        first.push(next(&bus).await);
    }
    // Only 0 is committed in order; 2 is, but 1 before it is not. Then a token is dropped.
    let mut first = first.into_iter();
    let [zero, one, two, three, four] = std::array::from_fn(|_| first.next().expect("five"));
    zero.ack.done();
    two.ack.done();
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(three);
    let mut again = BTreeSet::new();
    while again.len() < 4 {
        let message = next(&bus).await;
        again.insert(body(&message));
        message.ack.done();
    }
    assert_eq!(again, BTreeSet::from([1, 2, 3, 4]), "0 was acknowledged");
    // Tokens of the lost connection do nothing, whatever becomes of them.
    one.ack.done();
    drop(four);
    device.report("a", 5).await;
    let message = next(&bus).await;
    assert_eq!(body(&message), 5);
    message.ack.done();
}

#[tokio::test]
#[ignore = "needs Mosquitto"]
async fn the_bus_outlives_its_broker() {
    let mut broker = Mosquitto::start("").expect("a broker");
    let bus = connect(config(&url(&broker), "one")).await;
    let id = DeviceId::new("a").expect("an id");
    broker.kill().expect("it ends");
    let from = Instant::now();
    while bus.is_ready() {
        assert!(from.elapsed() < SOON, "the loss is noticed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The latest desired state is published when the broker is back; an acknowledgement is not worth keeping.
    for generation in ["generation 1", "generation 2"] {
        bus.send(&id, DownKind::Desired, Bytes::from_static(generation.as_bytes())).await.expect("kept");
    }
    bus.send(&id, DownKind::Ack, Bytes::from_static(b"dropped")).await.expect("no error");
    broker.resume().expect("it starts again");
    ready(&bus).await;
    let mut device = Device::plain(&broker, "a").await;
    device.report("a", 1).await;
    let message = next(&bus).await;
    assert_eq!(body(&message), 1);
    message.ack.done();
    device.subscribe("a").await;
    assert_eq!(device.message().await.0, "generation 2");
}

#[tokio::test]
#[ignore = "needs Mosquitto"]
async fn a_shutdown_leaves_the_rest_to_others() {
    let broker = Mosquitto::start("").expect("a broker");
    let leaving = connect(config(&url(&broker), "leaving")).await;
    let device = Device::plain(&broker, "a").await;
    for index in 0..10 {
        device.report("a", index).await;
    }
    let mut held = Vec::new();
    for _ in 0..10 {
        held.push(next(&leaving).await);
    }
    let staying = connect(config(&url(&broker), "staying")).await;
    let id = DeviceId::new("a").expect("an id");
    leaving.send(&id, DownKind::Desired, Bytes::from_static(b"last words")).await.expect("sent");
    let committing = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(500)).await;
        held.into_iter().for_each(|message| message.ack.done());
    });
    let from = Instant::now();
    leaving.shutdown(SOON).await;
    assert!(from.elapsed() >= Duration::from_millis(450), "waited for the commits");
    committing.await.expect("no panic");
    assert!(leaving.next(1).await.is_empty());
    assert!(leaving.send(&id, DownKind::Ack, Bytes::new()).await.is_err());
    // Everything from now on goes to the other one, and nothing was left behind.
    for index in 10..30 {
        device.report("a", index).await;
    }
    for index in 10..30 {
        let message = next(&staying).await;
        assert_eq!(body(&message), index);
        message.ack.done();
    }
    let mut late = Device::plain(&broker, "late").await;
    late.subscribe("a").await;
    assert_eq!(late.message().await.0, "last words");
}

/// A CA, and certificates of it in files.
struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new(folder: &Path) -> Authority {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, "CA");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        fs::write(folder.join("ca.pem"), certificate.pem()).expect("written");
        Authority { issuer: rcgen::Issuer::new(params, key) }
    }

    fn issue(&self, folder: &Path, name: &str) {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        fs::write(folder.join(format!("{name}.pem")), certificate.pem()).expect("written");
        fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).expect("written");
    }
}

#[tokio::test]
#[ignore = "needs Mosquitto"]
async fn certificates_and_access_rules_keep_devices_apart() {
    let broker = Mosquitto::start_with(|folder| {
        let authority = Authority::new(folder);
        for name in ["localhost", "control-plane", "a", "b"] {
            authority.issue(folder, name);
        }
        // The rules of the documentation.
        let rules = "user control-plane\ntopic read $share/dunlin/d/+/up/#\ntopic read d/+/up/#\ntopic write d/+/down/#\n\
                     pattern write d/%u/up/#\npattern read d/%u/down/#\n";
        fs::write(folder.join("acl"), rules)?;
        let path = folder.display();
        Ok(format!(
            "cafile {path}/ca.pem\ncertfile {path}/localhost.pem\nkeyfile {path}/localhost.key\n\
             require_certificate true\nuse_identity_as_username true\nallow_anonymous false\nacl_file {path}/acl\n"
        ))
    })
    .expect("a broker");
    let folder = broker.folder();
    let url = format!("mqtts://localhost:{}", broker.port());
    let as_user = |name: &str| {
        let (chain, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        let tls = || BrokerTls::new(Some(&folder.join("ca.pem")), Some((&chain, &key)));
        ExternalConfig::from_url(&url, format!("process-{name}"), "dunlin", tls).expect("settings")
    };
    let bus = connect(as_user("control-plane")).await;
    let device = |name: &str| {
        let read = |file: String| fs::read(folder.join(file)).expect("read");
        let identity = Some((read(format!("{name}.pem")), read(format!("{name}.key"))));
        let mut options = MqttOptions::new(name, "localhost", broker.port());
        options.set_transport(rumqttc::Transport::tls(read("ca.pem".to_owned()), identity, None));
        options
    };
    // The client library uses the process' default provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut honest = Device::connect(device("a")).await;
    let liar = Device::connect(device("b")).await;
    honest.subscribe("a").await;
    // Pretends to be a: the broker's rules drop it.
    liar.report("a", 666).await;
    liar.report("b", 2).await;
    let message = next(&bus).await;
    assert_eq!((message.device.as_str(), body(&message)), ("b", 2));
    message.ack.done();
    honest.report("a", 1).await;
    let message = next(&bus).await;
    assert_eq!((message.device.as_str(), body(&message)), ("a", 1));
    message.ack.done();
    let id = DeviceId::new("a").expect("an id");
    bus.send(&id, DownKind::Desired, Bytes::from_static(b"state")).await.expect("sent");
    assert_eq!(honest.message().await.0, "state");

    // Without a certificate there is no connection.
    let tls = || BrokerTls::new(Some(&folder.join("ca.pem")), None);
    let nobody = ExternalConfig::from_url(&url, "nobody".to_owned(), "dunlin", tls).expect("settings");
    let nobody = ExternalBus::start(nobody);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!nobody.is_ready());
    let id = DeviceId::new("a").expect("an id");
    nobody.send(&id, DownKind::Ack, Bytes::new()).await.expect("no error");
    nobody.shutdown(SOON).await;
}
