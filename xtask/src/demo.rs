//! `cargo xtask demo`: the main job from end to end, on a model of the repository.

use std::path::PathBuf;

use anyhow::{Context, Result};
use xshell::cmd;

use crate::firmware;
use crate::models::{Compiler, Model};
use crate::project::Project;
use crate::setup::Tools;

/// The model that is shown: it classifies spectrograms of spoken-word-like sounds.
const MODEL: &str = "keyword_dscnn_int8";

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Any TensorFlow Lite file instead of the repository's keyword model.
    model: Option<PathBuf>,
}

/// Compiles a model, runs it here on labelled data, then on an emulated Cortex-M4.
pub(crate) fn run(project: &Project, tools: &mut Tools, options: &Options) -> Result<()> {
    let compiler = Compiler::new(project)?;
    let own = project.root.join("models");
    let file = match &options.model {
        Some(named) => std::env::current_dir()?.join(named),
        None => own.join(MODEL).with_extension("tflite"),
    };
    let name = file.file_stem().and_then(|name| name.to_str()).context("the model's file has no name")?;
    let model = Model { name: name.to_owned(), file: file.clone(), everywhere: false };
    let dunlin = compiler.program();
    let artifact = project.folder("demo")?.join(name).with_extension("dunlin");
    cmd!(project.shell, "{dunlin} compile {file} -o {artifact} --name {name}").run()?;
    cmd!(project.shell, "{dunlin} verify {artifact}").run()?;
    if options.model.is_none() {
        let (inputs, labels) = (own.join("keyword_x_int8.npy"), own.join("keyword_y.npy"));
        cmd!(project.shell, "{dunlin} eval {artifact} --inputs {inputs} --labels {labels}").run()?;
    }
    cmd!(project.shell, "{dunlin} bench {artifact} --iterations 200").run()?;
    println!("\nThe same artifact on an emulated Cortex-M4:\n");
    firmware::run_models(project, tools, &[model], |_, cpu| cpu.name == "m4")?;
    Ok(())
}
