//! From an artifact's bytes to a version of a model.

use bytes::Bytes;
use object_store::ObjectStoreExt as _;

use super::bytes::ArtifactBytes;
use super::store::{self, Lineage, Version};
use super::view::ArtifactView;
use super::{path, store_problem};
use crate::access::{Caller, Subject, audit};
use crate::app::App;
use crate::db::Tx;
use crate::http::Problem;
use crate::limits;

/// Checks an artifact and puts it into the object store. What comes back becomes a version with [`add_version`].
///
/// First the bytes, then the row: a version never lacks its artifact. When it ends in between, bytes stay that nobody
/// refers to, under a name that a repetition uses again.
pub(super) async fn put_artifact(
    app: &App,
    model: &str,
    created_by: &str,
    bytes: Bytes,
    lineage: Lineage,
    report_json: Option<String>,
) -> Result<Version, Problem> {
    let length = bytes.len();
    let copied = ArtifactBytes::copy(&bytes);
    let checked = tokio::task::spawn_blocking(move || check(&copied))
        .await
        .map_err(|error| Problem::internal(&error))?
        .map_err(|reason| Problem::unprocessable("body", format!("this is no usable artifact: {reason}")))?;
    debug_assert_eq!(checked.size, length);
    let digest = checked.digest;
    app.artifacts.put(&path(&digest), bytes.into()).await.map_err(|error| store_problem(&digest, &error))?;
    Ok(Version {
        model: model.to_owned(),
        version: 0,
        digest,
        size: i64::try_from(checked.size).unwrap_or(i64::MAX),
        manifest_json: checked.manifest_json,
        has_baseline: checked.has_baseline,
        created_us: app.clock.now_us(),
        created_by: created_by.to_owned(),
        release: None,
        lineage,
        report_json,
    })
}

/// What an upload's check found.
struct Checked {
    digest: String,
    size: usize,
    manifest_json: String,
    has_baseline: bool,
}

fn check(bytes: &ArtifactBytes) -> Result<Checked, String> {
    let artifact = bytes.parse().map_err(|error| error.to_string())?;
    artifact.verify_digest().map_err(|error| error.to_string())?;
    let size = bytes.as_slice().len();
    if artifact.bytes().len() != size {
        return Err(format!("{} bytes follow its end", size - artifact.bytes().len()));
    }
    let view = ArtifactView::of(&artifact).map_err(|error| error.to_string())?;
    Ok(Checked {
        digest: hex::encode(artifact.digest()),
        size,
        manifest_json: serde_json::to_string(&view).map_err(|error| error.to_string())?,
        has_baseline: artifact.baseline().is_some(),
    })
}

/// Adds the version with the next number, or finds the one with the same artifact.
pub(super) async fn add_version(
    app: &App,
    tx: &mut Tx,
    caller: &Caller,
    version: &Version,
) -> Result<(Version, bool), Problem> {
    let model = &version.model;
    // This locks the model: of two uploads of the same artifact the second sees the first.
    let number = store::next_version(tx, model).await?.ok_or_else(|| Problem::not_found("model", model))?;
    if let Some(found) = store::by_digest(tx, &version.digest).await? {
        if found.model != *model {
            let detail = format!("this artifact is version {} of the model {:?}", found.version, found.model);
            return Err(Problem::conflict(detail).field("body"));
        }
        let existing = store::version(tx, model, found.version).await?;
        let existing = existing.ok_or_else(|| Problem::not_found("model", model))?;
        store::give_back(tx, model).await?;
        return Ok((existing, false));
    }
    if number > limits::MODEL_VERSIONS {
        return Err(Problem::conflict(format!("the model has {} versions", limits::MODEL_VERSIONS)));
    }
    let version = Version { version: number, ..version.clone() };
    store::insert_version(tx, &version).await.map_err(|error| match error.is_unique_violation() {
        true => Problem::conflict("another model got this artifact at the same time").field("body"),
        false => error.into(),
    })?;
    crate::devices::name_model(tx, &version.digest, model, number).await?;
    let after = serde_json::json!({
        "version": number, "digest": version.digest, "size": version.size, "run": version.lineage.run,
        "dataset": version.lineage.dataset, "source": version.lineage.source,
    });
    let id = format!("{model}/{number}");
    audit(app, tx, caller, "model.upload", Subject::of_model("version", &id, model), None, Some(after))
        .await?;
    Ok((version, true))
}
