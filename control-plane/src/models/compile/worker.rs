//! The work: one source at a time in each process.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dunlin_compiler::{Compiled, Options, Step, compile_watched};
use object_store::ObjectStoreExt as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;

use super::job::{Job, Status};
use super::{path, store};
use crate::access::Caller;
use crate::app::App;
use crate::db::lease::Lease;
use crate::http::Problem;
use crate::limits;
use crate::models::ModelVersion;
use crate::models::publish::{add_version, put_artifact};

/// Compiles what comes, until the application shuts down.
pub async fn run(app: App) {
    const FORGET: Duration = Duration::from_secs(3_600);
    let mut forgotten: Option<Instant> = None;
    loop {
        match round(&app).await {
            Ok(true) => continue,
            Ok(false) => {}
            Err(problem) => tracing::warn!(why = problem.detail, "compiling waits; it is tried again"),
        }
        if forgotten.is_none_or(|at| at.elapsed() >= FORGET) {
            forgotten = Some(Instant::now());
            if let Err(problem) = forget(&app).await {
                tracing::warn!(why = problem.detail, "old compilations are not deleted; it is tried again");
            }
        }
        tokio::select! {
            () = app.shutdown.cancelled() => return,
            () = app.models.came.notified() => {}
            () = tokio::time::sleep(limits::COMPILATIONS_POLL) => {}
        }
    }
}

async fn forget(app: &App) -> Result<(), Problem> {
    let before_us = app.clock.now_us().saturating_sub(limits::micros(limits::COMPILATIONS_KEPT));
    let mut db = app.db.write().acquire().await?;
    store::forget(&mut db, before_us).await?;
    Ok(())
}

/// Compiles the oldest source that no other process compiles; whether there was one.
pub(super) async fn round(app: &App) -> Result<bool, Problem> {
    let waiting = store::waiting(&mut *app.db.read().acquire().await?).await?;
    for id in waiting {
        if app.shutdown.is_cancelled() {
            break;
        }
        let lease = Lease::new(format!("models.compile.{id}"), &app.process, limits::LEASE);
        if !lease.acquire(&app.db, app.clock.now_us()).await? {
            continue;
        }
        let worked = work(app, &id, &lease).await;
        if let Err(error) = lease.release(&app.db).await {
            tracing::debug!(%error, "the lease ends by itself");
        }
        worked?;
        return Ok(true);
    }
    Ok(false)
}

/// How a compilation ended.
enum End {
    /// The artifact, and the compiler's report as JSON.
    Compiled(Bytes, String),
    /// What the compiler says.
    Failed(String),
    /// The process stops.
    Stopped,
}

/// Compiles one source, for which the process has the lease.
pub(super) async fn work(app: &App, id: &str, lease: &Lease) -> Result<(), Problem> {
    let found = store::get(&mut *app.db.read().acquire().await?, id).await?;
    // Another process may have finished it just now.
    let Some(mut job) = found.filter(|job| job.status.waits()) else { return Ok(()) };
    if job.attempts >= limits::COMPILATION_ATTEMPTS {
        let message =
            format!("it was begun {} times, and the server ended or failed each time", job.attempts);
        return fail(app, job, message).await;
    }
    let source = match read_source(app, &job).await? {
        Ok(source) => source,
        Err(message) => return fail(app, job, message).await,
    };
    job.attempts += 1;
    job.status = Status::Compiling;
    write(app, &job).await?;
    match compile(app, &mut job, source, lease).await {
        End::Compiled(artifact, report) => publish(app, job, artifact, report).await,
        End::Failed(message) => fail(app, job, message).await,
        End::Stopped => {
            // That was nobody's fault, and another process need not wait.
            job.attempts -= 1;
            job.status = Status::Queued;
            job.step.clear();
            write(app, &job).await
        }
    }
}

/// The source, or why it cannot be had any more.
async fn read_source(app: &App, job: &Job) -> Result<Result<Bytes, String>, Problem> {
    let read = async { app.artifacts.get(&path(&job.id)).await?.bytes().await };
    match read.await {
        Ok(bytes) if hex::encode(Sha256::digest(&bytes)) == job.lineage.source => Ok(Ok(bytes)),
        Ok(_) => Ok(Err("the source was damaged in the object store; push it again".to_owned())),
        Err(object_store::Error::NotFound { .. }) => {
            Ok(Err("the source is missing in the object store; push it again".to_owned()))
        }
        Err(error) => Err(Problem::unavailable(format!("the object store: {error}"))),
    }
}

