//! Work beside everything else: fetching, verifying, proving.

use dunlin_runtime::artifact::Artifact;
use dunlin_runtime::{Session, verify_golden};

use super::banks::{BankFile, Banks};
use super::download::Download;
use super::filled::Said;
use crate::slot::Owned;
use crate::update::{Bank, Event, Model, Reason, Room, verify};

/// Fetches an artifact; `say` passes on how far it has come, and how it ended.
pub(super) async fn fetch(download: Download, file: std::io::Result<BankFile>, say: impl Fn(Said)) {
    let stored = |upto| say(Said { event: Event::Stored { upto }, text: None, wrong_vector: 0 });
    let ended = match file {
        Ok(file) => download.run(file, stored).await,
        Err(error) => Err((Event::StorageFailed, error.to_string())),
    };
    if let Err((event, why)) = ended {
        let text = match event {
            Event::StorageFailed => format!("the model cannot be kept: {why}"),
            _ => format!("the model cannot be fetched: {why}"),
        };
        tracing::warn!(version = download.model.version, "{text}");
        say(Said { event, text: Some(text), wrong_vector: 0 });
    }
}

/// Checks an artifact, on a thread where that may take its time.
pub(super) async fn check(work: impl FnOnce() -> Result<(), Fault> + Send + 'static, say: impl Fn(Said)) {
    let checked = tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(Fault { reason: Reason::Start, text: error.to_string(), wrong_vector: 0 })
    });
    say(match checked {
        Ok(()) => Said { event: Event::Checked(Ok(())), text: None, wrong_vector: 0 },
        Err(Fault { reason, text, wrong_vector }) => {
            let text = Some(text).filter(|text| !text.is_empty());
            Said { event: Event::Checked(Err(reason)), text, wrong_vector }
        }
    });
}

/// What is wrong with an artifact.
#[derive(Debug)]
pub(super) struct Fault {
    reason: Reason,
    text: String,
    wrong_vector: i64,
}

impl Fault {
    fn new(reason: Reason, text: impl ToString) -> Self {
        Fault { reason, text: text.to_string(), wrong_vector: 0 }
    }
}

/// Whether the bytes in the bank are what was released, and can run here.
pub(super) fn verify_bank(banks: &Banks, bank: Bank, model: &Model, room: Room) -> Result<(), Fault> {
    let bytes = read(banks, bank, model)?;
    verify(bytes.bytes(), model, room).map(drop).map_err(|reason| {
        let text = match (reason, Artifact::parse(bytes.bytes())) {
            (Reason::Format, Err(error)) => error.to_string(),
            (Reason::Memory, Ok(artifact)) => {
                format!("an arena of {} bytes, there are {}", artifact.arena_len(), room.arena)
            }
            _ => String::new(),
        };
        Fault::new(reason, text)
    })
}

/// Runs the golden vectors of the artifact in the bank.
pub(super) fn prove_bank(banks: &Banks, bank: Bank, model: &Model) -> Result<(), Fault> {
    let bytes = read(banks, bank, model)?;
    let artifact = Artifact::parse(bytes.bytes()).map_err(|error| Fault::new(Reason::Format, error))?;
    let mut arena = Owned::zeroed(artifact.arena_len());
    let unstarted = |error: dunlin_runtime::RunError| Fault::new(error.into(), error);
    let mut session: Session<'_, '_> = Session::new(artifact, arena.bytes_mut()).map_err(unstarted)?;
    match verify_golden(&mut session).map_err(unstarted)? {
        Ok(_) => Ok(()),
        Err(wrong) => Err(Fault {
            reason: Reason::Golden,
            text: format!(
                "vector {}: output {} element {} is {:#x} instead of {:#x}",
                wrong.vector, wrong.output, wrong.element, wrong.actual, wrong.expected
            ),
            wrong_vector: i64::try_from(wrong.vector).unwrap_or(i64::MAX),
        }),
    }
}

fn read(banks: &Banks, bank: Bank, model: &Model) -> Result<Owned, Fault> {
    match banks.read(bank, model.size) {
        Ok(bytes) => Ok(Owned::new(&bytes)),
        // As if other bytes had come: they are fetched again.
        Err(error) => Err(Fault::new(Reason::Digest, error)),
    }
}
