//! The launchers we compare with.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

/// What a container engine allows by default to a process without capabilities.
const SYSCALLS: &str = include_str!("syscalls.txt");

/// Links of the merged `/usr`.
const LINKS: [&str; 4] = ["bin", "lib", "lib64", "sbin"];

/// A prepared OCI bundle, and the thread that crun is started from.
pub(super) struct Peers {
    bundle: tempfile::TempDir,
    prefix: String,
    rounds: mpsc::Sender<Command>,
    times: mpsc::Receiver<Result<Duration>>,
}

impl Peers {
    pub(super) fn prepare() -> Result<Self> {
        let bundle = tempfile::Builder::new()
            .prefix("manifold-bench-")
            .tempdir_in("/var/tmp")?;
        let root = bundle.path().join("rootfs");
        for dir in ["usr", "proc", "dev", "tmp"] {
            fs::create_dir_all(root.join(dir))?;
        }
        for link in LINKS {
            symlink(format!("usr/{link}"), root.join(link))?;
        }
        // The container's root is an ordinary user outside.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(bundle.path(), open)?;
        let (rounds, times) = crun_thread()?;
        let peers = Self {
            bundle,
            rounds,
            times,
            prefix: format!("manifold-bench-{}", std::process::id()),
        };
        peers.configure()?;
        // Once before anything is measured, so that a mistake here is told as one.
        let owner = || fs::metadata("/dev/null").map(|data| data.uid());
        let before = owner()?;
        peers.crun(usize::MAX)?;
        peers.bwrap()?;
        ensure!(
            before == owner()?,
            "a launch changed the owner of /dev/null"
        );
        Ok(peers)
    }

    fn configure(&self) -> Result<()> {
        let config = config(&self.prefix);
        let file = self.bundle.path().join("config.json");
        fs::write(&file, serde_json::to_string_pretty(&config)?)
            .with_context(|| format!("cannot write {}", file.display()))
    }

    /// One `crun run`, from its start to its end.
    pub(super) fn crun(&self, round: usize) -> Result<Duration> {
        self.oci("crun", round)
    }

    /// One `runc run`, of the same bundle.
    pub(super) fn runc(&self, round: usize) -> Result<Duration> {
        self.oci("runc", round)
    }

    fn oci(&self, program: &str, round: usize) -> Result<Duration> {
        let mut command = Command::new(program);
        command
            .arg("--root")
            .arg(self.bundle.path().join(format!("state-{program}")))
            .args(["run", "--bundle"])
            .arg(self.bundle.path())
            .arg(format!("{}-{round}", self.prefix));
        self.rounds.send(command).context("crun's thread ended")?;
        self.times.recv().context("crun's thread ended")?
    }

    /// `crun run`s to their end per second, one client per core.
    pub(super) fn crun_rate(&self, count: usize) -> Result<f64> {
        let clients = [crun_thread()?, crun_thread()?];
        let start = Instant::now();
        for (at, (rounds, _)) in clients.iter().enumerate() {
            let name = format!("{}-rate{at}", self.prefix);
            let bundle = self.bundle.path().join(format!("rate{at}"));
            fs::create_dir_all(&bundle)?;
            let mut config = config(&name);
            config["root"]["path"] = json!(self.bundle.path().join("rootfs"));
            fs::write(bundle.join("config.json"), config.to_string())?;
            for round in 0..count / clients.len() {
                let mut command = Command::new("crun");
                command.arg("--root").arg(bundle.join("state"));
                command.args(["run", "--bundle"]).arg(&bundle);
                command.arg(format!("{name}-{round}"));
                rounds.send(command).context("crun's thread ended")?;
            }
        }
        let mut done = 0.0;
        for (rounds, times) in clients {
            drop(rounds);
            while let Ok(time) = times.recv() {
                time?;
                done += 1.0;
            }
        }
        Ok(done / start.elapsed().as_secs_f64())
    }

    /// One `podman run` on the same files, with its own defaults.
    pub(super) fn podman(&self) -> Result<Duration> {
        let mut command = Command::new("podman");
        command.args(["run", "--rm", "--network=none", "--read-only"]);
        command.args(["--cap-drop=all", "--volume=/usr:/usr:ro", "--rootfs"]);
        command
            .arg(self.bundle.path().join("rootfs"))
            .arg("/bin/true");
        timed(&mut command)
    }

