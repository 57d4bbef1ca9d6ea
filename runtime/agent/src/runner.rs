//! The agent's task: performs what the state machine of the protocol asks for.

use std::sync::Arc;
use std::time::Duration;

use dunlin_monitor::{GaugeKind, Schedule};
use dunlin_protocol::{
    Ack, Certificate, CertificateRequest, Desired, DeviceId, DownKind, EventKind, List, Pair, SlotState,
    SlotStatus, State, UpKind, limits,
};
use tokio::task::{JoinError, JoinSet};

use crate::agent::{Shared, cut, lock};
use crate::enroll::{EnrolError, renew};
use crate::gauges::Health;
use crate::identity::Identity;
use crate::install::{Answer, Installer, Verdict};
use crate::queue::{Body, Item, Recovered};
use crate::transport::{DownReason, Signal, Transport};
use crate::uplink::{Action, DownCause, Event, MessageKey, Uplink};

/// Numbered messages over all boots.
const OUTBOX: usize = 128;
/// Time between readings of the device's health while a model runs.
const HEALTH_PERIOD_MS: u64 = 10_000;
/// Time between looks at the certificate's age, and between requests for a new one.
const RENEWAL_PERIOD_MS: u64 = 60_000;
/// Time between requests for a new certificate over HTTP that the server refuses.
const REFUSED_PERIOD_MS: u64 = 600_000;
/// How far wall clock and monotonic clock may drift apart between two looks before it counts as a jump, in seconds.
const CLOCK_JUMP_S: u64 = 5;
/// How often it is looked whether the application still has a model that was replaced.
const RETIRED_PERIOD_MS: u64 = 1_000;
/// How often the clocks are compared.
const CLOCK_PERIOD_MS: u64 = 60_000;

/// What runs in the agent's task.
pub(crate) struct Runner<T> {
    shared: Arc<Shared>,
    identity: Identity,
    transport: T,
    uplink: Uplink<OUTBOX>,
    /// A connection is being made or there is one.
    linked: bool,
    health_at_ms: u64,
    renewal_at_ms: u64,
    /// A request for a certificate over HTTP that is under way; at most one.
    renewals: JoinSet<Result<String, EnrolError>>,
    /// The broker has refused the device's certificate since the last connection.
    refused: bool,
    /// Why there is no new certificate, and what to do.
    advice: Option<String>,
    /// Wall clock minus monotonic clock, in seconds, while the wall clock is set.
    clock_offset_s: Option<u64>,
    clock_at_ms: u64,
    acknowledged: u64,
    /// Merged items that the state machine has been told of.
    merged: u64,
    installer: Installer,
}

impl<T: Transport> Runner<T> {
    pub(crate) fn new(
        shared: Arc<Shared>,
        identity: Identity,
        transport: T,
        recovered: Recovered,
        installer: Installer,
    ) -> Self {
        let boot = lock(&shared.queue).boot();
        let runner = Runner {
            uplink: Uplink::new(shared.settings.uplink, boot),
            shared,
            identity,
            transport,
            linked: false,
            health_at_ms: 0,
            renewal_at_ms: 0,
            renewals: JoinSet::new(),
            refused: false,
            advice: None,
            clock_offset_s: None,
            clock_at_ms: 0,
            acknowledged: 0,
            merged: 0,
            installer,
        };
        let left = recovered.items + recovered.messages;
        if left > 0 {
            tracing::info!(
                items = recovered.items,
                messages = recovered.messages,
                "recovered from the queue"
            );
        }
        let detail = format!("{left} entries were left from before");
        runner.shared.event("", EventKind::Restarted, i64::try_from(left).unwrap_or(i64::MAX), &detail);
        if recovered.corrupted > 0 {
            let corrupted = i64::try_from(recovered.corrupted).unwrap_or(i64::MAX);
            runner.shared.event("", EventKind::StorageLost, corrupted, "entries of the queue cannot be read");
        }
        runner
    }

