//! Hellos cut in all ways, without a name, with two, and bytes that are none.

use super::*;

/// A vector with its length in front.
fn vec16(content: &[u8]) -> Vec<u8> {
    [&(content.len() as u16).to_be_bytes()[..], content].concat()
}

fn name(name: &str) -> Vec<u8> {
    [&[HOST_NAME][..], &vec16(name.as_bytes())].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vec16(content)].concat()
}

fn sni(names: &[Vec<u8>]) -> Vec<u8> {
    extension(SERVER_NAME, &vec16(&names.concat()))
}

/// The message; `extensions` with their length or empty.
fn hello(extensions: &[u8]) -> Vec<u8> {
    let session = [&[32][..], &[7; 32]].concat();
    let body = [&[3, 3][..], &[9; 32], &session, &vec16(&[19, 1, 19, 2]), &[1, 0], extensions];
    let body = body.concat();
    [&[CLIENT_HELLO][..], &(body.len() as u32).to_be_bytes()[1..], &body].concat()
}

fn with(extensions: &[Vec<u8>]) -> Vec<u8> {
    hello(&vec16(&extensions.concat()))
}

/// Records with fragments of so many bytes at most.
fn records(message: &[u8], fragment: usize) -> Vec<u8> {
    let record = |piece: &[u8]| [&[HANDSHAKE, 3, 1][..], &vec16(piece)].concat();
    message.chunks(fragment).flat_map(record).collect()
}

fn look(bytes: &[u8]) -> Seen {
    Collector::default().look(bytes)
}

fn found(name: &str) -> Seen {
    Seen::Hello(Some(name.to_owned()))
}

#[test]
fn a_name_is_found_however_it_is_cut() {
    let grease = extension(0x0a0a, &[]);
    let message = with(&[grease, sni(&[name("API.example.org")]), extension(51, &[1; 1200])]);
    for fragment in [1, 2, 5, 100, 700, MAX_FRAGMENT] {
        let whole = records(&message, fragment);
        assert_eq!(look(&whole), found("api.example.org"), "{fragment}");
        // What comes behind is the server's affair.
        assert_eq!(look(&[&whole[..], b"\x17early data"].concat()), found("api.example.org"));
        let mut collector = Collector::default();
        for end in 0..whole.len() {
            assert_eq!(collector.look(&whole[..end]), Seen::Part, "{fragment}, {end}");
        }
        assert_eq!(collector.look(&whole), found("api.example.org"), "{fragment}");
    }
}

#[test]
fn a_hello_need_not_have_a_name() {
    for message in [hello(&[]), hello(&vec16(&[])), with(&[extension(43, &[2, 3, 4])])] {
        assert_eq!(look(&records(&message, 100)), Seen::Hello(None));
    }
}

#[test]
fn other_protocols_are_known_by_their_first_bytes() {
    for bytes in [&b"GET / HTTP/1.1\r\n"[..], b"\x00", b"\x16\x02", b"\x80\x2e\x01\x03\x01"] {
        assert_eq!(look(bytes), Seen::Other, "{bytes:?}");
    }
    assert_eq!(look(b""), Seen::Part);
    assert_eq!(look(b"\x16"), Seen::Part);
}

#[test]
fn what_could_be_read_in_two_ways_is_malformed() {
    let one = || sni(&[name("a.test")]);
    let inner = |content: &[u8]| extension(SERVER_NAME, content);
    for (message, why) in [
        (with(&[one(), one()]), "two lists of server names"),
        (with(&[sni(&[name("a.test"), name("b.test")])]), "two server names"),
        (with(&[sni(&[name("")])]), "its server name"),
        (with(&[sni(&[name("a.test\0.b.test")])]), "its server name"),
        (with(&[sni(&[name("ä.test")])]), "its server name"),
        (with(&[sni(&[name(&"a".repeat(256))])]), "its server name"),
        (with(&[sni(&[])]), "its server name"),
        (with(&[inner(&[])]), "its server name"),
        (with(&[inner(&[vec16(&name("a.test")), vec![0]].concat())]), "its server name"),
        (hello(&[vec16(&one()), vec![0]].concat()), "bytes behind its extensions"),
        (hello(&[0]), "a length in it"),
        (with(&[one(), vec![0, 43, 0, 9, 0]]), "a length in it"),
    ] {
        assert_eq!(look(&records(&message, 1000)), Seen::Malformed(why), "{message:?}");
    }
}

#[test]
fn records_and_messages_are_bounded() {
    for (bytes, why) in [
        (&[HANDSHAKE, 3, 1, 0, 0][..], "the length of a record"),
        (&[HANDSHAKE, 3, 1, 0x40, 1], "the length of a record"),
        (&[HANDSHAKE, 3, 1, 0, 1, 2], "another message"),
        (&[HANDSHAKE, 3, 1, 0, 4, CLIENT_HELLO, 1, 0, 1], "more than 64 KiB"),
        (&[HANDSHAKE, 3, 1, 0, 1, CLIENT_HELLO, 23, 3, 3], "a record of another type"),
    ] {
        assert_eq!(look(bytes), Seen::Malformed(why), "{bytes:?}");
    }
    // A hello within the bound, in records that take it beyond.
    let whole = records(&with(&[extension(21, &vec![0; 30_000])]), 1);
    let mut collector = Collector::default();
    assert_eq!(collector.look(&whole[..MAX_BYTES - 1]), Seen::Part);
    assert_eq!(collector.look(&whole[..MAX_BYTES]), Seen::Malformed("more than 64 KiB"));
}

/// Every change of one byte, and every cut, gives some answer.
#[test]
fn no_bytes_are_beyond_it() {
    let whole = records(&with(&[sni(&[name("a.test")]), extension(0x0a0a, &[])]), 40);
    for at in 0..whole.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut changed = whole.clone();
            changed[at] = value;
            let _ = look(&changed);
            let _ = message(&changed[at..]);
        }
    }
}
