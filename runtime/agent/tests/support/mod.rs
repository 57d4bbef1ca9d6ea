//! What the tests share: a control plane in memory behind the real MQTT endpoint, a network that fails, a model.

#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dunlin_agent::uplink;
use dunlin_agent::{Agent, Credential, Endpoint, Identity, Schedule, Settings, Slot};
use dunlin_artifact::baseline::{Part, Source};
use dunlin_artifact::writer::{Baseline, Bins, Contents, Feature};
use dunlin_artifact::{DType, Manifest, Place, Tensor};
use dunlin_gateway::{Config, Gateway, Handler, Limits, Listener, Login, Message, Publish, Refusal};
use dunlin_protocol::{
    Ack, CertificateRequest, Desired, Envelope, Event, EventKind, Fetch, Label, Report, Section,
    SequenceWindow, SlotStatus, State, UpKind, Verdict,
};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Longest wait for something that should happen.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// Classes of the model.
pub(crate) const CLASSES: usize = 8;

/// Slots with the digests of their models.
type Slots = Vec<(String, [u8; 32])>;
/// Makes a certificate and that of the authority from a request, all DER.
type Signer = dyn Fn(&[u8]) -> (Vec<u8>, Vec<u8>) + Send + Sync;

/// The answers to what a device asks for: bodies of `down/chunk`.
type Giver = dyn Fn(&Fetch) -> Vec<Vec<u8>> + Send + Sync;

/// What the control plane has applied, and how it misbehaves.
#[derive(Default)]
pub(crate) struct State_ {
    pub(crate) windows: BTreeMap<(String, u64), SequenceWindow>,
    pub(crate) inferences: u64,
    pub(crate) failures: u64,
    /// Closed windows, merged ones counted as what they were merged from.
    pub(crate) closed: u64,
    pub(crate) reports: u64,
    pub(crate) classes: [u64; CLASSES],
    pub(crate) labels: BTreeMap<(u32, u32), u64>,
    pub(crate) events: Vec<(EventKind, i64, String)>,
    /// Inferences by the digest of the model.
    pub(crate) by_model: BTreeMap<[u8; 32], u64>,
    /// Model, hardware, generation of the last state.
    pub(crate) state: Option<(Slots, String, u64)>,
    /// What the slots were said to do in all states: model, status, reason.
    pub(crate) told: Vec<(String, [u8; 32], SlotStatus, String)>,
    pub(crate) duplicates: u64,
    pub(crate) malformed: Vec<String>,
    pub(crate) logins: u64,
    pub(crate) retained: Option<Bytes>,
    pub(crate) mood: Mood,
    /// Messages seen, for moods.
    seen: u64,
    /// Signs certificate requests (DER) as (certificate, authority).
    pub(crate) signer: Option<Arc<Signer>>,
    /// Gives pieces of artifacts and roots.
    pub(crate) giver: Option<Arc<Giver>>,
}

/// How the control plane misbehaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    #[default]
    Good,
    /// Commits and says nothing to the device.
    NoAcks,
    /// Every third message fails before it is committed, and the connection with it.
    FailsToCommit,
    /// Every acknowledgement comes three times, old ones come again, and nonsense comes with them.
    Babbles,
}

pub(crate) struct Receiver {
    state: Mutex<State_>,
    gateway: Mutex<Option<Arc<Gateway<Receiver>>>>,
}

