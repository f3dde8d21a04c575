//! The Huffman code of header fields. Source: RFC 7541 section 5.2 and appendix B.

use super::BadBlock;

/// Symbols by the length of their code in bits. The code is canonical: of one length and from one
/// length to the next its codes follow each other.
const SYMBOLS: [(u32, &[u8]); 21] = [
    (5, b"012aceiost"),
    (6, b" %-./3456789=A_bdfghlmnpru"),
    (7, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, b"&*,;XZ"),
    (10, b"!\"()?"),
    (11, b"'+|"),
    (12, b"#>"),
    (13, b"\0$@[]~"),
    (14, b"^}"),
    (15, b"<`{"),
    (19, b"\\\xc3\xd0"),
    (20, b"\x80\x82\x83\xa2\xb8\xc2\xe0\xe2"),
    (21, b"\x99\xa1\xa7\xac\xb0\xb1\xb3\xd1\xd8\xd9\xe3\xe5\xe6"),
    (
        22,
        b"\x81\x84\x85\x86\x88\x92\x9a\x9c\xa0\xa3\xa4\xa9\xaa\xad\xb2\xb5\xb9\xba\xbb\xbd\xbe\xc4\xc6\xe4\xe8\xe9",
    ),
    (
        23,
        b"\x01\x87\x89\x8a\x8b\x8c\x8d\x8f\x93\x95\x96\x97\x98\x9b\x9d\x9e\xa5\xa6\xa8\xae\xaf\xb4\xb6\xb7\xbc\xbf\xc5\xe7\xef",
    ),
    (24, b"\x09\x8e\x90\x91\x94\x9f\xab\xce\xd7\xe1\xec\xed"),
    (25, b"\xc7\xcf\xea\xeb"),
    (26, b"\xc0\xc1\xc8\xc9\xca\xcd\xd2\xd5\xda\xdb\xee\xf0\xf2\xf3\xff"),
    (
        27,
        b"\xcb\xcc\xd3\xd4\xd6\xdd\xde\xdf\xf1\xf4\xf5\xf6\xf7\xf8\xfa\xfb\xfc\xfd\xfe",
    ),
    (
        28,
        b"\x02\x03\x04\x05\x06\x07\x08\x0b\x0c\x0e\x0f\x10\x11\x12\x13\x14\x15\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\x7f\xdc\xf9",
    ),
    // The last code, thirty ones, is the end of a string (EOS), which no string may have.
    (30, b"\x0a\x0d\x16"),
];

/// The codes of one length, their bits to the left of a `u32`.
#[derive(Clone, Copy)]
struct Level {
    length: u32,
    first: u32,
    /// Behind the last one.
    end: u32,
    symbols: &'static [u8],
}

const LEVELS: [Level; 21] = {
    let none = Level {
        length: 0,
        first: 0,
        end: 0,
        symbols: &[],
    };
    let mut levels = [none; 21];
    let (mut at, mut first) = (0, 0);
    while at < levels.len() {
        let (length, symbols) = SYMBOLS[at];
        let mut end = first;
        let mut left = symbols.len();
        while left > 0 {
            end += 1 << (32 - length);
            left -= 1;
        }
        levels[at] = Level {
            length,
            first,
            end,
            symbols,
        };
        first = end;
        at += 1;
    }
    levels
};

/// What the next eight bits begin with, where that is a whole code: its symbol and length. Nearly all
/// of what is sent has codes so short.
const SHORT: [(u8, u32); 256] = {
    let mut table = [(0, 0); 256];
    let mut level = 0;
    while LEVELS[level].length <= 8 {
        let Level {
            length,
            first,
            symbols,
            ..
        } = LEVELS[level];
        let mut at = (first >> 24) as usize;
        let mut symbol = 0;
        while symbol < symbols.len() {
            let end = at + (1 << (8 - length));
            while at < end {
                table[at] = (symbols[symbol], length);
                at += 1;
            }
            symbol += 1;
        }
        level += 1;
    }
    table
};

/// The symbol that a code of more than eight bits stands for, and the code's length; `None`: no such
/// code.
fn long(window: u32) -> Option<(u8, u32)> {
    let level = LEVELS.iter().find(|level| window < level.end)?;
    let at = (window - level.first) >> (32 - level.length);
    Some((level.symbols[at as usize], level.length))
}

/// Appends what `text` says.
///
/// # Errors
/// It has the end of a string in it, or is not filled up with less than eight ones.
pub(super) fn decode(text: &[u8], out: &mut Vec<u8>) -> Result<(), BadBlock> {
    let mut rest = text.iter();
    // No code is shorter than five bits.
    out.reserve(text.len() * 8 / 5);
    // The next bits, from the left; behind the last one come zeros.
    let (mut bits, mut count) = (0_u64, 0_u32);
    loop {
        while count <= 56 {
            let Some(byte) = rest.next() else { break };
            bits |= u64::from(*byte) << (56 - count);
            count += 8;
        }
        let [first, second, third, fourth, ..] = bits.to_be_bytes();
        let next = match SHORT[usize::from(first)] {
            (_, 0) => long(u32::from_be_bytes([first, second, third, fourth])),
            short => Some(short),
        };
        let Some((symbol, length)) = next.filter(|(_, length)| *length <= count) else {
            // No whole code is left.
            let is_filled = count < 8 && bits.count_ones() == count;
            return if is_filled { Ok(()) } else { Err(BadBlock) };
        };
        out.push(symbol);
        bits <<= length;
        count -= length;
    }
}

/// The other way, as clients do it.
#[cfg(test)]
pub(super) fn encode(text: &[u8]) -> Vec<u8> {
    let (mut out, mut bits, mut count) = (Vec::new(), 0_u64, 0);
    let mut push = |code: u64, length: u32| {
        bits = bits << length | code;
        count += length;
        while count >= 8 {
            count -= 8;
            out.push(u8::try_from(bits >> count & 0xff).expect("a byte"));
        }
        count
    };
    let mut left = 0;
    for symbol in text {
        let (level, at) = LEVELS
            .iter()
            .find_map(|level| Some((level, level.symbols.iter().position(|s| s == symbol)?)))
            .expect("each symbol has a code");
        let at = u64::try_from(at).expect("small");
        left = push(
            u64::from(level.first >> (32 - level.length)) + at,
            level.length,
        );
    }
    if left > 0 {
        push((1 << (8 - left)) - 1, 8 - left);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_symbol_has_one_code() {
        let mut all: Vec<u8> = SYMBOLS
            .iter()
            .flat_map(|(_, s)| s.iter().copied())
            .collect();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..=255));
        // The codes end where the end of a string begins.
        assert_eq!(LEVELS[20].end, 0x3fff_ffff << 2);
    }

    #[test]
    fn strings_are_filled_up_with_ones_and_less_than_a_byte_of_them() {
        let decoded = |text: &[u8]| {
            let mut out = Vec::new();
            decode(text, &mut out).map(|()| out)
        };
        assert_eq!(decoded(b""), Ok(Vec::new()));
        // "a" is 00011.
        assert_eq!(decoded(&[0b0001_1111]), Ok(b"a".to_vec()));
        for bad in [
            &[0b0001_1110][..],
            &[0b0001_1011],
            &[0b0001_1111, 0xff],
            &[0xff],
            // All of the end of a string, and something behind it.
            &[0xff, 0xff, 0xff, 0xff],
            &[0xff, 0xff, 0xff, 0xfc, 0x1f],
        ] {
            assert_eq!(decoded(bad), Err(BadBlock), "{bad:x?}");
        }
    }
}
