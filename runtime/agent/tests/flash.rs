//! A device whose models and records are in NOR flash that tears writes: power is lost at every byte.

use std::ops::Range;

use dunlin_agent::flash::{BankWriter, Cell, FlashError};
use dunlin_agent::update::{
    Action, Actions, Bank, Event, Model, RECORD_BYTES, Reason, Record, Settings, Status, Target, Trial,
    Update,
};
use embedded_storage::nor_flash::{ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash};

const PAGE: usize = 512;
const WORD: usize = 4;
const FRAME: usize = (RECORD_BYTES + 10).next_multiple_of(WORD);
const BANK: u32 = 4 * PAGE as u32;
const SIZE: u32 = 1498;
const CHUNK: usize = 100;
const TRIAL: Trial = Trial { windows: 2, failures_permille: 0, boots: 3 };
const SETTINGS: Settings =
    Settings { bank_bytes: BANK, save_every_bytes: 300, least_pause_ms: 1_000, longest_pause_ms: 60_000 };
const CELL: Range<u32> = 2 * BANK..2 * BANK + 2 * PAGE as u32;

/// Power was lost, or the driver was used wrongly.
#[derive(Debug, PartialEq)]
struct Cut;

impl NorFlashError for Cut {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::Other
    }
}

/// Flash that only a program can clear bits of, and only an erasure sets: each byte is one step, in which power can be
/// lost. What it is lost in holds anything afterwards that is physically possible.
struct Nor {
    bytes: Vec<u8>,
    /// Steps until power is lost.
    cut_in: Option<u32>,
    steps: u32,
    random: u64,
    /// Bytes that cannot be cleared any more.
    worn: Range<u32>,
}

impl Nor {
    fn new() -> Self {
        let bytes = vec![0xff; CELL.end as usize];
        Nor { bytes, cut_in: None, steps: 0, random: 0x9e37_79b9_7f4a_7c15, worn: 0..0 }
    }

    /// xorshift64*, by Marsaglia and Vigna.
    fn random(&mut self) -> u8 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
    }

    fn goes_on(&mut self) -> bool {
        self.steps += 1;
        match &mut self.cut_in {
            Some(0) => {
                self.cut_in = None;
                false
            }
            Some(left) => {
                *left -= 1;
                true
            }
            None => true,
        }
    }
}

impl ErrorType for Nor {
    type Error = Cut;
}

impl ReadNorFlash for Nor {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Cut> {
        let at = offset as usize;
        bytes.copy_from_slice(&self.bytes[at..at + bytes.len()]);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.bytes.len()
    }
}

impl NorFlash for Nor {
    const WRITE_SIZE: usize = WORD;
    const ERASE_SIZE: usize = PAGE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Cut> {
        let (from, to) = (from as usize, to as usize);
        assert!(from < to && from.is_multiple_of(PAGE) && to.is_multiple_of(PAGE), "{from}..{to}");
        for at in from..to {
            if !self.goes_on() {
                // The whole page is being erased at once: every bit of it is what it was, or set.
                let page = at / PAGE * PAGE;
                for byte in page..page + PAGE {
                    let set = self.random();
                    self.bytes[byte] |= set;
                }
                return Err(Cut);
            }
            if (at + 1).is_multiple_of(PAGE) {
                self.bytes[at + 1 - PAGE..=at].fill(0xff);
            }
        }
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Cut> {
        assert!(offset.is_multiple_of(WORD as u32) && bytes.len().is_multiple_of(WORD));
        for (at, byte) in (offset as usize..).zip(bytes) {
            assert_eq!(self.bytes[at], 0xff, "byte {at} was not erased");
            if !self.goes_on() {
                // Some of its bits were cleared.
                self.bytes[at] = *byte | self.random();
                return Err(Cut);
            }
            if !self.worn.contains(&(at as u32)) {
                self.bytes[at] = *byte;
            }
        }
        Ok(())
    }
}

fn region(bank: Bank) -> Range<u32> {
    match bank {
        Bank::A => 0..BANK,
        Bank::B => BANK..2 * BANK,
    }
}

fn model(version: u8) -> Model {
    Model { digest: [version; 32], size: SIZE, version: version.into() }
}

fn bytes(version: u8) -> Vec<u8> {
    (0..SIZE).map(|at| (at as u8).wrapping_mul(31).wrapping_add((at >> 8) as u8) ^ version).collect()
}

struct Device {
    flash: Nor,
    cell: Cell<FRAME>,
    update: Update,
    now_ms: u64,
    fetching: Option<(Model, BankWriter)>,
    running: Option<(Bank, Model)>,
    /// The golden vectors of version 2 come out wrong.
    is_wrong: bool,
    reverts: Vec<Reason>,
}

impl Device {
    /// The factory has written version 1, and a record of it.
    fn new() -> Self {
        let mut flash = Nor::new();
        let mut writer = BankWriter::resume::<Nor>(region(Bank::A), 0).unwrap();
        writer.append(&mut flash, &bytes(1)).unwrap();
        let mut cell: Cell<FRAME> = Cell::open(&mut flash, CELL).unwrap();
        let record = Record { current: Some((Bank::A, model(1))), ..Record::default() };
        cell.write(&mut flash, &record.encode()).unwrap();
        flash.steps = 0;
        Device {
            flash,
            cell,
            update: Update::start(SETTINGS, record).0,
            now_ms: 0,
            fetching: None,
            running: None,
            is_wrong: false,
            reverts: Vec::new(),
        }
    }

