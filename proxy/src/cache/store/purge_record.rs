//! A purge, as both tiers outside of memory write it down.
//!
//! ```text
//! purge   = crc32c number… kind text        kind: 0 all, 1 prefix, 2 tag
//! ```
//!
//! The numbers say when, or up to which place: how many there are is a matter of who writes. All are
//! little-endian. One whose checksum does not agree was not written by anybody, and nothing that
//! lies behind it can be told.
//!
//! Implements: REQ-CACHE-004

use super::{purge::What, record::Reader};

/// Appends one.
pub(super) fn encode<const N: usize>(numbers: [u64; N], what: &What, out: &mut Vec<u8>) {
    let kind = match what {
        What::All => 0u32,
        What::Prefix(_) => 1,
        What::Tag(_) => 2,
    };
    let (from, text) = (out.len(), what.text());
    out.extend_from_slice(&[0; 4]);
    numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
    let crc = crc32c::crc32c(&out[from + 4..]);
    out[from..from + 4].copy_from_slice(&crc.to_le_bytes());
}

/// All of them up to the end, and whether nothing else was there.
pub(super) fn decode<const N: usize>(from: &[u8]) -> (Vec<([u64; N], What)>, bool) {
    let (mut from, mut found) = (Reader(from), Vec::new());
    while !from.0.is_empty() {
        match decode_one(&mut from) {
            Some(purge) => found.push(purge),
            None => return (found, false),
        }
    }
    (found, true)
}

fn decode_one<const N: usize>(from: &mut Reader<'_>) -> Option<([u64; N], What)> {
    let crc = from.u32()?;
    let all = from.0;
    let mut numbers = [0; N];
    for number in &mut numbers {
        *number = from.u64()?;
    }
    let (kind, text) = (from.u32()?, from.text()?);
    let what = match kind {
        0 => What::All,
        1 => What::Prefix(text.into()),
        2 => What::Tag(text.into()),
        _ => return None,
    };
    let whole = &all[..all.len() - from.0.len()];
    (crc == crc32c::crc32c(whole)).then_some((numbers, what))
}

#[cfg(test)]
mod tests {
    use mantra_macros::req_test;

    use super::*;

    #[req_test("REQ-CACHE-004")]
    #[test]
    fn what_is_written_is_read_and_what_is_damaged_is_not() {
        let all = [
            ([1, 2], What::All),
            ([3, 4], What::Prefix("https://a/".into())),
            ([5, u64::MAX], What::Tag("red".into())),
        ];
        let mut whole = Vec::new();
        all.iter().for_each(|(numbers, what)| encode(*numbers, what, &mut whole));
        assert_eq!(decode(&whole), (all.to_vec(), true));
        for place in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[place] ^= 0x10;
            let (found, is_whole) = decode::<2>(&bytes);
            assert!(!is_whole && all.starts_with(&found) && found.len() < 3, "{place}");
            let (found, is_whole) = decode::<2>(&whole[..place]);
            assert!(all.starts_with(&found), "{place}");
            assert_eq!(is_whole, [0, 28, 66].contains(&place), "{place}");
        }
    }

    /// It is on disks, and in services that other versions read.
    #[req_test("REQ-CACHE-004")]
    #[test]
    fn the_form_stays_as_it_is() {
        let mut bytes = Vec::new();
        encode([7], &What::Tag("red".into()), &mut bytes);
        let behind = b"\x07\0\0\0\0\0\0\0\x02\0\0\0\x03\0\0\0red";
        assert_eq!((&bytes[4..], bytes.len()), (&behind[..], 23));
    }
}
