//! The change of models on a simulated device: every promise, and the loss of power at every step.

use std::collections::BTreeMap;

use dunlin_agent::update::{
    Action, Actions, Bank, Candidate, Event, Model, Reason, Record, Settings, Stage, Status, Target, Trial,
    Update,
};
use proptest::prelude::*;

const SIZE: u32 = 1000;
const CHUNK: u32 = 64;
const SETTINGS: Settings =
    Settings { bank_bytes: 2 * SIZE, save_every_bytes: 200, least_pause_ms: 1_000, longest_pause_ms: 60_000 };
const TRIAL: Trial = Trial { windows: 3, failures_permille: 10, boots: 3 };

fn model(version: u8) -> Model {
    Model { digest: [version; 32], size: SIZE, version: version.into() }
}

fn bytes(version: u8) -> Vec<u8> {
    (0..SIZE).map(|at| (at as u8).wrapping_mul(31) ^ version).collect()
}

/// Power was lost.
#[derive(Debug)]
struct Cut;

/// How the world treats a version.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Good,
    /// The server gives other bytes, the first so many times.
    Damaged(u32),
    /// The server never stops.
    Endless,
    /// The device finds this when it checks it.
    Refused(Reason),
    /// It cannot be started.
    Unstartable,
    /// So many of 1,000 inferences fail.
    Failing(u32),
    /// The device restarts in every window.
    Crashing,
}

/// What is on the device, and survives a loss of power.
struct Storage {
    record: Vec<u8>,
    banks: [Vec<u8>; 2],
    /// Writes until the power is lost, or until the storage fails.
    cut_in: Option<u32>,
    fail_in: Option<u32>,
    writes: u32,
}

impl Storage {
    /// Counts a write: `Err` when the power is lost in it, `false` when it fails.
    fn write(&mut self) -> Result<bool, Cut> {
        self.writes += 1;
        if let Some(left) = &mut self.cut_in {
            if *left == 0 {
                self.cut_in = None;
                return Err(Cut);
            }
            *left -= 1;
        }
        if let Some(left) = &mut self.fail_in {
            if *left == 0 {
                self.fail_in = None;
                return Ok(false);
            }
            *left -= 1;
        }
        Ok(true)
    }
}

struct Device {
    storage: Storage,
    update: Update,
    now_ms: u64,
    kinds: BTreeMap<u8, Kind>,
    assigned: Option<(u64, Target)>,
    fetching: Option<(Bank, Model, u32)>,
    running: Option<(Bank, Model)>,
    boots: u32,
    /// Fetches begun, and where.
    fetches: Vec<u32>,
    reverts: Vec<Reason>,
    golden: u32,
    reports: u32,
    offline: bool,
}

impl Device {
    /// A device that came from the factory with version 1.
    fn new() -> Self {
        let record = Record { current: Some((Bank::A, model(1))), ..Record::default() };
        let storage = Storage {
            record: record.encode().to_vec(),
            banks: [bytes(1), vec![0xff; SIZE as usize]],
            cut_in: None,
            fail_in: None,
            writes: 0,
        };
        let mut device = Device {
            storage,
            update: Update::start(SETTINGS, record).0,
            now_ms: 0,
            kinds: BTreeMap::new(),
            assigned: None,
            fetching: None,
            running: None,
            boots: 0,
            fetches: Vec::new(),
            reverts: Vec::new(),
            golden: 0,
            reports: 0,
            offline: false,
        };
        device.boot();
        device
    }

    /// Starts the device, again and again if the power is lost meanwhile.
    fn boot(&mut self) {
        loop {
            self.boots += 1;
            (self.fetching, self.running) = (None, None);
            let record = Record::decode(&self.storage.record).expect("a whole record");
            let (update, actions) = Update::start(SETTINGS, record);
            self.update = update;
            let assigned = self.assigned;
            let started = self.perform(actions).and_then(|()| match assigned {
                Some((generation, target)) => self.step(Event::Assigned { generation, target }),
                None => Ok(()),
            });
            if started.is_ok() {
                return;
            }
        }
    }

