//! Fetching an artifact piece by piece into a bank.

use dunlin_agent::flash::BankWriter;
use dunlin_agent::update::{Event, Model};
use dunlin_protocol::{Chunk, Fetch, Object};
use embedded_storage::nor_flash::NorFlash;
use heapless::Vec;

/// Bytes of a piece.
pub(crate) const CHUNK: usize = 2048;
/// Pieces that are asked for at a time.
const OPEN: usize = 2;
/// How long the answer may take, in milliseconds.
pub(crate) const ANSWER_MS: u64 = 15_000;

/// A piece that was asked for.
#[derive(Clone, Copy)]
struct Open {
    offset: u32,
    len: u32,
    until_ms: u64,
}

/// An artifact on its way into a bank. Nobody can make it write more than the bytes that were assigned, nor elsewhere:
/// only what was asked for is taken, in order.
pub(crate) struct Transfer {
    model: Model,
    writer: BankWriter,
    open: Vec<Open, OPEN>,
    /// A piece that came before the one in front of it.
    held: Option<(u32, Vec<u8, CHUNK>)>,
}

impl Transfer {
    /// Goes on behind the first `stored` bytes; `None` when the bank cannot be written.
    pub(crate) fn resume<B: NorFlash>(bank: &B, model: Model, stored: u32) -> Option<Self> {
        let region = 0..u32::try_from(bank.capacity()).unwrap_or(u32::MAX);
        let writer = BankWriter::resume::<B>(region, stored).ok()?;
        Some(Transfer { model, writer, open: Vec::new(), held: None })
    }

    fn len_at(&self, offset: u32) -> u32 {
        self.model.size.saturating_sub(offset).min(CHUNK as u32)
    }

    /// What to ask for next, if anything.
    pub(crate) fn next(&self) -> Option<Fetch> {
        let ahead = (0..OPEN as u32).map(|piece| self.writer.written().saturating_add(piece * CHUNK as u32));
        let mut missing = ahead.filter(|offset| {
            let is_held = self.held.as_ref().is_some_and(|(held, _)| held == offset);
            !is_held && self.open.iter().all(|open| open.offset != *offset)
        });
        let offset = missing.next().filter(|offset| *offset < self.model.size && !self.open.is_full())?;
        Some(Fetch { object: Object::Artifact(self.model.digest), offset, len: self.len_at(offset) })
    }

    /// It was asked for.
    pub(crate) fn asked(&mut self, fetch: &Fetch, now_ms: u64) {
        let open = Open { offset: fetch.offset, len: fetch.len, until_ms: now_ms + ANSWER_MS };
        // `next` gives nothing when it is full.
        let _ = self.open.push(open);
    }

    /// What was asked for over this connection will not be answered any more.
    pub(crate) fn disconnected(&mut self) {
        self.open.clear();
    }

    /// When an answer is late, in milliseconds.
    pub(crate) fn late_ms(&self) -> Option<u64> {
        self.open.iter().map(|open| open.until_ms).min()
    }

    /// Takes an answer and writes what can be written; what it means, and why for people. Nothing when nobody asked.
    pub(crate) fn answer<B: NorFlash>(
        &mut self,
        chunk: &Chunk<'_>,
        bank: &mut B,
    ) -> Option<(Event, &'static str)> {
        if chunk.object != Object::Artifact(self.model.digest) {
            return None;
        }
        let Open { offset, len, .. } = *self.open.iter().find(|open| open.offset == chunk.offset)?;
        self.open.retain(|open| open.offset != offset);
        let failed = |why| Some((Event::FetchFailed { retry_after_ms: 0 }, why));
        let length = u32::try_from(chunk.bytes.len()).unwrap_or(u32::MAX);
        if chunk.retry_after_s > 0 {
            let retry_after_ms = u64::from(chunk.retry_after_s).saturating_mul(1000);
            return Some((Event::FetchFailed { retry_after_ms }, "the control plane asks to wait"));
        }
        if chunk.total == 0 {
            return failed("the model cannot be fetched: the control plane does not give it");
        }
        if chunk.total > self.model.size || length > len {
            return Some((Event::TooMuch, "the model is longer than was assigned"));
        }
        if chunk.total < self.model.size || length < len {
            return failed("the model cannot be fetched: it is shorter than was assigned");
        }
        if offset != self.writer.written() {
            // There are at most two: it is the one behind that which is missing.
            self.held = Vec::from_slice(chunk.bytes).ok().map(|bytes| (offset, bytes));
            return None;
        }
        let mut written = self.writer.append(bank, chunk.bytes);
        if let Some((_, bytes)) = self.held.take_if(|(offset, _)| *offset == self.writer.written())
            && written.is_ok()
        {
            written = self.writer.append(bank, &bytes);
        }
        match written {
            Ok(()) => Some((Event::Stored { upto: self.writer.written() }, "")),
            Err(_) => Some((Event::StorageFailed, "the model cannot be kept: the flash fails")),
        }
    }
}
