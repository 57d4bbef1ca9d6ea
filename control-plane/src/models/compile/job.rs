//! A source that waits, or what became of it.

use dunlin_compiler::Step;
use serde::Serialize;
use utoipa::ToSchema;

use crate::models::store::Lineage;
use crate::time::Timestamp;

/// A compilation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) id: String,
    pub(super) model: String,
    pub(super) status: Status,
    /// Of the source: the digest stands in the lineage.
    pub(super) format: String,
    pub(super) size: i64,
    pub(super) lineage: Lineage,
    /// How often it was begun.
    pub(super) attempts: i64,
    /// The compiler's step, by name.
    pub(super) step: String,
    /// Why it failed.
    pub(super) message: String,
    pub(super) version: Option<i64>,
    pub(super) created_us: i64,
    pub(super) created_by: String,
    pub(super) changed_us: i64,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
// The API's description has a `Status` of the server.
#[schema(as = CompilationStatus)]
pub(in crate::models) enum Status {
    /// It waits.
    Queued,
    /// A process compiles it.
    Compiling,
    /// It became a version.
    Done,
    /// It did not.
    Failed,
}

impl Status {
    pub(super) fn name(self) -> &'static str {
        match self {
            Status::Queued => "queued",
            Status::Compiling => "compiling",
            Status::Done => "done",
            Status::Failed => "failed",
        }
    }

    /// The status with this name. A newer program's is taken for one that is over.
    pub(super) fn from_name(name: &str) -> Self {
        let all = [Status::Queued, Status::Compiling, Status::Done];
        all.into_iter().find(|status| status.name() == name).unwrap_or(Status::Failed)
    }

    /// Whether there is still something to do.
    pub(super) fn waits(self) -> bool {
        matches!(self, Status::Queued | Status::Compiling)
    }
}

/// A source that the server compiles into a version of a model.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::models) struct CompilationView {
    /// Its id.
    id: String,
    /// The model's name.
    model: String,
    /// How far it is.
    status: Status,
    /// How many others are compiled before it.
    #[schema(minimum = 0)]
    ahead: i64,
    /// How many of the compiler's steps are done.
    #[schema(minimum = 0)]
    steps_done: usize,
    /// How many there are.
    #[schema(minimum = 1)]
    steps: usize,
    /// The step under way: `import`, `passes`, `lower`, `plan`, `assemble`; null while it waits and when it is over.
    #[schema(required)]
    step: Option<String>,
    /// What the compiler says when it failed; null otherwise.
    #[schema(required)]
    message: Option<String>,
    /// The version that it became.
    #[schema(required, minimum = 1)]
    version: Option<i64>,
    /// The source's format.
    format: String,
    /// SHA-256 of the source, in hex.
    source: String,
    /// The source's length in bytes.
    size: i64,
    /// When it came.
    created: Timestamp,
    /// The principal that sent it.
    created_by: String,
    /// When this changed last.
    changed: Timestamp,
}

impl CompilationView {
    /// The job, with so many others before it.
    pub(super) fn new(job: Job, ahead: i64) -> Self {
        let step = Step::ALL.iter().position(|step| step.name() == job.step);
        let is_compiling = job.status == Status::Compiling;
        CompilationView {
            steps_done: match job.status {
                Status::Done => Step::ALL.len(),
                _ => step.unwrap_or_default(),
            },
            steps: Step::ALL.len(),
            step: Some(job.step).filter(|step| is_compiling && !step.is_empty()),
            message: Some(job.message).filter(|message| !message.is_empty()),
            ahead: if job.status.waits() { ahead } else { 0 },
            id: job.id,
            model: job.model,
            status: job.status,
            version: job.version,
            format: job.format,
            source: job.lineage.source,
            size: job.size,
            created: Timestamp(job.created_us),
            created_by: job.created_by,
            changed: Timestamp(job.changed_us),
        }
    }
}