    /// One `bwrap`, from its start to its end. It has no cgroup limits and here no filter.
    #[expect(clippy::unused_self, reason = "used like the other peer")]
    pub(super) fn bwrap(&self) -> Result<Duration> {
        let mut command = Command::new("bwrap");
        command.args(["--unshare-all", "--unshare-user", "--die-with-parent"]);
        command.args(["--uid", "1000", "--gid", "1000", "--hostname", "bench"]);
        command.args(["--ro-bind", "/usr", "/usr"]);
        for link in LINKS {
            command.arg("--symlink").arg(format!("usr/{link}"));
            command.arg(format!("/{link}"));
        }
        command.args(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]);
        command.args(["--cap-drop", "ALL", "/bin/true"]);
        timed(&mut command)
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        // crun removes its cgroups itself; after one that was killed they are still there.
        let controllers = fs::read_dir("/sys/fs/cgroup").into_iter().flatten();
        let mut dirs: Vec<PathBuf> = controllers.flatten().map(|e| e.path()).collect();
        dirs.push("/sys/fs/cgroup".into());
        for dir in dirs {
            for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
                let name = entry.file_name();
                if name.to_string_lossy().starts_with(self.prefix.as_str()) {
                    // Still in use: the count of what is left tells it.
                    let _ = fs::remove_dir(entry.path());
                }
            }
        }
    }
}

/// Starts crun where it works: it refuses a host that has a cgroup v2 tree with controllers beside
/// the v1 ones. So the thread has a mount namespace of its own, without that tree.
fn crun_thread() -> Result<(mpsc::Sender<Command>, mpsc::Receiver<Result<Duration>>)> {
    let (rounds, wanted) = mpsc::channel::<Command>();
    let (answers, times) = mpsc::channel();
    let (entered, ready) = mpsc::channel();
    std::thread::spawn(move || {
        let outcome = hide_second_tree();
        let is_ready = outcome.is_ok();
        // A receiver that is gone has given up on us.
        if entered.send(outcome).is_err() || !is_ready {
            return;
        }
        for mut command in wanted {
            if answers.send(timed(&mut command)).is_err() {
                return;
            }
        }
    });
    ready.recv().context("crun's thread ended")??;
    Ok((rounds, times))
}

fn hide_second_tree() -> Result<()> {
    let tree = "/sys/fs/cgroup/unified";
    if !Path::new(tree).join("cgroup.controllers").exists() {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace")?;
    let nothing: Option<&str> = None;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(nothing, "/", nothing, private, nothing).context("cannot make mounts private")?;
    umount2(tree, MntFlags::MNT_DETACH).with_context(|| format!("cannot unmount {tree}"))
}

/// Standard streams are pipes, never `/dev/null` nor ours: crun gives what it finds there to the
/// container's user, and that would be the host's own device.
fn timed(command: &mut Command) -> Result<Duration> {
    command.stdin(Stdio::piped());
    let start = Instant::now();
    let output = command
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    let time = start.elapsed();
    ensure!(
        output.status.success(),
        "{command:?}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(time)
}

/// The OCI configuration: all namespaces, no capabilities, a filter, limits.
fn config(cgroup: &str) -> Value {
    let none: [&str; 0] = [];
    let mount = |to: &str, kind: &str, options: &[&str]| json!({ "destination": to, "type": kind, "source": kind, "options": options });
    let namespaces = ["user", "mount", "pid", "network", "uts", "ipc", "cgroup"];
    let ids = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
    json!({
        "ociVersion": "1.0.0",
        "process": {
            "terminal": false,
            "user": { "uid": 1000, "gid": 1000 },
            "args": ["/bin/true"],
            "env": ["PATH=/usr/bin:/bin"],
            "cwd": "/",
            "capabilities": {
                "bounding": none, "effective": none, "permitted": none,
                "inheritable": none, "ambient": none,
            },
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "bench",
        "mounts": [
            { "destination": "/usr", "type": "bind", "source": "/usr", "options": ["bind", "ro"] },
            mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", &["nosuid", "mode=755", "size=64k"]),
            mount("/tmp", "tmpfs", &["nosuid", "nodev"]),
        ],
        "linux": {
            "namespaces": namespaces.map(|kind| json!({ "type": kind })),
            "uidMappings": ids,
            "gidMappings": ids,
            "cgroupsPath": format!("/{cgroup}"),
            "resources": {
                "memory": { "limit": 512 << 20 },
                "cpu": { "shares": 1024, "quota": 100_000, "period": 100_000 },
                "pids": { "limit": 256 },
            },
            "seccomp": {
                "defaultAction": "SCMP_ACT_ERRNO",
                "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [{
                    "names": SYSCALLS.split_whitespace().collect::<Vec<_>>(),
                    "action": "SCMP_ACT_ALLOW",
                }],
            },
        },
    })
}