    fn kind(&self, model: &Model) -> Kind {
        self.kinds.get(&(model.version as u8)).copied().unwrap_or(Kind::Good)
    }

    fn step(&mut self, event: Event) -> Result<(), Cut> {
        let actions = self.update.step(event, self.now_ms, 0);
        self.perform(actions)
    }

    fn perform(&mut self, actions: Actions) -> Result<(), Cut> {
        let actions: Vec<Action> = actions.collect();
        assert!(actions.len() <= 6, "there is room for two more: {actions:?}");
        let mut answers = Vec::new();
        for action in actions {
            match action {
                Action::Save => {
                    if !self.storage.write()? {
                        self.fetching = None;
                        answers = vec![Event::StorageFailed];
                        break;
                    }
                    self.storage.record = self.update.record().encode().to_vec();
                }
                Action::StopFetching => self.fetching = None,
                Action::Fetch { bank, model, offset } => {
                    assert!(self.fetching.is_none(), "one at a time");
                    assert!(self.running.is_none_or(|(running, _)| running != bank), "not over what runs");
                    self.fetching = Some((bank, model, offset));
                    self.fetches.push(offset);
                }
                Action::Verify { bank, model } => {
                    assert!(self.fetching.is_none());
                    let is_right = self.storage.banks[bank as usize] == bytes(model.version as u8);
                    answers.push(Event::Checked(match self.kind(&model) {
                        _ if !is_right => Err(Reason::Digest),
                        Kind::Refused(reason) if reason != Reason::Golden => Err(reason),
                        _ => Ok(()),
                    }));
                }
                Action::Prove { model, .. } => answers.push(Event::Checked(match self.kind(&model) {
                    Kind::Refused(Reason::Golden) => Err(Reason::Golden),
                    _ => Ok(()),
                })),
                Action::Run { bank, model } => {
                    assert_eq!(
                        self.storage.banks[bank as usize],
                        bytes(model.version as u8),
                        "what runs is whole"
                    );
                    if self.kind(&model) == Kind::Unstartable {
                        answers.push(Event::StartFailed(Reason::Start));
                    }
                    self.running = Some((bank, model));
                }
                Action::Stop => self.running = None,
                Action::Report => self.reports += 1,
                Action::NoteReverted { reason } => self.reverts.push(reason),
                Action::NoteGoldenMismatch => self.golden += 1,
            }
        }
        for answer in answers {
            self.step(answer)?;
        }
        Ok(())
    }

    fn assign(&mut self, generation: u64, version: u8) {
        self.assign_with(generation, Target { model: model(version), trial: TRIAL });
    }

    fn assign_with(&mut self, generation: u64, target: Target) {
        self.assigned = Some((generation, target));
        if self.step(Event::Assigned { generation, target }).is_err() {
            self.boot();
        }
    }

    /// Something goes on: a piece arrives, a pause ends, a window closes. Whether anything is left to do.
    fn go_on(&mut self) -> Result<bool, Cut> {
        if let Some((bank, wanted, offset)) = self.fetching {
            if self.offline {
                self.fetching = None;
                self.step(Event::FetchFailed { retry_after_ms: 0 })?;
                return Ok(true);
            }
            let upto = (offset + CHUNK).min(SIZE);
            let (from, to) = (offset as usize, upto as usize);
            let mut source = bytes(wanted.version as u8);
            if let Some(Kind::Damaged(times @ 1..)) = self.kinds.get_mut(&(wanted.version as u8))
                && upto == SIZE
            {
                *times -= 1;
                source[SIZE as usize - 1] ^= 1;
            }
            match self.storage.write() {
                Ok(true) => {}
                Ok(false) => {
                    self.fetching = None;
                    self.step(Event::StorageFailed)?;
                    return Ok(true);
                }
                Err(Cut) => {
                    // Half of it was written, the other half is nonsense.
                    let middle = usize::midpoint(from, to);
                    self.storage.banks[bank as usize][from..middle].copy_from_slice(&source[from..middle]);
                    self.storage.banks[bank as usize][middle..to].fill(0xa5);
                    return Err(Cut);
                }
            }
            self.storage.banks[bank as usize][from..to].copy_from_slice(&source[from..to]);
            self.fetching = (upto < SIZE).then_some((bank, wanted, upto));
            if upto == SIZE && self.kind(&wanted) == Kind::Endless {
                self.step(Event::TooMuch)?;
            } else {
                self.step(Event::Stored { upto })?;
            }
            return Ok(true);
        }
        if let Some(at_ms) = self.update.wake_at_ms() {
            self.now_ms = self.now_ms.max(at_ms);
            self.step(Event::Tick)?;
            return Ok(true);
        }
        let Status::Trial(on_trial) = self.update.status() else { return Ok(false) };
        assert_eq!(self.running.map(|(_, model)| model), Some(on_trial));
        let failures = match self.kind(&on_trial) {
            Kind::Crashing => return Err(Cut),
            Kind::Failing(failures) => failures,
            _ => 0,
        };
        self.step(Event::Window { inferences: 1000 - failures, failures })?;
        Ok(true)
    }

