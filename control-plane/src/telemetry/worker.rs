//! The loop that takes messages from the bus, commits them and says so.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use dunlin_protocol::Ack;
use tokio_util::sync::CancellationToken;

use super::ingest::{Horizon, Ingest, Received};
use super::limits;
use super::metrics::Handles;
use super::neighbours::Devices;
use super::obstacle::Obstacle;
use super::store::batch::{BatchError, Committed, Reading, Writer, seal};
use super::store::{process, retention};
use crate::bus::{AckToken, DeviceBus, DeviceId, DownKind, Inbound, UpKind};
use crate::clock::Clock;
use crate::db::{Db, DbError};

/// What a worker stands on.
pub(super) struct Parts {
    pub(super) db: Db,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) ids: Arc<dyn Fn() -> String + Send + Sync>,
    pub(super) bus: Arc<dyn DeviceBus>,
    pub(super) devices: Arc<dyn Devices>,
    pub(super) metrics: Handles,
    /// Told while nothing can be committed.
    pub(super) obstacle: Obstacle,
    pub(super) shutdown: CancellationToken,
    pub(super) batch: usize,
    pub(super) horizon: Horizon,
    /// Told of every batch after its commit.
    pub(super) observer: Box<dyn Fn(&Committed) + Send + Sync>,
}

/// The one who writes in this process.
pub(super) struct Worker {
    parts: Parts,
    ingest: Ingest,
    /// The name under which this process writes; another one after each time that it was given up.
    process: Option<String>,
    /// Names that were given up and not ended yet.
    ended: Vec<String>,
    /// Parts that are closed and not sealed yet.
    closing: Vec<Arc<str>>,
    /// Batches for which rows are locked before they are read.
    locked: u32,
    beaten: Instant,
    /// Events of devices since they were trimmed last.
    events: HashMap<DeviceId, i64>,
}

impl Worker {
    /// A worker that has written nothing.
    pub(super) fn new(parts: Parts) -> Self {
        Worker {
            parts,
            ingest: Ingest::new(),
            process: None,
            ended: Vec::new(),
            closing: Vec::new(),
            locked: 0,
            beaten: Instant::now(),
            events: HashMap::new(),
        }
    }

    /// Works until the bus is closed and everything that it handed out is committed. If the database fails then, what
    /// is left is given back to the bus unacknowledged.
    pub(super) async fn run(mut self) {
        loop {
            let next = tokio::time::timeout(limits::TICK, self.parts.bus.next(self.parts.batch)).await;
            match next {
                Ok(batch) if batch.is_empty() => break,
                Ok(mut batch) => {
                    self.linger(&mut batch).await;
                    self.take(batch).await;
                }
                Err(_) => {}
            }
            if self.beaten.elapsed() >= limits::TICK || self.ingest.parts.is_full() {
                self.maintain().await;
            }
        }
        self.finish().await;
    }

    /// Waits a moment for more messages, so that few devices do not mean many commits.
    async fn linger(&self, batch: &mut Vec<Inbound>) {
        let until = tokio::time::Instant::now() + limits::LINGER;
        while batch.len() < self.parts.batch {
            let room = self.parts.batch - batch.len();
            match tokio::time::timeout_at(until, self.parts.bus.next(room)).await {
                // Empty: the bus is closed, which the next call finds out again.
                Ok(more) if more.is_empty() => return,
                Ok(more) => batch.extend(more),
                Err(_) => return,
            }
        }
    }

