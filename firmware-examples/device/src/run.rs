//! The device's program: one model after another.

use dunlin_agent::update::{self, Bank as Place, Event, Model, Reason, Room};
use dunlin_runtime::{Artifact, Session};
use dunlin_trust::Verifier;
use embedded_storage::nor_flash::NorFlash;

use crate::device::{Counted, Device, Now};
use crate::product::{Application, Bank, Credentials, Models, Platform};
use crate::program::{Outcome, Program};
use crate::update::Job;

/// Runs what the control plane puts into the slot, or what is built in, until the application is done and everything is
/// acknowledged; usually for ever.
///
/// # Errors
/// Why the model that is built in cannot be run. Of all others the control plane is told.
pub async fn run<const KERNELS: u128, P: Platform, A: Application<KERNELS>>(
    device: &mut Device<'_, impl NorFlash, impl Verifier>,
    models: &mut Models<'_, impl Bank>,
    platform: &P,
    application: &mut A,
    credentials: Credentials<'_>,
) -> Result<(), Reason> {
    let Models { built_in, banks: [a, b], arena } = models;
    let room = Room { kernels: KERNELS, arena: arena.len() };
    let now = || Now { ms: platform.now_ms(), unix_s: platform.unix_s(), random: platform.random() };
    device.built_in = built_in.digest();
    loop {
        // The arena is free now.
        if let Job::Prove { bank, model } = device.job {
            let bytes = if bank == Place::A { a.bytes() } else { b.bytes() };
            let proven = prove::<KERNELS>(bytes, &model, arena);
            device.ended(Event::Checked(proven), "", now());
            continue;
        }
        let wanted = device.wanted;
        let (artifact, free) = match wanted {
            None => (Ok(*built_in), &mut *a),
            Some((Place::A, model)) => (artifact(a.bytes(), &model, room), &mut *b),
            Some((Place::B, model)) => (artifact(b.bytes(), &model, room), &mut *a),
        };
        let started = artifact.and_then(|artifact| {
            if !application.accepts(&artifact) {
                return Err(Reason::Start);
            }
            let session = Session::new(artifact, arena).map_err(Reason::from)?;
            // What a baseline may need more of than there is, is memory.
            let monitor =
                Counted::new(artifact, device.schedule, platform.now_ms()).map_err(|_| Reason::Memory)?;
            Ok((session, monitor))
        });
        let (session, monitor) = match (started, wanted) {
            (Ok(started), _) => started,
            (Err(reason), None) => return Err(reason),
            (Err(reason), Some(_)) => {
                device.update(Event::StartFailed(reason), now());
                // There is always something else to run.
                if device.wanted == wanted {
                    device.wanted = None;
                }
                continue;
            }
        };
        let mut program = Program {
            device,
            platform,
            application,
            credentials,
            session,
            monitor,
            runs: wanted,
            free,
            room,
        };
        if program.run().await == Outcome::Done {
            return Ok(());
        }
    }
}

/// The artifact in a bank, if it is the model that belongs there and can run here.
fn artifact<'b>(bank: &'b [u8], model: &Model, room: Room) -> Result<Artifact<'b>, Reason> {
    let length = usize::try_from(model.size).map_err(|_| Reason::TooLarge)?;
    update::verify(bank.get(..length).ok_or(Reason::TooLarge)?, model, room)
}

/// Whether the model in a bank computes here what it promises.
fn prove<const KERNELS: u128>(bank: &[u8], model: &Model, arena: &mut [u8]) -> Result<(), Reason> {
    let artifact = artifact(bank, model, Room { kernels: KERNELS, arena: arena.len() })?;
    update::prove(&mut Session::<KERNELS>::new(artifact, arena)?)
}

/// [`artifact`] for a bank that is being filled: what is wrong with it, if anything.
pub(crate) fn check(bank: &[u8], model: &Model, room: Room) -> Result<(), Reason> {
    artifact(bank, model, room).map(drop)
}