impl Receiver {
    fn apply(&self, message: &Publish) -> Option<Ack> {
        let mut state = self.state.lock().unwrap();
        let state = &mut *state;
        let (envelope, body) = match Envelope::decode(&message.payload) {
            Ok(parts) => parts,
            Err(error) => {
                state.malformed.push(error.to_string());
                return None;
            }
        };
        let key = (message.device.to_string(), envelope.boot);
        let window = state.windows.entry(key).or_default();
        match window.apply(envelope.seq, envelope.oldest) {
            Verdict::Fresh => {}
            Verdict::Duplicate => {
                state.duplicates += 1;
                return Some(window.ack(envelope.boot));
            }
            Verdict::Malformed => {
                state.malformed.push(format!("{envelope:?}"));
                return None;
            }
        }
        let ack = window.ack(envelope.boot);
        match UpKind::from_level(&message.level).unwrap() {
            UpKind::Report => {
                let report = Report::decode(body).unwrap();
                state.reports += 1;
                if report.header().part == 0 {
                    state.closed += u64::from(report.header().windows);
                }
                for section in report.sections() {
                    match section {
                        Section::Counts(counts) => {
                            state.inferences += counts.inferences;
                            *state.by_model.entry(report.header().model).or_default() += counts.inferences;
                            state.failures += counts.failures.total();
                        }
                        Section::Classes(classes) => {
                            classes.bins.iter().for_each(|(class, n)| state.classes[class] += n);
                        }
                        _ => {}
                    }
                }
            }
            UpKind::Label => {
                for entry in Label::decode(body).unwrap().entries.iter() {
                    *state.labels.entry((entry.predicted, entry.label)).or_default() += entry.count;
                }
            }
            UpKind::Event => {
                let event = Event::decode(body).unwrap();
                state.events.push((event.kind, event.value, event.detail.to_owned()));
            }
            UpKind::State => {
                let new = State::decode(body).unwrap();
                let slots = new.slots.iter().map(|slot| (slot.slot.to_owned(), slot.model)).collect();
                state.state = Some((slots, new.hardware.to_owned(), new.desired_generation));
                state.told.extend(
                    new.slots
                        .iter()
                        .map(|slot| (slot.slot.to_owned(), slot.model, slot.status, slot.reason.to_owned())),
                );
            }
            UpKind::Csr | UpKind::Fetch => {}
        }
        Some(ack)
    }

    fn send(&self, device: &str, level: &str, payload: Vec<u8>) {
        let topic: Arc<str> = format!("d/{device}/down/{level}").into();
        let message = Message { topic, payload: payload.into(), at_least_once: true, retained: false };
        if let Some(gateway) = &*self.gateway.lock().unwrap() {
            gateway.send(device, message);
        }
    }

    fn send_ack(&self, device: &str, ack: &Ack) {
        let mut payload = vec![0; 64];
        let len = ack.encode(&mut payload).unwrap();
        payload.truncate(len);
        self.send(device, "ack", payload);
    }
}

impl Handler for Receiver {
    async fn authenticate(&self, login: Login) -> Result<Arc<str>, Refusal> {
        self.state.lock().unwrap().logins += 1;
        match (login.certificate, login.username, login.password.as_deref()) {
            (Some(certificate), _, _) => Ok(certificate.common_name.into()),
            (None, Some(name), Some(b"secret")) => Ok(name.into()),
            _ => Err(Refusal::BadCredential),
        }
    }

    fn publish(&self, message: Publish) {
        if message.level == "csr" {
            let signer = self.state.lock().unwrap().signer.clone().unwrap();
            let (device, authority) = signer(CertificateRequest::decode(&message.payload).unwrap().der);
            let answer = dunlin_protocol::Certificate { device: &device, authority: &authority };
            let mut payload = vec![0; 8192];
            let len = answer.encode(&mut payload).unwrap();
            payload.truncate(len);
            self.send(&message.device, "cert", payload);
            message.ack.done();
            return;
        }
        if message.level == "fetch" {
            let giver = self.state.lock().unwrap().giver.clone().unwrap();
            let answers = giver(&Fetch::decode(&message.payload).unwrap());
            answers.into_iter().for_each(|answer| self.send(&message.device, "chunk", answer));
            message.ack.done();
            return;
        }
        let mut state = self.state.lock().unwrap();
        let mood = state.mood;
        state.seen += 1;
        if mood == Mood::FailsToCommit && state.seen.is_multiple_of(3) {
            // The token is dropped: no PUBACK, the connection ends.
            return;
        }
        drop(state);
        let ack = self.apply(&message);
        let device = Arc::clone(&message.device);
        message.ack.done();
        let Some(ack) = ack else { return };
        match mood {
            Mood::NoAcks => {}
            Mood::Babbles => {
                for _ in 0..3 {
                    self.send_ack(&device, &ack);
                }
                self.send_ack(&device, &Ack { boot: 1, base: u64::MAX >> 2, bitmap: 0 });
                self.send_ack(&device, &Ack { boot: ack.boot, base: 0, bitmap: 0 });
                self.send(&device, "ack", b"nonsense".to_vec());
                self.send(&device, "desired", b"nonsense".to_vec());
                self.send(&device, "cert", vec![1; 100]);
                self.send(&device, "unknown", vec![1; 100]);
            }
            _ => self.send_ack(&device, &ack),
        }
    }

