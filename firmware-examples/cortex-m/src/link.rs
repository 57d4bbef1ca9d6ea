//! Links everything that firmware can call in the monitor, the protocol, the trust and the agent's core, and what computes an
//! artifact's digest, with inputs that the compiler knows nothing about. It is never run: `cargo xtask test` builds it and looks whether the linker had to keep
//! the panic handler. If it is gone, no input can make that code panic.
#![no_std]
#![no_main]

use core::hint::black_box;
use core::panic::PanicInfo;

use cortex_m_rt::entry;
use dunlin_agent::flash::{BankWriter, Cell};
use dunlin_agent::update::{self, Record, Update};
use dunlin_agent::uplink::{self, MessageKey, Settings, Uplink};
use dunlin_artifact::{Artifact, Digester};
use dunlin_monitor::{FeatureKind, Period, Ring, Shape, Window};
use dunlin_protocol::{
    Ack, Certificate, CertificateRequest, Chunk, Desired, DeviceId, Envelope, Event, Fetch, Label, Release,
    Report, ReportEncoder, Root, SequenceWindow, Signed, State, Topic, UpKind, write_signed,
};
use dunlin_trust::{Time, Trust, Verifier};
use embedded_storage::nor_flash::{ErrorType, NorFlash, NorFlashErrorKind, ReadNorFlash};

#[panic_handler]
fn panic(_: &PanicInfo) -> ! {
    loop {
        core::hint::spin_loop();
    }
}

#[entry]
fn main() -> ! {
    static mut MESSAGE: [u8; 2048] = [0; 2048];
    static mut OUT: [u8; 2048] = [0; 2048];
    static mut RING: Ring<2, 4, 128> = Ring::new();
    let message = black_box(&*MESSAGE);
    messages(message, black_box(OUT));
    topics(message);
    artifacts(message);
    trust(message, black_box(OUT));
    reports(message, black_box(OUT), black_box(RING));
    flash(message, black_box(OUT));
    update(message);
    uplink()
}

/// Reads every message and writes it again.
fn messages(bytes: &[u8], out: &mut [u8]) {
    if let Ok((envelope, body)) = Envelope::decode(bytes) {
        black_box(envelope.encode(body, out).is_ok());
        let mut window = SequenceWindow::from_parts(envelope.boot, envelope.seq);
        black_box(window.apply(envelope.seq, envelope.oldest));
        black_box(window.ack(envelope.boot).covers(envelope.oldest));
    }
    if let Ok(state) = State::decode(bytes) {
        black_box(state.encode(out).is_ok());
        state.slots.iter().for_each(|slot| {
            black_box(slot);
        });
        state.attributes.iter().for_each(|pair| {
            black_box(pair);
        });
    }
    if let Ok(desired) = Desired::decode(bytes) {
        black_box(desired.encode(out).is_ok());
        desired.slots.iter().for_each(|slot| {
            black_box(slot.settings.iter().count());
        });
    }
    black_box(Event::decode(bytes).map(|event| event.encode(out)).is_ok());
    black_box(Label::decode(bytes).map(|label| label.encode(out)).is_ok());
    black_box(Ack::decode(bytes).map(|ack| ack.encode(out)).is_ok());
    black_box(CertificateRequest::decode(bytes).map(|request| request.encode(out)).is_ok());
    black_box(Certificate::decode(bytes).map(|certificate| certificate.encode(out)).is_ok());
    black_box(Fetch::decode(bytes).map(|fetch| fetch.encode(out)).is_ok());
    black_box(Chunk::decode(bytes).map(|chunk| chunk.encode(out)).is_ok());
}

/// Ed25519 is the firmware's own choice.
struct SomeVerifier;

impl Verifier for SomeVerifier {
    fn verify(&self, key: &[u8; 32], message: &[u8; 32], signature: &[u8; 64]) -> bool {
        black_box((key, message, signature));
        black_box(true)
    }
}

/// Believes roots, assignments and releases, and remembers them.
fn trust(bytes: &[u8], out: &mut [u8]) {
    let now = black_box(Time::UnixS(5));
    if let Ok(signed) = Signed::<Root<'_>>::decode(bytes) {
        black_box(signed.message.encode(out).is_ok());
        black_box(write_signed(signed.bytes, signed.signatures, out).is_ok());
    }
    if let Ok(signed) = Signed::<Release<'_>>::decode(bytes) {
        black_box(signed.message.encode(out).is_ok());
    }
    let Ok(mut trust) = Trust::pin(bytes, &SomeVerifier).or_else(|_| Trust::decode(bytes)) else { return };
    black_box(trust.rotate(bytes, &SomeVerifier).is_ok());
    if let Ok(assigned) = trust.assignment(bytes, black_box("pump-7"), now, &SomeVerifier) {
        trust.keep(&assigned);
        for slot in assigned.desired.slots.iter() {
            black_box(trust.release(&slot, black_box("cortex-m4"), now, &SomeVerifier).is_ok());
        }
    }
    black_box(trust.encode());
}

