//! Frames as clients send them, and what the h2 crate gets of them.

use super::*;
use crate::router::h2::fuzz::passed_on;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    let frame = Frame {
        length: 0,
        kind,
        flags,
        stream,
    };
    frame.write(&mut out, payload);
    out.to_vec()
}

/// One past the preface and the first SETTINGS.
fn begun(start: Instant) -> Frames {
    let mut frames = Frames::new(start);
    let first = [&[b'x'; PREFACE][..], &frame(SETTINGS, 0, 0, &[])].concat();
    let mut out = BytesMut::new();
    assert_eq!(frames.pass(&first, start, &mut out), Ok(PREFACE));
    assert_eq!(out, frame(SETTINGS, 0, 0, &[]));
    frames
}

/// What goes on, whatever the pieces are that it comes in.
fn passed(frames: &mut Frames, bytes: &[u8], step: usize, now: Instant) -> Result<Vec<u8>, Reason> {
    passed_on(frames, bytes.chunks(step), now)
}

#[test]
fn only_the_kinds_that_cost_are_counted_however_the_bytes_are_cut() {
    let start = Instant::now();
    let mut frames = begun(start);
    // The payload looks like heads of PINGs, and is none.
    let data = frame(DATA, 0, 1, &[6; 50]).repeat(3000);
    assert_eq!(passed(&mut frames, &data, 1000, start), Ok(data));
    let ping = frame(PING, 0, 0, &[6; 8]);
    for _ in 0..BURST - 1 {
        assert_eq!(passed(&mut frames, &ping, 1, start).as_ref(), Ok(&ping));
    }
    let calm = Err(Reason::ENHANCE_YOUR_CALM);
    assert_eq!(passed(&mut frames, &ping, 17, start), calm);
    let later = start + Duration::from_secs(1);
    for _ in 0..PER_SECOND {
        assert_eq!(passed(&mut frames, &ping, 17, later).as_ref(), Ok(&ping));
    }
    assert_eq!(passed(&mut frames, &frame(200, 0, 0, &[]), 9, later), calm);
}

/// `GET https://a/` out of HPACK's tables, the name kept in them.
const GET: &[u8] = &[0x82, 0x87, 0x84, 0x41, 1, b'a'];
const AGAIN: &[u8] = &[0x82, 0x87, 0x84, 0xbe];
const PLAIN: &[u8] =
    b"\0\x07:method\x03GET\0\x07:scheme\x05https\0\x05:path\x01/\0\x0a:authority\x01a";

#[test]
fn blocks_go_on_in_plain_words_however_the_bytes_are_cut() {
    let start = Instant::now();
    let ends = END_HEADERS | END_STREAM;
    let sent = [
        frame(HEADERS, ends, 1, GET),
        frame(PING, 0, 0, &[0; 8]),
        frame(
            HEADERS,
            END_STREAM | PADDED | WITH_PRIORITY,
            3,
            &[&[2, 0, 0, 0, 1, 9][..], &AGAIN[..1], &[0, 0]].concat(),
        ),
        frame(CONTINUATION, 0, 3, &[]),
        frame(CONTINUATION, END_HEADERS, 3, &AGAIN[1..]),
        // Malformed: a head without a path, and trailers with one.
        frame(HEADERS, ends, 5, &AGAIN[..2]),
        frame(HEADERS, END_HEADERS, 7, AGAIN),
        frame(DATA, PADDED, 7, b"\x01some\0"),
        frame(HEADERS, ends, 7, &[0x84]),
        frame(HEADERS, END_HEADERS, 9, AGAIN),
        frame(HEADERS, ends, 9, &[0x0f, 6, 1, b'x']),
    ]
    .concat();
    let wanted = [
        frame(HEADERS, ends, 1, PLAIN),
        frame(PING, 0, 0, &[0; 8]),
        frame(HEADERS, ends, 3, PLAIN),
        frame(HEADERS, ends, 5, &[]),
        frame(HEADERS, END_HEADERS, 7, PLAIN),
        frame(DATA, PADDED, 7, b"\x01some\0"),
        frame(HEADERS, END_HEADERS, 7, &[]),
        frame(HEADERS, END_HEADERS, 9, PLAIN),
        frame(HEADERS, ends, 9, b"\0\x03age\x01x"),
    ]
    .concat();
    for step in (1..40).chain([sent.len()]) {
        let mut frames = begun(start);
        assert_eq!(
            passed(&mut frames, &sent, step, start).as_ref(),
            Ok(&wanted),
            "{step}"
        );
    }
}

