//! The server under measurement: a process of its own.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dunlin_control_plane::config::Config;
use dunlin_control_plane::serve::{Options, run};

/// The argument with which this program becomes the server.
pub(crate) const COMMAND: &str = "serve";

/// What `dunlin serve --data-dir FOLDER` does, with ports that the system chooses; prints its address and its token.
pub(crate) async fn serve() {
    let folder = std::env::args().nth(2).expect("the data folder");
    // The administrator makes all devices within seconds.
    let rate = "1000000";
    let flags = [
        ("data-dir", folder.as_str()),
        ("http-listen", "127.0.0.1:0"),
        ("mqtt-listen", "127.0.0.1:0"),
        ("http-token-rate", rate),
        ("http-token-burst", rate),
    ];
    let flags: BTreeMap<String, String> =
        flags.into_iter().map(|(flag, value)| (flag.to_owned(), value.to_owned())).collect();
    let (config, _) = Config::load(None, &BTreeMap::new(), &flags).expect("settings");
    let started = run(config, Options::default(), |server| {
        println!("{} {}", server.http_address(), server.admin_token().expect("the first start").reveal());
    });
    started.await.expect("a server");
}

/// A running server; killed when it is dropped.
pub(crate) struct Served {
    child: Child,
    /// Its HTTP address.
    pub(crate) address: String,
    /// An administrator's token.
    pub(crate) token: String,
    _folder: tempfile::TempDir,
}

impl Served {
    pub(crate) fn start() -> Served {
        let folder = tempfile::tempdir().expect("a folder");
        let program = std::env::current_exe().expect("this program");
        let mut child = Command::new(program)
            .arg(COMMAND)
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let mut line = String::new();
        let output = child.stdout.take().expect("piped");
        BufReader::new(output).read_line(&mut line).expect("a line");
        let (address, token) = line.trim().split_once(' ').expect("the server says where it is");
        Served { child, address: address.to_owned(), token: token.to_owned(), _folder: folder }
    }

    /// What it has used so far.
    pub(crate) fn usage(&self) -> Usage {
        let read =
            |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).expect("Linux");
        let status = read("status");
        let bytes = |name: &str| {
            let line =
                status.lines().find_map(|line| line.strip_prefix(name)).expect("a line of the kernel's");
            line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1024
        };
        let stat = read("stat");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        // User and system time, in hundredths of a second.
        let ticks = |place: usize| fields.get(place).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        Usage {
            cpu: Duration::from_millis((ticks(11) + ticks(12)) * 10),
            resident: bytes("VmRSS:"),
            peak: bytes("VmHWM:"),
        }
    }

    /// Its peak of memory is measured anew from here.
    pub(crate) fn forget_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").expect("Linux");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process has used, from Linux' `/proc`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Processor time.
    pub(crate) cpu: Duration,
    /// Bytes of memory now.
    pub(crate) resident: u64,
    /// Bytes of memory at most.
    pub(crate) peak: u64,
}

/// Bytes in words.
pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
