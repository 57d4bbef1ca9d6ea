//! The device's program.

use core::future::Future;
use core::pin::pin;

use dunlin_agent::uplink::{Action, DownCause, Event, MessageKey};
use dunlin_monitor::Schedule;
use dunlin_protocol::{EventKind, limits};
use embedded_io_async::{Read, Write};
use rust_mqtt::buffer::BumpBuffer;

use crate::device::{Counted, Device, Now};
use crate::mqtt::{Connection, KEEP_ALIVE_S, NotSent, RECEIVED, Received};
use crate::select::{Either, select};

/// How long a packet may take to be written or read once it has begun, in milliseconds.
const PACKET_MS: u64 = 10_000;
/// A connection on which nothing has come for this long is dead, in milliseconds: one and a half keep-alives.
const SILENCE_MS: u64 = KEEP_ALIVE_S as u64 * 1500;

/// What a board gives.
pub trait Platform {
    /// A connection to the server: TCP, or TLS on top of it.
    type Stream: Read + Write;
    /// Why there is no connection.
    type Error;

    /// Milliseconds since the device was started; never goes back.
    fn now_ms(&self) -> u64;
    /// Seconds since 1970 UTC; 0 when the device does not know.
    fn unix_s(&self) -> u64;
    /// 32 random bits.
    fn random(&self) -> u32;
    /// Connects to the server's MQTT port.
    fn connect(&self) -> impl Future<Output = Result<Self::Stream, Self::Error>>;
    /// Waits until [`Platform::now_ms`] is that much.
    fn sleep_until(&self, ms: u64) -> impl Future<Output = ()>;
}

/// The product.
pub trait Application {
    /// When [`Application::sample`] is to be called next, in milliseconds of [`Platform::now_ms`]; `None` when the
    /// device is done, so that [`run`] ends once everything is acknowledged.
    fn next_ms(&self) -> Option<u64>;
    /// Runs the model and tells the monitor.
    fn sample(&mut self, monitor: &mut Counted<'_>, now_ms: u64);
}

/// Who the device is.
#[derive(Clone, Copy)]
pub struct Credentials<'a> {
    /// The device's id, as enrolment gave it.
    pub device: &'a str,
    /// Its password; none when the stream proves who it is, by a certificate.
    pub password: Option<&'a str>,
}

/// Runs until the application is done and everything is acknowledged; usually for ever.
pub async fn run<P: Platform>(
    device: &mut Device<'_>,
    platform: &P,
    application: &mut impl Application,
    credentials: Credentials<'_>,
) {
    let mut program = Program { device, platform, application };
    let now = program.now();
    let restarted = program.device.note(EventKind::Restarted, 0, now);
    program.device.step(restarted, now);
    while !program.is_done() {
        program.tick();
        match program.device.pending.pop_front() {
            Some(Action::Connect) => {
                if let Err(Some(cause)) = program.session(credentials).await {
                    let now = program.now();
                    program.device.step(Event::Down(cause), now);
                }
            }
            // There is no connection.
            Some(Action::Disconnect | Action::Subscribe | Action::Send { .. }) => {}
            Some(_) | None => platform.sleep_until(program.wake_ms()).await,
        }
    }
}

struct Program<'p, 'm, P, A> {
    device: &'p mut Device<'m>,
    platform: &'p P,
    application: &'p mut A,
}

/// `Err(None)`: the state machine itself wanted the connection to end.
type Session<T = ()> = Result<T, Option<DownCause>>;

impl<P: Platform, A: Application> Program<'_, '_, P, A> {
    fn now(&self) -> Now {
        let platform = self.platform;
        Now { ms: platform.now_ms(), unix_s: platform.unix_s(), random: platform.random() }
    }

    fn is_done(&self) -> bool {
        self.application.next_ms().is_none()
            && self.device.monitor.window().is_empty()
            && self.device.is_settled()
    }

    /// Runs the model and closes the window if they are due, and lets time pass for the state machine.
    fn tick(&mut self) {
        let now = self.now();
        if self.application.next_ms().is_some_and(|at_ms| now.ms >= at_ms) {
            self.application.sample(&mut self.device.monitor, now.ms);
        }
        let done = self.application.next_ms().is_none();
        self.device.close(done, now);
        self.device.step(Event::Tick, now);
    }

