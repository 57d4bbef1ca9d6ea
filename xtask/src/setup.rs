//! Installs what the steps need, and only what is missing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use dunlin_test_servers::{FakeClock, Mosquitto, Postgres};
use xshell::cmd;

use crate::project::Project;

/// The bare-metal targets that the no_std crates and the firmware are built for.
pub(crate) const BARE_METAL: [&str; 3] =
    ["thumbv6m-none-eabi", "thumbv7em-none-eabihf", "thumbv8m.main-none-eabihf"];

/// What the oracle consists of, pinned.
const ORACLE: [&str; 2] = ["tests/oracle/requirements.txt", "tests/oracle/requirements-litert.txt"];

/// What makes requests from the API's description, pinned.
const API_TESTER: [&str; 1] = ["tests/api/requirements.txt"];

const API_TESTER_FOLDER: &str = "api-python";

/// What speaks S3, pinned.
const S3: [&str; 1] = ["tests/s3/requirements.txt"];

const S3_FOLDER: &str = "s3-python";

/// Something that a step needs on the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Need {
    /// The core library for [`BARE_METAL`].
    BareMetal,
    /// QEMU for Arm boards.
    Emulator,
    /// The emulator's plugin that counts instructions.
    Counter,
    /// A C++ compiler, which the fuzzing engine is built with.
    Cxx,
    /// Python with TensorFlow Lite Micro's interpreter, the oracle of the exactness tests.
    Oracle,
    /// PostgreSQL, which the control plane is tested against.
    Postgres,
    /// An MQTT broker, which the control plane and the agent are tested against.
    Mosquitto,
    /// Shows processes another time of day.
    FakeClock,
    /// An S3 service, which artifacts are kept in.
    S3,
    /// Makes requests from the description of the HTTP API.
    ApiTester,
}

impl Need {
    const ALL: [Need; 10] = [
        Need::BareMetal,
        Need::Emulator,
        Need::Counter,
        Need::Cxx,
        Need::Oracle,
        Need::Postgres,
        Need::Mosquitto,
        Need::FakeClock,
        Need::S3,
        Need::ApiTester,
    ];

    fn name(self) -> &'static str {
        match self {
            Need::BareMetal => "bare-metal targets",
            Need::Emulator => "QEMU",
            Need::Counter => "counting plugin",
            Need::Cxx => "C++ compiler",
            Need::Oracle => "oracle",
            Need::Postgres => "PostgreSQL",
            Need::Mosquitto => "Mosquitto",
            Need::FakeClock => "libfaketime",
            Need::S3 => "S3 service",
            Need::ApiTester => "API tester",
        }
    }
}

/// What was found or installed so far; each need is looked at once.
pub(crate) struct Tools<'p> {
    project: &'p Project,
    state: BTreeMap<Need, Result<String, String>>,
    package_lists_read: bool,
}

impl<'p> Tools<'p> {
    pub(crate) fn new(project: &'p Project) -> Self {
        Self { project, state: BTreeMap::new(), package_lists_read: false }
    }

    /// Makes `need` available. What it is, in words, or why it cannot be had.
    pub(crate) fn need(&mut self, need: Need) -> Result<String> {
        if !self.state.contains_key(&need) {
            let found = match need {
                Need::BareMetal => self.bare_metal(),
                Need::Emulator => self.emulator(),
                Need::Counter => self.counter(),
                Need::Cxx => self.command("c++", "g++"),
                Need::Oracle => self.oracle(),
                Need::Postgres => self.server(Postgres::programs, "postgresql"),
                Need::Mosquitto => self.server(Mosquitto::program, "mosquitto"),
                Need::FakeClock => self.server(FakeClock::library, "libfaketime"),
                Need::S3 => self.python_packages(S3_FOLDER, &S3),
                Need::ApiTester => self.python_packages(API_TESTER_FOLDER, &API_TESTER),
            };
            self.state.insert(need, found.map_err(|e| format!("{}: {e:#}", need.name())));
        }
        self.state[&need].clone().map_err(|reason| anyhow!(reason))
    }

