//! One connection's task: moves bytes between the socket and the [`Session`], and keeps every limit.
//!
//! Written as a state machine instead of `async` code, so that an idle connection is one small allocation: it holds
//! no read buffer (bytes are read into a buffer that the threads share) and no write buffer.

use crate::{
    AckToken, Certificate, CloseReason, Handler, Login, Message, Publish, Refusal,
    link::{Link, Request},
    metrics::Counters,
    rate::Bucket,
    registry::Begun,
    server::Shared,
    session::{Connect, Event, Incoming, Session},
};
use std::{
    cell::Cell,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::OwnedSemaphorePermit,
    time::{Sleep, sleep_until},
};

/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;
/// With more output than this waiting, nothing is read: its answer would only add to it.
const OUTPUT_HIGH: usize = 32 * 1024;
/// A write buffer larger than this is given back when it is empty.
const OUTPUT_KEPT: usize = 512;
/// Rounds in one call of `poll`, so that a fast client does not keep a thread for itself.
const ROUNDS: usize = 16;
/// After the last byte is written, how long the client has to close its side. Closing while unread bytes wait would
/// reset the connection, and the client could lose the PUBACKs and the DISCONNECT just sent.
const LINGER: Duration = Duration::from_secs(1);
/// How long the last bytes (a DISCONNECT, the end of TLS) may take to be written.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