    /// Runs until the agent is stopped.
    pub(crate) async fn run(mut self) {
        let mut stop = self.shared.stop.subscribe();
        let wake = Arc::clone(&self.shared.wake);
        self.recover();
        self.step(Event::Tick);
        loop {
            if stop.borrow_and_update().is_some() {
                break;
            }
            let wait = self.upkeep();
            tokio::select! {
                signal = self.transport.next() => self.signal(signal),
                Some(answer) = self.renewals.join_next() => self.renewal(answer),
                answer = self.installer.next() => self.installed(answer),
                () = wake.notified() => {}
                () = tokio::time::sleep(wait) => {}
                _ = stop.changed() => {}
            }
        }
        let patience = stop.borrow().unwrap_or_default();
        self.finish(patience).await;
    }

    /// Closes every window, and waits for the acknowledgements as long as `patience`.
    async fn finish(&mut self, patience: Duration) {
        let slots = lock(&self.shared.slots).clone();
        let retired = lock(&self.shared.retired).clone();
        for slot in slots.iter().chain(&retired).filter(|slot| slot.due(0).1) {
            self.shared.harvest(slot);
        }
        let end = tokio::time::Instant::now() + patience;
        if !self.linked && !patience.is_zero() {
            // Not the moment to wait for the end of a pause.
            self.step(Event::Stop);
            self.step(Event::Start);
        }
        while !lock(&self.shared.queue).is_empty() {
            let wait = self.upkeep();
            tokio::select! {
                signal = self.transport.next() => self.signal(signal),
                Some(answer) = self.renewals.join_next() => self.renewal(answer),
                () = tokio::time::sleep(wait) => {}
                () = tokio::time::sleep_until(end) => break,
            }
        }
        self.publish_status();
        self.transport.disconnect().await;
        self.shared.status.send_modify(|status| status.connected = false);
    }

    /// Does what is due, and tells how long there is nothing to do.
    fn upkeep(&mut self) -> Duration {
        let now_ms = self.shared.clock.ms();
        let mut next_ms = now_ms + 3_600_000;
        let mut at = |ms: u64| next_ms = next_ms.min(ms);
        let slots = lock(&self.shared.slots).clone();
        let active = slots.iter().any(|slot| slot.due(now_ms).1);
        if active && self.shared.settings.health {
            if now_ms >= self.health_at_ms {
                self.health_at_ms = now_ms + HEALTH_PERIOD_MS;
                let health = Health::read();
                for slot in slots.iter().filter(|slot| slot.due(now_ms).1) {
                    health.temperature_c.inspect(|value| slot.reading(GaugeKind::Temperature, *value));
                    health.battery_percent.inspect(|value| slot.reading(GaugeKind::Battery, *value));
                }
            }
            at(self.health_at_ms);
        }
        for slot in &slots {
            let (due, active) = slot.due(now_ms);
            if due {
                let (inferences, failures) = self.shared.harvest(slot);
                self.installer.window(slot.name(), slot.model(), inferences, failures);
            } else if active {
                at(slot.closes_at_ms().max(now_ms + 1));
            }
        }
        self.retire(now_ms).inspect(|ms| at(*ms));
        let (again, install_ms) = self.installer.upkeep(now_ms);
        install_ms.inspect(|ms| at(*ms));
        if let Some(message) = again {
            self.desired(&message);
        }
        if now_ms >= self.clock_at_ms {
            self.clock_at_ms = now_ms + CLOCK_PERIOD_MS;
            self.compare_clocks(now_ms);
        }
        at(self.clock_at_ms);
        if std::mem::take(&mut *lock(&self.shared.state_changed)) {
            self.step(Event::StateChanged);
        }
        let mut queue = lock(&self.shared.queue);
        if queue.fault().is_some() {
            queue.maintain(now_ms);
            at(now_ms + 1000);
        }
        let waiting = Event::Waiting { items: items(queue.len().0), urgent: queue.urgent() };
        let merged = queue.merged() - self.merged;
        drop(queue);
        self.step(waiting);
        if merged > 0 {
            self.merged += merged;
            self.step(Event::Merged { times: u32::try_from(merged).unwrap_or(u32::MAX) });
        }
        if let Some(renewal_ms) = self.renew(now_ms) {
            at(renewal_ms);
        }
        self.publish_status();
        if let Some(wake_ms) = self.uplink.wake_at_ms() {
            at(wake_ms);
        }
        Duration::from_millis(next_ms.saturating_sub(self.shared.clock.ms()))
    }

