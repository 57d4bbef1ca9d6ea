//! Models as the API shows them.

use std::collections::BTreeMap;

use dunlin_artifact::baseline::{Bins, Part, Source};
use dunlin_artifact::{Artifact, Baseline, Tensor};
use dunlin_protocol::{Release, Signed};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::aliases::Alias;
use super::release;
use super::store::{Model, Version};
use crate::clock::SECOND_US;
use crate::time::Timestamp;
use crate::trust::KeySet;

/// A model.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelView {
    /// Its name.
    name: String,
    /// What it is.
    description: String,
    /// The number of its newest version; null without versions.
    #[schema(required, minimum = 1)]
    latest: Option<i64>,
    /// When it was made.
    created: Timestamp,
    /// The principal that made it.
    created_by: String,
}

impl From<Model> for ModelView {
    fn from(model: Model) -> Self {
        ModelView {
            name: model.name,
            description: model.description,
            latest: Some(model.latest).filter(|latest| *latest > 0),
            created: Timestamp(model.created_us),
            created_by: model.created_by,
        }
    }
}

/// A version of a model.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct VersionView {
    /// The model's name.
    model: String,
    /// The number.
    #[schema(minimum = 1)]
    version: i64,
    /// SHA-256 of the artifact, as its header states it, in hex. Devices report it.
    digest: String,
    /// The artifact's length in bytes.
    size: i64,
    /// Whether it has a baseline: without one, devices report no distributions.
    has_baseline: bool,
    /// What the artifact says about itself.
    artifact: ArtifactView,
    /// What the model's owners have signed about it; null: nothing.
    #[schema(required)]
    release: Option<ReleaseView>,
    /// The aliases that name it.
    aliases: Vec<String>,
    /// Where it comes from.
    lineage: LineageView,
    /// Whether the server compiled it: then there is a report.
    has_report: bool,
    /// When it was uploaded.
    created: Timestamp,
    /// The principal that uploaded it.
    created_by: String,
}

impl VersionView {
    /// The version; `keys` are the newest root's release keys, `aliases` the model's.
    pub(super) fn new(version: Version, keys: &KeySet, aliases: &[Alias]) -> Self {
        let named = aliases.iter().filter(|alias| alias.version == version.version);
        let said = |text: String| Some(text).filter(|text| !text.is_empty());
        VersionView {
            aliases: named.map(|alias| alias.alias.clone()).collect(),
            lineage: LineageView {
                run: said(version.lineage.run),
                dataset: said(version.lineage.dataset),
                source: said(version.lineage.source),
            },
            has_report: version.report_json.is_some(),
            release: version.release.as_deref().and_then(|message| ReleaseView::new(message, keys)),
            model: version.model,
            version: version.version,
            digest: version.digest,
            size: version.size,
            has_baseline: version.has_baseline,
            // It was written from the same type; what a newer program wrote may lack fields.
            artifact: serde_json::from_str(&version.manifest_json).unwrap_or_default(),
            created: Timestamp(version.created_us),
            created_by: version.created_by,
        }
    }
}

/// Where a version comes from, as whoever published it said; null: they did not.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LineageView {
    /// The experiment's run.
    #[schema(required)]
    run: Option<String>,
    /// SHA-256 of the data set, in hex.
    #[schema(required)]
    dataset: Option<String>,
    /// SHA-256 of the source, in hex.
    #[schema(required)]
    source: Option<String>,
}

/// What the owners of a model have signed about a version.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReleaseView {
    /// How many of the newest root's release keys have signed.
    signatures: usize,
    /// How many have to.
    threshold: u8,
    /// Whether enough have: only then can the version be assigned.
    complete: bool,
    /// The release keys that have signed, in hex.
    keys: Vec<String>,
    /// Versions of the model below this one are withdrawn.
    floor: u32,
    /// After which devices do not install it any more; null: never.
    #[schema(required)]
    expires: Option<Timestamp>,
    /// The hardware classes it is for; empty: all.
    hardware: Vec<String>,
}

impl ReleaseView {
    /// What the message says; `None` when it was not written by this program.
    pub(super) fn new(message: &[u8], keys: &KeySet) -> Option<Self> {
        let signed: Signed<'_, Release<'_>> = Signed::decode(message).ok()?;
        let expires = i64::try_from(signed.message.expires_unix_s).unwrap_or(i64::MAX);
        let signed_by = signed.signatures.iter().filter(|signature| keys.keys.contains(&signature.key));
        Some(ReleaseView {
            signatures: release::signers(&signed, keys),
            threshold: keys.threshold,
            complete: release::is_complete(&signed, keys),
            keys: signed_by.map(|signature| hex::encode(signature.key)).collect(),
            floor: signed.message.floor,
            expires: Some(expires)
                .filter(|seconds| *seconds > 0)
                .map(|seconds| Timestamp(seconds.saturating_mul(SECOND_US))),
            hardware: signed.message.hardware.iter().map(|class| class.0.to_owned()).collect(),
        })
    }
}