thread_local! {
    static READ_BUFFER: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// When a login began, the claimed client id, and the device that the handler says it is.
type Verdict = (Begun, String, Result<Arc<str>, Refusal>);

/// The task of one connection; it ends when the connection is closed.
pub(crate) struct Connection<S, H: Handler> {
    io: S,
    address: SocketAddr,
    certificate: Option<Certificate>,
    /// When the certificate, if there is one, expires.
    expires: Option<Instant>,
    shared: Arc<Shared<H>>,
    link: Arc<Link>,
    session: Session,
    state: State,
    /// Bytes read and not fed yet.
    unread: Vec<u8>,
    /// The login that is being checked: the claimed client id and the handler's verdict.
    login: Option<Pending<Verdict>>,
    retained: Option<Pending<Vec<Message>>>,
    /// A publish that waits for its share of the bound on everything in flight.
    waiting: Option<(Incoming, Pending<OwnedSemaphorePermit>)>,
    packets: Bucket,
    bytes: Bucket,
    /// Over its rate until then.
    throttled: Option<Instant>,
    draining: bool,
    /// Until a login is accepted: its deadline.
    login_by: Instant,
    /// The last time that bytes came, or that we did not want any.
    heard: Instant,
    /// Since when the socket takes no bytes.
    stuck: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    /// Writes what is left, for this reason and until then.
    Closing(CloseReason, Instant),
    /// Everything is written; waits until the client closes its side, at the latest until then.
    Lingering(CloseReason, Instant),
}

impl<S, H: Handler> Connection<S, H> {
    /// Begins to close after the session has said what it has to say.
    fn end(&mut self, reason: CloseReason) {
        self.state = State::Closing(reason, Instant::now() + CLOSE_TIMEOUT);
        self.unread = Vec::new();
        (self.login, self.retained, self.waiting) = (None, None, None);
        // From here on a new connection of the device is not one that takes over.
        if let Some(device) = self.session.device() {
            let handler = &self.shared.handler;
            self.shared.registry.remove(device, &self.link, || handler.disconnected(device, reason));
        }
        self.link.close();
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin, H: Handler> Connection<S, H> {
    pub(crate) fn new(
        io: S,
        address: SocketAddr,
        certificate: Option<(Certificate, Duration)>,
        accepted: Instant,
        link: Arc<Link>,
        shared: Arc<Shared<H>>,
    ) -> Connection<S, H> {
        let limits = &shared.limits;
        let now = Instant::now();
        let login_by = accepted + limits.login_timeout;
        let (certificate, remaining) = certificate.unzip();
        let expires = remaining.and_then(|remaining| now.checked_add(remaining));
        Connection {
            io,
            address,
            certificate,
            expires,
            link,
            session: Session::new(limits.clone()),
            state: State::Running,
            unread: Vec::new(),
            login: None,
            retained: None,
            waiting: None,
            packets: Bucket::new(limits.packets_per_second, limits.packet_burst, now),
            bytes: Bucket::new(limits.bytes_per_second, limits.bytes_per_second * 4.0, now),
            throttled: None,
            draining: false,
            login_by,
            heard: now,
            stuck: None,
            timer: Box::pin(sleep_until(login_by.into())),
            shared,
        }
    }

    /// Begins to close, once.
    fn close(&mut self, reason: CloseReason) {
        if self.state == State::Running {
            self.session.close(reason);
            self.end(reason);
        }
    }

    /// Takes what others have left for this connection. True if there was something.
    fn take_inbox(&mut self) -> bool {
        let mut inbox = self.link.lock();
        let completed = std::mem::take(&mut inbox.completed);
        let request = inbox.request.take();
        let mut moved = !completed.is_empty() || request.is_some();
        let mut withheld = false;
        for (number, committed) in completed {
            match committed {
                true => self.session.complete(number),
                false => withheld = true,
            }
        }
        self.session.acknowledge();
        // Anything that exceeds what the device takes stays in the outbox, whose bound drops what is too much.
        while self.session.may_send() && self.session.output.len() < OUTPUT_HIGH {
            let Some(waiting) = inbox.outbox.pop() else { break };
            self.session.send(&waiting.message, waiting.on_subscribe);
            moved = true;
        }
        drop(inbox);

        if withheld {
            self.close(CloseReason::Withheld);
        }
        match request {
            Some(Request::Close(reason)) => self.close(reason),
            Some(Request::Drain) => self.draining = true,
            None => {}
        }
        if self.draining && (!self.session.is_open() || self.session.unacknowledged() == 0) {
            self.close(CloseReason::ShuttingDown);
        }
        moved
    }

    fn poll_login(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(login) = &mut self.login else { return false };
        let Poll::Ready((begun, claimed, result)) = login.as_mut().poll(cx) else { return false };
        self.login = None;
        let verdict = match result {
            Ok(device) if self.expires.is_some_and(|expires| expires <= Instant::now()) => {
                tracing::debug!(%device, "refused: its certificate has expired");
                Err(CloseReason::CertificateExpired)
            }
            Ok(device) if *device == *claimed => Ok(device),
            Ok(device) => {
                tracing::warn!(%device, %claimed, address = %self.address, "refused: the client id is another device's");
                Err(CloseReason::IdentityMismatch)
            }
            Err(Refusal::BadCredential) => Err(CloseReason::BadCredential),
            Err(Refusal::Banned) => Err(CloseReason::Banned),
            Err(Refusal::Unavailable) => Err(CloseReason::LoginUnavailable),
        };
        let handler = &self.shared.handler;
        let registry = &self.shared.registry;
        let admitted = verdict.and_then(|device| {
            match registry.insert(&device, &self.link, begun, || handler.connected(&device)) {
                true => Ok(device),
                false => Err(CloseReason::LoginUnavailable),
            }
        });
        match admitted {
            Ok(device) => {
                Counters::add(&self.shared.counters.logins, 1);
                self.session.accept(device);
                self.heard = Instant::now();
            }
            Err(reason) => {
                self.session.refuse(reason);
                self.end(reason);
            }
        }
        true
    }

    fn poll_retained(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(retained) = &mut self.retained else { return false };
        let Poll::Ready(messages) = retained.as_mut().poll(cx) else { return false };
        self.retained = None;
        let messages = self.session.retained(messages);
        let mut inbox = self.link.lock();
        for message in messages {
            inbox.outbox.push_retained(message, self.shared.limits.outbox_messages);
        }
        true
    }

    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> bool {
        let Some((_, permit)) = &mut self.waiting else { return false };
        let Poll::Ready(share) = permit.as_mut().poll(cx) else { return false };
        if let Some((incoming, _)) = self.waiting.take() {
            self.deliver(incoming, share);
        }
        true
    }

    /// Hands a publish to the handler, when there is room for it.
    fn publish(&mut self, incoming: Incoming) {
        let share = self.shared.share_of(incoming.payload.len());
        let in_flight = self.shared.in_flight.clone();
        match in_flight.clone().try_acquire_many_owned(share) {
            Ok(share) => self.deliver(incoming, share),
            Err(_) => {
                Counters::add(&self.shared.counters.waited, 1);
                let permit = async move {
                    // The semaphore is never closed.
                    in_flight.acquire_many_owned(share).await.expect("open")
                };
                self.waiting = Some((incoming, Box::pin(permit)));
            }
        }
    }

    fn deliver(&mut self, incoming: Incoming, share: OwnedSemaphorePermit) {
        let Some(device) = self.session.device() else { return };
        Counters::add(&self.shared.counters.publishes, 1);
        let end = incoming.number.map(|number| (self.link.clone(), number));
        self.shared.handler.publish(Publish {
            device: device.clone(),
            level: incoming.level,
            payload: incoming.payload,
            ack: AckToken::new(end, share),
        });
    }

    /// Whether a packet may be taken from the client now.
    fn may_feed(&self) -> bool {
        self.state == State::Running
            && !self.draining
            && self.waiting.is_none()
            && self.throttled.is_none()
            && self.session.output.len() < OUTPUT_HIGH
            && self.session.may_feed()
    }

    /// Feeds bytes while that is allowed; returns those that are left.
    fn feed<'a>(&mut self, mut input: &'a [u8]) -> &'a [u8] {
        let now = Instant::now();
        while !input.is_empty() && self.may_feed() {
            let event = self.session.feed(&mut input);
            if !matches!(event, Event::More) {
                self.packets.take(1.0);
                if let Some(debt) = self.packets.debt(now) {
                    Counters::add(&self.shared.counters.throttled, 1);
                    self.throttled = Some(now + debt);
                }
            }
            match event {
                Event::More | Event::Handled => {}
                Event::Login(connect) => self.start_login(*connect),
                Event::Publish(incoming) => self.publish(incoming),
                Event::Subscribed => self.ask_retained(),
                Event::Close(reason) => self.end(reason),
            }
        }
        input
    }

    fn start_login(&mut self, connect: Connect) {
        if connect.client_id.is_empty() {
            // The client id is the identity: there is none to be assigned.
            self.session.refuse(CloseReason::IdentityMismatch);
            self.end(CloseReason::IdentityMismatch);
            return;
        }
        let claimed = connect.client_id.clone();
        let login = Login {
            client_id: connect.client_id,
            username: connect.username,
            password: connect.password,
            certificate: self.certificate.take(),
            address: self.address,
        };
        let handler = self.shared.handler.clone();
        let begun = self.shared.registry.begin();
        self.login = Some(Box::pin(async move { (begun, claimed, handler.authenticate(login).await) }));
    }

    fn ask_retained(&mut self) {
        let Some(device) = self.session.device().cloned() else { return };
        let handler = self.shared.handler.clone();
        // A second SUBSCRIBE while the first is being answered asks again: the filters of both are in the session.
        self.retained = Some(Box::pin(async move { handler.retained(&device).await }));
    }

    /// Reads once, if bytes are wanted. True if there were some.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> bool {
        let lingering = matches!(self.state, State::Lingering(..));
        if !lingering && !self.may_feed() {
            self.heard = Instant::now();
            return false;
        }
        if !self.unread.is_empty() {
            let unread = std::mem::take(&mut self.unread);
            let left = self.feed(&unread).len();
            let taken = unread.len() - left;
            if left > 0 && self.state == State::Running {
                self.unread = unread;
                self.unread.drain(..taken);
            }
            return taken > 0;
        }
        let mut buffer = READ_BUFFER.take().unwrap_or_else(|| vec![0; READ_BYTES].into_boxed_slice());
        let mut target = ReadBuf::new(&mut buffer);
        let result = Pin::new(&mut self.io).poll_read(cx, &mut target);
        let length = target.filled().len();
        let progress = match result {
            Poll::Pending => false,
            Poll::Ready(Ok(())) if length > 0 => {
                if !lingering {
                    self.take_bytes(&buffer[..length]);
                }
                true
            }
            Poll::Ready(end) => {
                match self.state {
                    // A timer may still be what the lingering connection waits for: stop it.
                    State::Lingering(reason, _) => self.state = State::Lingering(reason, Instant::now()),
                    _ => self.end(if end.is_ok() { CloseReason::Device } else { CloseReason::Network }),
                }
                true
            }
        };
        READ_BUFFER.set(Some(buffer));
        progress
    }

    fn take_bytes(&mut self, input: &[u8]) {
        let now = Instant::now();
        self.heard = now;
        Counters::add(&self.shared.counters.bytes_in, input.len());
        self.bytes.take(input.len() as f64);
        if let Some(debt) = self.bytes.debt(now) {
            Counters::add(&self.shared.counters.throttled, 1);
            self.throttled = Some(now + debt);
        }
        let left = self.feed(input);
        if self.state == State::Running {
            self.unread.extend_from_slice(left);
        }
    }

    /// Writes as much as the socket takes. True if it took something.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut written = 0;
        while written < self.session.output.len() {
            match Pin::new(&mut self.io).poll_write(cx, &self.session.output[written..])? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(count) => written += count,
                Poll::Pending => break,
            }
        }
        Counters::add(&self.shared.counters.bytes_out, written);
        self.session.output.drain(..written);
        // A TLS stream holds bytes of its own.
        let flushed = Pin::new(&mut self.io).poll_flush(cx)?.is_ready();
        if flushed && self.session.output.is_empty() {
            self.stuck = None;
            if self.session.output.capacity() > OUTPUT_KEPT {
                self.session.output = Vec::new();
            }
        } else if written > 0 || self.stuck.is_none() {
            self.stuck = Some(Instant::now());
        }
        Ok(written > 0)
    }

    /// Acts on what is due and arms the timer for what is next. True if something was due.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let now = Instant::now();
        if self.state == State::Running
            && let Some(reason) = self.overdue(now)
        {
            self.close(reason);
            if reason == CloseReason::SlowReader {
                // It would not take the rest either.
                self.state = State::Closing(reason, now);
            }
            return true;
        }
        if self.throttled.is_some_and(|until| until <= now) {
            self.throttled = None;
            return true;
        }
        let Some(next) = self.next_deadline() else { return false };
        // Deadlines that only move later are looked at when the old one has passed: no timer is touched per packet.
        if next < self.timer.deadline().into_std() || self.timer.is_elapsed() {
            self.timer.as_mut().reset(next.into());
        }
        self.timer.as_mut().poll(cx).is_ready()
    }

    fn overdue(&self, now: Instant) -> Option<CloseReason> {
        let deadlines = self.deadlines();
        deadlines.into_iter().flatten().find(|(at, _)| *at <= now).map(|(_, reason)| reason)
    }

    fn next_deadline(&self) -> Option<Instant> {
        let deadlines = self.deadlines().into_iter().flatten().map(|(at, _)| at);
        deadlines.chain(self.throttled).min()
    }

    fn deadlines(&self) -> [Option<(Instant, CloseReason)>; 3] {
        let limits = &self.shared.limits;
        let write = self.stuck.map(|since| (since + limits.write_timeout, CloseReason::SlowReader));
        match self.state {
            State::Closing(reason, until) | State::Lingering(reason, until) => {
                [Some((until, reason)), None, None]
            }
            State::Running if self.session.is_open() => {
                let silence = (self.heard + self.session.silence(), CloseReason::KeepAlive);
                let expiry = self.expires.map(|at| (at, CloseReason::CertificateExpired));
                [write, Some(silence), expiry]
            }
            State::Running => [write, Some((self.login_by, CloseReason::LoginTimeout)), None],
        }
    }

    fn report_tally(&mut self) {
        let tally = std::mem::take(&mut self.session.tally);
        let counters = &self.shared.counters;
        Counters::add(&counters.acknowledged, tally.acknowledged);
        Counters::add(&counters.publishes_refused, tally.publishes_refused);
        Counters::add(&counters.subscriptions_refused, tally.subscriptions_refused);
        Counters::add(&counters.sent, tally.sent);
    }

    /// The end of a connection that is closing: flush, shut down, linger. Ready when it is over.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        match self.state {
            State::Running => Poll::Pending,
            State::Closing(reason, until) | State::Lingering(reason, until) if until <= Instant::now() => {
                Poll::Ready(reason)
            }
            State::Lingering(..) => Poll::Pending,
            State::Closing(reason, _) => {
                // `stuck` says that TLS holds bytes still; without it the output may be newer than the last flush.
                if !self.session.output.is_empty() || self.stuck.is_some() {
                    return Poll::Pending;
                }
                let shut = ready!(Pin::new(&mut self.io).poll_shutdown(cx));
                // A client that left has nothing to wait for.
                if matches!(reason, CloseReason::Device | CloseReason::Network) || shut.is_err() {
                    return Poll::Ready(reason);
                }
                self.state = State::Lingering(reason, Instant::now() + LINGER);
                Poll::Pending
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin, H: Handler> Future for Connection<S, H> {
    type Output = CloseReason;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let this = &mut *self;
        this.link.register(cx.waker());
        for _ in 0..ROUNDS {
            let mut progress = false;
            if this.state == State::Running {
                progress |= this.take_inbox();
                progress |= this.poll_login(cx);
                progress |= this.poll_retained(cx);
                progress |= this.poll_waiting(cx);
            }
            if !matches!(this.state, State::Closing(..)) {
                progress |= this.poll_read(cx);
            }
            this.report_tally();
            match this.poll_flush(cx) {
                Ok(written) => progress |= written,
                Err(_) => {
                    if this.state == State::Running {
                        this.end(CloseReason::Network);
                    }
                    return Poll::Ready(match this.state {
                        State::Closing(reason, _) | State::Lingering(reason, _) => reason,
                        State::Running => CloseReason::Network,
                    });
                }
            }
            progress |= this.poll_timer(cx);
            let before = this.state;
            if let Poll::Ready(reason) = this.poll_end(cx) {
                return Poll::Ready(reason);
            }
            progress |= this.state != before;
            if !progress {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S, H: Handler> Drop for Connection<S, H> {
    /// Also when the task is dropped at the end of the runtime, nobody may think that it is still there.
    fn drop(&mut self) {
        if self.state == State::Running {
            self.end(CloseReason::ShuttingDown);
        }
    }
}