    /// Closes what the application still counts of models that were replaced; tells when to look again, if it does.
    fn retire(&self, now_ms: u64) -> Option<u64> {
        let mut retired = std::mem::take(&mut *lock(&self.shared.retired));
        retired.retain(|slot| {
            // In this order: after the look nobody counts any more.
            let is_last = slot.is_last();
            let (due, active) = slot.due(now_ms);
            if active && (due || is_last) {
                self.shared.harvest(slot);
            }
            !is_last
        });
        let next = (!retired.is_empty()).then_some(now_ms + RETIRED_PERIOD_MS);
        lock(&self.shared.retired).append(&mut retired);
        next
    }

    /// What a task of the installer has to say.
    fn installed(&mut self, answer: Answer) {
        if let Some(message) = self.installer.take(answer) {
            self.desired(&message);
        }
    }

    fn signal(&mut self, signal: Signal) {
        match signal {
            Signal::Up => {
                tracing::info!(device = self.identity.device, "connected");
                self.shared.status.send_modify(|status| {
                    status.connected = true;
                    status.disconnected_because = None;
                    status.connections += 1;
                });
                self.renewal_at_ms = 0;
                (self.refused, self.advice) = (false, None);
                if self.identity.accepted() {
                    tracing::info!("the certificate that came over HTTP is good");
                    // If not, the file still holds both.
                    self.save_identity();
                }
                self.step(Event::Connected);
                self.step(Event::Subscribed);
            }
            Signal::Message { topic, payload } => self.message(&topic, &payload),
            Signal::Sent => self.step(Event::Writable),
            Signal::Refused(reason) => {
                // Which message it was is not known; it is sent again when its acknowledgement does not come.
                tracing::warn!(reason, "the server refused a message");
                self.step(Event::Writable);
            }
            Signal::Down(reason) => {
                tracing::info!(%reason, "no connection");
                let cause = match &reason {
                    DownReason::Credential(_) => DownCause::Refused,
                    _ => DownCause::Network,
                };
                self.linked = false;
                if cause == DownCause::Refused {
                    self.refused = true;
                    if self.identity.refused() {
                        self.use_identity();
                        self.save_identity();
                    }
                }
                let because = match &self.advice {
                    Some(advice) => format!("{reason}; {advice}"),
                    None => reason.to_string(),
                };
                self.shared.status.send_modify(|status| {
                    status.connected = false;
                    status.disconnected_because = Some(because);
                });
                self.step(Event::Down(cause));
            }
        }
    }

    fn message(&mut self, topic: &str, payload: &[u8]) {
        let kind =
            DownKind::ALL.into_iter().find(|kind| topic.ends_with(&format!("/down/{}", kind.as_str())));
        match kind {
            Some(DownKind::Ack) => match Ack::decode(payload) {
                Ok(ack) => {
                    self.step(Event::Acked(ack));
                    self.recover();
                }
                Err(error) => tracing::warn!(%error, "an acknowledgement cannot be read"),
            },
            Some(DownKind::Desired) => self.desired(payload),
            Some(DownKind::Cert) => self.certificate(payload),
            // It fetches over HTTP.
            Some(DownKind::Chunk) => {}
            None => tracing::debug!(topic, "a message that this version does not know"),
        }
    }

