//! Bytes that say where in the stream they belong.
//!
//! A block of pseudo-random bytes whose length is prime repeats without lining up with any
//! buffer, so a lost, doubled or moved piece shows at once. Comparing is a plain memory
//! compare: a hundred megabytes cost little even in a debug build.

use std::sync::OnceLock;

const PERIOD: usize = 65_521;

fn block() -> &'static [u8] {
    static BLOCK: OnceLock<Vec<u8>> = OnceLock::new();
    // Two periods, so that a slice of up to PERIOD bytes starts anywhere.
    BLOCK.get_or_init(|| {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let period: Vec<u8> = (0..PERIOD)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 32) as u8
            })
            .collect();
        [period.as_slice(), period.as_slice()].concat()
    })
}

/// Up to `length` bytes of the pattern as they stand at `offset`; at least one.
pub fn at(offset: u64, length: u64) -> &'static [u8] {
    let start = (offset % PERIOD as u64) as usize;
    &block()[start..start + length.min(PERIOD as u64) as usize]
}

/// The first `length` bytes.
pub fn bytes(length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        bytes.extend_from_slice(at(bytes.len() as u64, (length - bytes.len()) as u64));
    }
    bytes
}

/// Fails unless `got` is what stands at `offset`.
pub fn check(offset: u64, got: &[u8]) {
    if let Some(wrong) = first_wrong(offset, got) {
        let at = offset + wrong as u64;
        panic!("byte {at} of the stream is not what was sent: {}", whence(at, &got[wrong..]));
    }
}

/// Where in the stream bytes belong that came at `offset`.
fn whence(offset: u64, got: &[u8]) -> String {
    let known = &got[..got.len().min(32)];
    let Some(place) = block()[..PERIOD + known.len() - 1]
        .windows(known.len())
        .position(|window| window == known)
        .filter(|_| known.len() >= 8)
    else {
        return format!("{known:02x?} is nowhere in it");
    };
    // Modulo the period, and rather near than far.
    let missing = (place as u64 + PERIOD as u64 - offset % PERIOD as u64) % PERIOD as u64;
    format!(
        "{missing} bytes are missing before it, or {} came twice (modulo {PERIOD})",
        PERIOD as u64 - missing
    )
}

/// Place in `got` of the first byte that is not what stands there, from `offset` on.
pub fn first_wrong(offset: u64, got: &[u8]) -> Option<usize> {
    let mut done = 0;
    while done < got.len() {
        let want = at(offset + done as u64, (got.len() - done) as u64);
        let have = &got[done..done + want.len()];
        if have != want {
            let wrong = have.iter().zip(want).position(|(h, w)| h != w).unwrap_or(0);
            return Some(done + wrong);
        }
        done += want.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_size_fit_together() {
        let whole = bytes(PERIOD * 2 + 77);
        check(0, &whole);
        check(PERIOD as u64 + 5, &whole[PERIOD + 5..]);
    }

    #[test]
    #[should_panic(expected = "byte 70000 of the stream")]
    fn a_changed_byte_is_found() {
        let mut whole = bytes(PERIOD * 2);
        whole[70_000] ^= 1;
        check(0, &whole);
    }

    #[test]
    #[should_panic(expected = "300 bytes are missing before it")]
    fn a_gap_is_measured() {
        check(PERIOD as u64 - 100, &bytes(PERIOD * 2)[PERIOD + 200..]);
    }
}