    async fn retained(&self, device: &Arc<str>) -> Vec<Message> {
        let payload = self.state.lock().unwrap().retained.clone();
        let topic: Arc<str> = format!("d/{device}/down/desired").into();
        let message = |payload| Message { topic, payload, at_least_once: true, retained: true };
        payload.map(message).into_iter().collect()
    }
}

/// A control plane that can be restarted without losing what it has committed.
pub(crate) struct Plane {
    pub(crate) receiver: Arc<Receiver>,
    tls: Option<Arc<rustls::ServerConfig>>,
    pub(crate) address: SocketAddr,
}

impl Plane {
    pub(crate) async fn start() -> Plane {
        Plane::start_with(None).await
    }

    pub(crate) async fn start_with(tls: Option<Arc<rustls::ServerConfig>>) -> Plane {
        let receiver = Arc::new(Receiver { state: Mutex::default(), gateway: Mutex::default() });
        let mut plane = Plane { receiver, tls, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        plane.listen().await;
        plane
    }

    async fn listen(&mut self) {
        let listener = Listener { address: self.address, tls: self.tls.clone() };
        let limits = Limits { connections_per_second: 1e6, connection_burst: 1e6, ..Limits::default() };
        let config = Config { listeners: vec![listener], limits };
        let from = Instant::now();
        let gateway = loop {
            match Gateway::bind(config.clone(), Arc::clone(&self.receiver)).await {
                Ok(gateway) => break gateway,
                // The port is still being given back.
                Err(error) => assert!(from.elapsed() < SOON, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        self.address = gateway.addresses()[0];
        *self.receiver.gateway.lock().unwrap() = Some(Arc::new(gateway));
    }

    /// Stops for a while and starts again on the same port; sessions are gone.
    pub(crate) async fn restart(&mut self, away: Duration) {
        self.stop().await;
        tokio::time::sleep(away).await;
        self.listen().await;
    }

    pub(crate) async fn stop(&mut self) {
        let gateway = self.receiver.gateway.lock().unwrap().take();
        if let Some(gateway) = gateway {
            gateway.shutdown(Duration::ZERO).await;
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State_> {
        self.receiver.state.lock().unwrap()
    }

    pub(crate) fn mood(&self, mood: Mood) {
        self.state().mood = mood;
    }

    /// Publishes a desired state.
    pub(crate) fn desire(&self, device: &str, desired: &Desired<'_>) {
        let mut payload = vec![0; 4096];
        let len = desired.encode(&mut payload).unwrap();
        payload.truncate(len);
        self.publish(device, payload);
    }

    /// Publishes the bytes of a desired state.
    pub(crate) fn publish(&self, device: &str, payload: Vec<u8>) {
        self.state().retained = Some(payload.clone().into());
        self.receiver.send(device, "desired", payload);
    }

    /// Waits until the state is so.
    pub(crate) async fn until(&self, what: impl Fn(&State_) -> bool) {
        let from = Instant::now();
        while !what(&self.state()) {
            if from.elapsed() > SOON {
                let state = self.state();
                panic!(
                    "{} inferences, {} windows, {} duplicates, {:?}, {:?}",
                    state.inferences, state.closed, state.duplicates, state.malformed, state.events
                );
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A TCP connection that fails in many ways.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    weather: Arc<AtomicU8>,
    _accept: tokio::task::JoinHandle<()>,
}

/// Bytes pass.
pub(crate) const FINE: u8 = 0;
/// Bytes are swallowed in both directions; nobody is told (half-open).
pub(crate) const FROZEN: u8 = 1;
/// Connections are closed, new ones too.
pub(crate) const CUT: u8 = 2;

impl Proxy {
    pub(crate) async fn start(target: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let weather = Arc::new(AtomicU8::new(FINE));
        let shared = Arc::clone(&weather);
        let accept = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(connection(client, target, Arc::clone(&shared)));
            }
        });
        Proxy { address, weather, _accept: accept }
    }

    pub(crate) fn weather(&self, weather: u8) {
        self.weather.store(weather, Ordering::Relaxed);
    }
}

async fn connection(client: TcpStream, target: SocketAddr, weather: Arc<AtomicU8>) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    let (mut buffer, mut other) = ([0; 2048], [0; 2048]);
    let (mut client, mut server) = (client, server);
    // A connection that was frozen once stays so: its bytes are gone.
    let mut frozen = false;
    loop {
        frozen |= weather.load(Ordering::Relaxed) == FROZEN;
        if weather.load(Ordering::Relaxed) == CUT {
            return;
        }
        let ready = async {
            use tokio::io::AsyncReadExt as _;
            tokio::select! {
                n = client.read(&mut buffer) => n.map(|n| (n, true)),
                n = server.read(&mut other) => n.map(|n| (n, false)),
            }
        };
        match tokio::time::timeout(Duration::from_millis(5), ready).await {
            Err(_) => {}
            Ok(Err(_)) => return,
            Ok(Ok((0, _))) if !frozen => return,
            Ok(Ok((0, _))) => tokio::time::sleep(Duration::from_millis(50)).await,
            Ok(Ok((n, up))) if !frozen && weather.load(Ordering::Relaxed) == FINE => {
                let sent = match up {
                    true => server.write_all(&buffer[..n]).await,
                    false => client.write_all(&other[..n]).await,
                };
                if sent.is_err() {
                    return;
                }
            }
            Ok(Ok(_)) => frozen |= weather.load(Ordering::Relaxed) == FROZEN,
        }
    }
}

/// A model with one input of eight scores, whose largest is the class that is counted.
pub(crate) fn model() -> Vec<u8> {
    model_named("sample")
}

/// [`model`] under another name, and so with another digest.
pub(crate) fn model_named(name: &str) -> Vec<u8> {
    model_with(name, vec![])
}

/// [`model_named`] with constants that make it larger.
pub(crate) fn model_with(name: &str, data: Vec<u8>) -> Vec<u8> {
    let manifest = Manifest {
        name,
        producer: "test",
        target: "generic",
        source_format: "none",
        source_digest: [0; 32],
        macs: 0,
        arena_bound: 64,
        io_names: "",
    };
    let feature = Feature {
        name: "class".into(),
        source: Source::Input(0),
        part: Part::ArgMax,
        bins: Bins::Classes { counts: vec![0; CLASSES] },
        missing: 0,
    };
    let tensor = Tensor::new(DType::I8, &[1, CLASSES as u32], Place::Arena(0), 1.0, 0).unwrap();
    let contents = Contents {
        manifest,
        tensors: vec![tensor],
        program: vec![],
        data,
        inputs: vec![0],
        outputs: vec![0],
        states: vec![],
        golden: vec![],
        baseline: Some(Baseline { samples: 0, features: vec![feature] }),
        arena_len: 64,
        state_len: 0,
        work: 0,
    };
    contents.write()
}

/// Counts one inference of a class.
pub(crate) fn infer(slot: &Slot, class: usize) {
    let mut scores = [0; CLASSES];
    scores[class] = 1;
    slot.input(0, &scores);
    slot.completed(Duration::from_micros(50));
}

pub(crate) fn identity(address: SocketAddr, device: &str) -> Identity {
    Identity {
        // Nobody listens there.
        server: "http://127.0.0.1:1".into(),
        server_ca: None,
        device: device.into(),
        mqtt: Endpoint { host: address.ip().to_string(), port: address.port(), tls: false },
        ca: None,
        credential: Credential::Password { password: "secret".into() },
        root: None,
        pending_key: None,
        candidate: None,
    }
}

/// Times a hundred times shorter than in the field.
pub(crate) fn settings(folder: Option<&Path>) -> Settings {
    Settings {
        state_dir: folder.map(Path::to_owned),
        hardware: "test-bench".into(),
        schedule: Schedule { period_ms: 100, runs: 50 },
        uplink: uplink::Settings {
            connect_timeout_ms: 2_000,
            ack_timeout_ms: 400,
            least_pause_ms: 20,
            longest_pause_ms: 300,
            ..uplink::Settings::default()
        },
        health: false,
        ..Settings::default()
    }
}

pub(crate) fn start(address: SocketAddr, folder: Option<&Path>) -> Agent {
    Agent::start(identity(address, "pump-7"), settings(folder)).unwrap()
}
