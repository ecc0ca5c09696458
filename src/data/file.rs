//! Result files: written whole or not at all.
//!
//! A file is written under another name in its folder and then renamed, so that whoever reads it sees
//! the old contents or the new, also after a crash or on a full disk. What has no contents to keep (a
//! device, a pipe, a descriptor such as `/dev/fd/3`) is written directly. A symbolic link stays: what it
//! points to is replaced.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Symbolic links that are followed, as the system does.
const MOST_LINKS: usize = 40;

/// How a path is written to.
enum Target {
    /// Under another name in the same folder, then renamed to this one; the file that is there already.
    Whole(PathBuf, Option<Metadata>),
    /// As it is opened.
    Direct(PathBuf),
}

/// Writes a file whole or not at all.
///
/// # Errors
/// What the system says; a file that was there is then as it was.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_with(path, |to| to.write_all(bytes))
}

/// As [`write()`], with what `fill` writes.
///
/// # Errors
/// As [`write()`], and those of `fill`.
pub fn write_with(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    match target(path)? {
        Target::Direct(path) => fill(&mut open(&path)?),
        Target::Whole(path, old) => {
            let mut file = beside(&path)?;
            if let Some(old) = &old {
                keep_owner_and_mode(file.as_file(), old)?;
            }
            fill(file.as_file_mut())?;
            // Some file systems report a full disk only here.
            file.as_file().sync_all()?;
            file.persist(path).map_err(|e| e.error)?;
            Ok(())
        }
    }
}

/// Whether a file can be written, as far as that can be known before; nothing is changed.
///
/// # Errors
/// What the system says.
pub fn check(path: &Path) -> io::Result<()> {
    match target(path)? {
        Target::Whole(path, old) => {
            // A file that must not be written is not replaced either.
            old.map_or(Ok(()), |_| OpenOptions::new().write(true).open(&path).map(|_| ()))?;
            beside(&path).map(|_| ())
        }
        // Opening a pipe would wait for its reader.
        Target::Direct(path) if fs::metadata(&path)?.file_type().is_fifo() => Ok(()),
        Target::Direct(path) => open(&path).map(|_| ()),
    }
}

/// Where a path leads.
fn target(path: &Path) -> io::Result<Target> {
    let other = |kind, words: &str| Err(io::Error::new(kind, words));
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        if path.as_os_str().as_bytes().ends_with(b"/") {
            return other(ErrorKind::IsADirectory, "it names a folder, and not a file");
        }
        let Some(name) = path.file_name() else {
            return other(ErrorKind::InvalidInput, "it names no file");
        };
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => fs::canonicalize(parent)?,
            _ => fs::canonicalize(".")?,
        };
        let here = folder.join(name);
        // why: the links of descriptors there are not the files that they were opened as.
        if folder.starts_with("/proc") {
            return Ok(Target::Direct(here));
        }
        let found = match fs::symlink_metadata(&here) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(Target::Whole(here, None));
            }
            Err(error) => return Err(error),
        };
        if found.is_symlink() {
            path = folder.join(fs::read_link(&here)?);
        } else if found.is_dir() {
            return other(ErrorKind::IsADirectory, "it is a folder");
        } else if found.is_file() {
            return Ok(Target::Whole(here, Some(found)));
        } else {
            return Ok(Target::Direct(here));
        }
    }
    other(ErrorKind::InvalidInput, "too many symbolic links")
}

/// A temporary file in the same folder; removed unless it is renamed.
fn beside(path: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    // A temporary file is its owner's only; this one becomes a file like any other.
    builder.prefix(".attnbench-").permissions(Permissions::from_mode(0o666));
    builder.tempfile_in(path.parent().unwrap_or(Path::new(".")))
}

/// As writing into the old file would have left them. Only root may give a file to another owner.
fn keep_owner_and_mode(file: &File, old: &Metadata) -> io::Result<()> {
    let new = file.metadata()?;
    if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
        let _ = fchown(file, Some(old.uid()), Some(old.gid()));
    }
    file.set_permissions(old.permissions())
}

