//! The program while one model runs: it samples, reports, fetches.

use core::future::Future;
use core::pin::pin;

use dunlin_agent::update::{self, Model, Room};
use dunlin_agent::uplink::{Action, DownCause, Event, MessageKey};
use dunlin_monitor::Schedule;
use dunlin_protocol::limits::{MAX_ROOT, REPORT_BUDGET};
use dunlin_protocol::{Chunk, Fetch, Object, UpKind};
use dunlin_runtime::Session;
use dunlin_trust::Verifier;
use embedded_io_async::{Read, Write};
use embedded_storage::nor_flash::NorFlash;
use rust_mqtt::buffer::BumpBuffer;

use crate::belief::Verdict;
use crate::device::{Counted, Device, Now};
use crate::mqtt::{Connection, KEEP_ALIVE_S, Messages, NotSent, RECEIVED, Received};
use crate::product::{Application, Bank, Credentials, Platform};
use crate::run::check;
use crate::select::{Either, select};
use crate::transfer::{ANSWER_MS, Transfer};
use crate::update::Job;

/// How long a packet may take to be written or read once it has begun, in milliseconds.
const PACKET_MS: u64 = 10_000;
/// A connection on which nothing has come for this long is dead, in milliseconds: one and a half keep-alives.
const SILENCE_MS: u64 = KEEP_ALIVE_S as u64 * 1500;
/// When to look again at what could not be judged or kept, in milliseconds.
const AGAIN_MS: u64 = 60_000;

/// Why a program has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The application is done.
    Done,
    /// Another model is to run, or the arena is needed.
    Leave,
}

/// One model that runs.
pub(crate) struct Program<'p, 'd, 'm, P, A, F, V, B, const KERNELS: u128> {
    pub(crate) device: &'p mut Device<'d, F, V>,
    pub(crate) platform: &'p P,
    pub(crate) application: &'p mut A,
    pub(crate) credentials: Credentials<'p>,
    pub(crate) session: Session<'m, 'p, KERNELS>,
    pub(crate) monitor: Counted<'m>,
    /// Which model it is; none when it is the one that is built in.
    pub(crate) runs: Option<(update::Bank, Model)>,
    /// The bank that it is not in.
    pub(crate) free: &'p mut B,
    pub(crate) room: Room,
}

/// `Err(None)`: the state machine itself wanted the connection to end.
type Ended<T = ()> = Result<T, Option<DownCause>>;

/// A root that is needed to judge what was assigned.
#[derive(Clone, Copy)]
enum MissingRoot {
    Nothing,
    Wanted(u32),
    Asked { number: u32, until_ms: u64 },
}

/// What belongs to one connection.
struct Online {
    messages: Messages,
    root: MissingRoot,
    /// When to look again at the desired state that came last.
    again_ms: Option<u64>,
}