    fn desired(&mut self, payload: &[u8]) {
        let desired = match Desired::decode(payload) {
            Ok(desired) => desired,
            Err(error) => {
                tracing::warn!(%error, "the desired state cannot be read");
                return;
            }
        };
        match self.installer.desired(payload, &desired) {
            Verdict::Believed => {}
            Verdict::Refused => return,
            Verdict::Rootless => {
                // Everything but models counts without a signature then.
                let now_s = self.shared.clock.unix_s();
                if desired.expires_unix_s != 0 && now_s > desired.expires_unix_s {
                    tracing::info!(generation = desired.generation, "the desired state has expired");
                    return;
                }
            }
        }
        let before = self.uplink.desired_generation();
        let Desired { generation, report_period_s, .. } = desired;
        self.step(Event::Desired { generation, report_period_s });
        if generation > before {
            let own = self.shared.settings.schedule;
            let schedule = Schedule {
                period_ms: match desired.window_period_s {
                    0 => own.period_ms,
                    seconds => seconds.saturating_mul(1000),
                },
                runs: if desired.window_count == 0 { own.runs } else { desired.window_count },
            };
            *lock(&self.shared.schedule) = schedule;
            lock(&self.shared.slots).iter().for_each(|slot| slot.set_schedule(schedule));
            self.shared.status.send_modify(|status| status.desired_generation = generation);
        }
    }

    /// Asks for a new certificate when it is time; tells when to look again, if that is known.
    fn renew(&mut self, now_ms: u64) -> Option<u64> {
        if self.uplink.is_online() {
            self.renew_over_mqtt(now_ms);
            return None;
        }
        self.renew_over_http(now_ms)
    }

    /// Asks at two thirds of the old certificate's life, again and again until a new one comes.
    fn renew_over_mqtt(&mut self, now_ms: u64) {
        if now_ms < self.renewal_at_ms {
            return;
        }
        self.renewal_at_ms = now_ms + RENEWAL_PERIOD_MS;
        let due = match self.identity.renew_at() {
            Ok(at) => at.is_some_and(|at| self.shared.clock.unix_s() >= at),
            Err(error) => {
                tracing::warn!(%error, "the certificate's age is not known");
                false
            }
        };
        if !due {
            return;
        }
        let asked = self.identity.pending_key.clone();
        let request = match self.identity.request_renewal() {
            Ok(request) => request,
            Err(error) => {
                tracing::warn!(%error, "no new certificate can be asked for");
                return;
            }
        };
        if asked != self.identity.pending_key {
            self.save_identity();
        }
        let mut message = vec![0; limits::MAX_UP_MESSAGE];
        if let (Ok(len), Ok(device)) = (
            CertificateRequest { der: &request.csr_der }.encode(&mut message),
            DeviceId::new(&self.identity.device),
        ) {
            let message = message.get(..len).unwrap_or_default();
            // Asked again after a while if there is no room now.
            let _ = self.transport.publish(device.up(UpKind::Csr).as_str(), message);
            tracing::info!("asked for a new certificate");
        }
    }

    fn certificate(&mut self, payload: &[u8]) {
        let before = self.identity.clone();
        let renewed = Certificate::decode(payload).map_err(|error| error.to_string()).and_then(|message| {
            let pem = crate::identity::to_pem(message.device);
            self.identity.renewed(&pem).map_err(|error| error.to_string())
        });
        match renewed {
            Ok(()) if self.save_identity() => {
                // Used from the next connection on; this one stays valid until it ends.
                self.use_identity();
                tracing::info!("the certificate was renewed");
            }
            // With the first login the old one would be revoked, which is all that there is after a restart.
            Ok(()) => self.identity = before,
            Err(error) => tracing::warn!(error, "the new certificate is refused"),
        }
    }

    /// A device that was off for long comes back with a certificate that has expired. With that it can still ask for
    /// the next one, for a while. The broker's refusal counts as well: this device's clock may not be set.
    fn renew_over_http(&mut self, now_ms: u64) -> Option<u64> {
        // A candidate is tried first.
        if !self.renewals.is_empty() || self.identity.candidate.is_some() {
            return None;
        }
        // A certificate that cannot be read is one that the broker refuses.
        let expires_s = self.identity.expires_at().unwrap_or(None)?;
        if self.shared.clock.unix_s() < expires_s && !self.refused {
            return None;
        }
        if now_ms < self.renewal_at_ms {
            return Some(self.renewal_at_ms);
        }
        self.renewal_at_ms = now_ms + RENEWAL_PERIOD_MS;
        tracing::info!(server = self.identity.server, "asking for a new certificate over HTTP");
        let identity = self.identity.clone();
        self.renewals.spawn(async move { renew(&identity).await });
        None
    }

