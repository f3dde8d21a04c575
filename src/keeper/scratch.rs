//! Directories and templates from which a dyno's root is put together.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use super::ahead::{PROC, QUEUES, SHARED_MEMORY, SYS, TERMINALS, UNIFIED};
use crate::dyno::{LaunchPlan, SetUpStep, ShownSize};
use crate::sys::{self, MountAttributes, TreeFlags};

/// Most layers below an overlay.
pub(super) const LAYERS_MAX: usize = 8;

/// Nothing can be done with it but read.
pub(super) const INERT: MountAttributes = MountAttributes {
    read_only: true,
    no_suid: true,
    no_dev: true,
    no_exec: true,
};

/// Directories and templates of the keeper, in a mount namespace and a tmpfs of its own.
#[derive(Debug)]
pub(super) struct Scratch {
    pub(super) dir: PathBuf,
    /// What `size-N` shows.
    sizes: Vec<ShownSize>,
    /// Processes are in the v2 hierarchy, with controllers or not.
    pub(super) has_unified: bool,
}

impl Scratch {
    /// Makes the keeper's own mount namespace and fills `dir` (an existing, empty directory).
    pub(super) fn make(dir: &Path) -> io::Result<Self> {
        let none: Option<&str> = None;
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
        mount(
            Some("manifold"),
            dir,
            Some("tmpfs"),
            flags,
            Some("mode=755,size=16m"),
        )?;
        mount(none, dir, none, MsFlags::MS_PRIVATE, none)?;
        for layer in 0..LAYERS_MAX {
            std::fs::create_dir(dir.join(layer.to_string()))?;
        }
        for name in [
            "upper",
            "root",
            "empty",
            "dev",
            TERMINALS,
            SHARED_MEMORY,
            QUEUES,
            PROC,
            SYS,
            UNIFIED,
        ] {
            std::fs::create_dir(dir.join(name))?;
        }
        File::create(dir.join("nothing"))?;
        devices(&dir.join("dev"))?;
        let flags = MountAttributes {
            no_dev: false,
            ..INERT
        };
        template(&dir.join("empty"), &dir.join("empty"), INERT)?;
        // A cover over a file is the null device, which has to keep working.
        template(&dir.join("dev/null"), &dir.join("nothing"), flags)?;
        template(&dir.join("dev"), &dir.join("dev"), flags)?;
        std::fs::write(dir.join("controllers"), ShownSize::controllers())?;
        template(&dir.join("controllers"), &dir.join("controllers"), INERT)?;
        let groups = std::fs::read_to_string("/proc/self/cgroup")?;
        Ok(Self {
            dir: dir.to_owned(),
            sizes: Vec::new(),
            has_unified: groups.lines().any(|line| line.starts_with("0::")),
        })
    }

    /// Makes what a launch shows of its size, once for each size; true when one is new.
    pub(super) fn prepare(&mut self, plan: &LaunchPlan) -> io::Result<bool> {
        let known = self.sizes.len();
        for step in &plan.set_up {
            if let SetUpStep::Size(size) = step
                && !self.sizes.contains(size)
            {
                let dir = self.dir.join(format!("size-{}", self.sizes.len()));
                for (name, text) in size.files() {
                    let path = dir.join(name);
                    std::fs::create_dir_all(path.parent().unwrap_or(&dir))?;
                    std::fs::write(path, text)?;
                }
                template(&dir, &dir, INERT)?;
                self.sizes.push(*size);
            }
        }
        Ok(self.sizes.len() > known)
    }

    /// The name of what shows a size.
    pub(super) fn size(&self, size: &ShownSize) -> io::Result<String> {
        let at = self.sizes.iter().position(|known| known == size);
        let at = at.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))?;
        Ok(format!("size-{at}"))
    }
}

/// What stands at a path, as a place to mount on or to move away.
pub(super) fn place(path: &Path) -> io::Result<OwnedFd> {
    use nix::fcntl::{OFlag, open};
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    Ok(open(path, flags, nix::sys::stat::Mode::empty())?)
}

/// No mount of ours reaches the host, none of the host's reaches us.
pub(super) fn keep_mounts_private() -> io::Result<()> {
    let none: Option<&str> = None;
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    Ok(mount(none, "/", none, flags, none)?)
}

/// Makes the working directory the only root. `pivot_root`(".", "."): the old root ends up on top of
/// the new one and is detached.
pub(super) fn pivot_here() -> io::Result<()> {
    nix::unistd::pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    Ok(nix::unistd::chdir("/")?)
}

/// A mount with its attributes, to be cloned as it is: that costs a launch one call each. By path,
/// since a descriptor of it stands in the keeper's mount namespace and not in the dyno's copy.
fn template(source: &Path, target: &Path, flags: MountAttributes) -> io::Result<()> {
    let tree = sys::open_tree(source, TreeFlags::Clone)?;
    sys::mount_setattr(tree.as_fd(), flags, None, false)?;
    let target = place(target)?;
    sys::attach(tree.as_fd(), target.as_fd())
}

/// The /dev every dyno sees: nodes that are safe for all, links, mount points.
fn devices(dir: &Path) -> io::Result<()> {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    use std::os::unix::fs::PermissionsExt as _;
    let none: Option<&str> = None;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(
        Some("dev"),
        dir,
        Some("tmpfs"),
        flags,
        Some("mode=755,size=64k"),
    )?;
    mount(none, dir, none, MsFlags::MS_PRIVATE, none)?;
    let nodes = [
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    ];
    for (name, major, minor) in nodes {
        let path = dir.join(name);
        mknod(
            &path,
            SFlag::S_IFCHR,
            Mode::from_bits_truncate(0o666),
            makedev(major, minor),
        )?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))?;
    }
    let links = [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ];
    for (name, target) in links {
        std::os::unix::fs::symlink(target, dir.join(name))?;
    }
    for name in ["pts", "shm", "mqueue"] {
        std::fs::create_dir(dir.join(name))?;
    }
    Ok(())
}
