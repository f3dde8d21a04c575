//! `manifold top` in a terminal.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use manifold::settings::Timings;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};
use nix::sys::termios::{LocalFlags, tcgetattr};

use crate::host::Host;

/// Where each frame begins, and what its last line is.
const TOP_LEFT: &str = "\x1b[H";
const LAST: &str = "\x1b[Jq: quit";

/// Reads what is shown until it is enough.
fn read_until(terminal: &mut File, shown: &mut String, is_enough: impl Fn(&str) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_enough(shown) {
        assert!(Instant::now() < deadline, "not in time: {shown:?}");
        let mut ready = [PollFd::new(terminal.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, PollTimeout::from(100_u16)).expect("polled") == 0 {
            continue;
        }
        let mut buffer = [0; 4096];
        let count = terminal.read(&mut buffer).expect("read");
        shown.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
}

#[test]
fn top_draws_a_frame_a_second_until_q_and_leaves_the_terminal_as_it_was() {
    let host = Host::start(Timings::default());
    host.web("odd", "odd", "python3 server.py");
    assert_eq!(host.get("odd.localhost", "/").0, 200);
    let size = Winsize {
        ws_row: 20,
        ws_col: 120,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let pty = openpty(Some(&size), None).expect("a terminal");
    let flags = || tcgetattr(&pty.slave).expect("flags").local_flags;
    let before = flags();
    assert!(before.contains(LocalFlags::ICANON | LocalFlags::ECHO));
    let end = || Stdio::from(pty.slave.try_clone().expect("a descriptor"));
    let mut top = Command::new(env!("CARGO_BIN_EXE_manifold"))
        .arg("top")
        .current_dir(host.dir.path())
        .env("MANIFOLD_SOCKET", host.socket())
        .env("NO_COLOR", "1")
        .stdin(end())
        .stdout(end())
        .stderr(end())
        .spawn()
        .expect("the CLI starts");
    let mut terminal = File::from(pty.master);
    let mut shown = String::new();
    read_until(&mut terminal, &mut shown, |shown| {
        shown.matches(LAST).count() == 1
    });
    let begin = Instant::now();
    assert!(!flags().intersects(LocalFlags::ICANON | LocalFlags::ECHO));
    // One more request shows in the next frame.
    assert_eq!(host.get("odd.localhost", "/").0, 200);
    read_until(&mut terminal, &mut shown, |shown| {
        shown.matches(LAST).count() == 2
    });
    assert!(begin.elapsed() > Duration::from_millis(500), "{shown:?}");
    let frames: Vec<&str> = shown.split(TOP_LEFT).skip(1).collect();
    assert_eq!(frames.len(), 2, "{shown:?}");
    for (frame, requests) in frames.iter().zip([1, 2]) {
        for title in ["Apps, last minute (times in ms)", "Web dynos, since"] {
            assert!(frame.contains(title), "{title} in {frame:?}");
        }
        let dyno = frame.lines().find(|line| line.contains(" web.1 "));
        let words: Vec<&str> = dyno.expect("a dyno").split_whitespace().collect();
        let count = requests.to_string();
        // Between name and state is the release.
        assert_eq!(words[..2], ["odd", "web.1"], "{frame:?}");
        assert_eq!(words[3..6], ["up", "0", &*count], "{frame:?}");
        // Cleared to its end, each line; nothing scrolls.
        assert!(frame.lines().count() < 20, "{frame:?}");
        let mut lines = frame.lines().filter(|line| !line.contains("q: quit"));
        assert!(lines.all(|line| line.ends_with("\x1b[K")), "{frame:?}");
    }
    terminal.write_all(b"q").expect("a key");
    let deadline = Instant::now() + Duration::from_secs(10);
    let status = loop {
        if let Some(status) = top.try_wait().expect("asked") {
            break status;
        }
        assert!(Instant::now() < deadline, "q does not end it");
        std::thread::park_timeout(Duration::from_millis(20));
    };
    assert!(status.success(), "{status}");
    assert_eq!(flags(), before, "the terminal is as it was");
}
