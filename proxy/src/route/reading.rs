//! The ways in which a server may read a path, so that a rule for `/admin` cannot be walked
//! around by another spelling of it.
//!
//! All servers decode percent-escapes, so paths are always compared decoded, except for `%2F`
//! and `%25`, which stand for data that must not turn into structure (RFC 3986 sections 2.2
//! and 7.3). Beyond that servers take [`LIBERTIES`]: some, all or none. None of them is applied
//! to what is forwarded. A path is matched in every combination of those that change it, and
//! if two of these readings take different routes it depends on the server whose rule should
//! have held: the table refuses it (`mod.rs`).
//!
//! Pure; writes into a buffer that is given, and only if there is something to decode.

/// Dot segments are resolved (RFC 3986 section 5.2.4).
pub(crate) const DOTS: u8 = 1;
/// Empty segments are dropped: `//` is `/`.
pub(crate) const MERGED: u8 = 2;
/// `%2F` is decoded before segments are told apart.
pub(crate) const ESCAPED: u8 = 4;
/// `\`, and `%5C`, is a slash.
pub(crate) const BACKSLASH: u8 = 8;
/// What follows a `;` in a segment is no part of its name.
pub(crate) const PARAMETERS: u8 = 16;

/// All of them.
#[cfg(test)]
const LIBERTIES: u8 = DOTS | MERGED | ESCAPED | BACKSLASH | PARAMETERS;

/// Whether the path is the same in every reading, as it stands. Most are.
pub(crate) fn is_plain(path: &[u8]) -> bool {
    let mut previous = 0;
    path.iter().all(|&byte| {
        let odd = matches!(byte, b'%' | b';' | b'\\')
            || (previous == b'/' && matches!(byte, b'/' | b'.'));
        previous = byte;
        !odd
    })
}

/// The liberties that change this path, each perhaps only together with others.
pub(crate) fn liberties(path: &[u8]) -> u8 {
    let mut found = 0;
    for piece in pieces(path, ESCAPED | BACKSLASH) {
        match piece {
            Piece::Slash(how) => found |= how,
            Piece::Byte { byte: b';', escaped: false } => found |= PARAMETERS,
            Piece::Byte { .. } => {}
        }
    }
    // Segments are smallest, and so emptiest and most dotted, when all slashes are slashes
    // and no parameters are left.
    let (mut length, mut dots, mut parameters) = (0, 0, false);
    let mut close = |length: usize, dots: usize, last: bool| {
        if length == 0 && !last {
            found |= MERGED;
        }
        if matches!(length, 1 | 2) && length == dots {
            found |= DOTS;
        }
    };
    for piece in pieces(path, ESCAPED | BACKSLASH).skip(1) {
        match piece {
            Piece::Slash(_) => {
                close(length, dots, false);
                (length, dots, parameters) = (0, 0, false);
            }
            Piece::Byte { byte: b';', escaped: false } => parameters = true,
            Piece::Byte { byte, .. } if !parameters => {
                length += 1;
                dots += usize::from(byte == b'.');
            }
            Piece::Byte { .. } => {}
        }
    }
    close(length, dots, true);
    found
}

/// Whether some server finds a dot segment in it.
pub(crate) fn has_dots(path: &[u8]) -> bool {
    !is_plain(path) && liberties(path) & DOTS != 0
}

/// Writes the path as a server reads it that takes these liberties.
pub(crate) fn read(path: &[u8], liberties: u8, out: &mut Vec<u8>) {
    out.clear();
    let mut parameters = false;
    for piece in pieces(path, liberties) {
        match piece {
            Piece::Slash(_) => {
                end_segment(out, liberties, false);
                out.push(b'/');
                parameters = false;
            }
            Piece::Byte { byte: b';', escaped: false } if liberties & PARAMETERS != 0 => {
                parameters = true;
            }
            Piece::Byte { .. } if parameters => {}
            // In the one spelling that rules have, too.
            Piece::Byte { byte: b'/', .. } => out.extend_from_slice(b"%2F"),
            Piece::Byte { byte: b'%', .. } => out.extend_from_slice(b"%25"),
            Piece::Byte { byte, .. } => out.push(byte),
        }
    }
    end_segment(out, liberties, true);
}

/// The path in the form that RFC 3986 section 6.2.2 calls normal, and without empty segments;
/// `None` if it is in that form.
pub(crate) fn normal(path: &str) -> Option<String> {
    if is_plain(path.as_bytes()) {
        return None;
    }
    let mut out = Vec::with_capacity(path.len());
    for piece in pieces(path.as_bytes(), 0) {
        match piece {
            Piece::Slash(_) => {
                end_segment(&mut out, DOTS | MERGED, false);
                out.push(b'/');
            }
            Piece::Byte { byte, escaped: false } => out.push(byte),
            Piece::Byte { byte: byte @ (b'-' | b'.' | b'_' | b'~'), .. } => out.push(byte),
            Piece::Byte { byte, .. } if byte.is_ascii_alphanumeric() => out.push(byte),
            Piece::Byte { byte, .. } => {
                let digit = |nibble: u8| b"0123456789ABCDEF"[usize::from(nibble)];
                out.extend([b'%', digit(byte >> 4), digit(byte & 15)]);
            }
        }
    }
    end_segment(&mut out, DOTS | MERGED, true);
    String::from_utf8(out).ok().filter(|normal| normal != path)
}