impl<'p, P, A, F, V, B, const KERNELS: u128> Program<'p, '_, '_, P, A, F, V, B, KERNELS>
where
    P: Platform,
    A: Application<KERNELS>,
    F: NorFlash,
    V: Verifier,
    B: Bank,
{
    /// Runs the model until it has to be left.
    pub(crate) async fn run(&mut self) -> Outcome {
        // The digest that is reported may be that of another built-in model than the last firmware's.
        self.device.tell(self.now());
        loop {
            self.tick();
            if self.is_done() {
                return Outcome::Done;
            }
            if self.is_left() {
                return Outcome::Leave;
            }
            match self.device.pending.pop_front() {
                Some(Action::Connect) => {
                    let ended = self.session().await;
                    if let Job::Fetch { transfer: Some(transfer), .. } = &mut self.device.job {
                        transfer.disconnected();
                    }
                    if let Err(Some(cause)) = ended {
                        self.device.step(Event::Down(cause), self.now());
                    }
                }
                // There is no connection.
                Some(Action::Disconnect | Action::Subscribe | Action::Send { .. }) => {}
                Some(_) | None => self.platform.sleep_until(self.wake_ms()).await,
            }
        }
    }

    fn now(&self) -> Now {
        let platform = self.platform;
        Now { ms: platform.now_ms(), unix_s: platform.unix_s(), random: platform.random() }
    }

    fn is_done(&self) -> bool {
        !self.is_leaving()
            && self.application.next_ms().is_none()
            && self.monitor.window().is_empty()
            && self.device.is_settled()
    }

    /// Whether this model is not to run any more, or its arena is needed.
    fn is_leaving(&self) -> bool {
        self.device.wanted != self.runs || matches!(self.device.job, Job::Prove { .. })
    }

    /// Whether it can be left: what it counted is in safety.
    fn is_left(&self) -> bool {
        self.is_leaving() && self.monitor.window().is_empty()
    }

    /// Runs the model and closes the window if they are due, lets time pass for the state machines, and does what they
    /// want done.
    fn tick(&mut self) {
        let now = self.now();
        if !self.is_leaving() && self.application.next_ms().is_some_and(|at_ms| now.ms >= at_ms) {
            self.application.sample(&mut self.session, &mut self.monitor, now.ms);
        }
        let done = self.application.next_ms().is_none();
        self.device.close(&mut self.monitor, done, now);
        self.device.step(Event::Tick, now);
        if self.device.update.wake_at_ms().is_some_and(|at_ms| now.ms >= at_ms) {
            self.device.update(update::Event::Tick, now);
        }
        if !self.is_leaving() {
            self.work(now);
        }
        if self.is_leaving() {
            self.device.close(&mut self.monitor, true, now);
        }
    }

    /// Does what the slot wants done and needs no network.
    fn work(&mut self, now: Now) {
        match &mut self.device.job {
            Job::Verify { model } => {
                let checked = check(self.free.bytes(), model, self.room);
                self.device.ended(update::Event::Checked(checked), "", now);
            }
            Job::Fetch { model, offset, transfer: transfer @ None } => {
                *transfer = Transfer::resume(self.free, *model, *offset);
                if transfer.is_none() {
                    let why = "the model cannot be kept: a bank does not consist of whole pages";
                    self.device.ended(update::Event::StorageFailed, why, now);
                }
            }
            Job::Fetch { transfer: Some(transfer), .. } => {
                if transfer.late_ms().is_some_and(|at_ms| now.ms >= at_ms) {
                    let why = "the model cannot be fetched: the control plane does not answer";
                    self.device.ended(update::Event::FetchFailed { retry_after_ms: 0 }, why, now);
                }
            }
            Job::Nothing | Job::Prove { .. } => {}
        }
    }

    /// When [`Program::tick`] is to be called.
    fn wake_ms(&self) -> u64 {
        let Schedule { period_ms, .. } = self.monitor.schedule();
        let latest = self.platform.now_ms() + u64::from(period_ms.clamp(10, 1000));
        let sample_ms = self.application.next_ms().filter(|_| !self.is_leaving());
        let late_ms = match &self.device.job {
            Job::Fetch { transfer: Some(transfer), .. } => transfer.late_ms(),
            _ => None,
        };
        [sample_ms, self.device.uplink.wake_at_ms(), self.device.update.wake_at_ms(), late_ms]
            .into_iter()
            .flatten()
            .fold(latest, u64::min)
    }

    /// Waits for something slow while the model goes on running. Ends early when the state machine gives up, or another
    /// model is to run.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Ended<T> {
        let mut work = pin!(work);
        loop {
            match select(work.as_mut(), self.platform.sleep_until(self.wake_ms())).await {
                Either::First(done) => return Ok(done),
                Either::Second(()) => self.tick(),
            }
            // What is to be sent waits; only the end of the connection cannot.
            if let Some(Action::Disconnect) = self.device.pending.front() {
                self.device.pending.pop_front();
                return Err(None);
            }
            if self.is_left() {
                return Err(Some(DownCause::Network));
            }
        }
    }

    /// [`Program::meanwhile`], but a packet that does not get through means that the connection is dead.
    async fn packet<T>(&mut self, work: impl Future<Output = T>) -> Ended<T> {
        let platform = self.platform;
        let end = platform.sleep_until(platform.now_ms() + PACKET_MS);
        match self.meanwhile(select(work, end)).await? {
            Either::First(done) => Ok(done),
            Either::Second(()) => Err(Some(DownCause::Network)),
        }
    }

    /// One connection, from its beginning to its end.
    async fn session(&mut self) -> Ended {
        let platform = self.platform;
        let stream = self.meanwhile(platform.connect()).await?;
        let stream = stream.map_err(|_| Some(DownCause::Network))?;
        let mut memory = [0; RECEIVED];
        let mut buffer = BumpBuffer::new(&mut memory);
        let mut connection = Connection::new(&mut buffer);
        let Credentials { device: id, password } = self.credentials;
        self.meanwhile(connection.connect(stream, id, password)).await?.map_err(Some)?;
        self.device.step(Event::Connected, self.now());

        let mut online = Online { messages: Messages::default(), root: MissingRoot::Nothing, again_ms: None };
        let mut heard_ms = platform.now_ms();
        let mut ping_ms = heard_ms + SILENCE_MS / 3;
        loop {
            while let Some(action) = self.device.pending.pop_front() {
                self.act(&mut connection, action).await?;
            }
            if self.is_done() || self.is_left() {
                self.packet(connection.close()).await?;
                return if self.is_left() { Err(Some(DownCause::Network)) } else { Ok(()) };
            }
            self.ask(&mut connection, &mut online).await?;
            let wake_ms = self.wake_ms().min(ping_ms).min(heard_ms + SILENCE_MS);
            let wake_ms = online.again_ms.into_iter().fold(wake_ms, u64::min);
            match select(connection.header(), platform.sleep_until(wake_ms)).await {
                Either::First(header) => {
                    let header = header.map_err(Some)?;
                    let received = self.packet(connection.body(header, &mut online.messages)).await?;
                    heard_ms = platform.now_ms();
                    self.received(received.map_err(Some)?, &mut online)?;
                }
                Either::Second(()) => {
                    let now_ms = platform.now_ms();
                    if now_ms >= heard_ms + SILENCE_MS {
                        return Err(Some(DownCause::Network));
                    }
                    if now_ms >= ping_ms {
                        ping_ms = now_ms + SILENCE_MS / 3;
                        self.packet(connection.ping()).await?.map_err(Some)?;
                    }
                    self.tick();
                    self.look_again(&mut online);
                }
            }
        }
    }

    /// Does over the connection what the uplink wants done.
    async fn act<S: Read + Write>(&mut self, connection: &mut Connection<'_, S>, action: Action) -> Ended {
        let id = self.credentials.device;
        match action {
            Action::Subscribe => self.packet(connection.subscribe(id)).await?.map_err(Some),
            Action::Send { kind, envelope } => {
                let key = MessageKey { boot: envelope.boot, seq: envelope.seq };
                let mut message = [0; REPORT_BUDGET];
                let event = match self.device.message(&envelope, &mut message) {
                    None => Event::Lost(key),
                    Some(len) => {
                        let message = message.get(..len).unwrap_or(&[]);
                        match self.packet(connection.publish(id, kind, message)).await? {
                            Ok(()) => return Ok(()),
                            Err(NotSent::Full) => Event::NotSent(key),
                            Err(NotSent::Down) => return Err(Some(DownCause::Network)),
                        }
                    }
                };
                self.device.step(event, self.now());
                Ok(())
            }
            Action::Disconnect => Err(None),
            _ => Ok(()),
        }
    }

    /// Asks for what is missing: roots first, as nothing is believed without them.
    async fn ask<S: Read + Write>(
        &mut self,
        connection: &mut Connection<'_, S>,
        online: &mut Online,
    ) -> Ended {
        loop {
            let fetch = match (online.root, &self.device.job) {
                (MissingRoot::Wanted(number), _) => {
                    Some(Fetch { object: Object::Root(number), offset: 0, len: MAX_ROOT as u32 })
                }
                (_, Job::Fetch { transfer: Some(transfer), .. }) => transfer.next(),
                _ => None,
            };
            let Some(fetch) = fetch else { return Ok(()) };
            let mut message = [0; 64];
            let Ok(len) = fetch.encode(&mut message) else { return Ok(()) };
            let message = message.get(..len).unwrap_or(&[]);
            match self.packet(connection.publish(self.credentials.device, UpKind::Fetch, message)).await? {
                Ok(()) => {}
                // A PUBACK makes room.
                Err(NotSent::Full) => return Ok(()),
                Err(NotSent::Down) => return Err(Some(DownCause::Network)),
            }
            let now_ms = self.platform.now_ms();
            match (fetch.object, &mut self.device.job) {
                (Object::Root(number), _) => {
                    online.root = MissingRoot::Asked { number, until_ms: now_ms + ANSWER_MS };
                }
                (Object::Artifact(_), Job::Fetch { transfer: Some(transfer), .. }) => {
                    transfer.asked(&fetch, now_ms);
                }
                (Object::Artifact(_), _) => {}
            }
        }
    }

    fn received(&mut self, received: Received, online: &mut Online) -> Ended {
        let event = match received {
            Received::Subscribed => Event::Subscribed,
            Received::Ack(ack) => Event::Acked(ack),
            Received::Desired => {
                self.judge(online);
                Event::Tick
            }
            Received::Chunk => {
                self.chunk(online);
                Event::Tick
            }
            Received::Room => Event::Writable,
            Received::Refused => return Err(Some(DownCause::Refused)),
            Received::Nothing => Event::Tick,
        };
        self.device.step(event, self.now());
        // What came may have given work.
        self.tick();
        Ok(())
    }

    /// Decides about the desired state that came last.
    fn judge(&mut self, online: &mut Online) {
        let now = self.now();
        online.again_ms = None;
        match self.device.believe(&online.messages.desired, self.credentials.device, now) {
            Verdict::Settled => {}
            Verdict::RootNeeded(number) => match online.root {
                MissingRoot::Asked { .. } => {}
                _ => online.root = MissingRoot::Wanted(number),
            },
            Verdict::Later => online.again_ms = Some(now.ms + AGAIN_MS),
        }
        self.monitor.set_schedule(self.device.schedule);
    }

    /// Takes a piece of an artifact or a root; what nobody asked for is dropped.
    fn chunk(&mut self, online: &mut Online) {
        let Ok(chunk) = Chunk::decode(&online.messages.chunk) else { return };
        let now = self.now();
        match (chunk.object, online.root) {
            (Object::Artifact(_), _) => {
                let Job::Fetch { transfer: Some(transfer), .. } = &mut self.device.job else { return };
                match transfer.answer(&chunk, self.free) {
                    Some((event @ update::Event::Stored { .. }, trouble)) => {
                        self.device.trouble = trouble;
                        self.device.update(event, now);
                    }
                    Some((event, trouble)) => self.device.ended(event, trouble, now),
                    None => {}
                }
            }
            (Object::Root(found), MissingRoot::Asked { number, .. }) if found == number => {
                online.root = MissingRoot::Nothing;
                if chunk.retry_after_s > 0 {
                    online.again_ms = Some(now.ms + u64::from(chunk.retry_after_s) * 1000);
                } else if chunk.bytes.is_empty() || u32::try_from(chunk.bytes.len()) != Ok(chunk.total) {
                    self.device.no_root(number, &"the control plane does not have it", now);
                    online.again_ms = Some(now.ms + AGAIN_MS);
                } else if self.device.take_root(number, chunk.bytes, now) {
                    self.judge(online);
                } else {
                    online.again_ms = Some(now.ms + AGAIN_MS);
                }
            }
            (Object::Root(_), _) => {}
        }
    }

    /// Looks again at what could not be judged, when it is time.
    fn look_again(&mut self, online: &mut Online) {
        let now = self.now();
        match online.root {
            MissingRoot::Asked { number, until_ms } if now.ms >= until_ms => {
                online.root = MissingRoot::Nothing;
                self.device.no_root(number, &"the control plane does not answer", now);
                online.again_ms = Some(now.ms + AGAIN_MS);
            }
            _ => {}
        }
        if online.again_ms.is_some_and(|at_ms| now.ms >= at_ms) {
            self.judge(online);
        }
    }
}