#[test]
fn a_long_head_is_cut_into_frames_and_a_longer_one_is_another() {
    let start = Instant::now();
    let mut field = vec![0, 1, b'x', 0x7f, 0x81, 0x7d];
    field.resize(6 + 127 + 1 + (0x7d << 7), b'y');
    let block = [GET, &field.repeat(3)].concat();
    let mut sent = frame(HEADERS, 0, 1, &block[..FRAME_MAX]);
    sent.extend(frame(CONTINUATION, 0, 1, &block[FRAME_MAX..2 * FRAME_MAX]));
    sent.extend(frame(CONTINUATION, END_HEADERS, 1, &block[2 * FRAME_MAX..]));
    let plain = [PLAIN, &field.repeat(3)].concat();
    let mut wanted = frame(HEADERS, 0, 1, &plain[..FRAME_MAX]);
    wanted.extend(frame(CONTINUATION, 0, 1, &plain[FRAME_MAX..2 * FRAME_MAX]));
    wanted.extend(frame(CONTINUATION, END_HEADERS, 1, &plain[2 * FRAME_MAX..]));
    assert_eq!(passed(&mut begun(start), &sent, 1000, start), Ok(wanted));
    let mut sent = frame(HEADERS, 0, 1, GET);
    for _ in 0..5 {
        sent.extend(frame(CONTINUATION, 0, 1, &field));
    }
    sent.extend(frame(CONTINUATION, END_HEADERS, 1, &[]));
    let wanted = frame(HEADERS, END_HEADERS, 1, &[LONG; 1111]);
    assert_eq!(passed(&mut begun(start), &sent, 1000, start), Ok(wanted));
}

#[test]
fn connections_end_for_the_reason_that_the_rfc_names() {
    let start = Instant::now();
    let check = |sent: &[Vec<u8>], reason| {
        let got = passed(&mut begun(start), &sent.concat(), 1 << 20, start);
        assert_eq!(got, Err(reason), "{sent:x?}");
    };
    let get = |stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &AGAIN[..3]);
    let post = |stream| frame(HEADERS, END_HEADERS, stream, &AGAIN[..3]);
    let data = |flags, stream| frame(DATA, flags, stream, b"x");
    let closed = Reason::STREAM_CLOSED;
    check(&[get(1), data(0, 1)], closed);
    check(&[get(1), get(1)], closed);
    check(&[post(1), data(END_STREAM, 1), data(0, 1)], closed);
    check(&[post(1), data(END_STREAM, 1), get(1)], closed);
    check(
        &[post(1), frame(RST_STREAM, 0, 1, &[0; 4]), data(0, 1)],
        closed,
    );
    check(&[post(1), frame(RST_STREAM, 0, 1, &[0; 4]), get(1)], closed);
    check(
        &[frame(HEADERS, END_HEADERS, 1, &[0x80])],
        Reason::COMPRESSION_ERROR,
    );
    let protocol = Reason::PROTOCOL_ERROR;
    check(&[frame(CONTINUATION, END_HEADERS, 1, &[])], protocol);
    check(
        &[frame(HEADERS, 0, 1, &[]), frame(CONTINUATION, 0, 3, &[])],
        protocol,
    );
    check(&[frame(HEADERS, 0, 1, &[]), data(0, 1)], protocol);
    check(&[frame(HEADERS, PADDED, 1, &[2, 0])], protocol);
    check(&[frame(HEADERS, 0, 0, &[])], protocol);
    let size = Reason::FRAME_SIZE_ERROR;
    check(&[frame(HEADERS, PADDED, 1, &[])], size);
    check(&[frame(HEADERS, PADDED | WITH_PRIORITY, 1, &[0; 5])], size);
    check(&[frame(DATA, PADDED, 1, &[])], size);
    check(&[frame(DATA, 0, 1, &vec![0; FRAME_MAX + 1])], size);
    let window = [0, 1, 0, 0, 0, 0, 0, 4, 0x80, 0, 0, 0];
    check(
        &[frame(SETTINGS, 0, 0, &window)],
        Reason::FLOW_CONTROL_ERROR,
    );
    let part = frame(CONTINUATION, 0, 1, &[]);
    check(
        &[frame(HEADERS, 0, 1, &[]), part.repeat(9)],
        Reason::ENHANCE_YOUR_CALM,
    );
    for first in [frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, ACK, 0, &[])] {
        let sent = [&[b'x'; PREFACE][..], &first].concat();
        let got = passed(&mut Frames::new(start), &sent, 100, start);
        assert_eq!(got, Err(protocol));
    }
}