/// Takes back the segment that `out` ends with, slash included, if it is one to be left out.
fn end_segment(out: &mut Vec<u8>, liberties: u8, last: bool) {
    let Some(slash) = out.iter().rposition(|&byte| byte == b'/') else { return };
    match &out[slash + 1..] {
        b"" if liberties & MERGED != 0 && !last => out.truncate(slash),
        b"." if liberties & DOTS != 0 => out.truncate(slash + usize::from(last)),
        b".." if liberties & DOTS != 0 => {
            let parent = out[..slash].iter().rposition(|&byte| byte == b'/').unwrap_or(0);
            out.truncate(parent + usize::from(last));
            if out.is_empty() && last {
                out.push(b'/');
            }
        }
        _ => {}
    }
}

enum Piece {
    /// A border between segments; by which liberty, 0 for a true slash.
    Slash(u8),
    Byte {
        byte: u8,
        escaped: bool,
    },
}

fn pieces(path: &[u8], liberties: u8) -> impl Iterator<Item = Piece> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let byte = *path.get(at)?;
        let escape = (byte == b'%').then(|| escape(path.get(at + 1..at + 3)?)).flatten();
        at += if escape.is_some() { 3 } else { 1 };
        Some(match escape.unwrap_or(byte) {
            b'/' if escape.is_none() => Piece::Slash(0),
            b'/' if liberties & ESCAPED != 0 => Piece::Slash(ESCAPED),
            b'\\' if liberties & BACKSLASH != 0 => Piece::Slash(BACKSLASH),
            byte => Piece::Byte { byte, escaped: escape.is_some() },
        })
    })
}

/// The byte that two hexadecimal digits stand for.
pub(crate) fn escape(digits: &[u8]) -> Option<u8> {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    match digits {
        [high, low] => u8::try_from(digit(*high)? * 16 + digit(*low)?).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(path: &str, liberties: u8) -> Vec<u8> {
        let mut out = Vec::new();
        read(path.as_bytes(), liberties, &mut out);
        out
    }

    #[test]
    fn each_liberty_reads_as_servers_do() {
        for (path, liberties, wanted) in [
            ("/a/b", 0, "/a/b"),
            ("/", LIBERTIES, "/"),
            ("/%61%2f%2F%25%32%zz%", 0, "/a%2F%2F%252%25zz%25"),
            ("/a%2fb", ESCAPED, "/a/b"),
            ("/a%5Cb\\c", 0, "/a\\b\\c"),
            ("/a%5Cb\\c", BACKSLASH, "/a/b/c"),
            ("/a/../b/./c", 0, "/a/../b/./c"),
            ("/a/../b/./c", DOTS, "/b/c"),
            ("/a/%2E%2e/b", DOTS, "/b"),
            ("/..", DOTS, "/"),
            ("/a/..", DOTS, "/"),
            ("/a/.", DOTS, "/a/"),
            ("/a/b/..", DOTS, "/a/"),
            ("/../../a", DOTS, "/a"),
            ("//a///b//", MERGED, "/a/b/"),
            ("/a//../b", DOTS, "/a/b"),
            ("/a//../b", DOTS | MERGED, "/b"),
            ("/a;v=1/b;c", 0, "/a;v=1/b;c"),
            ("/a;v=1/b;c", PARAMETERS, "/a/b"),
            ("/a%3Bv/b", PARAMETERS, "/a;v/b"),
            ("/x/..;/admin", DOTS, "/x/..;/admin"),
            ("/x/..;/admin", DOTS | PARAMETERS, "/admin"),
            ("/x/%2e%2e%2fadmin", DOTS, "/x/..%2Fadmin"),
            ("/x/%2e%2e%2fadmin", DOTS | ESCAPED, "/admin"),
            ("/x/..\\admin", DOTS | BACKSLASH, "/admin"),
        ] {
            let got = reading(path, liberties);
            assert_eq!(
                got.escape_ascii().to_string(),
                wanted.escape_default().to_string(),
                "{path}"
            );
        }
    }

    #[test]
    fn the_normal_form_changes_no_more_than_it_says() {
        for (path, wanted) in [
            ("/a/b", None),
            ("/.well-known/a", None),
            ("/a%2Fb;c=1/%zz%20", None),
            ("/a%2fb", Some("/a%2Fb")),
            ("/%7euser/%61", Some("/~user/a")),
            ("/a/./b//c/../%2e%2E/d", Some("/a/d")),
            ("//", Some("/")),
            ("/a/..;/b\\c", None),
            ("/é/..", Some("/")),
        ] {
            assert_eq!(normal(path).as_deref(), wanted, "{path}");
        }
    }

    /// What is not named as changing a path does not change it, in any combination; so the
    /// table has not to try it.
    #[test]
    fn liberties_that_are_not_named_change_nothing() {
        const PARTS: [&str; 12] =
            ["/", "a", "%61", "%2f", "%5c", "\\", ";", ".", "%2E", "..", "%3b", "%"];
        let mut state = 7_u64;
        for _ in 0..20_000 {
            let mut path = String::from("/");
            for _ in 0..6 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                path += PARTS[(state >> 33) as usize % PARTS.len()];
            }
            let named = liberties(path.as_bytes());
            for some in 0..=LIBERTIES {
                let without = reading(&path, some & named);
                assert_eq!(reading(&path, some), without, "{path} {some:#b} {named:#b}");
            }
            if is_plain(path.as_bytes()) {
                assert_eq!((named, reading(&path, 0)), (0, path.into_bytes()));
            }
        }
    }
}