    /// Until nothing is left to do.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            match self.go_on() {
                Ok(true) => {}
                Ok(false) => return self.check(),
                Err(Cut) => self.boot(),
            }
        }
        panic!("it never ends: {:?}", self.update);
    }

    /// What must hold when nothing is left to do.
    fn check(&self) {
        assert_eq!(self.storage.record, self.update.record().encode(), "everything is stored");
        assert_eq!(self.running, self.update.record().current);
        assert!(self.update.record().candidate.is_none());
        if let Some(spare) = self.update.record().spare {
            let (bank, _) = self.running.expect("something before it was replaced");
            assert_eq!(self.storage.banks[bank.other() as usize], bytes(spare.version as u8));
        }
    }

    fn version(&self) -> Option<u32> {
        self.running.map(|(_, model)| model.version)
    }

    fn refused_for(&self) -> Option<Reason> {
        self.update.refusal().map(|refusal| refusal.reason)
    }
}

#[test]
fn a_model_is_fetched_verified_proven_tried_and_committed() {
    let mut device = Device::new();
    assert_eq!(device.update.status(), Status::Running(model(1)));
    device.assign(1, 2);
    assert_eq!(device.version(), Some(1), "the old one runs while the new one is fetched");
    while device.update.status() == Status::Updating(Some(model(1))) {
        device.go_on().unwrap();
    }
    assert_eq!(device.update.status(), Status::Trial(model(2)));
    for _ in 0..TRIAL.windows {
        assert_eq!(device.update.status(), Status::Trial(model(2)));
        // A window without inferences proves nothing.
        device.step(Event::Window { inferences: 0, failures: 0 }).unwrap();
        device.go_on().unwrap();
    }
    device.settle();
    assert_eq!(device.update.status(), Status::Running(model(2)));
    assert_eq!((device.fetches.as_slice(), device.refused_for()), (&[0][..], None));
    // The old one is still there: to go back costs no transfer, and is a trial like any other.
    device.assign(2, 1);
    assert_eq!(device.update.status(), Status::Trial(model(1)));
    device.settle();
    assert_eq!(device.update.status(), Status::Running(model(1)));
    assert_eq!(device.fetches, [0]);
}

#[test]
fn without_windows_the_first_one_decides() {
    let mut device = Device::new();
    device.assign_with(1, Target { model: model(2), trial: Trial { windows: 0, ..TRIAL } });
    while device.update.status() != Status::Trial(model(2)) {
        device.go_on().unwrap();
    }
    device.step(Event::Window { inferences: 0, failures: 0 }).unwrap();
    assert_eq!(device.update.status(), Status::Running(model(2)));
}