    /// When [`Program::tick`] is to be called.
    fn wake_ms(&self) -> u64 {
        let Schedule { period_ms, .. } = self.device.monitor.schedule();
        let latest = self.platform.now_ms() + u64::from(period_ms.clamp(10, 1000));
        [self.application.next_ms(), self.device.uplink.wake_at_ms()]
            .into_iter()
            .flatten()
            .fold(latest, u64::min)
    }

    /// Waits for something slow while the model goes on running. Ends early when the state machine gives up.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Session<T> {
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
        }
    }

    /// [`Program::meanwhile`], but a packet that does not get through means that the connection is dead.
    async fn packet<T>(&mut self, work: impl Future<Output = T>) -> Session<T> {
        let platform = self.platform;
        let end = platform.sleep_until(platform.now_ms() + PACKET_MS);
        match self.meanwhile(select(work, end)).await? {
            Either::First(done) => Ok(done),
            Either::Second(()) => Err(Some(DownCause::Network)),
        }
    }

    /// One connection, from its beginning to its end.
    async fn session(&mut self, credentials: Credentials<'_>) -> Session {
        let platform = self.platform;
        let stream = self.meanwhile(platform.connect()).await?;
        let stream = stream.map_err(|_| Some(DownCause::Network))?;
        let mut memory = [0; RECEIVED];
        let mut buffer = BumpBuffer::new(&mut memory);
        let mut connection = Connection::new(&mut buffer);
        let Credentials { device: id, password } = credentials;
        self.meanwhile(connection.connect(stream, id, password)).await?.map_err(Some)?;
        let now = self.now();
        self.device.step(Event::Connected, now);

        let mut heard_ms = platform.now_ms();
        let mut ping_ms = heard_ms + SILENCE_MS / 3;
        loop {
            while let Some(action) = self.device.pending.pop_front() {
                match action {
                    Action::Subscribe => {
                        self.packet(connection.subscribe(id)).await?.map_err(Some)?;
                    }
                    Action::Send { kind, envelope } => {
                        let key = MessageKey { boot: envelope.boot, seq: envelope.seq };
                        let mut message = [0; limits::REPORT_BUDGET];
                        let event = match self.device.message(&envelope, &mut message) {
                            None => Some(Event::Lost(key)),
                            Some(len) => {
                                let message = message.get(..len).unwrap_or(&[]);
                                match self.packet(connection.publish(id, kind, message)).await? {
                                    Ok(()) => None,
                                    Err(NotSent::Full) => Some(Event::NotSent(key)),
                                    Err(NotSent::Down) => return Err(Some(DownCause::Network)),
                                }
                            }
                        };
                        if let Some(event) = event {
                            let now = self.now();
                            self.device.step(event, now);
                        }
                    }
                    Action::Disconnect => return Err(None),
                    _ => {}
                }
            }
            if self.is_done() {
                self.packet(connection.close()).await?;
                return Ok(());
            }
            let wake_ms = self.wake_ms().min(ping_ms).min(heard_ms + SILENCE_MS);
            match select(connection.header(), platform.sleep_until(wake_ms)).await {
                Either::First(header) => {
                    let header = header.map_err(Some)?;
                    let received = self.packet(connection.body(header)).await?.map_err(Some)?;
                    heard_ms = platform.now_ms();
                    self.received(received)?;
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
                }
            }
        }
    }

    fn received(&mut self, received: Received) -> Session {
        let now = self.now();
        let event = match received {
            Received::Subscribed => Event::Subscribed,
            Received::Ack(ack) => Event::Acked(ack),
            Received::Desired { generation, report_period_s, window_period_s, window_count } => {
                if generation > self.device.uplink.desired_generation() {
                    self.device.set_schedule(window_period_s, window_count);
                }
                Event::Desired { generation, report_period_s }
            }
            Received::Room => Event::Writable,
            Received::Refused => return Err(Some(DownCause::Refused)),
            Received::Nothing => Event::Tick,
        };
        self.device.step(event, now);
        Ok(())
    }
}
