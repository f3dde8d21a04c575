//! HPACK, the half that reads. Source: RFC 7541.
//!
//! Why our own: the h2 crate keeps its decoder to itself, and of the crates there are none reads what
//! strangers send: they panic at a block that ends too soon, build the Huffman table anew for each
//! string, or unfold a small block into a list that fills the memory.

use std::collections::VecDeque;

mod huffman;

/// Most bytes of the table, as HPACK counts them. We announce no other size than what everybody
/// begins with. Source: RFC 9113 section 6.5.2.
const TABLE_MAX: usize = 4096;

/// What an entry counts beside its name and value. Source: RFC 7541 section 4.1.
pub(super) const ENTRY: usize = 32;

/// A block that cannot be read: nor can any that comes behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadBlock;

/// A field of the dynamic table.
#[derive(Debug)]
struct Entry {
    name_length: usize,
    /// Name and value.
    text: Box<[u8]>,
}

impl Entry {
    fn get(&self) -> (&[u8], &[u8]) {
        self.text.split_at(self.name_length)
    }

    fn size(&self) -> usize {
        self.text.len() + ENTRY
    }
}

/// Reads the blocks of one connection, in their order and all of them.
#[derive(Debug)]
pub(super) struct Decoder {
    /// The newest one first.
    entries: VecDeque<Entry>,
    size: usize,
    /// What the other side wants to use of [`TABLE_MAX`].
    limit: usize,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self {
            entries: VecDeque::new(),
            size: 0,
            limit: TABLE_MAX,
        }
    }

    /// Gives `each` name and value of each field. Nothing of it is kept but the table: a small block
    /// may stand for very many fields.
    ///
    /// # Errors
    /// The block is no HPACK. `each` may have got fields of it before.
    pub(super) fn decode(
        &mut self,
        mut block: &[u8],
        mut each: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), BadBlock> {
        let (mut name_space, mut value_space) = (Vec::new(), Vec::new());
        let mut is_at_start = true;
        while let [first, ..] = *block {
            if first & 0xe0 == 0x20 {
                // Source: RFC 7541 section 4.2.
                if !is_at_start {
                    return Err(BadBlock);
                }
                self.resize(integer(&mut block, 5)?)?;
                continue;
            }
            is_at_start = false;
            if first & 0x80 != 0 {
                let (name, value) = self.get(integer(&mut block, 7)?)?;
                each(name, value);
                continue;
            }
            let is_kept = first & 0x40 != 0;
            let index = integer(&mut block, if is_kept { 6 } else { 4 })?;
            let name = match index {
                0 => string(&mut block, &mut name_space)?,
                _ => self.get(index)?.0,
            };
            let value = string(&mut block, &mut value_space)?;
            each(name, value);
            if is_kept {
                let size = name.len() + value.len() + ENTRY;
                // One that is larger than the table empties it.
                let entry = (size <= self.limit).then(|| Entry {
                    name_length: name.len(),
                    text: [name, value].concat().into(),
                });
                self.evict(self.limit.saturating_sub(size));
                if let Some(entry) = entry {
                    self.size += size;
                    self.entries.push_front(entry);
                }
            }
        }
        Ok(())
    }

    fn get(&self, index: usize) -> Result<(&[u8], &[u8]), BadBlock> {
        let index = index.checked_sub(1).ok_or(BadBlock)?;
        if let Some((name, value)) = STATIC.get(index) {
            return Ok((name.as_bytes(), value.as_bytes()));
        }
        let entry = self.entries.get(index - STATIC.len());
        entry.map(Entry::get).ok_or(BadBlock)
    }

    fn resize(&mut self, limit: usize) -> Result<(), BadBlock> {
        if limit > TABLE_MAX {
            return Err(BadBlock);
        }
        self.limit = limit;
        self.evict(limit);
        Ok(())
    }

    /// Drops the oldest entries until the rest is no larger than that.
    fn evict(&mut self, size: usize) {
        while self.size > size {
            let oldest = self.entries.pop_back().expect("only entries have a size");
            self.size -= oldest.size();
        }
    }
}