/// What an artifact says about itself.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub(super) struct ArtifactView {
    /// The name given to the compiler.
    name: String,
    /// Compiler and version.
    producer: String,
    /// The target that weights are packed for; `generic` runs everywhere.
    target: String,
    /// Format of the source file.
    source_format: String,
    /// SHA-256 of the source file, in hex.
    source_digest: String,
    /// Multiply-accumulates of one run.
    macs: u64,
    /// Bytes of arena that a session needs.
    arena_bytes: u64,
    /// The inputs.
    inputs: Vec<TensorView>,
    /// The outputs.
    outputs: Vec<TensorView>,
    /// How many golden vectors it carries.
    golden_vectors: u64,
}

/// An input or output.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub(super) struct TensorView {
    /// Its name.
    name: String,
    /// Element type.
    r#type: String,
    /// Its shape.
    shape: Vec<u32>,
    /// Of quantized tensors: `real = scale * (stored - zero_point)`; 0 for others.
    scale: f32,
    /// The stored value that means 0.
    zero_point: i32,
}

impl ArtifactView {
    pub(super) fn of(artifact: &Artifact<'_>) -> Result<Self, dunlin_artifact::FormatError> {
        let manifest = artifact.manifest()?;
        let mut names = manifest.io_names.split('\n');
        let mut view = |tensor: Tensor| TensorView {
            name: clean(names.next().unwrap_or_default()),
            r#type: tensor.dtype.to_string(),
            shape: tensor.shape().to_vec(),
            // JSON has no infinity; a file's numbers can be anything.
            scale: if tensor.scale.is_finite() { tensor.scale } else { 0.0 },
            zero_point: tensor.zero_point,
        };
        Ok(ArtifactView {
            inputs: artifact.inputs().map(&mut view).collect(),
            outputs: artifact.outputs().map(&mut view).collect(),
            name: clean(manifest.name),
            producer: clean(manifest.producer),
            target: clean(manifest.target),
            source_format: clean(manifest.source_format),
            source_digest: hex::encode(manifest.source_digest),
            macs: manifest.macs,
            arena_bytes: artifact.arena_len() as u64,
            golden_vectors: artifact.golden().count() as u64,
        })
    }
}

/// A text without control characters: PostgreSQL cannot store U+0000.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// What a version's artifact expects to see: the calibration data in the same bins that devices count into.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BaselineView {
    /// Samples of the calibration data.
    samples: u32,
    /// The monitored features, in the order of the reports.
    features: Vec<FeatureView>,
}

/// A monitored feature.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FeatureView {
    /// Its name.
    name: String,
    /// Where its values come from: `input`, `output` or `application`.
    source: &'static str,
    /// Which input or output.
    #[schema(required)]
    index: Option<u16>,
    /// Which values: `elements`, `element`, `max` or `argmax`.
    part: &'static str,
    /// Of `elements`: the stride; of `element`: the position.
    #[schema(required)]
    element: Option<u32>,
    /// How they are counted: `numeric`, `classes` or `categories`.
    kind: &'static str,
    /// Edges between the bins of numeric features, ascending.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    edges: Vec<f32>,
    /// Hashes of the known categories.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    categories: Vec<u32>,
    /// Reference counts: of numeric features the underflow, the bins, the overflow; of classes one each; of
    /// categories the known ones, then the buckets of all others.
    counts: Vec<u32>,
    /// Values that were missing.
    missing: u32,
    /// Numbers about numeric features: `min`, `max`, `mean`, `standard_deviation`; absent where there were no values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    moments: BTreeMap<&'static str, f64>,
}

impl BaselineView {
    pub(super) fn of(baseline: &Baseline<'_>) -> Self {
        let features = baseline.features().map(|feature| {
            let (source, index) = match feature.source {
                Source::Input(index) => ("input", Some(index)),
                Source::Output(index) => ("output", Some(index)),
                Source::Application => ("application", None),
            };
            let (part, element) = match feature.part {
                Part::Elements { stride } => ("elements", Some(stride)),
                Part::Element(element) => ("element", Some(element)),
                Part::Max => ("max", None),
                Part::ArgMax => ("argmax", None),
            };
            let mut view = FeatureView {
                name: feature.name.to_owned(),
                source,
                index,
                part,
                element,
                kind: "classes",
                edges: Vec::new(),
                categories: Vec::new(),
                counts: feature.bins.counts().iter().collect(),
                missing: feature.missing,
                moments: BTreeMap::new(),
            };
            match feature.bins {
                Bins::Classes(_) => {}
                Bins::Categories(categories) => {
                    view.kind = "categories";
                    view.categories = categories.known.iter().collect();
                }
                Bins::Numeric(numeric) => {
                    view.kind = "numeric";
                    view.edges = numeric.edges.iter().collect();
                    let count: f64 = view.counts.iter().map(|count| f64::from(*count)).sum();
                    let (unit, zero) = (f64::from(numeric.unit), f64::from(numeric.zero));
                    let mean = numeric.sum as f64 / count;
                    let variance = (numeric.squares as f64 / count - mean * mean).max(0.0);
                    let moments = [
                        ("min", f64::from(numeric.min)),
                        ("max", f64::from(numeric.max)),
                        ("mean", zero + unit * mean),
                        ("standard_deviation", unit * variance.sqrt()),
                    ];
                    view.moments = moments.into_iter().filter(|(_, value)| value.is_finite()).collect();
                }
            }
            view
        });
        BaselineView { samples: baseline.samples(), features: features.collect() }
    }
}