/// The digest of an artifact as a whole, and as it comes in pieces.
fn artifacts(bytes: &[u8]) {
    if let Ok(artifact) = Artifact::parse(bytes) {
        black_box(artifact.verify_digest().is_ok());
    }
    let mut digester = Digester::new();
    bytes.chunks(7).for_each(|piece| digester.update(black_box(piece)));
    black_box(digester.finish());
}

fn topics(bytes: &[u8]) {
    let Ok(text) = core::str::from_utf8(bytes) else { return };
    black_box(Topic::parse(text));
    if let Ok(device) = DeviceId::new(text) {
        UpKind::ALL.into_iter().for_each(|kind| {
            black_box(device.up(kind));
        });
        black_box(device.down_filter());
    }
}

/// A report into a window, windows through the ring, and a window into reports.
fn reports(bytes: &[u8], out: &mut [u8], ring: &mut Ring<2, 4, 128>) {
    let shapes = FeatureKind::ALL.map(|kind| Shape { kind, counters: black_box(40) });
    let Ok(mut window) = Window::<4, 128>::new([0; 32], shapes) else { return };
    if let Ok(report) = Report::decode(bytes) {
        black_box(report.add_to(&mut window).is_ok());
    }
    window.record_latency(black_box(7));
    window.set_period(black_box(Period::default()));
    black_box(ring.push(window).is_ok());
    while let Some(window) = ring.pop() {
        let mut encoder = ReportEncoder::new("kws", &window);
        black_box(encoder.remaining(out).is_ok());
        while let Ok(Some(len)) = encoder.next_body(out) {
            black_box(len);
        }
    }
}

/// Flash of which nothing is known.
struct SomeFlash;

impl ErrorType for SomeFlash {
    type Error = NorFlashErrorKind;
}

impl ReadNorFlash for SomeFlash {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), NorFlashErrorKind> {
        bytes.fill(black_box(offset as u8));
        black_box(Ok(()))
    }

    fn capacity(&self) -> usize {
        black_box(1 << 20)
    }
}

impl NorFlash for SomeFlash {
    const WRITE_SIZE: usize = 8;
    const ERASE_SIZE: usize = 4096;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), NorFlashErrorKind> {
        black_box((from, to));
        black_box(Ok(()))
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), NorFlashErrorKind> {
        black_box((offset, bytes));
        black_box(Ok(()))
    }
}

/// Values and artifacts in flash.
fn flash(bytes: &[u8], out: &mut [u8]) {
    let (from, to) = black_box((0, 8192));
    if let Ok(mut cell) = Cell::<512>::open(&mut SomeFlash, from..to) {
        black_box(cell.write(&mut SomeFlash, bytes).is_ok());
        black_box(cell.read(&mut SomeFlash, out).is_ok());
    }
    if let Ok(mut writer) = BankWriter::resume::<SomeFlash>(from..to, black_box(5)) {
        black_box(writer.append(&mut SomeFlash, bytes).is_ok());
        black_box(writer.written());
    }
}

/// A slot after a start, with whatever is stored, and whatever happens then.
fn update(bytes: &[u8]) {
    let record = Record::decode(bytes).unwrap_or_default();
    let (mut update, actions) = Update::start(black_box(update::Settings::default()), record);
    actions.for_each(|action| {
        black_box(action);
    });
    for event in black_box([update::Event::Tick; 4]) {
        for action in update.step(event, black_box(1), black_box(2)) {
            black_box(action);
        }
        black_box((update.wake_at_ms(), update.status(), update.refusal()));
        black_box(update.record().encode());
    }
}

fn uplink() -> ! {
    let mut uplink: Uplink<64> = Uplink::new(black_box(Settings::default()), black_box(5));
    loop {
        black_box(uplink.recover(black_box(MessageKey { boot: 1, seq: 2 }), black_box(UpKind::Report)));
        let (now_ms, random) = black_box((1, 2));
        for action in uplink.step(black_box(uplink::Event::Tick), now_ms, random) {
            black_box(action);
        }
        black_box(uplink.wake_at_ms());
    }
}