/// At most four bytes behind the prefix: nothing here is as long as that says.
/// Source: RFC 7541 section 5.1.
fn integer(block: &mut &[u8], prefix: u32) -> Result<usize, BadBlock> {
    let mut next = || {
        let (first, rest) = block.split_first().ok_or(BadBlock)?;
        *block = rest;
        Ok(usize::from(*first))
    };
    let mask = (1 << prefix) - 1;
    let mut value = next()? & mask;
    if value < mask {
        return Ok(value);
    }
    for shift in [0, 7, 14, 21] {
        let byte = next()?;
        value += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(BadBlock)
}

/// `space` is for what is not written out. Source: RFC 7541 section 5.2.
fn string<'a, 'b: 'a>(block: &mut &'b [u8], space: &'a mut Vec<u8>) -> Result<&'a [u8], BadBlock> {
    let is_huffman = block.first().is_some_and(|first| first & 0x80 != 0);
    let length = integer(block, 7)?;
    let (text, rest) = block.split_at_checked(length).ok_or(BadBlock)?;
    *block = rest;
    if !is_huffman {
        return Ok(text);
    }
    space.clear();
    huffman::decode(text, space)?;
    Ok(space)
}

/// Source: RFC 7541 appendix A.
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Fields = Vec<(String, String)>;
    type Wanted = &'static [(&'static str, &'static str)];

    fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Fields, BadBlock> {
        let mut all = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        decoder.decode(block, |name, value| all.push((text(name), text(value))))?;
        Ok(all)
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let pair = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).expect("hex"), 16);
        digits.chunks(2).map(|p| pair(p).expect("hex")).collect()
    }

    /// Blocks of one connection, what they say, and the size of the table behind each.
    fn check(limit: usize, blocks: &[(&str, Wanted, usize)]) {
        let mut decoder = Decoder::new();
        decoder.resize(limit).expect("allowed");
        for (hex, fields, size) in blocks {
            let wanted: Fields = fields
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            assert_eq!(decode(&mut decoder, &bytes(hex)), Ok(wanted), "{hex}");
            assert_eq!(decoder.size, *size, "{hex}");
        }
    }

    const FIRST: [(&str, &str); 4] = [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "www.example.com"),
    ];
    const SECOND: [(&str, &str); 5] = [
        FIRST[0],
        FIRST[1],
        FIRST[2],
        FIRST[3],
        ("cache-control", "no-cache"),
    ];
    const THIRD: [(&str, &str); 5] = [
        FIRST[0],
        (":scheme", "https"),
        (":path", "/index.html"),
        FIRST[3],
        ("custom-key", "custom-value"),
    ];
    const ANSWERS: [Wanted; 3] = [
        &[
            (":status", "302"),
            ("cache-control", "private"),
            ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
            ("location", "https://www.example.com"),
        ],
        &[
            (":status", "307"),
            ("cache-control", "private"),
            ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
            ("location", "https://www.example.com"),
        ],
        &[
            (":status", "200"),
            ("cache-control", "private"),
            ("date", "Mon, 21 Oct 2013 20:13:22 GMT"),
            ("location", "https://www.example.com"),
            ("content-encoding", "gzip"),
            (
                "set-cookie",
                "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
            ),
        ],
    ];

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        // C.2.
        let hex = "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572";
        check(TABLE_MAX, &[(hex, &[("custom-key", "custom-header")], 55)]);
        let hex = "040c 2f73 616d 706c 652f 7061 7468";
        check(TABLE_MAX, &[(hex, &[(":path", "/sample/path")], 0)]);
        let hex = "1008 7061 7373 776f 7264 0673 6563 7265 74";
        check(TABLE_MAX, &[(hex, &[("password", "secret")], 0)]);
        check(TABLE_MAX, &[("82", &[(":method", "GET")], 0)]);
        // C.3, and C.4 with Huffman's code.
        check(
            TABLE_MAX,
            &[
                (
                    "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
                    &FIRST,
                    57,
                ),
                ("8286 84be 5808 6e6f 2d63 6163 6865", &SECOND, 110),
                (
                    "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
                    &THIRD,
                    164,
                ),
            ],
        );
        check(
            TABLE_MAX,
            &[
                ("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", &FIRST, 57),
                ("8286 84be 5886 a8eb 1064 9cbf", &SECOND, 110),
                (
                    "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
                    &THIRD,
                    164,
                ),
            ],
        );
        // C.5, and C.6 with Huffman's code: entries leave the table.
        check(
            256,
            &[
                (
                    "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420
                     3230 3133 2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77
                     7777 2e65 7861 6d70 6c65 2e63 6f6d",
                    ANSWERS[0],
                    222,
                ),
                ("4803 3330 37c1 c0bf", ANSWERS[1], 222),
                (
                    "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32
                     3220 474d 54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a
                     584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33
                     3630 303b 2076 6572 7369 6f6e 3d31",
                    ANSWERS[2],
                    215,
                ),
            ],
        );
        check(
            256,
            &[
                (
                    "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81
                     66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
                    ANSWERS[0],
                    222,
                ),
                ("4883 640e ffc1 c0bf", ANSWERS[1], 222),
                (
                    "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a
                     839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36
                     72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
                    ANSWERS[2],
                    215,
                ),
            ],
        );
    }

    #[test]
    fn integers_are_read_within_bounds() {
        let integer = |bytes: &[u8], prefix| {
            let mut block = bytes;
            integer(&mut block, prefix).map(|value| (value, block.len()))
        };
        // C.1.
        assert_eq!(integer(&[0b1110_1010], 5), Ok((10, 0)));
        assert_eq!(integer(&[0x1f, 0x9a, 0x0a, 9], 5), Ok((1337, 1)));
        assert_eq!(
            integer(&[0x7f, 0xff, 0xff, 0xff, 0x7f], 7),
            Ok(((1 << 28) + 126, 0))
        );
        for bad in [
            &[][..],
            &[0x1f],
            &[0x1f, 0x80],
            &[0x1f, 0xff, 0xff, 0xff, 0xff, 0x01],
            &[0x1f, 0x80, 0x80, 0x80, 0x80, 0x00],
        ] {
            assert_eq!(integer(bad, 5), Err(BadBlock), "{bad:x?}");
        }
    }

    #[test]
    fn what_is_no_block_is_told() {
        for bad in [
            // Index 0, as a field and beyond the table, as a name too.
            "80",
            "be",
            "ff80 01",
            "7f00 0161",
            // Nothing behind the first byte, or too little.
            "40",
            "4001",
            "4001 61",
            "4001 6102 61",
            "0085 61",
            // A table larger than there is, and one that changes where no block begins.
            "3fe2 1f82",
            "8220",
            // Huffman's code with its end in it.
            "0084 ffff ffff 0161",
        ] {
            assert_eq!(
                decode(&mut Decoder::new(), &bytes(bad)),
                Err(BadBlock),
                "{bad}"
            );
        }
        // As large as it is allowed, twice in one block.
        assert_eq!(
            decode(&mut Decoder::new(), &bytes("203f e11f")),
            Ok(Vec::new())
        );
    }

    #[test]
    fn the_table_forgets_the_oldest_and_what_is_larger_than_itself() {
        let mut decoder = Decoder::new();
        decode(&mut decoder, &bytes("4001 6101 62")).expect("read");
        assert_eq!(
            decode(&mut decoder, &bytes("be")).expect("kept"),
            [("a".to_owned(), "b".to_owned())]
        );
        // To nothing and back, as browsers do it.
        decode(&mut decoder, &bytes("203f e11f 82")).expect("read");
        assert_eq!((decoder.size, decoder.limit), (0, TABLE_MAX));
        assert_eq!(decode(&mut decoder, &bytes("be")), Err(BadBlock));
        // Its name may come from an entry that goes for its sake.
        decode(&mut decoder, &bytes("4001 6101 62")).expect("read");
        let mut block = bytes("7e7f e01e");
        block.resize(block.len() + 127 + 0xf60, b'x');
        let all = decode(&mut decoder, &block).expect("read");
        assert_eq!((all[0].0.as_str(), all[0].1.len()), ("a", 127 + 0xf60));
        assert_eq!((decoder.size, decoder.entries.len()), (TABLE_MAX, 1));
        decode(
            &mut decoder,
            &[&block[..1], &[0x7f, 0xe1, 0x1e], &[b'x'; 127 + 0xf61]].concat(),
        )
        .expect("read");
        assert_eq!((decoder.size, decoder.entries.len()), (0, 0));
    }

    /// One of the ways to write a field: kept or not, its name by a number or not.
    fn write(out: &mut Vec<u8>, name: &str, value: &str, way: u8) {
        let text = |out: &mut Vec<u8>, text: &str, is_short: bool| {
            let (flag, text) = if is_short {
                (0x80, huffman::encode(text.as_bytes()))
            } else {
                (0, text.as_bytes().to_vec())
            };
            out.push(flag | u8::try_from(text.len()).expect("short"));
            out.extend(text);
        };
        out.push(if way & 1 == 0 { 0x40 } else { way & 0x10 });
        text(out, name, way & 2 == 0);
        text(out, value, way & 4 == 0);
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_however_it_was_written(
            fields in proptest::collection::vec(("[ -~]{1,20}", "\\PC{0,8}", any::<u8>()), 0..60),
        ) {
            let mut decoder = Decoder::new();
            let mut table: VecDeque<(String, String)> = VecDeque::new();
            for (name, value, way) in fields {
                let mut block = Vec::new();
                write(&mut block, &name, &value, way);
                let wanted = (name, value);
                prop_assert_eq!(decode(&mut decoder, &block), Ok(vec![wanted.clone()]));
                if way & 1 == 0 {
                    table.push_front(wanted);
                }
                let size = |(name, value): &(String, String)| name.len() + value.len() + 32;
                while table.iter().map(size).sum::<usize>() > TABLE_MAX {
                    table.pop_back();
                }
                // All that must be there, and no more.
                let all: Vec<u8> = (62..62 + table.len()).map(|index| 0x80 | u8::try_from(index).expect("few")).collect();
                prop_assert_eq!(decode(&mut decoder, &all), Ok(Vec::from(table.clone())));
                let beyond = 0x80 | u8::try_from(62 + table.len()).expect("few");
                prop_assert_eq!(decode(&mut decoder, &[beyond]), Err(BadBlock));
            }
        }

        #[test]
        fn whatever_comes_the_table_stays_within_its_bounds(
            blocks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..20),
        ) {
            let mut decoder = Decoder::new();
            for block in blocks {
                let mut most = 0;
                let read = decoder.decode(&block, |name, value| most = most.max(name.len() + value.len()));
                let size: usize = decoder.entries.iter().map(Entry::size).sum();
                prop_assert_eq!(size, decoder.size);
                prop_assert!(size <= decoder.limit && decoder.limit <= TABLE_MAX);
                prop_assert!(most <= TABLE_MAX + 2 * block.len());
                if read.is_err() {
                    break;
                }
            }
        }
    }
}
