//! What a dyno may use, and what happens past it: the host and the neighbours go on.

use libtest_mimic::{Failed, Trial};

use crate::host::{Host, app_dir, check, contains};
use crate::support::Leftovers;

/// The cases of this file.
pub(crate) fn cases() -> Vec<Trial> {
    vec![Trial::test("limits::disk", disk)]
}

/// Small sizes, so that filling them takes no time.
const SIZES: &str = "
[disk]
build_mb = 32
cache_mb = 64
[sizes.Tiny]
memory_mb = 256
disk_mb = 32
inodes = 2000
";

fn started(settings: &str) -> Result<Host, Failed> {
    let host = Host::with(settings)?;
    host.ok(&["create", "tiny"])?;
    host.ok(&["deploy", &app_dir("tiny"), "-a", "tiny"])?;
    host.eventually("web.1 is up", || host.all_up("tiny", &["web.1"]))?;
    Ok(host)
}

/// What a script in a one-off dyno of that size prints.
fn inside(host: &Host, size: &str, script: &str) -> String {
    let words = ["run", "-a", "tiny", "-s", size, "--", "bash", "-c", script];
    let output = host.cli(&words);
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

const FILL: &str = r"
import errno, os
def until_full(step):
    try:
        for n in range(10**6):
            step(n)
    except OSError as error:
        return errno.errorcode[error.errno]
chunk = b'x' * (1 << 20)
stat = os.statvfs('/tmp')
print('df', stat.f_blocks * stat.f_frsize >> 20, 'MiB')
big = open('/tmp/big', 'wb', buffering=0)
print('bytes in /tmp', until_full(lambda n: big.write(chunk)), big.tell() >> 20)
print('elsewhere', until_full(lambda n: open('/app/more', 'ab', buffering=0).write(chunk)))
os.unlink('/tmp/big')
print('deleted but open', until_full(lambda n: open('/var/tmp/x', 'ab', buffering=0).write(chunk)))
big.close()
print('freed', open('/app/again', 'wb', buffering=0).write(chunk))
for name in ('/app/more', '/var/tmp/x', '/app/again'):
    if os.path.exists(name): os.unlink(name)
try:
    fd = os.open('/tmp/sparse', os.O_CREAT | os.O_RDWR)
    os.ftruncate(fd, 1 << 40)
    print('sparse', until_full(lambda n: os.pwrite(fd, chunk, n << 30)))
except OSError as error:
    print('sparse', errno.errorcode[error.errno])
os.close(fd)
os.unlink('/tmp/sparse')
fd = os.open('/tmp/ahead', os.O_CREAT | os.O_RDWR)
try:
    os.posix_fallocate(fd, 0, 1 << 30)
    print('fallocate done')
except OSError as error:
    print('fallocate', errno.errorcode[error.errno])
os.close(fd)
os.unlink('/tmp/ahead')
os.mkdir('/tmp/many')
made = []
def make(n):
    os.close(os.open('/tmp/many/%d' % n, os.O_CREAT)); made.append(n)
print('inodes', until_full(make), len(made) < 2000)
";

/// X-05, X-06: bytes and inodes end at the size's bound, also for a build; the host keeps its
/// room, what was used is given back, and nothing stays mounted.
fn disk() -> Result<(), Failed> {
    let before = Leftovers::count();
    let mut host = started(SIZES)?;
    let words = [
        "run", "-a", "tiny", "-s", "tiny", "--", "python3", "-c", FILL,
    ];
    let output = host.cli(&words);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for line in [
        "bytes in /tmp ENOSPC",
        "elsewhere ENOSPC",
        "deleted but open ENOSPC",
        "freed 1048576",
        "sparse ENOSPC",
        "fallocate ENOSPC",
        "inodes ENOSPC True",
    ] {
        check(
            text.contains(line),
            format!("{line:?} in {text}\n{output:?}"),
        )?;
    }
    // The next dyno of that size starts empty, though the volume is used again.
    let text = inside(
        &host,
        "tiny",
        "ls -A /tmp /app; df --output=used -m /tmp | tail -1",
    );
    check(!text.contains("many"), format!("a fresh layer: {text}"))?;
    contains(&text, "server.py")?;
    // 40 MiB of zeros are a small upload and more than a build may write here.
    let source = tempfile::tempdir()?;
    std::fs::write(source.path().join("requirements.txt"), "")?;
    std::fs::File::create(source.path().join("zeros"))?.set_len(40 << 20)?;
    let source = source.path().display().to_string();
    let output = host.cli(&["deploy", &source, "-a", "tiny"]);
    check(!output.status.success(), format!("refused: {output:?}"))?;
    contains(
        &String::from_utf8_lossy(&output.stdout),
        "No space left on device",
    )?;
    host.eventually("web.1 still runs", || host.all_up("tiny", &["web.1"]))?;
    host.stop()?;
    Leftovers::none_since(&before)
}