#[test]
fn what_cannot_run_here_is_refused_with_its_reason_and_the_old_model_goes_on() {
    for (kind, reason, reverts, fetches) in [
        (Kind::Damaged(9), Reason::Digest, 0, 3),
        (Kind::Endless, Reason::Digest, 0, 3),
        (Kind::Refused(Reason::Format), Reason::Format, 0, 1),
        (Kind::Refused(Reason::Kernels), Reason::Kernels, 0, 1),
        (Kind::Refused(Reason::Memory), Reason::Memory, 0, 1),
        (Kind::Refused(Reason::Golden), Reason::Golden, 0, 1),
        (Kind::Unstartable, Reason::Start, 1, 1),
        (Kind::Failing(11), Reason::Failures, 1, 1),
        (Kind::Crashing, Reason::Restarts, 1, 1),
    ] {
        let mut device = Device::new();
        device.kinds.insert(2, kind);
        device.assign(1, 2);
        device.settle();
        assert_eq!(device.version(), Some(1), "{kind:?}");
        assert_eq!(device.refused_for(), Some(reason), "{kind:?}");
        assert_eq!(device.reverts, vec![reason; reverts], "{kind:?}");
        assert_eq!(device.golden, u32::from(reason == Reason::Golden));
        assert_eq!(device.fetches.len(), fetches, "{kind:?}");
        // The same assignment again changes nothing, also after a restart; a newer one is another chance.
        device.assign(1, 2);
        device.boot();
        device.settle();
        assert_eq!((device.version(), device.fetches.len()), (Some(1), fetches), "{kind:?}");
        device.kinds.remove(&2);
        device.assign(2, 2);
        device.settle();
        assert_eq!((device.version(), device.refused_for()), (Some(2), None), "{kind:?}");
    }
}

#[test]
fn a_model_that_fails_within_bounds_is_kept() {
    let mut device = Device::new();
    device.kinds.insert(2, Kind::Failing(10));
    device.assign(1, 2);
    device.settle();
    assert_eq!(device.version(), Some(2));
}

#[test]
fn bytes_that_are_damaged_once_are_fetched_again() {
    let mut device = Device::new();
    device.kinds.insert(2, Kind::Damaged(2));
    device.assign(1, 2);
    device.settle();
    assert_eq!((device.version(), device.fetches.as_slice()), (Some(2), &[0, 0, 0][..]));
}

#[test]
fn too_large_a_model_is_not_even_fetched() {
    let mut device = Device::new();
    let large = Model { size: SETTINGS.bank_bytes + 1, ..model(2) };
    device.assign_with(1, Target { model: large, trial: TRIAL });
    device.settle();
    assert_eq!((device.version(), device.refused_for()), (Some(1), Some(Reason::TooLarge)));
    assert!(device.fetches.is_empty());
}

