//! The terminal we stand in: raw mode that ends with us, its size, signals.

use std::io::{self, IsTerminal as _};
use std::os::fd::AsRawFd as _;

use nix::sys::termios::{self, SetArg, Termios};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::sys;

/// Columns and rows.
pub(super) type Size = (u16, u16);

/// Whether someone types and reads here.
pub(super) fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// The size, if the terminal knows it.
pub(super) fn size() -> Option<Size> {
    sys::window_size(io::stdout().as_raw_fd())
}

/// stdin's terminal in raw mode: every key is a byte to pass on, Ctrl-C too. Restored on drop,
/// so also when a panic unwinds.
#[derive(Debug)]
pub(super) struct Raw {
    saved: Termios,
}

impl Raw {
    /// Enters raw mode.
    ///
    /// # Errors
    /// stdin is no terminal (any more).
    pub(super) fn enter() -> io::Result<Self> {
        let saved = termios::tcgetattr(io::stdin())?;
        let raw = Self { saved };
        raw.again()?;
        Ok(raw)
    }

    /// Enters it again after someone else used the terminal.
    fn again(&self) -> io::Result<()> {
        let mut raw = self.saved.clone();
        termios::cfmakeraw(&mut raw);
        Ok(termios::tcsetattr(io::stdin(), SetArg::TCSANOW, &raw)?)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        termios::tcsetattr(io::stdin(), SetArg::TCSANOW, &self.saved).ok();
    }
}

/// Signals that matter while we hold a terminal.
#[derive(Debug)]
pub(super) struct Signals {
    deadly: [(SignalKind, Signal); 4],
    resized: Signal,
    continued: Signal,
}

impl Signals {
    /// Takes them over; from now on they do not end us by themselves.
    ///
    /// # Errors
    /// As sigaction(2).
    pub(super) fn take() -> io::Result<Self> {
        let take = |kind: SignalKind| Ok::<_, io::Error>((kind, signal(kind)?));
        Ok(Self {
            deadly: [
                take(SignalKind::terminate())?,
                take(SignalKind::hangup())?,
                take(SignalKind::interrupt())?,
                take(SignalKind::quit())?,
            ],
            resized: signal(SignalKind::window_change())?,
            continued: signal(SignalKind::from_raw(nix::libc::SIGCONT))?,
        })
    }

    /// Reports sizes until a signal wants us to end; returns the exit status that stands for it.
    pub(super) async fn watch(mut self, raw: &Raw, sizes: &mpsc::Sender<Size>) -> u8 {
        loop {
            let [a, b, c, d] = &mut self.deadly;
            let kind = tokio::select! {
                _ = a.1.recv() => a.0,
                _ = b.1.recv() => b.0,
                _ = c.1.recv() => c.0,
                _ = d.1.recv() => d.0,
                _ = self.resized.recv() => {
                    report(sizes);
                    continue;
                }
                _ = self.continued.recv() => {
                    // The shell that had the terminal meanwhile left it in its own mode.
                    raw.again().ok();
                    report(sizes);
                    continue;
                }
            };
            return u8::try_from(128 + kind.as_raw_value()).unwrap_or(u8::MAX);
        }
    }
}

/// Tells the size. When the queue is full a newer one follows the next change.
pub(super) fn report(sizes: &mpsc::Sender<Size>) {
    if let Some(size) = size() {
        sizes.try_send(size).ok();
    }
}
