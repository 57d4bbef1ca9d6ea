//! Where things are, and how cargo is called.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use xshell::{Cmd, Shell, cmd};

/// The checkout and its folder for generated files.
pub(crate) struct Project {
    /// Runs commands in the root of the checkout.
    pub(crate) shell: Shell,
    /// The root of the checkout.
    pub(crate) root: PathBuf,
    /// The one folder for everything that is built or downloaded.
    pub(crate) target: PathBuf,
}

impl Project {
    pub(crate) fn new() -> Result<Self> {
        let root =
            Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the xtask crate has no parent folder")?;
        let target = match env::var_os("CARGO_TARGET_DIR") {
            Some(folder) => env::current_dir()?.join(folder),
            None => root.join("target"),
        };
        let shell = Shell::new()?;
        shell.change_dir(root);
        // Separate workspaces (firmware, fuzz targets) share the folder.
        shell.set_var("CARGO_TARGET_DIR", &target);
        Ok(Self { shell, root: root.to_owned(), target })
    }

    /// `cargo` with these arguments.
    pub(crate) fn cargo<'s>(&'s self, arguments: &[&str]) -> Cmd<'s> {
        cmd!(self.shell, "cargo {arguments...}")
    }

    /// A folder below the target folder, made when it is not there.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf> {
        Ok(self.shell.create_dir(self.target.join(name))?)
    }

    /// The triple of this machine.
    pub(crate) fn host(&self) -> Result<String> {
        let version = cmd!(self.shell, "rustc --version --verbose").quiet().read()?;
        let host = version.lines().find_map(|line| line.strip_prefix("host: "));
        Ok(host.context("`rustc --version --verbose` names no host")?.to_owned())
    }
}

/// Runs every command even when one fails; the error names those that did.
pub(crate) fn run_all<'s>(commands: impl IntoIterator<Item = Cmd<'s>>) -> Result<()> {
    let mut failed = Vec::new();
    for command in commands {
        if command.run().is_err() {
            failed.push(format!("`{command}`"));
        }
    }
    if !failed.is_empty() {
        bail!("{} failed", failed.join(" and "));
    }
    Ok(())
}
