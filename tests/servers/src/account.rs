//! Which account a server runs under.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

/// The user and group that a server that refuses to be root runs as; `None` where the tests are not root themselves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account(Option<(u32, u32)>);

impl Account {
    /// The account of `user` when the tests run as root, otherwise the one they have.
    pub(crate) fn of(user: &str) -> io::Result<Self> {
        // The process' own folder in /proc belongs to its effective user.
        if fs::metadata("/proc/self")?.uid() != 0 {
            return Ok(Account(None));
        }
        let accounts = fs::read_to_string("/etc/passwd")?;
        let ids = accounts.lines().find_map(|line| {
            let mut fields = line.split(':');
            let (name, uid, gid) = (fields.next()?, fields.nth(1)?, fields.next()?);
            Some((uid.parse().ok()?, gid.parse().ok()?)).filter(|_| name == user)
        });
        match ids {
            Some(ids) => Ok(Account(Some(ids))),
            None => Err(io::Error::new(io::ErrorKind::NotFound, format!("there is no user {user}"))),
        }
    }

    /// Gives a folder to the account.
    pub(crate) fn own(self, folder: &Path) -> io::Result<()> {
        match self.0 {
            Some((user, group)) => chown(folder, Some(user), Some(group)),
            None => Ok(()),
        }
    }

    /// Makes the command run under the account.
    pub(crate) fn run(self, command: &mut Command) -> &mut Command {
        match self.0 {
            Some((user, group)) => command.uid(user).gid(group),
            None => command,
        }
    }
}