    /// Commits messages, acknowledges them, and tells who wants to know.
    pub(super) async fn take(&mut self, batch: Vec<Inbound>) {
        let mut received = Vec::with_capacity(batch.len());
        let mut tokens = Vec::with_capacity(batch.len());
        for Inbound { device, kind, payload, ack } in batch {
            let devices = || Arc::clone(&self.parts.devices);
            match kind {
                UpKind::Csr => {
                    devices().renew(device, payload, ack);
                    continue;
                }
                UpKind::Fetch => {
                    devices().fetch(device, payload, ack);
                    continue;
                }
                UpKind::Report | UpKind::State | UpKind::Event | UpKind::Label => {}
            }
            let cohort = self.parts.devices.cohort(&device);
            received.push(Received { device, kind, payload, cohort, refused: false });
            tokens.push(ack);
        }
        if received.is_empty() {
            return;
        }
        self.commit(received, tokens).await;
    }

    /// Repeats until the messages are committed. Meanwhile nothing more is taken from the bus, so that memory stays
    /// bounded: the transport slows the devices down.
    async fn commit(&mut self, mut received: Vec<Received>, mut tokens: Vec<AckToken>) {
        let mut pause = limits::RETRY_FIRST;
        let mut reported = false;
        loop {
            let began = Instant::now();
            match self.attempt(&received).await {
                Ok(committed) => {
                    if reported {
                        tracing::info!("telemetry is committed again");
                    }
                    self.parts.obstacle.set(None);
                    self.parts.metrics.committed(
                        &committed.counters,
                        began.elapsed(),
                        self.ingest.parts.len(),
                    );
                    tokens.into_iter().for_each(AckToken::done);
                    return self.tell(committed).await;
                }
                Err(BatchError::Stale) => {
                    // Messages of one device come to several processes: for a while, lock first.
                    self.ingest.sequences.clear();
                    self.locked = limits::LOCKED_BATCHES;
                }
                Err(BatchError::TakenOver) => {
                    tracing::warn!("another process took this one for dead; going on under another name");
                    self.give_up();
                }
                Err(BatchError::Unclear(error)) => {
                    tracing::warn!(%error, "the end of a transaction is not known; looking what became of it");
                    self.give_up();
                }
                Err(BatchError::Db(error)) if refuses_data(&error) => {
                    tracing::error!(%error, messages = received.len(), "the database refuses telemetry");
                    if let [message] = received.as_mut_slice() {
                        if message.refused {
                            // Not even the dead letter can be stored: better lost than in everybody's way.
                            tracing::error!(device = %message.device, "a message is dropped: it cannot be stored");
                            tokens.into_iter().for_each(AckToken::done);
                            return;
                        }
                        message.refused = true;
                    } else {
                        // One of them is to blame: divide and conquer.
                        let half = received.len() / 2;
                        let (rest, rest_tokens) = (received.split_off(half), tokens.split_off(half));
                        Box::pin(self.commit(received, tokens)).await;
                        (received, tokens) = (rest, rest_tokens);
                    }
                    continue;
                }
                Err(BatchError::Db(error)) => {
                    if !reported {
                        tracing::error!(%error, "telemetry cannot be committed; trying again");
                        reported = true;
                    }
                    self.parts.obstacle.set(Some(error.reason()));
                    // During a stop nobody waits for a database that is away: the messages come again.
                    if self.parts.shutdown.is_cancelled() {
                        return;
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(limits::RETRY_LAST);
                }
            }
            self.parts.metrics.repeated();
        }
    }

    async fn attempt(&mut self, received: &[Received]) -> Result<Committed, BatchError> {
        let process = match &self.process {
            Some(process) => process.clone(),
            None => self.register().await?,
        };
        let reading = if self.locked > 0 { Reading::Locked } else { Reading::Optimistic };
        let writer = Writer { db: &self.parts.db, process: &process, devices: &*self.parts.devices };
        let now_us = self.parts.clock.now_us();
        let committed = writer
            .apply(&mut self.ingest, received, &*self.parts.ids, now_us, self.parts.horizon, reading)
            .await?;
        self.locked = self.locked.saturating_sub(1);
        Ok(committed)
    }

    async fn register(&mut self) -> Result<String, DbError> {
        // What was given up must be counted before the messages are looked at again.
        self.end_given_up().await?;
        let process = (self.parts.ids)();
        process::register(&self.parts.db, &process, self.parts.clock.now_us()).await?;
        self.process = Some(process.clone());
        Ok(process)
    }

    /// Begins anew under another name: what is in memory may not be what is in the database.
    fn give_up(&mut self) {
        self.ended.extend(self.process.take());
        self.ingest.reset();
        self.closing.clear();
        self.locked = limits::LOCKED_BATCHES;
    }

    async fn end_given_up(&mut self) -> Result<(), DbError> {
        while let Some(process) = self.ended.last() {
            process::end(&self.parts.db, process, None).await?;
            self.ended.pop();
        }
        Ok(())
    }

    async fn tell(&mut self, committed: Committed) {
        let mut bytes = [0; Ack::MAX_LEN];
        for (device, ack) in &committed.acks {
            let Ok(len) = ack.encode(&mut bytes) else { continue };
            let payload = bytes::Bytes::copy_from_slice(bytes.get(..len).unwrap_or_default());
            // A device that does not get it sends its messages again, and gets the next one.
            if let Err(error) = self.parts.bus.send(device, DownKind::Ack, payload).await {
                tracing::debug!(%device, %error, "an acknowledgement was not sent");
            }
        }
        for event in &committed.events {
            *self.events.entry(event.device.clone()).or_insert(0) += 1;
        }
        (self.parts.observer)(&committed);
    }

    /// What has to be done now and then. Failures are made up for the next time.
    pub(super) async fn maintain(&mut self) {
        self.beaten = Instant::now();
        if let Err(error) = self.try_maintain().await {
            tracing::warn!(%error, "telemetry's upkeep failed; trying again");
        }
    }

    async fn try_maintain(&mut self) -> Result<(), DbError> {
        let now_us = self.parts.clock.now_us();
        self.end_given_up().await?;
        let Some(process) = self.process.clone() else { return Ok(()) };
        if !process::heartbeat(&self.parts.db, &process, now_us).await? {
            self.give_up();
            return Ok(());
        }
        // Closed first, sealed then: a part that may be sealed is never written again.
        let idle = self.ingest.parts.to_seal(now_us);
        self.ingest.parts.forget(&idle);
        self.closing.extend(idle);
        seal(&self.parts.db, &self.closing).await?;
        self.closing.clear();
        self.trim_events().await
    }

    /// Keeps devices that tell of many events from filling the database.
    async fn trim_events(&mut self) -> Result<(), DbError> {
        let many: Vec<DeviceId> = self
            .events
            .iter()
            .filter(|(_, n)| **n >= limits::EVENTS_TRIM)
            .map(|(device, _)| device.clone())
            .collect();
        for device in many {
            retention::trim_events(&self.parts.db, device.as_str(), limits::EVENTS_PER_DEVICE).await?;
            self.events.remove(&device);
        }
        if self.events.len() > limits::EVENT_DEVICES {
            self.events.clear();
        }
        Ok(())
    }

    /// Leaves everything to the others.
    async fn finish(&mut self) {
        self.give_up();
        if let Err(error) = self.end_given_up().await {
            tracing::warn!(%error, "telemetry's last sums are not sealed; another process will do it");
        }
    }
}

/// Whether the database refuses what a statement brought along, so that repeating it is in vain.
fn refuses_data(error: &DbError) -> bool {
    match error {
        DbError::Sqlx(sqlx::Error::Encode(_)) => true,
        DbError::Sqlx(sqlx::Error::Database(error)) => {
            error.code().is_some_and(|code| match code.parse::<u32>() {
                // SQLite: too big, constraint, mismatch; the low byte of the extended code.
                Ok(code) if code < 10_000 => matches!(code & 0xff, 18..=20),
                // PostgreSQL: data exceptions, integrity violations.
                _ => code.starts_with("22") || code.starts_with("23"),
            })
        }
        DbError::Sqlx(_) | DbError::Url => false,
    }
}
