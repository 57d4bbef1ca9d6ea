//! The models that the firmware runs, and their artifacts.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result, bail};
use xshell::cmd;

use crate::project::Project;

/// The models of MLPerf Tiny, which live in the larger set outside of the repository.
const MLPERF_TINY: [&str; 4] = ["kws_ref_int8", "ic_resnet8_int8", "vww_96_int8", "ad01_int8"];

/// The repository's own models for the same four tasks; its others show further kernels.
const OWN_TASKS: [&str; 4] =
    ["keyword_dscnn_int8", "digits_resnet_int8", "shapes_mobilenet_int8", "vibration_autoencoder_int8"];

/// The repository's own models of streams.
const STREAMS: [&str; 2] = ["keyword_streaming_int8", "keyword_svdf_int8"];

/// A model to run on the device.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    /// The file's name without its ending.
    pub(crate) name: String,
    /// The TensorFlow Lite file.
    pub(crate) file: PathBuf,
    /// Whether to run it on every CPU, or only on one.
    pub(crate) everywhere: bool,
}

/// A compiled model.
pub(crate) struct Artifact {
    pub(crate) file: PathBuf,
    pub(crate) bytes: u64,
    /// Multiply-accumulates of one run.
    pub(crate) macs: u64,
}

/// The larger set of models: `DUNLIN_MODELS`, or the folder beside the checkout; `None` where there is none.
pub(crate) fn reference_set(project: &Project) -> Result<Option<PathBuf>> {
    let folder = match env::var_os("DUNLIN_MODELS") {
        Some(named) => {
            let folder = env::current_dir()?.join(named);
            if !folder.is_dir() {
                bail!("DUNLIN_MODELS names {}, which is no folder", folder.display());
            }
            folder
        }
        None => project.root.join("../shared/models"),
    };
    Ok(folder.is_dir().then(|| folder.canonicalize()).transpose()?)
}

/// The repository's own models, and those of MLPerf Tiny where they are.
pub(crate) fn list(project: &Project) -> Result<Vec<Model>> {
    let own = project.root.join("models");
    let own = project.shell.read_dir(&own).with_context(|| format!("no models in {}", own.display()))?;
    let mut models: Vec<Model> = own
        .into_iter()
        .filter(|file| file.extension().is_some_and(|e| e == "tflite"))
        .filter_map(|file| {
            let name = file.file_stem()?.to_str()?.to_owned();
            Some(Model { everywhere: OWN_TASKS.contains(&name.as_str()), name, file })
        })
        .collect();
    if let Some(set) = reference_set(project)? {
        models.extend(
            MLPERF_TINY
                .iter()
                .map(|name| Model {
                    name: (*name).into(),
                    file: set.join(format!("models/{name}.tflite")),
                    everywhere: true,
                })
                .filter(|model| model.file.is_file()),
        );
    }
    Ok(models)
}

/// Compiles models with the `dunlin` program.
pub(crate) struct Compiler<'p> {
    project: &'p Project,
    program: PathBuf,
    folder: PathBuf,
}

impl<'p> Compiler<'p> {
    /// Builds the program when it is out of date.
    pub(crate) fn new(project: &'p Project) -> Result<Self> {
        project.cargo(&["build", "--quiet", "--package", "dunlin"]).quiet().run()?;
        Ok(Self {
            project,
            program: project.target.join("debug/dunlin"),
            folder: project.folder("artifacts")?,
        })
    }

    /// The `dunlin` program.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// Compiles a model into the target folder.
    pub(crate) fn compile(&self, model: &Model) -> Result<Artifact> {
        let file = self.folder.join(&model.name).with_extension("dunlin");
        let macs = self.compile_file(&model.file, &file)?;
        Ok(Artifact { bytes: fs::metadata(&file)?.len(), file, macs })
    }

    /// Compiles a file to another; the multiply-accumulates of one run.
    pub(crate) fn compile_file(&self, source: &Path, file: &Path) -> Result<u64> {
        self.compile_with(source, file, &[])
    }

    /// Compiles a file with a baseline of these samples.
    pub(crate) fn calibrate_file(&self, source: &Path, samples: &Path, file: &Path) -> Result<u64> {
        let calibrate = [OsStr::new("--calibrate"), samples.as_os_str()];
        let sequences = [&calibrate[..], &[OsStr::new("--sequences")]].concat();
        // The arrays of a stream have one axis more.
        let stream = source.file_stem().is_some_and(|name| STREAMS.iter().any(|stream| name == *stream));
        self.compile_with(source, file, if stream { &sequences } else { &calibrate })
    }

    fn compile_with(&self, source: &Path, file: &Path, arguments: &[&OsStr]) -> Result<u64> {
        let (program, shell) = (&self.program, &self.project.shell);
        let report = self.folder.join("report.json");
        let command = cmd!(shell, "{program} compile {source} -o {file} --report {report} {arguments...}");
        let output = command.quiet().ignore_status().output()?;
        if !output.status.success() {
            // Whether that matters is the caller's business.
            bail!("{}: {}", source.display(), String::from_utf8_lossy(&output.stderr).trim());
        }
        let report: Report = serde_json::from_str(&shell.read_file(report)?)?;
        Ok(report.macs)
    }
}

/// What is of interest in the compiler's report.
#[derive(serde::Deserialize)]
struct Report {
    macs: u64,
}
