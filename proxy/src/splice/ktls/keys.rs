//! A session's keys in the form that the kernel takes: `struct tls12_crypto_info_…` of
//! <linux/tls.h>, which all begin with version and cipher and end with the number of the next
//! record.
//!
//! Invariant: no nonce is used twice under one key. With TLS 1.3, and with ChaCha20, the nonce is
//! made of the number of the record, by the kernel as by rustls. AES-GCM in TLS 1.2 sends eight
//! bytes of it along (RFC 5288 section 3): rustls has used `e`, `e ^ 1`, `e ^ 2`, … for an `e` of
//! its own, and the kernel counts up from what it is given. So it is given the half of all numbers
//! that `e` is not in, from the beginning.

use std::hint::black_box;

use rustls::{ConnectionTrafficSecrets, ExtractedSecrets};

use super::{Cipher, Suite, Version};

/// Of the longest.
const LONGEST: usize = 56;

/// What one direction of a socket is given.
pub(in crate::splice) struct Info {
    bytes: [u8; LONGEST],
    length: usize,
}

/// Both directions.
pub(in crate::splice) struct Keys {
    /// Ours.
    pub(in crate::splice) send: Info,
    /// The peer's.
    pub(in crate::splice) receive: Info,
    /// The number of the first record that the kernel sends.
    pub(in crate::splice) first: u64,
}

impl Keys {
    /// Of what a session has given up; `None` if they are for another suite.
    pub(in crate::splice) fn of(suite: Suite, secrets: &ExtractedSecrets) -> Option<Self> {
        let info = |(number, secrets): &(u64, ConnectionTrafficSecrets)| {
            let (cipher, key, iv) = match secrets {
                ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Cipher::Aes128Gcm, key, iv),
                ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Cipher::Aes256Gcm, key, iv),
                ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
                    (Cipher::Chacha20Poly1305, key, iv)
                }
                _ => return None,
            };
            let iv: [u8; 12] = iv.as_ref().try_into().ok()?;
            (cipher == suite.cipher).then(|| Info::new(suite, key.as_ref(), iv, *number))
        };
        let (send, receive) = (info(&secrets.tx)?, info(&secrets.rx)?);
        Some(Self { send, receive, first: secrets.tx.0 })
    }
}

impl Info {
    /// Of a key and what nonces are made of, from record `number` on.
    pub(in crate::splice) fn new(suite: Suite, key: &[u8], iv: [u8; 12], number: u64) -> Self {
        let mut info = Self { bytes: [0; LONGEST], length: 0 };
        let version: u16 = match suite.version {
            Version::Tls12 => 0x0303,
            Version::Tls13 => 0x0304,
        };
        let (cipher, length): (u16, _) = match suite.cipher {
            Cipher::Aes128Gcm => (51, 16),
            Cipher::Aes256Gcm => (52, 32),
            Cipher::Chacha20Poly1305 => (54, 32),
        };
        assert_eq!(key.len(), length, "a key of this cipher");
        info.put(&version.to_ne_bytes());
        info.put(&cipher.to_ne_bytes());
        let (salt, rest) = iv.split_at(4);
        match (suite.cipher, suite.version) {
            (Cipher::Chacha20Poly1305, _) => info.put(&iv),
            (_, Version::Tls13) => info.put(rest),
            (_, Version::Tls12) => info.put(&other_half(rest)),
        }
        info.put(key);
        if suite.cipher != Cipher::Chacha20Poly1305 {
            info.put(salt);
        }
        info.put(&number.to_be_bytes());
        info
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.length..self.length + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    /// One for the kernel to write into.
    pub(super) fn empty(suite: Suite) -> Self {
        let length = if suite.cipher == Cipher::Aes128Gcm { 40 } else { LONGEST };
        Self { bytes: [0; LONGEST], length }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.length]
    }

    /// The number of the next record.
    pub(super) fn number(&self) -> u64 {
        let last = self.bytes().last_chunk().expect("it is longer");
        u64::from_be_bytes(*last)
    }
}

/// Keys do not stay behind on the stack.
impl Drop for Info {
    fn drop(&mut self) {
        self.bytes.fill(0);
        black_box(&self.bytes);
    }
}

/// The first of those numbers that differ from all that rustls makes of this one, with room for
/// 2^63.
fn other_half(explicit: &[u8]) -> [u8; 8] {
    let mut first = [0; 8];
    first[0] = !explicit[0] & 0x80;
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    const IV: [u8; 12] = [1, 2, 3, 4, 0x85, 6, 7, 8, 9, 10, 11, 12];

    fn bytes(version: Version, cipher: Cipher, key: &[u8]) -> Vec<u8> {
        let suite = Suite { version, cipher };
        let info = Info::new(suite, key, IV, 0x0102);
        assert_eq!(info.number(), 0x0102);
        assert_eq!(Info::empty(suite).bytes().len(), info.bytes().len());
        info.bytes().to_vec()
    }

    #[test]
    fn each_suite_has_its_layout() {
        let number = &[0, 0, 0, 0, 0, 0, 1, 2][..];
        let (short, long) = (&[7; 16][..], &[9; 32][..]);
        let words =
            |version: u16, cipher: u16| [version.to_ne_bytes(), cipher.to_ne_bytes()].concat();
        assert_eq!(
            bytes(Version::Tls13, Cipher::Aes128Gcm, short),
            [&words(0x304, 51), &IV[4..], short, &IV[..4], number].concat()
        );
        assert_eq!(
            bytes(Version::Tls13, Cipher::Aes256Gcm, long),
            [&words(0x304, 52), &IV[4..], long, &IV[..4], number].concat()
        );
        for (version, word) in [(Version::Tls13, 0x304), (Version::Tls12, 0x303)] {
            assert_eq!(
                bytes(version, Cipher::Chacha20Poly1305, long),
                [&words(word, 54), &IV[..], long, number].concat()
            );
        }
        assert_eq!(
            bytes(Version::Tls12, Cipher::Aes256Gcm, long),
            [&words(0x303, 52), &[0; 8][..], long, &IV[..4], number].concat()
        );
    }

    #[test]
    fn no_explicit_nonce_comes_twice() {
        for first in [0u64, 7, u64::MAX, 1 << 63, (1 << 63) - 1, 0x85060708090a0b0c] {
            let begins = u64::from_be_bytes(other_half(&first.to_be_bytes()));
            let kernels = begins..begins + (1 << 62);
            for number in [0, 1, 2, 1000, 1 << 24, 1 << 40] {
                assert!(!kernels.contains(&(first ^ number)), "{first:x} ^ {number:x}");
            }
        }
    }
}
