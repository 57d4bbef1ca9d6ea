//! Errors as the user sees them: one line that names the file, what is wrong, and the way out.

use std::path::{Path, PathBuf};

use serde::Serialize;

/// Why a command stopped.
#[derive(Debug, Serialize)]
pub(crate) struct Failure {
    kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    way_out: Option<String>,
}

/// Decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    /// The command line makes no sense: exit code 2.
    Usage,
    /// The command line was fine, but the work failed: exit code 1.
    Failure,
    /// The server does not accept the token, or not for this: exit code 3.
    Denied,
    /// The server has no such thing: exit code 4.
    #[serde(rename = "not_found")]
    NotFound,
    /// It contradicts what the server has: exit code 5.
    Conflict,
    /// The server cannot be reached, or not now: exit code 6. Worth repeating.
    Unavailable,
}

impl Failure {
    /// The work failed.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Failure { kind: Kind::Failure, file: None, message: message.into(), way_out: None }
    }

    /// The command line makes no sense.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Failure { kind: Kind::Usage, ..Failure::new(message) }
    }

    /// A server cannot be reached.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Failure { kind: Kind::Unavailable, ..Failure::new(message) }
    }

    /// A server refused with this HTTP status.
    pub(crate) fn of_status(status: u16, message: impl Into<String>) -> Self {
        let kind = match status {
            401 | 403 => Kind::Denied,
            404 => Kind::NotFound,
            409 | 412 => Kind::Conflict,
            408 | 429 | 502..=504 => Kind::Unavailable,
            _ => Kind::Failure,
        };
        Failure { kind, ..Failure::new(message) }
    }

    /// Whether a repetition may succeed.
    pub(crate) fn is_unavailable(&self) -> bool {
        self.kind == Kind::Unavailable
    }

    /// Whether the server has no such thing.
    pub(crate) fn is_not_found(&self) -> bool {
        self.kind == Kind::NotFound
    }

    /// What is wrong, without the file and the way out.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Names the file that is to blame.
    pub(crate) fn file(mut self, path: &Path) -> Self {
        self.file = Some(path.to_owned());
        self
    }

    /// Says what to do about it.
    pub(crate) fn way_out(mut self, way_out: impl Into<String>) -> Self {
        self.way_out = Some(way_out.into());
        self
    }

    /// 2 for wrong usage, 3 to 6 for a server's refusals that scripts tell apart, 1 for everything else.
    pub(crate) fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::Usage => 2,
            Kind::Failure => 1,
            Kind::Denied => 3,
            Kind::NotFound => 4,
            Kind::Conflict => 5,
            Kind::Unavailable => 6,
        }
    }

    /// `FILE: what; way out`, on one line.
    pub(crate) fn line(&self) -> String {
        let file = self.file.as_ref().map(|file| format!("{}: ", file.display())).unwrap_or_default();
        let way_out = self.way_out.as_ref().map(|text| format!("; {text}")).unwrap_or_default();
        crate::output::printable(&format!("{file}{}{way_out}", self.message))
    }

    /// The object that `--json` puts on standard output.
    pub(crate) fn json(&self) -> String {
        let object = serde_json::json!({ "error": self });
        format!("{object:#}\n")
    }
}

/// Reads a file of at most `limit` bytes.
pub(crate) fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>, Failure> {
    let unreadable = |error: std::io::Error| Failure::new(format!("cannot be read: {error}")).file(path);
    let len = std::fs::metadata(path).map_err(unreadable)?.len();
    if len > limit {
        return Err(Failure::new(format!("has {len} bytes; at most {limit} are read")).file(path));
    }
    std::fs::read(path).map_err(unreadable)
}

/// Writes a file.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    std::fs::write(path, bytes)
        .map_err(|error| Failure::new(format!("cannot be written: {error}")).file(path))
}