    fn bare_metal(&mut self) -> Result<String> {
        // Only needed where rustup cannot install the targets: the script says so when it is missing then.
        let _ = self.command("xz", "xz-utils");
        let work = self.project.target.join("cross-toolchain");
        cmd!(self.project.shell, "tools/cross-toolchain.sh {BARE_METAL...}")
            .env("WORK", work)
            .quiet()
            .run()?;
        Ok(BARE_METAL.join(", "))
    }

    fn emulator(&mut self) -> Result<String> {
        self.command("qemu-system-arm", "qemu-system-arm")
    }

    fn counter(&mut self) -> Result<String> {
        self.need(Need::Emulator)?;
        self.command("cc", "gcc")?;
        let plugin = counting_plugin(self.project)?;
        let source = self.project.root.join("tools/regioncount.c");
        if !is_newer(&plugin, &source) {
            let api = format!("-DAPI={}", plugin_api(self.project)?);
            cmd!(self.project.shell, "cc -O2 -fPIC -shared -fvisibility=hidden {api} -o {plugin} {source}")
                .quiet()
                .run()?;
        }
        Ok(plugin.display().to_string())
    }

    /// A server or library that tests find for themselves; its place.
    fn server(&mut self, find: impl Fn() -> Option<PathBuf>, package: &str) -> Result<String> {
        if find().is_none() {
            self.install(package)?;
        }
        let place =
            find().with_context(|| format!("{package} is installed, but its programs are not found"))?;
        Ok(place.display().to_string())
    }

    fn oracle(&mut self) -> Result<String> {
        let shell = &self.project.shell;
        let packages = self.python_packages("oracle-python", &ORACLE)?;
        let python = oracle_python(self.project);
        cmd!(shell, "{python} -c 'from tflite_micro.python.tflite_micro import runtime'").quiet().run()?;
        Ok(packages)
    }

    /// A virtual environment in the target folder, with the pinned packages of these files; what they are.
    fn python_packages(&mut self, folder: &str, requirements: &[&str]) -> Result<String> {
        let shell = &self.project.shell;
        let wanted = requirements.iter().map(|file| shell.read_file(file)).collect::<Result<String, _>>()?;
        let folder = self.project.target.join(folder);
        let stamp = folder.join("installed-requirements.txt");
        let packages = wanted.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join(", ");
        if shell.read_file(&stamp).is_ok_and(|installed| installed == wanted) {
            return Ok(packages);
        }
        shell.remove_path(&folder)?;
        self.virtual_environment(&folder)?;
        let python = folder.join("bin/python");
        let files = requirements.iter().flat_map(|file| ["--requirement", file]);
        cmd!(shell, "{python} -m pip install --quiet {files...}").quiet().run()?;
        shell.write_file(&stamp, &wanted)?;
        Ok(packages)
    }

    /// The interpreter's release matters: the oracle's packages are compiled for a few of them only.
    fn virtual_environment(&mut self, folder: &Path) -> Result<()> {
        let shell = &self.project.shell;
        let make = |python: &str| {
            cmd!(shell, "{python} -m venv --clear {folder}").quiet().ignore_stdout().ignore_stderr().run()
        };
        const INTERPRETERS: [&str; 3] = ["python3.11", "python3", "/usr/bin/python3"];
        if INTERPRETERS.iter().any(|python| make(python).is_ok()) {
            return Ok(());
        }
        self.install("python3-venv")?;
        make("/usr/bin/python3").context("no Python that can make a virtual environment")
    }

    /// A command of that name; its version's first line.
    fn command(&mut self, command: &str, package: &str) -> Result<String> {
        let version = || cmd!(self.project.shell, "{command} --version").quiet().ignore_stderr().read().ok();
        let text = match version() {
            Some(text) => text,
            None => {
                self.install(package)?;
                version().with_context(|| format!("{package} is installed, but `{command}` does not run"))?
            }
        };
        Ok(text.lines().next().unwrap_or(command).to_owned())
    }