#[test]
fn fetching_goes_on_where_it_stopped_and_pauses_grow() {
    let mut device = Device::new();
    device.assign(1, 2);
    for _ in 0..5 {
        device.go_on().unwrap();
    }
    device.offline = true;
    let mut pauses = Vec::new();
    for _ in 0..8 {
        device.go_on().unwrap();
        pauses.push(device.update.wake_at_ms().unwrap() - device.now_ms);
        device.go_on().unwrap();
    }
    assert_eq!(pauses, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
    device.offline = false;
    device.settle();
    assert_eq!(device.version(), Some(2));
    assert!(device.fetches[1..].iter().all(|offset| *offset == 5 * CHUNK), "{:?}", device.fetches);
}

#[test]
fn a_server_that_asks_to_wait_is_obeyed_within_reason() {
    for (asked_ms, waits_ms) in [(0, 1_000), (30_000, 30_000), (u64::MAX, 60_000)] {
        let mut device = Device::new();
        device.assign(1, 2);
        device.fetching = None;
        device.step(Event::FetchFailed { retry_after_ms: asked_ms }).unwrap();
        assert_eq!(device.update.wake_at_ms(), Some(waits_ms));
    }
}

#[test]
fn after_a_restart_fetching_goes_on_from_what_is_stored() {
    let mut device = Device::new();
    device.assign(1, 2);
    for _ in 0..9 {
        device.go_on().unwrap();
    }
    device.boot();
    device.settle();
    assert_eq!(device.version(), Some(2));
    // 576 bytes were there; the record is written every 200.
    assert_eq!(device.fetches, [0, 512]);
}

#[test]
fn a_newer_assignment_takes_the_place_of_one_under_way() {
    let on_the_way = |steps: usize| {
        let mut device = Device::new();
        device.assign(1, 2);
        (0..steps).for_each(|_| assert!(device.go_on().unwrap()));
        device
    };
    // While it is fetched; while it is on trial.
    for steps in [5, 17] {
        let mut device = on_the_way(steps);
        device.assign(2, 3);
        assert_eq!(device.version(), Some(1));
        device.settle();
        assert_eq!(device.version(), Some(3));
        // Back to what runs.
        let mut device = on_the_way(steps);
        device.assign(2, 1);
        device.settle();
        assert_eq!((device.version(), device.refused_for()), (Some(1), None));
        // Nothing at all.
        let mut device = on_the_way(steps);
        device.assign_with(2, Target { model: Model::default(), trial: TRIAL });
        device.settle();
        assert_eq!((device.version(), device.update.status()), (None, Status::Empty));
        // The same with a higher number.
        let mut device = on_the_way(steps);
        device.assign(2, 2);
        device.settle();
        assert_eq!((device.version(), device.fetches.len()), (Some(2), 1));
    }
}

#[test]
fn an_empty_slot_takes_a_model() {
    let mut device = Device::new();
    device.assign_with(1, Target { model: Model::default(), trial: TRIAL });
    device.settle();
    assert_eq!(device.version(), None);
    device.assign(2, 2);
    device.settle();
    assert_eq!(device.version(), Some(2));
}

/// What must come out of an update whatever happens meanwhile.
fn outcome(kind: Kind) -> (Option<u32>, Option<Reason>) {
    match kind {
        Kind::Good | Kind::Damaged(_) => (Some(2), None),
        Kind::Crashing => (Some(1), Some(Reason::Restarts)),
        Kind::Refused(reason) => (Some(1), Some(reason)),
        Kind::Failing(_) => (Some(1), Some(Reason::Failures)),
        Kind::Endless | Kind::Unstartable => unreachable!("not cut"),
    }
}

#[test]
fn power_may_be_lost_at_every_write() {
    let mut cuts = 0;
    for kind in
        [Kind::Good, Kind::Damaged(1), Kind::Crashing, Kind::Refused(Reason::Golden), Kind::Failing(500)]
    {
        for cut in 0.. {
            let mut device = Device::new();
            device.kinds.insert(2, kind);
            device.storage.cut_in = Some(cut);
            device.assign(1, 2);
            device.settle();
            assert_eq!((device.version(), device.refused_for()), outcome(kind), "{kind:?}, write {cut}");
            if device.storage.cut_in.is_some() {
                break;
            }
            cuts += 1;
        }
    }
    println!("power was lost at {cuts} writes");
    assert!(cuts > 100);
}

#[test]
fn the_storage_may_fail_at_every_write() {
    for kind in [Kind::Good, Kind::Damaged(1), Kind::Refused(Reason::Golden), Kind::Failing(500)] {
        for fail in 0.. {
            let mut device = Device::new();
            device.kinds.insert(2, kind);
            device.storage.fail_in = Some(fail);
            device.assign(1, 2);
            device.settle();
            assert_eq!((device.version(), device.refused_for()), outcome(kind), "{kind:?}, write {fail}");
            if device.storage.fail_in.is_some() {
                break;
            }
        }
    }
}

fn any_kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        4 => Just(Kind::Good),
        1 => (0u32..5).prop_map(Kind::Damaged),
        1 => Just(Kind::Endless),
        1 => prop_oneof![Just(Reason::Format), Just(Reason::Golden)].prop_map(Kind::Refused),
        1 => Just(Kind::Unstartable),
        1 => (0u32..20).prop_map(Kind::Failing),
        1 => Just(Kind::Crashing),
    ]
}

#[derive(Clone, Debug)]
enum Happens {
    Assigned(u8),
    GoesOn(u8),
    CutIn(u32),
    FailsIn(u32),
    Offline(bool),
    Boot,
    Late(u8),
}

fn anything() -> impl Strategy<Value = Happens> {
    prop_oneof![
        2 => (0u8..5).prop_map(Happens::Assigned),
        6 => (1u8..25).prop_map(Happens::GoesOn),
        2 => (0u32..8).prop_map(Happens::CutIn),
        1 => (0u32..8).prop_map(Happens::FailsIn),
        1 => any::<bool>().prop_map(Happens::Offline),
        1 => Just(Happens::Boot),
        1 => any::<u8>().prop_map(Happens::Late),
    ]
}

