//! What goes wrong on a host, and what people are told.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use libtest_mimic::{Failed, Trial};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::certain::supervisor;
use crate::host::{Host, check, contains, deployed};
use crate::support::{self, Leftovers};

/// The cases of this file.
pub(crate) fn cases() -> Vec<Trial> {
    vec![
        Trial::test("errors::a_taken_port_is_named", port),
        Trial::test(
            "errors::who_may_not_use_the_socket_is_told_what_to_do",
            permission,
        ),
        Trial::test("errors::a_replaced_program_goes_on", replaced),
        Trial::test("errors::a_full_disk_is_called_one_and_costs_nothing", disk),
    ]
}

/// Another file in the program's place, as an upgrade puts it there: builds still unpack, and a
/// supervisor that dies comes back as the version that its keeper is.
fn replaced() -> Result<(), Failed> {
    let before = Leftovers::count();
    let mut host = Host::unlaunched("")?;
    let copy = host.dir.path().join("manifold");
    std::fs::copy(support::manifold(), &copy)?;
    let script = "copy=$0; shift; exec \"$copy\" \"$@\"";
    let words = ["sh", "-c", script, &copy.display().to_string()];
    host.wrapper = words.map(str::to_owned).into();
    host.launch()?;
    let other = host.dir.path().join("other");
    std::fs::write(&other, "#!/bin/false\n")?;
    std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o755))?;
    std::fs::rename(&other, &copy)?;
    host.deploy_tiny("tiny")?;
    let supervisor = supervisor(&host).ok_or("no supervisor")?;
    let name = std::fs::read_to_string(format!("/proc/{supervisor}/comm"))?;
    check(name == "manifold\n", name)?;
    support::signal(supervisor, nix::sys::signal::Signal::SIGKILL);
    host.eventually("the supervisor and web.1 are back", || {
        crate::certain::supervisor(&host).is_some_and(|pid| pid != supervisor)
            && host.all_up("tiny", &["web.1"])
    })?;
    host.stop()?;
    Leftovers::none_since(&before)
}

fn port() -> Result<(), Failed> {
    let before = Leftovers::count();
    let mut host = Host::start()?;
    let other = tempfile::tempdir_in("/var/tmp")?;
    support::prepare_state(&other.path().join("state"))?;
    let output = Command::new(support::manifold())
        .args(["supervise", "--http", &host.http.to_string(), "--state"])
        .arg(other.path().join("state"))
        .arg("--socket")
        .arg(other.path().join("manifold.sock"))
        .output()?;
    check(!output.status.success(), "it refuses")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    contains(
        &said,
        &format!("cannot listen on {} (another program has it)", host.http),
    )?;
    contains(&said, "--http")?;
    host.stop()?;
    Leftovers::none_since(&before)
}

fn permission() -> Result<(), Failed> {
    let host = Host::start()?;
    // The directory above is private, too: open it, so that only the socket's own mode counts.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(host.dir.path(), open)?;
    let program = host.dir.path().join("manifold");
    std::fs::copy(support::manifold(), &program)?;
    let output = Command::new(&program)
        .arg("apps")
        .env("MANIFOLD_SOCKET", host.socket())
        .uid(65534)
        .gid(65534)
        .output()?;
    check(output.status.code() == Some(6), format!("{output:?}"))?;
    contains(
        &String::from_utf8_lossy(&output.stderr),
        "usermod -aG manifold",
    )
}

/// Unmounts when dropped.
struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).expect("a mount of ours");
    }
}

fn disk() -> Result<(), Failed> {
    let mut host = deployed()?;
    host.stop()?;
    // Uploads lie below the state directory: a small file system there is soon full.
    let sources = host.dir.path().join("state/sources");
    mount(
        Some("manifold-test"),
        &sources,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("size=1m"),
    )?;
    let mounted = Mounted(sources);
    host.launch()?;
    host.eventually("web.1 is up again", || host.all_up("tiny", &["web.1"]))?;
    let big = tempfile::tempdir()?;
    let mut noise = vec![0; 4 << 20];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut noise)?;
    std::fs::write(big.path().join("noise"), noise)?;
    let output = host.cli(&["deploy", &big.path().display().to_string(), "-a", "tiny"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    check(output.status.code() == Some(8), format!("{output:?}"))?;
    contains(&said, "no space is left on the disk")?;
    check(
        host.all_up("tiny", &["web.1"]),
        "what ran before still runs",
    )?;
    let left = std::fs::read_dir(&mounted.0)?.count();
    check(left == 0, "the half upload is gone")?;
    host.ok(&["deploy", &crate::host::app_dir("tiny"), "-a", "tiny"])?;
    // Before the mount goes.
    host.stop()
}
