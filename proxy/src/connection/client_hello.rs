//! The server name in a TLS ClientHello, from the bytes that a client has sent so far.
//!
//! Pure, and reads only: what goes to the server are the bytes themselves. A hello may be
//! cut into records anywhere (RFC 8446 section 5.1) and records into segments anywhere.
//!
//! Read here, and not by a TLS library: that of a server (rustls' `Acceptor`) refuses hellos
//! that it could not answer itself, such as those of TLS 1.1, and a parser of all extensions
//! stops at one whose content it does not know. Invariant: whatever leaves room for two
//! readings (two names, bytes left over) is malformed, so that the server cannot see another
//! name than the one that chose it.

/// Most bytes that a ClientHello may take, record headers included. With keys for
/// post-quantum key agreement they have about 2 KiB.
pub(super) const MAX_BYTES: usize = 64 * 1024;

/// Longest fragment in a record without encryption (RFC 8446 section 5.1).
const MAX_FRAGMENT: usize = 1 << 14;

/// ContentType handshake, HandshakeType client_hello, ExtensionType server_name and NameType
/// host_name.
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// What the bytes are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// The beginning of a ClientHello.
    Part,
    /// A ClientHello, and the name of the server that it asks for.
    Hello(Option<String>),
    /// Not TLS: another protocol.
    Other,
    /// A ClientHello that is none; the text says why.
    Malformed(&'static str),
}

/// Collects a hello from its records. Looks at every byte once, however they come.
#[derive(Debug, Default)]
pub(super) struct Collector {
    /// Bytes of whole records behind us.
    taken: usize,
    message: Vec<u8>,
}

impl Collector {
    /// Looks at all that has come; `bytes` begins with what it was before.
    pub(super) fn look(&mut self, bytes: &[u8]) -> Seen {
        loop {
            let rest = bytes.get(self.taken..).unwrap_or_default();
            if rest.first().is_some_and(|kind| *kind != HANDSHAKE)
                || rest.get(1).is_some_and(|major| *major != 3)
            {
                return match self.taken {
                    0 => Seen::Other,
                    _ => Seen::Malformed("a record of another type"),
                };
            }
            let Some(&[_, _, _, high, low]) = rest.first_chunk::<5>() else {
                return part(bytes);
            };
            let length = usize::from(u16::from_be_bytes([high, low]));
            if length == 0 || length > MAX_FRAGMENT {
                return Seen::Malformed("the length of a record");
            }
            let Some(fragment) = rest.get(5..5 + length) else {
                return part(bytes);
            };
            self.message.extend_from_slice(fragment);
            self.taken += 5 + length;
            if let Some(seen) = message(&self.message) {
                return seen;
            }
        }
    }
}

fn part(bytes: &[u8]) -> Seen {
    match bytes.len() {
        MAX_BYTES.. => Seen::Malformed("more than 64 KiB"),
        _ => Seen::Part,
    }
}

/// A handshake message (RFC 8446 section 4); `None` if there is more to come.
fn message(bytes: &[u8]) -> Option<Seen> {
    if *bytes.first()? != CLIENT_HELLO {
        return Some(Seen::Malformed("another message"));
    }
    let &[_, a, b, c] = bytes.first_chunk::<4>()?;
    let length = u32::from_be_bytes([0, a, b, c]) as usize;
    if length > MAX_BYTES {
        return Some(Seen::Malformed("more than 64 KiB"));
    }
    let hello = Reader(bytes.get(4..4 + length)?);
    let name = server_name(hello);
    Some(name.map_or_else(Seen::Malformed, Seen::Hello))
}

/// The body of a ClientHello (RFC 8446 section 4.1.2; RFC 5246 section 7.4.1.2).
fn server_name(mut hello: Reader<'_>) -> Result<Option<String>, &'static str> {
    const CUT: &str = "a length in it";
    // legacy_version and random
    hello.take(2 + 32).ok_or(CUT)?;
    let session = hello.vec8().ok_or(CUT)?;
    let cipher_suites = hello.vec16().ok_or(CUT)?;
    let compression = hello.vec8().ok_or(CUT)?;
    if session.len() > 32 || cipher_suites.len() % 2 != 0 || compression.is_empty() {
        return Err(CUT);
    }
    if hello.is_empty() {
        // TLS 1.2 and earlier may leave out the list of extensions.
        return Ok(None);
    }
    let mut extensions = Reader(hello.vec16().ok_or(CUT)?);
    if !hello.is_empty() {
        return Err("bytes behind its extensions");
    }
    let mut found = None;
    while !extensions.is_empty() {
        let kind = extensions.u16().ok_or(CUT)?;
        let content = extensions.vec16().ok_or(CUT)?;
        if kind == SERVER_NAME && found.replace(name_of(Reader(content))?).is_some() {
            return Err("two lists of server names");
        }
    }
    Ok(found)
}

/// The content of the extension (RFC 6066 section 3).
fn name_of(mut content: Reader<'_>) -> Result<String, &'static str> {
    const BAD: &str = "its server name";
    let mut list = Reader(content.vec16().ok_or(BAD)?);
    let mut found = None;
    while !list.is_empty() {
        let kind = list.take(1).ok_or(BAD)?;
        let name = list.vec16().ok_or(BAD)?;
        if kind == [HOST_NAME] && found.replace(name).is_some() {
            return Err("two server names");
        }
    }
    let name = found.filter(|name| content.is_empty() && (1..=255).contains(&name.len()));
    let name = name.and_then(|name| std::str::from_utf8(name).ok()).ok_or(BAD)?;
    // A name in DNS form has nothing else; what has, could be cut short by a C string.
    if !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(BAD);
    }
    Ok(name.to_ascii_lowercase())
}

/// What is left of a structure of TLS.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// A vector behind a length of one byte.
    fn vec8(&mut self) -> Option<&'a [u8]> {
        let length = self.take(1)?[0];
        self.take(length.into())
    }

    /// A vector behind a length of two bytes.
    fn vec16(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(length.into())
    }
}

#[cfg(test)]
#[path = "client_hello_tests.rs"]
mod tests;