proptest! {
    // What runs is whole at every moment: see `Device::perform`.
    #[test]
    fn in_the_end_the_assigned_model_runs_or_there_is_a_reason(
        kinds in proptest::collection::btree_map(2u8..5, any_kind(), 0..3),
        story in proptest::collection::vec(anything(), 0..60),
    ) {
        let mut device = Device::new();
        device.kinds = kinds;
        let mut generation = 0;
        for happens in story {
            let cut = match happens {
                Happens::Assigned(version) => {
                    generation += 1;
                    match version {
                        0 => device.assign_with(generation, Target { model: Model::default(), trial: TRIAL }),
                        version => device.assign(generation, version),
                    }
                    Ok(())
                }
                Happens::GoesOn(times) => (0..times).try_for_each(|_| device.go_on().map(drop)),
                Happens::CutIn(writes) => {
                    device.storage.cut_in = Some(writes);
                    Ok(())
                }
                Happens::FailsIn(writes) => {
                    device.storage.fail_in = Some(writes);
                    Ok(())
                }
                Happens::Offline(offline) => {
                    device.offline = offline;
                    Ok(())
                }
                Happens::Boot => Err(Cut),
                // Answers that nobody waits for.
                Happens::Late(which) if device.fetching.is_none() => device.step(match which % 5 {
                    0 => Event::Stored { upto: SIZE },
                    1 => Event::FetchFailed { retry_after_ms: 5 },
                    2 => Event::TooMuch,
                    3 => Event::Checked(Ok(())),
                    _ => Event::Checked(Err(Reason::Golden)),
                }),
                Happens::Late(_) => Ok(()),
            };
            if cut.is_err() {
                device.boot();
            }
        }
        (device.offline, device.storage.cut_in, device.storage.fail_in) = (false, None, None);
        device.settle();
        let wanted = device.assigned.map_or(Some(1), |(_, target)| {
            (target.model.digest != [0; 32]).then_some(target.model.version)
        });
        if device.version() != wanted {
            let refusal = device.update.refusal();
            prop_assert_eq!(refusal.map(|refusal| Some(refusal.model.version)), Some(wanted));
            let kind = wanted.and_then(|version| device.kinds.get(&(version as u8)));
            prop_assert!(kind.is_some_and(|kind| *kind != Kind::Good) || device.boots > 3, "{kind:?}");
        }
    }

    #[test]
    fn records_are_what_was_stored(
        models in any::<[[u8; 32]; 4]>(),
        numbers in any::<[u32; 8]>(),
        generations in any::<[u64; 2]>(),
        present in any::<[bool; 7]>(),
        settings in any::<(u16, u16, u8, u8, u8, u8)>(),
    ) {
        let model = |at: usize| Model { digest: models[at], size: numbers[at], version: numbers[4 + at % 4] };
        let (windows, failures_permille, boots, wrong, tried, reason) = settings;
        let stage = if present[5] { Stage::Trial { boots: tried } } else { Stage::Fetching { stored: numbers[7] } };
        let record = Record {
            current: present[0].then(|| (if present[6] { Bank::B } else { Bank::A }, model(0))),
            spare: present[1].then(|| model(1)),
            candidate: present[2].then(|| Candidate {
                model: model(2),
                generation: generations[0],
                wrong,
                stage,
                trial: Trial { windows, failures_permille, boots },
            }),
            refusal: present[3].then(|| dunlin_agent::update::Refusal {
                model: model(3),
                generation: generations[1],
                reason: Reason::from_number(reason),
            }),
        };
        let bytes = record.encode();
        prop_assert_eq!(Record::decode(&bytes), Ok(record));
        prop_assert!(Record::decode(&bytes[1..]).is_err());
        prop_assert!(Record::decode(&[&bytes[..], &[0]].concat()).is_err());
    }

    #[test]
    fn any_bytes_are_a_record_or_none(bytes in proptest::collection::vec(prop_oneof![0u8..3, any::<u8>()], 0..300)) {
        let _ = Record::decode(&bytes);
    }

    #[test]
    fn no_record_makes_the_machine_panic(
        bytes in proptest::collection::vec(prop_oneof![3 => 0u8..2, 1 => any::<u8>()], 5..6),
        rest in proptest::collection::vec(any::<u8>(), 300),
        events in proptest::collection::vec((any::<u8>(), any::<u32>(), any::<u64>()), 0..20),
    ) {
        let len = Record::default().encode().len();
        let mut stored: Vec<u8> = bytes.iter().chain(&rest).copied().take(len).collect();
        stored[0] = 1;
        if let Ok(record) = Record::decode(&stored) {
            let (mut update, actions) = Update::start(SETTINGS, record);
            prop_assert!(actions.count() <= 6);
            for (which, number, wide) in events {
                let event = match which % 8 {
                    0 => Event::Tick,
                    1 => Event::Assigned {
                        generation: wide,
                        target: Target { model: model(which / 8), trial: Trial { windows: number as u16, failures_permille: (wide >> 8) as u16, boots: wide as u8 } },
                    },
                    2 => Event::Stored { upto: number },
                    3 => Event::FetchFailed { retry_after_ms: wide },
                    4 => Event::TooMuch,
                    5 => Event::Checked(if number & 1 == 0 { Ok(()) } else { Err(Reason::from_number(wide as u8)) }),
                    6 => Event::Window { inferences: number, failures: wide as u32 },
                    _ => Event::StorageFailed,
                };
                prop_assert!(update.step(event, wide, number).count() <= 6);
            }
        }
    }
}

