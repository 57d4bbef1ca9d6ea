//! `dunlin model push`: from a file to a version.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::sign::{self, SignArgs, Signed};
use crate::error::{Failure, read_file};
use crate::model::ModelFile;
use crate::output::{self, Outcome, printable};
use crate::server::{Api, text};

/// Bytes of the largest model that is sent: the format's own limit.
const MAX_MODEL: u64 = 2 << 30;
/// What stands at the fifth byte of a TensorFlow Lite model.
const TFLITE: &[u8] = b"TFL3";
/// How often a compilation is looked after.
const PERIOD: Duration = Duration::from_millis(300);

/// Upload an artifact as the newest version of a model, and sign it. The same artifact again is the same version.
///
/// A .tflite file is compiled by the control plane first. It is signed where there is a release key: see `dunlin keys`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The artifact, as `dunlin compile` writes it; or a .tflite file.
    file: PathBuf,
    /// The model's name; it is made when it is new.
    #[arg(long)]
    name: String,
    /// The experiment's run that the model comes from.
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    /// SHA-256 of the data set that it was trained with, in hex.
    #[arg(long, value_name = "SHA-256")]
    dataset: Option<String>,
    /// SHA-256 of what an artifact was compiled from, in hex [default: what the artifact says; of a .tflite file its own].
    #[arg(long, value_name = "SHA-256")]
    source: Option<String>,
    /// Do not wait until a .tflite file is compiled. The version is then not signed: see `dunlin model sign`.
    #[arg(long)]
    no_wait: bool,
    /// Do not sign it.
    #[arg(long, conflicts_with_all = ["keys", "folder", "floor", "hardware", "expires"])]
    no_sign: bool,
    #[command(flatten)]
    sign: SignArgs,
}

pub(super) fn run(api: &Api, args: &Args) -> Result<Outcome, Failure> {
    let (file, name) = (&args.file, &args.name);
    if file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("onnx")) {
        let failure = Failure::usage("is an ONNX model, which cannot be compiled yet").file(file);
        return Err(failure.way_out("convert it to a .tflite file"));
    }
    let bytes = read_file(file, MAX_MODEL)?;
    if !api.exists(&["models", name])? {
        api.post(&["models"], &json!({ "name": name }))?;
    }
    let said = [("run", &args.run), ("dataset", &args.dataset), ("source", &args.source)];
    let said = said.into_iter().filter_map(|(key, value)| Some((key, value.as_deref()?)));
    let versions = ["models", name, "versions"];
    if bytes.get(4..8) != Some(TFLITE) {
        let artifact = ModelFile::new(file, &bytes);
        let source = artifact.parse().ok().map(|model| hex::encode(model.manifest.source_digest));
        let stated = source.as_deref().filter(|_| args.source.is_none()).map(|source| ("source", source));
        let query: Vec<_> = said.chain(stated).collect();
        let version = api.upload(&versions, &query, &bytes).map_err(|failure| failure.file(file))?;
        return finish(api, args, version, &artifact);
    }
    let query: Vec<_> = said.chain([("format", "tflite")]).collect();
    let job = api.upload(&versions, &query, &bytes).map_err(|failure| failure.file(file))?;
    if args.no_wait {
        let shown = format!(
            "{name} is going to be compiled; `dunlin model compilations {name}` shows how far it is\n"
        );
        return Ok(Outcome::new(&job, shown));
    }
    let number = wait(api, file, name, job)?;
    let path = ["models", name, "versions", &number];
    let version = api.get(&path, &[])?;
    let artifact = api.download(&[&path[..], &["artifact"]].concat())?;
    let artifact = ModelFile::new(format!("{name}={number}").as_ref(), &artifact);
    // What is signed must come from this file.
    let digest = dunlin_compiler::source_digest(&bytes);
    if artifact.parse_intact()?.manifest.source_digest != digest {
        let what = format!("{name} version {number} was not compiled from this file");
        return Err(Failure::new(what).file(file).way_out("sign nothing and find out why"));
    }
    finish(api, args, version, &artifact)
}

/// Waits until a compilation is over; the number of the version.
fn wait(api: &Api, file: &Path, name: &str, mut job: Value) -> Result<String, Failure> {
    let id = text(&job["id"]);
    let bar = output::steps(job["steps"].as_u64().unwrap_or_default());
    loop {
        let ahead = job["ahead"].as_u64().unwrap_or_default();
        match job["status"].as_str() {
            Some("done") => {
                bar.finish_and_clear();
                return Ok(text(&job["version"]));
            }
            Some("queued" | "compiling") => {
                bar.set_position(job["steps_done"].as_u64().unwrap_or_default());
                bar.set_message(match job["step"].as_str() {
                    Some(step) => printable(step),
                    None => format!("{ahead} before it"),
                });
            }
            _ => {
                bar.finish_and_clear();
                return Err(Failure::new(printable(&text(&job["message"]))).file(file));
            }
        }
        std::thread::sleep(PERIOD);
        job = api.get(&["models", name, "compilations", &id], &[]).map_err(|failure| {
            failure.way_out(format!("it goes on; see `dunlin model compilations {name}`"))
        })?;
    }
}

/// Signs the version, if it is to be signed.
fn finish(api: &Api, args: &Args, mut version: Value, artifact: &ModelFile) -> Result<Outcome, Failure> {
    let name = &args.name;
    let identity = sign::identify(name, &version, artifact)?;
    let digest = printable(&text(&version["digest"]));
    let shown = format!("{name} version {}, digest {digest}\n", identity.version);
    if args.no_sign {
        return Ok(Outcome::new(&version, shown));
    }
    match sign::sign(api, &args.sign, &identity, !version["release"].is_null(), None) {
        Ok(signed) => {
            let shown = shown + &signed.text(name, identity.version);
            if let Signed::Yes(release) = signed {
                version["release"] = release;
            }
            Ok(Outcome::new(&version, shown))
        }
        // The version is there all the same.
        Err(failure) => Ok(Outcome::new(&version, shown + "not signed\n").failed(failure)),
    }
}