    /// Starts, again and again while power is lost; version 2 is assigned.
    fn boot(&mut self) {
        loop {
            (self.fetching, self.running) = (None, None);
            self.cell = Cell::open(&mut self.flash, CELL).expect("a region that fits");
            let mut stored = [0; RECORD_BYTES];
            let length = self.cell.read(&mut self.flash, &mut stored).expect("readable");
            let record = Record::decode(&stored[..length.expect("a record")]).expect("a whole record");
            let (update, actions) = Update::start(SETTINGS, record);
            self.update = update;
            let assigned =
                Event::Assigned { generation: 1, target: Target { model: model(2), trial: TRIAL } };
            if self.perform(actions).and_then(|()| self.step(assigned)).is_ok() {
                return;
            }
        }
    }

    fn step(&mut self, event: Event) -> Result<(), Cut> {
        let actions = self.update.step(event, self.now_ms, 0);
        self.perform(actions)
    }

    fn perform(&mut self, actions: Actions) -> Result<(), Cut> {
        let mut answer = None;
        for action in actions {
            match action {
                Action::Save => match self.cell.write(&mut self.flash, &self.update.record().encode()) {
                    Ok(()) => {}
                    Err(FlashError::Driver(cut)) => return Err(cut),
                    Err(error) => panic!("{error}"),
                },
                Action::StopFetching => self.fetching = None,
                Action::Fetch { bank, model, offset } => {
                    let writer = BankWriter::resume::<Nor>(region(bank), offset).unwrap();
                    assert!(writer.written() <= offset);
                    self.fetching = Some((model, writer));
                }
                Action::Verify { bank, model } => {
                    let is_right = self.content(bank) == bytes(model.version as u8);
                    answer = Some(Event::Checked(if is_right { Ok(()) } else { Err(Reason::Digest) }));
                }
                Action::Prove { model, .. } => {
                    let is_wrong = self.is_wrong && model.version == 2;
                    answer = Some(Event::Checked(if is_wrong { Err(Reason::Golden) } else { Ok(()) }));
                }
                Action::Run { bank, model } => {
                    assert_eq!(self.content(bank), bytes(model.version as u8), "what runs is whole");
                    self.running = Some((bank, model));
                }
                Action::Stop => self.running = None,
                Action::NoteReverted { reason } => self.reverts.push(reason),
                Action::Report | Action::NoteGoldenMismatch => {}
            }
        }
        answer.map_or(Ok(()), |answer| self.step(answer))
    }

    fn content(&self, bank: Bank) -> &[u8] {
        let start = region(bank).start as usize;
        &self.flash.bytes[start..start + SIZE as usize]
    }

    fn go_on(&mut self) -> Result<bool, Cut> {
        if let Some((model, writer)) = &mut self.fetching {
            let source = bytes(model.version as u8);
            let from = writer.written() as usize;
            let piece = &source[from..source.len().min(from + CHUNK)];
            match writer.append(&mut self.flash, piece) {
                Ok(()) => {}
                Err(FlashError::Driver(cut)) => return Err(cut),
                Err(error) => panic!("{error}"),
            }
            let upto = writer.written();
            if upto == SIZE {
                self.fetching = None;
            }
            self.step(Event::Stored { upto })?;
            return Ok(true);
        }
        if let Some(at_ms) = self.update.wake_at_ms() {
            self.now_ms = at_ms;
            self.step(Event::Tick)?;
            return Ok(true);
        }
        let Status::Trial(_) = self.update.status() else { return Ok(false) };
        self.step(Event::Window { inferences: 10, failures: 0 })?;
        Ok(true)
    }