/// Compiles in a thread of its own, which does not keep the process from ending.
async fn compile(app: &App, job: &mut Job, source: Bytes, lease: &Lease) -> End {
    let begun = Arc::new(AtomicUsize::new(0));
    let (sender, mut finished) = oneshot::channel();
    let options = Options { name: job.model.clone(), ..Options::default() };
    let thread = std::thread::Builder::new().name("compiler".to_owned()).stack_size(limits::COMPILER_STACK);
    let steps = Arc::clone(&begun);
    let spawned = thread.spawn(move || {
        let compiled =
            compile_watched(&source, &options, |step| steps.store(step as usize, Ordering::Relaxed));
        // Nobody waits any more when the process stops.
        let _ = sender.send(compiled);
    });
    if let Err(error) = spawned {
        return End::Failed(format!("there is no thread to compile with: {error}"));
    }
    let mut ticks = tokio::time::interval(limits::COMPILATION_PROGRESS);
    loop {
        tokio::select! {
            biased;
            () = app.shutdown.cancelled() => return End::Stopped,
            finished = &mut finished => return match finished {
                Ok(Ok(Compiled { artifact, report })) => match serde_json::to_string(&report) {
                    Ok(report) => End::Compiled(artifact.into(), report),
                    Err(error) => End::Failed(error.to_string()),
                },
                Ok(Err(error)) => End::Failed(error.to_string()),
                // The thread panicked, which is an error of the compiler.
                Err(_) => End::Failed("the compiler broke down over this model; the server's log says where".to_owned()),
            },
            _ = ticks.tick() => {
                let step = Step::ALL.get(begun.load(Ordering::Relaxed)).map_or("", |step| step.name());
                let is_new = job.step != step;
                step.clone_into(&mut job.step);
                let written = async {
                    lease.acquire(&app.db, app.clock.now_us()).await?;
                    if is_new { write(app, job).await } else { Ok(()) }
                };
                if let Err(problem) = written.await {
                    tracing::warn!(why = problem.detail, "a compilation's progress is not written down");
                }
            }
        }
    }
}

/// Makes the artifact a version.
async fn publish(app: &App, mut job: Job, artifact: Bytes, report: String) -> Result<(), Problem> {
    let limit = app.config.http_artifact_size.0;
    if artifact.len() as u64 > limit {
        let message = format!("the artifact has {} bytes; http.artifact_size allows {limit}", artifact.len());
        return fail(app, job, message).await;
    }
    let lineage = job.lineage.clone();
    let new = put_artifact(app, &job.model, &job.created_by, artifact, lineage, Some(report)).await?;
    let caller = Caller::internal(job.created_by.as_str(), "compilation", None);
    let mut transaction = app.db.begin().await?;
    let version = match add_version(app, &mut transaction, &caller, &new).await {
        Ok((version, _)) => version,
        Err(problem) if problem.status_code().is_client_error() => {
            drop(transaction);
            return fail(app, job, problem.detail).await;
        }
        Err(problem) => return Err(problem),
    };
    job.status = Status::Done;
    job.version = Some(version.version);
    job.step.clear();
    if !store::update(&mut transaction, &job, app.clock.now_us()).await? {
        // Another process was faster.
        return Ok(());
    }
    transaction.commit().await?;
    let found = ModelVersion { model: version.model.clone(), version: version.version };
    app.models.remember(&version.digest, &found);
    tracing::info!(model = job.model, version = version.version, "compiled");
    delete_source(app, &job).await;
    Ok(())
}

async fn fail(app: &App, mut job: Job, message: String) -> Result<(), Problem> {
    tracing::info!(model = job.model, id = job.id, message, "a model was not compiled");
    job.status = Status::Failed;
    job.message = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    write(app, &job).await?;
    delete_source(app, &job).await;
    Ok(())
}

async fn write(app: &App, job: &Job) -> Result<(), Problem> {
    let mut db = app.db.write().acquire().await?;
    store::update(&mut db, job, app.clock.now_us()).await?;
    Ok(())
}

/// Nobody needs it any more; one that stays only takes room.
async fn delete_source(app: &App, job: &Job) {
    if let Err(error) = app.artifacts.delete(&path(&job.id)).await {
        tracing::warn!(%error, id = job.id, "the source of a compilation stays in the object store");
    }
}
