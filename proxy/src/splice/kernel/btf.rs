//! Where fields lie in the running kernel's structures, from its own type information.
//!
//! The kernel describes its types in `/sys/kernel/btf/vmlinux` (CONFIG_DEBUG_INFO_BTF;
//! format: Documentation/bpf/btf.rst). Only what is needed to walk from a structure's name
//! to a member's offset is read here. aya reads BTF as well but keeps members to itself,
//! and the crate made for this is under a licence that does not go with static linking.
//!
//! Invariant: bytes that are not BTF are an error, never a panic: nothing is indexed
//! without having been looked for.

use proxy_ebpf::Offsets;

const MAGIC: u16 = 0xeb9f;

const KIND_INT: u32 = 1;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_ENUM64: u32 = 19;

/// Kinds that stand for another type: typedef, volatile, const, restrict, type_tag.
const ALIASES: [u32; 5] = [8, 9, 10, 11, 18];

/// All parts of a record are multiples of this, bytes.
const WORD: usize = 4;

/// What each record begins with, bytes: name, info, and size or type.
const HEAD: usize = 3 * WORD;

/// How deep structures without a name are searched.
const MAX_DEPTH: u32 = 8;

/// Type information of a kernel.
#[derive(Debug)]
pub(super) struct Btf<'a> {
    /// Position of each type's record, by number; 0 is `void`.
    types: Vec<usize>,
    /// Structures: where the name is, and the number.
    structs: Vec<(u32, u32)>,
    records: &'a [u8],
    strings: &'a [u8],
}

#[derive(Debug, Clone, Copy)]
struct Record {
    info: u32,
    /// Size, or the type that is stood for.
    value: u32,
    /// Where what follows begins.
    body: usize,
}

impl Record {
    fn kind(&self) -> u32 {
        kind(self.info)
    }

    fn members(&self) -> usize {
        members(self.info)
    }
}

fn kind(info: u32) -> u32 {
    (info >> 24) & 0x1f
}

fn members(info: u32) -> usize {
    (info & 0xffff) as usize
}

/// Bytes behind a record that belong to it; `None` for a kind from the future.
fn body_bytes(info: u32) -> Option<usize> {
    Some(match kind(info) {
        KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
        KIND_ARRAY => 12,
        KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => 12 * members(info),
        KIND_ENUM | KIND_FUNC_PROTO => 8 * members(info),
        // Pointer, forward, typedef, volatile, const, restrict, func, float, type_tag.
        2 | 7..=12 | 16 | 18 => 0,
        _ => return None,
    })
}

impl<'a> Btf<'a> {
    /// Reads the table of types.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        let cut = || "the kernel's type information (BTF) is cut short".to_owned();
        let word = |at: usize| u32_at(bytes, at).ok_or_else(cut);
        if bytes.get(..2) != Some(MAGIC.to_ne_bytes().as_slice()) {
            return Err(
                "the kernel's type information (BTF) is not in this machine's format".into()
            );
        }
        let header = word(4)? as usize;
        let part = |offset: u32, length: u32| {
            let start = header.checked_add(offset as usize)?;
            bytes.get(start..start.checked_add(length as usize)?)
        };
        let records = part(word(8)?, word(12)?).ok_or_else(cut)?;
        let strings = part(word(16)?, word(20)?).ok_or_else(cut)?;
        let mut btf = Btf { types: vec![usize::MAX], structs: Vec::new(), records, strings };
        let (words, _) = records.as_chunks::<WORD>();
        let word = |index: usize| words.get(index).map(|word| u32::from_ne_bytes(*word));
        let mut at = 0;
        while at < records.len() / WORD {
            let info = word(at + 1).ok_or_else(cut)?;
            let body = body_bytes(info).ok_or_else(|| {
                format!("the kernel's type information (BTF) has a kind {}", kind(info))
            })?;
            if kind(info) == KIND_STRUCT
                && let Some(name @ 1..) = word(at)
            {
                btf.structs.push((name, btf.types.len() as u32));
            }
            btf.types.push(at * WORD);
            at += (HEAD + body) / WORD;
        }
        if at * WORD != records.len() {
            return Err(cut());
        }
        Ok(btf)
    }

    /// Byte offset of a member, named as in C: `sk_backlog.rmem_alloc`.
    pub(super) fn offset(&self, structure: &str, path: &str) -> Result<u32, String> {
        let missing = || format!("this kernel's BTF has no {structure}.{path}");
        let named = |(name, _): &&(u32, u32)| self.is_named(*name, structure.as_bytes());
        let mut of = self.structs.iter().find(named).ok_or_else(missing)?.1;
        let mut bits = 0;
        for name in path.split('.') {
            let (offset, kind) = self.member(of, name.as_bytes(), 0).ok_or_else(missing)?;
            bits += offset;
            of = kind;
        }
        if bits % 8 == 0 { Ok(bits / 8) } else { Err(missing()) }
    }

    /// Offset in bits and type of a member, also of one within members without a name.
    fn member(&self, of: u32, wanted: &[u8], depth: u32) -> Option<(u32, u32)> {
        if depth > MAX_DEPTH {
            return None;
        }
        let record = self.resolve(of)?;
        if !matches!(record.kind(), KIND_STRUCT | KIND_UNION) {
            return None;
        }
        let has_bitfields = record.info >> 31 == 1;
        for index in 0..record.members() {
            let at = record.body + 12 * index;
            let name = u32_at(self.records, at)?;
            let kind = u32_at(self.records, at + 4)?;
            let offset = u32_at(self.records, at + 8)?;
            let offset = if has_bitfields { offset & 0x00ff_ffff } else { offset };
            if name != 0 {
                if self.is_named(name, wanted) {
                    return Some((offset, kind));
                }
            } else if let Some((inner, kind)) = self.member(kind, wanted, depth + 1) {
                return Some((offset + inner, kind));
            }
        }
        None
    }

    /// The type itself, behind its other names.
    fn resolve(&self, mut number: u32) -> Option<Record> {
        for _ in 0..MAX_DEPTH {
            let record = self.record_at(*self.types.get(number as usize)?)?;
            if !ALIASES.contains(&record.kind()) {
                return Some(record);
            }
            number = record.value;
        }
        None
    }

    fn record_at(&self, at: usize) -> Option<Record> {
        Some(Record {
            info: u32_at(self.records, at.checked_add(4)?)?,
            value: u32_at(self.records, at.checked_add(8)?)?,
            body: at.checked_add(12)?,
        })
    }

    /// Compares the string at `at`, which a zero ends.
    fn is_named(&self, at: u32, wanted: &[u8]) -> bool {
        let rest = self.strings.get(at as usize..).unwrap_or_default();
        rest.starts_with(wanted) && rest.get(wanted.len()) == Some(&0)
    }
}