/// What is no regular file, opened for writing: standard output and error as they are, so that what
/// they lead to goes on where it is.
fn open(path: &Path) -> io::Result<File> {
    let own = Path::new("/proc").join(std::process::id().to_string()).join("fd");
    let stdout = || io::stdout().as_fd().try_clone_to_owned();
    let stderr = || io::stderr().as_fd().try_clone_to_owned();
    match path.strip_prefix(own).ok().and_then(Path::to_str) {
        Some("1") => stdout().map(File::from),
        Some("2") => stderr().map(File::from),
        _ => OpenOptions::new().append(true).open(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_that_cannot_be_filled_is_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        fs::write(&old, "as it was").unwrap();
        for path in [&old, &new] {
            let full = |to: &mut dyn Write| {
                to.write_all(b"half of")?;
                Err(ErrorKind::StorageFull.into())
            };
            assert_eq!(write_with(path, full).unwrap_err().kind(), ErrorKind::StorageFull);
        }
        assert_eq!(fs::read_to_string(&old).unwrap(), "as it was");
        assert_eq!(names(folder.path()), ["old"]);
        write(&old, b"new").unwrap();
        assert_eq!(fs::read_to_string(&old).unwrap(), "new");
    }

    #[test]
    fn modes_are_those_of_an_ordinary_file() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, plain) = (folder.path().join("ours"), folder.path().join("plain"));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        write(&ours, b"1").unwrap();
        fs::write(&plain, b"1").unwrap();
        assert_eq!(mode(&ours), mode(&plain));
        fs::set_permissions(&ours, Permissions::from_mode(0o640)).unwrap();
        write(&ours, b"2").unwrap();
        assert_eq!(mode(&ours) & 0o777, 0o640);
    }

    #[test]
    fn a_link_stays_and_what_it_points_to_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("far")).unwrap();
        let (there, link) = (folder.path().join("far/file"), folder.path().join("link"));
        symlink("far/file", &link).unwrap();
        // Also where there is nothing yet.
        for text in ["new", "newer"] {
            write(&link, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&there).unwrap(), text);
        }
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(names(folder.path()), ["far", "link"]);
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        symlink("b", &a).unwrap();
        symlink("a", &b).unwrap();
        assert!(write(&a, b"").is_err() && check(&a).is_err());
    }

    #[test]
    fn what_cannot_be_written_is_known_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("file"), "as it was").unwrap();
        fs::create_dir(path("folder")).unwrap();
        for wrong in ["folder", "folder/", "new/", "file/below", "none/new", ".."] {
            let before = names(folder.path());
            assert!(check(&path(wrong)).is_err() && write(&path(wrong), b"x").is_err(), "{wrong}");
            assert_eq!(names(folder.path()), before, "{wrong}");
        }
        for wrong in ["", "/", "/proc/new.json", "/proc/self/fd/1234", "/sys/new.json"] {
            assert!(check(Path::new(wrong)).is_err(), "{wrong}");
        }
        for right in [path("file"), path("new"), path("folder/../new"), "/dev/null".into()] {
            check(&right).unwrap_or_else(|e| panic!("{}: {e}", right.display()));
        }
        assert_eq!(names(folder.path()), ["file", "folder"]);
        assert_eq!(fs::read_to_string(path("file")).unwrap(), "as it was");
        // Root may write what is read-only.
        fs::set_permissions(path("file"), Permissions::from_mode(0o444)).unwrap();
        if OpenOptions::new().write(true).open(path("file")).is_err() {
            assert!(check(&path("file")).is_err());
        }
    }

    #[test]
    fn what_is_no_file_is_written_directly() {
        assert!(write(Path::new("/dev/null"), b"x").is_ok());
        let full = write(Path::new("/dev/full"), b"x").unwrap_err();
        assert_eq!(full.kind(), ErrorKind::StorageFull);
        assert!(fs::metadata("/dev/full").unwrap().file_type().is_char_device());
        // A descriptor of a file, which is not renamed under whoever has it open.
        let mut file = tempfile::tempfile().unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&file);
        file.write_all(b"1").unwrap();
        let path = PathBuf::from(format!("/dev/fd/{number}"));
        check(&path).unwrap();
        write(&path, b"2").unwrap();
        let mut text = String::new();
        io::Seek::rewind(&mut file).unwrap();
        io::Read::read_to_string(&mut file, &mut text).unwrap();
        assert_eq!(text, "12");
    }
}
