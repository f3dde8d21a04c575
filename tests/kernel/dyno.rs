//! One dyno from the inside and from the outside.

use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};

use libtest_mimic::{Failed, Trial};

use crate::certain::groups_of;
use crate::host::{Host, check, contains, deployed};
use crate::support;

/// The cases of this file.
pub(crate) fn cases() -> Vec<Trial> {
    vec![
        Trial::test("dyno::nothing_private_of_the_host_is_visible", private),
        Trial::test("dyno::privileges_are_gone_for_good", privileges),
        Trial::test("dyno::its_cgroup_has_the_limits_of_its_size", limits),
        Trial::test("dyno::it_reaches_out_and_nobody_reaches_in", network),
        Trial::test("dyno::a_terminal_is_a_real_one", terminal),
        Trial::test("dyno::who_never_binds_gets_r10", boot_timeout),
        Trial::test("dyno::who_ignores_sigterm_gets_r12", exit_timeout),
    ]
}

/// stdout and stderr of a shell script in a one-off dyno.
fn inside(host: &Host, script: &str) -> String {
    let output = host.cli(&["run", "-a", "tiny", "--", "bash", "-c", script]);
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn private() -> Result<(), Failed> {
    let host = deployed()?;
    let text = inside(
        &host,
        "for p in /root /home /etc/shadow /etc/gshadow /etc/ssh /etc/ssl/private /var/log /var/lib /run/dbus /boot /mnt /srv /opt /media; do
           if ls -A $p >/dev/null 2>&1 && [ -n \"$(ls -A $p)\" ]; then echo \"visible: $p\"; fi
         done
         find / -xdev -type s 2>/dev/null | sed 's/^/socket: /'
         ls /proc | grep -c '^[0-9]' | sed 's/^/processes: /'
         cat /proc/1/environ >/dev/null 2>&1 && echo 'environment of PID 1 readable'
         for p in / /usr /usr/bin /etc /etc/hosts /proc/sys/kernel/hostname /sys/kernel /dev; do
           [ -w $p ] && echo \"writable: $p\"
         done
         for p in /app /tmp /var/tmp /dev/shm; do [ -w $p ] || echo \"not writable: $p\"; done
         touch /usr/x 2>/dev/null && echo 'wrote /usr'
         head -c1 /proc/kcore 2>/dev/null | wc -c | sed 's/^/kcore: /'
         hostname",
    );
    for word in ["visible", "socket", "readable", "writable", "wrote"] {
        check(!text.contains(word), text.clone())?;
    }
    contains(&text, "kcore: 0")?;
    let count = text.lines().find_map(|l| l.strip_prefix("processes: "));
    let count: u32 = count
        .and_then(|c| c.trim().parse().ok())
        .ok_or("no count")?;
    check(count <= 8, format!("only its own processes: {text}"))?;
    contains(&text, "run-")
}

fn privileges() -> Result<(), Failed> {
    let host = deployed()?;
    let text = inside(
        &host,
        "grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp:)' /proc/self/status
         mount -t tmpfs x /tmp 2>&1; unshare -U true 2>&1; chroot / true 2>&1
         python3 - <<'E'
import ctypes, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def call(name, number, *args):
    libc.syscall(number, *args)
    print(name, os.strerror(ctypes.get_errno()))
call('bpf', 321, 0, 0, 0)
call('ptrace', 101, 0, 1, 0, 0)
call('keyctl', 250, 0, 0, 0)
call('setns', 308, 0, 0)
call('io_uring_setup', 425, 1, 0)
try:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    print('packet socket opened')
except OSError as error:
    print('packet', error)
E
         ulimit -u; find / -xdev -perm /6000 -type f 2>/dev/null | head -1 | xargs -r -I{} sh -c 'echo setuid program {}; {} 2>/dev/null; id -u'",
    );
    for line in [
        "Uid:\t1000\t1000\t1000\t1000",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "bpf Operation not permitted",
        "ptrace Operation not permitted",
        "setns Operation not permitted",
    ] {
        contains(&text, line)?;
    }
    check(!text.contains("packet socket opened"), text.clone())?;
    check(
        !text.lines().any(|l| l == "0"),
        format!("nobody is root: {text}"),
    )?;
    contains(&text, "\n256\n")
}

fn limits() -> Result<(), Failed> {
    let host = deployed()?;
    host.ok(&["ps:scale", "web=1:standard-2x", "-a", "tiny"])?;
    host.eventually("the new size is up", || host.all_up("tiny", &["web.1"]))?;
    let dynos: serde_json::Value =
        serde_json::from_str(&host.ok(&["ps", "-a", "tiny", "--json"])?)?;
    check(dynos[0]["size"] == "Standard-2X", format!("{dynos}"))?;
    let groups = groups_of(&host, "web.1")?;
    let value = |names: &[&str]| {
        let files = groups
            .iter()
            .flat_map(|dir| names.iter().map(|n| dir.join(n)));
        files
            .filter_map(|file| std::fs::read_to_string(file).ok())
            .map(|text| text.trim().to_owned())
            .next()
    };
    // R15's place is twice the quota: 2 x 1024 MiB.
    let memory = value(&["memory.max", "memory.limit_in_bytes"]);
    check(
        memory.as_deref() == Some("2147483648"),
        format!("{memory:?}"),
    )?;
    let tasks = value(&["pids.max"]);
    check(tasks.as_deref() == Some("512"), format!("{tasks:?}"))?;
    let cpu = value(&["cpu.weight", "cpu.shares"]);
    check(
        ["200", "2048"].contains(&cpu.as_deref().unwrap_or_default()),
        format!("{cpu:?}"),
    )?;
    let inside = value(&["cgroup.procs", "tasks"]).unwrap_or_default();
    check(!inside.is_empty(), "the dyno's processes are in its cgroup")
}

fn network() -> Result<(), Failed> {
    let host = deployed()?;
    host.ok(&["ps:scale", "web=2", "-a", "tiny"])?;
    host.eventually("both are up", || host.all_up("tiny", &["web.1", "web.2"]))?;
    // A service of the host on every address it has.
    let service = TcpListener::bind("0.0.0.0:0")?;
    let port = service.local_addr()?.port();
    let probe = UdpSocket::bind("0.0.0.0:0")?;
    let own = probe
        .connect("192.0.2.1:9")
        .and_then(|()| probe.local_addr())
        .map_or_else(
            |_| "127.0.0.1".to_owned(),
            |address| address.ip().to_string(),
        );
    let script = format!(
        "python3 - <<'E'
import socket, struct
def reach(name, host, port, wait=2):
    try:
        socket.create_connection((host, port), wait).close()
        print(name, 'reached')
    except OSError as error:
        print(name, 'refused:', error)
route = [l.split() for l in open('/proc/net/route')][1:]
gateway = next(r[2] for r in route if r[1] == '00000000')
gateway = socket.inet_ntoa(struct.pack('<L', int(gateway, 16)))
reach('gateway', gateway, {port})
reach('host', '{own}', {port})
reach('link-local', '169.254.169.254', 80)
base = gateway.rsplit('.', 1)[0]
mine = [l for l in open('/proc/net/fib_trie')]
for last in range(1, 40):
    try:
        s = socket.create_connection((base + '.' + str(last), {port}), 0.05)
        print('neighbour reached', last)
    except OSError:
        pass
server = [l.split()[1] for l in open('/etc/resolv.conf') if l.startswith('nameserver')]
print('resolver', server)
if server:
    reach('outside', server[0], 53, 5)
E"
    );
    let text = inside(&host, &script);
    for line in ["gateway refused:", "host refused:", "link-local refused:"] {
        contains(&text, line)?;
    }
    check(!text.contains("neighbour reached"), text.clone())?;
    // What the host itself can reach, a dyno can.
    let resolver = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let resolver = resolver
        .lines()
        .find_map(|l| l.strip_prefix("nameserver "))
        .map(str::trim);
    let reachable = resolver
        .and_then(|r| r.parse::<std::net::Ipv4Addr>().ok())
        .filter(|address| {
            let address = std::net::SocketAddr::from((*address, 53));
            !address.ip().is_loopback()
                && std::net::TcpStream::connect_timeout(&address, std::time::Duration::from_secs(5))
                    .is_ok()
        });
    if reachable.is_some() {
        contains(&text, "outside reached")?;
    }
    Ok(())
}

fn terminal() -> Result<(), Failed> {
    let host = deployed()?;
    // `script` gives the CLI a terminal, as a person's would.
    let manifold = support::manifold();
    let command = format!(
        "stty cols 77 rows 33; exec {} run -a tiny -- bash -c 'stty size; [ -t 0 ] && [ -t 1 ] && echo a terminal; read line; echo got $line; sleep 100'",
        manifold.display()
    );
    let mut child = Command::new("script")
        .args(["-qefc", &command, "/dev/null"])
        .env("MANIFOLD_SOCKET", host.socket())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().ok_or("no stdin")?;
    let mut stdout = child.stdout.take().ok_or("no stdout")?;
    let mut seen = String::new();
    let mut read_until = |needle: &str| -> Result<(), Failed> {
        use std::io::Read as _;
        let mut buffer = [0; 4096];
        while !seen.contains(needle) {
            let count = stdout.read(&mut buffer)?;
            check(count > 0, format!("ended before {needle:?}: {seen}"))?;
            seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        Ok(())
    };
    read_until("33 77")?;
    read_until("a terminal")?;
    std::io::Write::write_all(&mut stdin, b"hello\r")?;
    read_until("got hello")?;
    // Ctrl-C reaches the program inside, not the client.
    std::io::Write::write_all(&mut stdin, b"\x03")?;
    let status = child.wait()?;
    check(
        status.code() == Some(130),
        format!("{status}: SIGINT ends bash with 130"),
    )
}

fn app(processes: &str) -> Result<tempfile::TempDir, Failed> {
    let dir = tempfile::tempdir()?;
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text);
    write("Procfile", processes)?;
    write("requirements.txt", "")?;
    Ok(dir)
}

fn deploy(host: &Host, name: &str, dir: &Path) -> Result<String, Failed> {
    host.ok(&["create", name])?;
    host.ok(&["deploy", &dir.display().to_string(), "-a", name])
}

fn boot_timeout() -> Result<(), Failed> {
    let host = Host::with("[timings]\nboot_timeout = 2\n")?;
    let dir = app("web: sleep 1000\n")?;
    deploy(&host, "deaf", dir.path())?;
    let lines = [
        "heroku[web.1]: Error R10 (Boot timeout) -> Web process failed to bind to $PORT within 2 seconds of launch",
        "heroku[web.1]: Stopping process with SIGKILL",
        "heroku[web.1]: Process exited with status 137",
        "heroku[web.1]: State changed from starting to crashed",
    ];
    host.eventually("R10", || {
        let logs = host.logs("deaf");
        lines.iter().all(|line| logs.contains(line))
    })
}

fn exit_timeout() -> Result<(), Failed> {
    let host = Host::with("[timings]\nstop_grace = 2\n")?;
    host.ok(&["create", "tiny"])?;
    host.ok(&["deploy", &crate::host::app_dir("tiny"), "-a", "tiny"])?;
    host.ok(&["ps:scale", "web=0", "stubborn=1", "-a", "tiny"])?;
    host.eventually("it is up", || {
        host.logs("tiny")
            .contains("app[stubborn.1]: stubborn stays")
    })?;
    host.ok(&["ps:scale", "stubborn=0", "-a", "tiny"])?;
    let lines = [
        "heroku[stubborn.1]: State changed from up to down",
        "heroku[stubborn.1]: Stopping all processes with SIGTERM",
        "heroku[stubborn.1]: Error R12 (Exit timeout) -> At least one process failed to exit within 2 seconds of SIGTERM",
        "heroku[stubborn.1]: Stopping remaining processes with SIGKILL",
        "heroku[stubborn.1]: Process exited with status 137",
    ];
    host.eventually("R12", || {
        let logs = host.logs("tiny");
        lines.iter().all(|line| logs.contains(line))
    })
}