/// Looks up every field that the programs read.
pub(super) fn offsets(bytes: &[u8]) -> Result<Offsets, String> {
    let btf = Btf::parse(bytes)?;
    Ok(Offsets {
        tcp_write_seq: btf.offset("tcp_sock", "write_seq")?,
        tcp_copied_seq: btf.offset("tcp_sock", "copied_seq")?,
        tcp_rcv_nxt: btf.offset("tcp_sock", "rcv_nxt")?,
        tcp_snd_una: btf.offset("tcp_sock", "snd_una")?,
        sock_state: btf.offset("sock", "__sk_common.skc_state")?,
        sock_rcvbuf: btf.offset("sock", "sk_rcvbuf")?,
        sock_rmem_alloc: btf.offset("sock", "sk_backlog.rmem_alloc")?,
        sock_sndbuf: btf.offset("sock", "sk_sndbuf")?,
        sock_wmem_queued: btf.offset("sock", "sk_wmem_queued")?,
        sock_rcvlowat: btf.offset("sock", "sk_rcvlowat")?,
        sock_socket: btf.offset("sock", "sk_socket")?,
        socket_file: btf.offset("socket", "file")?,
        file_flags: btf.offset("file", "f_flags")?,
        skb_seq: btf.offset("sk_buff", "cb")? + btf.offset("tcp_skb_cb", "seq")?,
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(word.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct outer { int a; struct { int b; union { int c; long d; }; }; }` by hand.
    fn sample() -> Vec<u8> {
        let strings = b"\0outer\0a\0b\0c\0d\0int\0";
        let mut records: Vec<u32> = Vec::new();
        let kind = |kind: u32, members: u32| kind << 24 | members;
        // 1: int
        records.extend([15, kind(KIND_INT, 0), 4, 0x0100_0020]);
        // 2: union { c: int at 0, d: int at 0 }
        records.extend([0, kind(KIND_UNION, 2), 8, 11, 1, 0, 13, 1, 0]);
        // 3: struct { b: int at 0, union at 32 bits }
        records.extend([0, kind(KIND_STRUCT, 2), 12, 9, 1, 0, 0, 2, 32]);
        // 4: const 3
        records.extend([0, kind(10, 0), 3]);
        // 5: struct outer { a at 0, (4) at 64 bits }
        records.extend([1, kind(KIND_STRUCT, 2), 20, 7, 1, 0, 0, 4, 64]);
        let records: Vec<u8> = records.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        let strings_at = records.len() as u32;
        for word in [24, 0, strings_at, strings_at, strings.len() as u32] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(records);
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn members_are_found_through_structures_without_a_name() {
        let sample = sample();
        let btf = Btf::parse(&sample).unwrap();
        assert_eq!(btf.offset("outer", "a"), Ok(0));
        assert_eq!(btf.offset("outer", "b"), Ok(8));
        assert_eq!(btf.offset("outer", "d"), Ok(12));
        assert!(btf.offset("outer", "e").unwrap_err().contains("outer.e"));
        assert!(btf.offset("inner", "a").is_err());
    }

    #[test]
    fn bytes_that_are_cut_anywhere_are_an_error() {
        let sample = sample();
        for length in 0..sample.len() {
            assert!(Btf::parse(&sample[..length]).is_err(), "{length}");
        }
        assert!(Btf::parse(&[0; 64]).is_err());
    }

    #[test]
    fn the_running_kernel_has_what_is_needed() {
        // A kernel without BTF is a kernel without the kernel tier; nothing to test there.
        let Ok(bytes) = std::fs::read("/sys/kernel/btf/vmlinux") else { return };
        let offsets = offsets(&bytes).unwrap();
        let mut words = offsets.to_words().to_vec();
        // The file of a socket and its state may be first members, the others are not.
        assert!(words[..10].iter().all(|offset| *offset > 0), "{offsets:?}");
        words[..10].sort_unstable();
        words[..10].windows(2).for_each(|pair| assert_ne!(pair[0], pair[1], "{offsets:?}"));
    }
}