    /// Installs a Debian package.
    fn install(&mut self, package: &str) -> Result<()> {
        let shell = &self.project.shell;
        if cmd!(shell, "apt-get --version").quiet().ignore_stdout().ignore_stderr().run().is_err() {
            bail!("install {package} (this is not a Debian machine, so it is not done automatically)");
        }
        let root = cmd!(shell, "id -u").quiet().read()? == "0";
        let sudo: &[&str] = if root { &[] } else { &["sudo", "-n"] };
        let options = ["-qq", "-o", "DPkg::Lock::Timeout=600", "-o", "Acquire::Retries=3"];
        let apt = |arguments: &[&str]| {
            let command =
                [sudo, &["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"], &options, arguments].concat();
            let (program, rest) = command.split_first().expect("it has at least these words");
            cmd!(shell, "{program} {rest...}").ignore_stdout().run()
        };
        if !self.package_lists_read {
            apt(&["update"]).context("cannot read the package lists")?;
            self.package_lists_read = true;
        }
        apt(&["install", "-y", "--no-install-recommends", package])
            .with_context(|| format!("cannot install the Debian package {package}"))
    }
}

/// The oracle's interpreter, whether it is there or not.
pub(crate) fn oracle_python(project: &Project) -> PathBuf {
    project.target.join("oracle-python/bin/python")
}

/// The program that makes requests from the API's description, whether it is there or not.
pub(crate) fn api_tester(project: &Project) -> PathBuf {
    project.target.join(API_TESTER_FOLDER).join("bin/schemathesis")
}

/// The program that speaks S3, whether it is there or not.
pub(crate) fn s3_service(project: &Project) -> PathBuf {
    project.target.join(S3_FOLDER).join("bin/moto_server")
}

/// The plugin that fits the installed emulator, whether it is there or not.
pub(crate) fn counting_plugin(project: &Project) -> Result<PathBuf> {
    Ok(project.folder("qemu-plugins")?.join(format!("libregioncount-api{}.so", plugin_api(project)?)))
}

/// The version of the installed emulator's plugin interface.
fn plugin_api(project: &Project) -> Result<u32> {
    let text = cmd!(project.shell, "qemu-system-arm --version").quiet().read()?;
    plugin_api_of(&text).with_context(|| format!("no version number in {text:?}"))
}

/// The plugin interface changed with QEMU 8.2; `version` is what the emulator prints about itself.
fn plugin_api_of(version: &str) -> Option<u32> {
    let numbers = version.split_whitespace().find_map(|word| {
        let mut numbers = word.split('.').map(|number| number.parse::<u32>().ok());
        Some((numbers.next()??, numbers.next()??))
    })?;
    Some(if numbers >= (8, 2) { 2 } else { 1 })
}

fn is_newer(made: &Path, source: &Path) -> bool {
    let modified = |path: &Path| path.metadata().and_then(|m| m.modified());
    matches!((modified(made), modified(source)), (Ok(made), Ok(source)) if made > source)
}

/// `cargo xtask setup`.
pub(crate) fn run(tools: &mut Tools) -> Result<()> {
    let mut missing = 0;
    for need in Need::ALL {
        match tools.need(need) {
            Ok(what) => println!("{}: {what}", need.name()),
            Err(reason) => {
                println!("NOT AVAILABLE: {reason:#}");
                missing += 1;
            }
        }
    }
    if missing > 0 {
        bail!("{missing} of {} parts could not be set up", Need::ALL.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::plugin_api_of;

    #[test]
    fn the_plugin_interface_follows_the_emulator() {
        assert_eq!(plugin_api_of("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)"), Some(1));
        assert_eq!(plugin_api_of("QEMU emulator version 8.1.5"), Some(1));
        assert_eq!(plugin_api_of("QEMU emulator version 8.2.0"), Some(2));
        assert_eq!(plugin_api_of("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)"), Some(2));
        assert_eq!(plugin_api_of("no number here"), None);
    }
}
