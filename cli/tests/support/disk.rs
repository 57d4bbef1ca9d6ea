//! A small disk of a test's own, which can be full.

use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::Bench;
use super::plane::Surroundings;

/// Mounts a file system in memory on a folder, says so, and waits for its end.
const MOUNT: &str = "mount -t tmpfs -o size=$2m none \"$1\" && echo mounted && exec sleep infinity";

/// A file system in memory, in a name space of mounts that goes with the value. Only processes in its
/// [`SmallDisk::surroundings`] see it.
pub(crate) struct SmallDisk {
    holder: Child,
    folder: String,
    /// What enters the holder's name spaces.
    enter: &'static [&'static str],
}

impl SmallDisk {
    /// Mounts a disk of so many MiB on a folder of the bench.
    pub(crate) fn mount(bench: &Bench, folder: &str, mebibytes: u32) -> Self {
        let folder = bench.path(folder);
        std::fs::create_dir(&folder).expect("a folder");
        // An account of no rights is root in a name space of users; where those are not to be had, root needs none.
        let ways: [(&[&str], &'static [&'static str]); 2] = [
            (&["--user", "--map-root-user", "--mount"], &["--user", "--preserve-credentials", "--mount"]),
            (&["--mount"], &["--mount"]),
        ];
        for (unshare, enter) in ways {
            let mut holder = Command::new("unshare")
                .args(unshare)
                .args(["sh", "-c", MOUNT, "sh", &folder, &mebibytes.to_string()])
                .stdout(Stdio::piped())
                .spawn()
                .expect("unshare (Debian package util-linux)");
            let mut line = String::new();
            let said = BufReader::new(holder.stdout.as_mut().expect("piped")).read_line(&mut line);
            if said.is_ok() && line == "mounted\n" {
                return SmallDisk { holder, folder, enter };
            }
            // It has ended or is about to.
            let _ = holder.kill();
            let _ = holder.wait();
        }
        panic!(
            "this test mounts a small disk: run it as root, or allow name spaces of users \
             (kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns)"
        );
    }

    /// Where processes see the disk.
    pub(crate) fn surroundings(&self) -> Surroundings {
        let words = ["nsenter", "--target", &self.holder.id().to_string()].map(str::to_owned);
        let launcher = words.into_iter().chain(self.enter.iter().map(|&word| word.to_owned())).collect();
        Surroundings { launcher, ..Surroundings::default() }
    }

    /// Takes all the room that is left.
    pub(crate) fn fill(&self) {
        let mut file = File::create(self.filler()).expect("a file");
        for size in [1 << 16, 1 << 12] {
            loop {
                match file.write_all(&vec![0; size]) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    /// Gives it back.
    pub(crate) fn make_room(&self) {
        std::fs::remove_file(self.filler()).expect("the filler was there");
    }

    /// The filler, seen from outside.
    fn filler(&self) -> PathBuf {
        format!("/proc/{}/root{}/filler", self.holder.id(), self.folder).into()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