    fn settle(&mut self) {
        for _ in 0..1000 {
            match self.go_on() {
                Ok(true) => {}
                Ok(false) => return,
                Err(Cut) => self.boot(),
            }
        }
        panic!("it never ends: {:?}", self.update);
    }
}

/// Cuts the power at every byte that an update programs or erases; how many those are.
fn cut_everywhere(is_wrong: bool) -> u32 {
    let after = |cut_in: Option<u32>| {
        let mut device = Device::new();
        (device.is_wrong, device.flash.cut_in) = (is_wrong, cut_in);
        device.boot();
        device.settle();
        assert_eq!(device.flash.cut_in, None, "power was lost");
        let expected = if is_wrong { model(1) } else { model(2) };
        assert_eq!(device.running.map(|(_, model)| model), Some(expected), "cut at {cut_in:?}");
        let refusal = device.update.refusal().map(|refusal| refusal.reason);
        assert_eq!(refusal, is_wrong.then_some(Reason::Golden), "cut at {cut_in:?}");
        assert!(device.reverts.is_empty(), "cut at {cut_in:?}");
        device.flash.steps
    };
    let all = after(None);
    (0..all).for_each(|cut| {
        after(Some(cut));
    });
    all
}

#[test]
fn power_may_be_lost_at_every_byte_of_an_update() {
    let good = cut_everywhere(false);
    let refused = cut_everywhere(true);
    println!("power was lost at {good} bytes of an update, and at {refused} of one that is refused");
    assert!(good > 3000 && refused > 3000);
}

#[test]
fn a_cell_has_the_old_or_the_new_value_wherever_power_is_lost() {
    let mut cuts = 0;
    // As many values as fill both halves, and more.
    for values in 0..7u8 {
        for cut in 0.. {
            let mut flash = Nor::new();
            let mut cell: Cell<64> = Cell::open(&mut flash, 0..2 * PAGE as u32).unwrap();
            let mut out = [0; 64];
            assert_eq!(cell.read(&mut flash, &mut out), Ok(None));
            let value = |version: u8| vec![version; usize::from(version) + 20];
            (0..values).for_each(|version| cell.write(&mut flash, &value(version)).unwrap());
            flash.cut_in = Some(cut);
            let written = cell.write(&mut flash, &value(values));
            let is_cut = written == Err(FlashError::Driver(Cut));
            flash.cut_in = None;
            let mut again: Cell<64> = Cell::open(&mut flash, 0..2 * PAGE as u32).unwrap();
            let found = again.read(&mut flash, &mut out).unwrap().map(|length| out[..length].to_vec());
            let before = values.checked_sub(1).map(value);
            // A tear that changed no bit has not torn anything.
            assert!(found == Some(value(values)) || (is_cut && found == before), "{values} {cut}: {found:?}");
            // And it goes on.
            again.write(&mut flash, &value(100)[..50]).unwrap();
            again.write(&mut flash, &value(30)).unwrap();
            let length = again.read(&mut flash, &mut out).unwrap().unwrap();
            assert_eq!(&out[..length], value(30));
            if !is_cut {
                break;
            }
            cuts += 1;
        }
    }
    println!("power was lost at {cuts} bytes of values");
    assert!(cuts > 400);
}

#[test]
fn a_cell_wears_its_pages_evenly() {
    let mut flash = Nor::new();
    let mut cell: Cell<64> = Cell::open(&mut flash, 0..2 * PAGE as u32).unwrap();
    let mut out = [0; 64];
    let programmed = 800;
    for number in 0..programmed {
        cell.write(&mut flash, &[number as u8; 50]).unwrap();
        assert_eq!(cell.read(&mut flash, &mut out), Ok(Some(50)));
        assert_eq!(out[..50], [number as u8; 50]);
    }
    // Eight values fit into a page, so one in eight erases one.
    assert_eq!(flash.steps, programmed * 64 + programmed / 8 * PAGE as u32);
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut flash = Nor::new();
    let page = PAGE as u32;
    for region in [0..page, 0..3 * page, 4..2 * page + 4, 0..0, page..0] {
        assert_eq!(
            Cell::<64>::open(&mut flash, region.clone()).err(),
            Some(FlashError::Layout),
            "{region:?}"
        );
    }
    assert_eq!(Cell::<62>::open(&mut flash, 0..2 * page).err(), Some(FlashError::Layout), "no whole words");
    assert_eq!(
        Cell::<1024>::open(&mut flash, 0..2 * page).err(),
        Some(FlashError::Layout),
        "larger than a page"
    );
    let mut cell: Cell<64> = Cell::open(&mut flash, 0..2 * page).unwrap();
    assert_eq!(cell.write(&mut flash, &[0; 55]), Err(FlashError::Full));
    cell.write(&mut flash, &[1; 54]).unwrap();
    assert_eq!(cell.read(&mut flash, &mut [0; 53]), Err(FlashError::Full));

    assert_eq!(BankWriter::resume::<Nor>(0..page - 4, 0).err(), Some(FlashError::Layout));
    let mut writer = BankWriter::resume::<Nor>(2 * page..4 * page, 0).unwrap();
    assert_eq!(writer.append(&mut flash, &vec![0; 2 * PAGE + 1]), Err(FlashError::Full));
    writer.append(&mut flash, &[0; 6]).unwrap();
    assert_eq!(writer.append(&mut flash, &[0; 4]), Err(FlashError::Layout), "behind the last piece");
}

#[test]
fn flash_that_is_worn_out_is_noticed() {
    let mut flash = Nor::new();
    flash.worn = 100..101;
    let mut cell: Cell<64> = Cell::open(&mut flash, 0..2 * PAGE as u32).unwrap();
    cell.write(&mut flash, &[1; 50]).unwrap();
    assert_eq!(cell.write(&mut flash, &[2; 50]), Err(FlashError::Worn));
    let mut out = [0; 64];
    assert_eq!(cell.read(&mut flash, &mut out), Ok(Some(50)));
    assert_eq!(out[..50], [1; 50], "the old value is still there");
    // The next one goes elsewhere.
    cell.write(&mut flash, &[3; 50]).unwrap();
    assert_eq!(cell.read(&mut flash, &mut out), Ok(Some(50)));
    assert_eq!(out[..50], [3; 50]);
}
