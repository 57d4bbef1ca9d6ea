//! The models that the firmware runs, and their artifacts.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use xshell::cmd;

use crate::project::Project;

/// The models of MLPerf Tiny, which live in the larger set outside of the repository.
const MLPERF_TINY: [&str; 4] = ["kws_ref_int8", "ic_resnet8_int8", "vww_96_int8", "ad01_int8"];

/// A model to run on the device.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    /// The file's name without its ending.
    pub(crate) name: String,
    /// The TensorFlow Lite file.
    pub(crate) file: PathBuf,
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
    let mut models: Vec<Model> = project
        .shell
        .read_dir(&own)
        .with_context(|| format!("no models in {}", own.display()))?
        .iter()
        .filter(|file| file.extension().is_some_and(|e| e == "tflite"))
        .filter_map(|file| Some(Model { name: file.file_stem()?.to_str()?.to_owned(), file: file.clone() }))
        .collect();
    if let Some(set) = reference_set(project)? {
        models.extend(
            MLPERF_TINY
                .iter()
                .map(|name| Model { name: (*name).into(), file: set.join(format!("models/{name}.tflite")) })
                .filter(|model| model.file.is_file()),
        );
    }
    Ok(models)
}

/// Compiles a model; the artifact's path.
pub(crate) fn compile(project: &Project, model: &Model) -> Result<PathBuf> {
    let artifact = project.folder("artifacts")?.join(&model.name).with_extension("dunlin");
    let dunlin = command_line(project)?;
    let file = &model.file;
    cmd!(project.shell, "{dunlin} compile {file} -o {artifact}").ignore_stdout().run()?;
    Ok(artifact)
}

/// The `dunlin` program, built when it is out of date.
fn command_line(project: &Project) -> Result<PathBuf> {
    project.cargo(&["build", "--quiet", "--package", "dunlin"]).quiet().run()?;
    let program = project.target.join("debug/dunlin");
    Ok(Path::new(&program).to_owned())
}
