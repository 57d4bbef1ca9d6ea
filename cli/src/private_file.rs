//! Files that only their owner may read.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::error::Failure;

/// Writes a file as a whole or not at all, for this user's eyes only. A folder that is missing is made the same way.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    place(path, bytes, |new| fs::rename(new, path))
}

/// [`write()`] where there is no file yet: one that is there stays as it is, and is an error.
pub(crate) fn create(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    place(path, bytes, |new| {
        let linked = fs::hard_link(new, path);
        // What stays of it is of no use to anybody, and the next attempt removes it.
        let _ = fs::remove_file(new);
        linked
    })
}

fn place(path: &Path, bytes: &[u8], finish: impl Fn(&Path) -> std::io::Result<()>) -> Result<(), Failure> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |error: std::io::Error| Failure::new(format!("cannot be written: {error}")).file(path);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    // A new file, so that the permissions of an older one do not stay.
    let new = path.with_extension("new");
    let _ = fs::remove_file(&new);
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new);
    file.and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all())).map_err(failed)?;
    finish(&new).map_err(failed)?;
    // The new name is on the disk when its folder is.
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_created_is_never_replaced_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys/a.pem");
        create(&path, b"one").expect("a new file");
        let line = create(&path, b"two").expect_err("it is there").line();
        assert!(line.contains("a.pem") && line.contains("exists"), "{line}");
        assert_eq!(fs::read(&path).expect("a file"), b"one");
        write(&path, b"three").expect("replaced");
        assert_eq!(fs::read(&path).expect("a file"), b"three");
        assert_eq!(path.metadata().expect("a file").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path().join("keys")).expect("a folder").count(), 1);
    }
}