    /// The answer to a request over HTTP.
    fn renewal(&mut self, answer: Result<Result<String, EnrolError>, JoinError>) {
        let answer = match answer {
            Ok(Ok(certificate)) => self.identity.offered(&certificate).map_err(EnrolError::from),
            Ok(Err(error)) => Err(error),
            Err(error) => {
                tracing::error!(%error, "the request for a new certificate failed");
                return;
            }
        };
        match answer {
            Ok(()) if self.uplink.is_online() || !self.save_identity() => {
                // Not needed any more; or it would be revoked with what the file holds, see `certificate`.
                self.identity.refused();
            }
            Ok(()) => {
                tracing::info!("a new certificate came over HTTP");
                self.advice = None;
                self.use_identity();
                // Not the moment to wait for the end of a pause.
                self.step(Event::Stop);
                self.step(Event::Start);
            }
            Err(error) => {
                if matches!(error, EnrolError::NotRenewed { status: 403, .. }) {
                    self.renewal_at_ms = self.shared.clock.ms() + REFUSED_PERIOD_MS;
                }
                let advice = format!("the certificate has expired or is refused, and {error}");
                tracing::error!("{advice}");
                self.shared.status.send_modify(|status| {
                    status.disconnected_because = Some(advice.clone());
                });
                self.advice = Some(error.to_string());
            }
        }
    }

    /// Uses the identity from the next connection on.
    fn use_identity(&mut self) {
        if let Err(error) = self.transport.set_identity(&self.identity, self.shared.settings.keep_alive) {
            tracing::warn!(%error, "the new certificate cannot be used");
        }
    }

    /// Keeps the identity; true if it is kept, or there is nowhere to keep it.
    fn save_identity(&self) -> bool {
        let Some(folder) = &self.shared.settings.state_dir else { return true };
        let saved = self.identity.save(folder);
        if let Err(error) = &saved {
            tracing::warn!(%error, "the identity cannot be kept");
        }
        saved.is_ok()
    }

    /// Tells the state machine about messages of earlier boots, as many as it has room for.
    fn recover(&mut self) {
        let queue = lock(&self.shared.queue);
        let boot = queue.boot();
        for (key, kind) in queue.messages().filter(|(key, _)| key.boot != boot) {
            self.uplink.recover(key, kind);
        }
    }