#[test]
fn a_model_whose_bank_has_decayed_gives_way_to_the_one_before_it() {
    let list = |actions: Actions| actions.collect::<Vec<_>>();
    let both = Record { current: Some((Bank::B, model(2))), spare: Some(model(1)), ..Record::default() };
    let (mut update, _) = Update::start(SETTINGS, both);
    let lost = list(update.step(Event::StartFailed(Reason::Start), 0, 0));
    let run = Action::Run { bank: Bank::A, model: model(1) };
    let note = Action::NoteReverted { reason: Reason::Start };
    assert_eq!(lost, [note, run, Action::Save, Action::Report]);
    assert_eq!(update.status(), Status::Running(model(1)));
    // What is assigned is fetched again, into the other bank.
    let target = Target { model: model(2), trial: TRIAL };
    let again = list(update.step(Event::Assigned { generation: 7, target }, 0, 0));
    assert_eq!(again.last(), Some(&Action::Fetch { bank: Bank::B, model: model(2), offset: 0 }));
    // That one has decayed as well, while the other is being fetched: it goes to the first bank now.
    update.step(Event::Stored { upto: 500 }, 0, 0);
    let lost = list(update.step(Event::StartFailed(Reason::Start), 0, 0));
    let fetch = Action::Fetch { bank: Bank::A, model: model(2), offset: 0 };
    assert_eq!(lost, [Action::StopFetching, Action::Stop, Action::Save, Action::Report, fetch]);
    assert_eq!(update.status(), Status::Updating(None));
    assert!(list(update.step(Event::StartFailed(Reason::Start), 0, 0)).is_empty(), "nothing ran");

    // A candidate that is not in its way goes on.
    let fetching = Candidate {
        model: model(3),
        generation: 8,
        wrong: 0,
        stage: Stage::Fetching { stored: 200 },
        trial: TRIAL,
    };
    let record =
        Record { current: Some((Bank::B, model(2))), candidate: Some(fetching), ..Record::default() };
    let (mut update, _) = Update::start(SETTINGS, record);
    let lost = list(update.step(Event::StartFailed(Reason::Start), 0, 0));
    assert_eq!(lost, [Action::Stop, Action::Save, Action::Report]);
    let stored = update.step(Event::Stored { upto: SIZE }, 0, 0);
    assert!(stored.into_iter().any(|action| action == Action::Verify { bank: Bank::A, model: model(3) }));
}
