//! What must hold whatever frames a client sends: see `router::fuzz`.

#![cfg_attr(
    test,
    expect(unreachable_pub, reason = "public in the package of the fuzz targets")
)]

use std::time::Instant;

use bytes::BytesMut;
use h2::Reason;

use super::guard::{Frames, PREFACE};

/// What goes on of what follows the preface.
fn pass<'a>(pieces: impl Iterator<Item = &'a [u8]>, now: Instant) -> Result<Vec<u8>, Reason> {
    let mut frames = Frames::new(now);
    let passed = frames.pass(&[0; PREFACE], now, &mut BytesMut::new());
    assert_eq!(passed, Ok(PREFACE));
    passed_on(&mut frames, pieces, now)
}

/// What goes on of pieces that come one after the other.
pub(super) fn passed_on<'a>(
    frames: &mut Frames,
    pieces: impl Iterator<Item = &'a [u8]>,
    now: Instant,
) -> Result<Vec<u8>, Reason> {
    let (mut all, mut out) = (Vec::new(), BytesMut::new());
    for piece in pieces {
        let kept = frames.pass(piece, now, &mut out)?;
        all.extend_from_slice(&piece[..kept]);
        all.extend_from_slice(&out.split());
    }
    Ok(all)
}

/// Any frames: they end the connection, or go on as the same ones however they are cut; and nothing
/// is left to be put right in what went on.
pub fn frames(bytes: &[u8]) {
    let now = Instant::now();
    let whole = pass(std::iter::once(bytes), now);
    assert_eq!(pass(bytes.chunks(1), now), whole, "byte by byte");
    let (front, back) = bytes.split_at(bytes.len() / 2);
    assert_eq!(pass([front, back].into_iter(), now), whole, "in halves");
    let Ok(passed) = whole else { return };
    let again = pass(std::iter::once(passed.as_slice()), now);
    assert_eq!(again, Ok(passed), "what went on");
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_gathered_frames_still_hold() {
        crate::router::fuzz::replay("frames", super::frames);
    }
}
