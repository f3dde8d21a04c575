//! The root of the `host` stack: links, empty directories and a minimal /etc.
//!
//! Only what is named here is copied from the host; nothing private of it (shadow, keys, /root,
//! /home, /var, sockets) can get in by accident.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::RootfsError;
use crate::sys::give_to_app as chown_app;

/// Directories of the root, with their modes.
const DIRECTORIES: &[(&str, u32)] = &[
    ("app", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("etc/profile.d", 0o755),
    ("etc/ssl", 0o755),
    ("etc/ssl/certs", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("var", 0o755),
    ("var/tmp", 0o1777),
];

/// Links of the merged /usr.
const LINKS: &[&str] = &["bin", "lib", "lib32", "lib64", "libx32", "sbin"];

/// Single files of the host's /etc that programs below /usr read.
const FILES: &[&str] = &[
    "ca-certificates.conf",
    "debian_version",
    "ethertypes",
    "host.conf",
    "ld.so.cache",
    "ld.so.conf",
    "localtime",
    "magic",
    "mime.types",
    "protocols",
    "services",
    "timezone",
    "ssl/openssl.cnf",
    "ssl/certs/ca-certificates.crt",
];

/// Whole directories of the host's /etc, for runtimes below /usr.
const TREES: &[&str] = &[
    "alternatives",
    "java-17-openjdk",
    "java-21-openjdk",
    "ld.so.conf.d",
    "perl",
    "python3",
    "python3.11",
    "ruby",
    "ssl/certs",
];

/// Ours.
const OURS: &[(&str, &str)] = &[
    ("etc/passwd", include_str!("../../rootfs/etc/passwd")),
    ("etc/group", include_str!("../../rootfs/etc/group")),
    (
        "etc/nsswitch.conf",
        include_str!("../../rootfs/etc/nsswitch.conf"),
    ),
    ("etc/profile", include_str!("../../rootfs/etc/profile")),
];

/// Fills `root` (a new directory).
pub(super) fn fill(root: &Path, etc: &Path, resolv_conf: &str) -> Result<(), RootfsError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| RootfsError::Skeleton { path, source }
    };
    for (name, mode) in DIRECTORIES {
        let path = root.join(name);
        fs::create_dir(&path)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(*mode)))
            .map_err(failed(&path))?;
    }
    for name in LINKS {
        // Only what the host has merged: an unmerged /bin has no place in this stack.
        if fs::read_link(Path::new("/").join(name)).is_ok_and(|to| to.starts_with("usr")) {
            let path = root.join(name);
            symlink(format!("usr/{name}"), &path).map_err(failed(&path))?;
        }
    }
    for name in FILES {
        let (from, to) = (etc.join(name), root.join("etc").join(name));
        copy_file(&from, &to).map_err(failed(&to))?;
    }
    for name in TREES {
        let (from, to) = (etc.join(name), root.join("etc").join(name));
        copy_tree(&from, &to).map_err(failed(&to))?;
    }
    for (name, text) in OURS {
        let path = root.join(name);
        fs::write(&path, text).map_err(failed(&path))?;
    }
    let path = root.join("etc/resolv.conf");
    fs::write(&path, resolv_conf).map_err(failed(&path))?;
    let path = root.join("etc/os-release");
    symlink("../usr/lib/os-release", &path).map_err(failed(&path))?;
    let path = root.join("app");
    chown_app(&path).map_err(failed(&path))
}

/// Copies the contents of a file (links followed), world-readable; a missing one is skipped.
fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    match fs::read(from) {
        Ok(bytes) => {
            fs::write(to, bytes)?;
            fs::set_permissions(to, fs::Permissions::from_mode(0o644))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Copies what everybody may read of a tree: directories, regular files, links as links.
fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(from) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    fs::create_dir_all(to)?;
    for entry in entries {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        let metadata = entry.metadata()?;
        if kind.is_symlink() {
            let link = fs::read_link(entry.path())?;
            match symlink(link, &target) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other?,
            }
        } else if kind.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else if kind.is_file() && metadata.permissions().mode() & 0o004 != 0 {
            copy_file(&entry.path(), &target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_private_of_the_host_gets_in() {
        let dir = tempfile::tempdir().expect("a directory");
        let (etc, root) = (dir.path().join("etc"), dir.path().join("root"));
        for name in ["ssl/private", "ssl/certs", "ssh", "alternatives", "perl"] {
            fs::create_dir_all(etc.join(name)).expect("made");
        }
        fs::create_dir(&root).expect("made");
        for name in [
            "shadow",
            "ssh/ssh_host_key",
            "ssl/private/key.pem",
            "services",
            "perl/secret",
        ] {
            fs::write(etc.join(name), name).expect("written");
        }
        let private = fs::Permissions::from_mode(0o600);
        fs::set_permissions(etc.join("perl/secret"), private).expect("set");
        symlink("/usr/bin/mawk", etc.join("alternatives/awk")).expect("linked");
        fill(&root, &etc, "nameserver 192.0.2.1\n").expect("filled");
        for hidden in [
            "etc/shadow",
            "etc/ssh",
            "etc/ssl/private",
            "etc/perl/secret",
            "home",
        ] {
            assert!(!root.join(hidden).exists(), "{hidden}");
        }
        assert!(root.join("etc/services").is_file());
        assert!(root.join("etc/alternatives/awk").is_symlink());
        let passwd = fs::read_to_string(root.join("etc/passwd")).expect("read");
        assert!(passwd.contains("dyno:x:1000:1000::/app:/bin/bash"));
    }
}