    /// One step of the state machine, and all that follows from it.
    fn step(&mut self, event: Event) {
        let mut events = std::collections::VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let random = crate::agent::random().map_or(0, |random| random as u32);
            for action in self.uplink.step(event, self.shared.clock.ms(), random) {
                events.extend(self.perform(action));
            }
        }
    }

    fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Connect => {
                self.linked = true;
                self.transport.connect();
                None
            }
            // The transport has subscribed by itself.
            Action::Subscribe => None,
            Action::Disconnect => {
                self.linked = false;
                self.transport.drop_connection();
                self.shared.status.send_modify(|status| status.connected = false);
                None
            }
            Action::Send { kind, envelope } => {
                let key = MessageKey { boot: envelope.boot, seq: envelope.seq };
                let queue = lock(&self.shared.queue);
                let body = match queue.body(key) {
                    Body::Ready(body) => body,
                    // Sent again when its acknowledgement does not come.
                    Body::Held => return None,
                    Body::Unknown => return Some(Event::Lost(key)),
                };
                let mut message = vec![0; limits::MAX_ENVELOPE + body.len()];
                let Ok(len) = envelope.encode(body, &mut message) else { return Some(Event::Lost(key)) };
                drop(queue);
                let Ok(device) = DeviceId::new(&self.identity.device) else { return Some(Event::Lost(key)) };
                let topic = device.up(kind);
                match self.transport.publish(topic.as_str(), message.get(..len).unwrap_or_default()) {
                    Ok(()) => None,
                    Err(_) => Some(Event::NotSent(key)),
                }
            }
            Action::Release(ack) => {
                self.acknowledged += lock(&self.shared.queue).acknowledge(&ack) as u64;
                None
            }
            Action::Admit { first_seq, room } => {
                let mut queue = lock(&self.shared.queue);
                let admitted = queue.admit(first_seq, room);
                let waiting = items(queue.len().0);
                let (kind, messages, closed_ms) = admitted.map_or((UpKind::Report, 0, 0), |admitted| {
                    (admitted.kind, admitted.messages, admitted.closed_ms)
                });
                Some(Event::Admitted { kind, messages, closed_ms, waiting })
            }
            Action::ReportState => {
                self.report_state();
                Some(self.waiting(true))
            }
            Action::Note { kind, value } => {
                self.shared.event("", kind, value, "");
                Some(self.waiting(true))
            }
            Action::ApplyDesired { generation } => {
                tracing::info!(generation, "desired state");
                None
            }
        }
    }

    fn waiting(&self, urgent: bool) -> Event {
        Event::Waiting { items: items(lock(&self.shared.queue).len().0), urgent }
    }

    fn report_state(&self) {
        let settings = &self.shared.settings;
        let slots = lock(&self.shared.slots).clone();
        let failed = lock(&self.shared.failed).clone();
        let told = self.installer.told();
        let is_told = |slot: &str| told.iter().any(|(name, _)| name == slot);
        let running = slots.iter().filter(|slot| !is_told(slot.name())).map(|slot| SlotState {
            slot: slot.name(),
            model: slot.model(),
            status: SlotStatus::Running,
            reason: self.installer.fixed_reason(slot.name(), slot.model()),
        });
        let failed = failed.iter().filter(|failed| !is_told(&failed.slot)).map(|failed| SlotState {
            slot: &failed.slot,
            model: failed.model,
            status: SlotStatus::Failed,
            reason: cut(&failed.reason, limits::MAX_DETAIL),
        });
        let told = told.iter().map(|(slot, told)| told.state(slot));
        let slots: Vec<SlotState<'_>> = running.chain(told).chain(failed).take(limits::MAX_SLOTS).collect();
        let attributes = settings.attributes.iter().take(limits::MAX_PAIRS);
        let attributes: Vec<Pair<'_>> = attributes
            .map(|(key, value)| Pair { key: cut(key, limits::MAX_KEY), value: cut(value, limits::MAX_VALUE) })
            .collect();
        let state = State {
            agent_version: env!("CARGO_PKG_VERSION"),
            hardware: cut(&settings.hardware, limits::MAX_NAME),
            attributes: List::from(attributes.as_slice()),
            slots: List::from(slots.as_slice()),
            desired_generation: self.uplink.desired_generation(),
        };
        let mut body = vec![0; limits::MAX_UP_MESSAGE - limits::MAX_ENVELOPE];
        match state.encode(&mut body) {
            Ok(len) => {
                body.truncate(len);
                self.shared.push(Item { kind: UpKind::State, group: Vec::new(), bodies: vec![body] });
            }
            Err(error) => tracing::error!(%error, "the state cannot be reported"),
        }
    }

    fn compare_clocks(&mut self, now_ms: u64) {
        let unix_s = self.shared.clock.unix_s();
        if unix_s == 0 {
            return;
        }
        let offset_s = unix_s.saturating_sub(now_ms / 1000);
        if let Some(before_s) = self.clock_offset_s.replace(offset_s)
            && before_s.abs_diff(offset_s) > CLOCK_JUMP_S
        {
            let by_s = i64::try_from(i128::from(offset_s) - i128::from(before_s)).unwrap_or(0);
            self.step(Event::ClockSet { by_s });
        }
    }

    fn publish_status(&self) {
        let queue = lock(&self.shared.queue);
        let (waiting, unacknowledged) = queue.len();
        let (merged, dropped, fault) = (queue.merged(), queue.dropped(), queue.fault().map(str::to_owned));
        drop(queue);
        let acknowledged = self.acknowledged;
        self.shared.status.send_if_modified(|status| {
            let before = status.clone();
            (status.waiting, status.unacknowledged) = (waiting, unacknowledged);
            (status.merged, status.events_dropped, status.disk_fault) = (merged, dropped, fault);
            status.acknowledged = acknowledged;
            *status != before
        });
    }
}

fn items(number: usize) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}
