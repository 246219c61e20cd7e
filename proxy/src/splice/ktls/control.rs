//! Records that are not data, as they come while the kernel has the keys. Pure.
//!
//! The kernel shows them as they are and goes by none. close_notify is the end, tickets are of no
//! use to anybody any more, and what would change the keys ends the connection: the kernel
//! could not read what comes behind it. Of warnings, and of a wish to negotiate anew (TLS 1.2), as
//! little comes as of those that rustls reads.

use std::{cell::Cell, io};

use super::{
    Version,
    sys::{ALERT, HANDSHAKE},
};

/// AlertDescription of RFC 8446 section 6.
const CLOSE_NOTIFY: u8 = 0;
const USER_CANCELED: u8 = 90;

/// AlertLevel of RFC 5246 section 7.2, in which TLS 1.3 sees nothing (RFC 8446 section 6).
const WARNING: u8 = 1;

/// How many of them are borne, as by rustls.
const MOST_WARNINGS: u8 = 4;

/// HandshakeType of RFC 5246 section 7.4 and RFC 8446 section 4.
const HELLO_REQUEST: u8 = 0;
const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;

/// Before the body of a handshake message: type and length.
const HEAD: usize = 4;

/// What a record means for whoever reads.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Nothing.
    Nothing,
    /// The peer has finished.
    End,
}

/// Follows the messages of a handshake, which may lie across records and several in one (RFC 8446
/// section 5.1).
#[derive(Debug)]
pub(super) struct Control {
    version: Version,
    /// Bytes missing of a ticket.
    missing: Cell<usize>,
    warnings: Cell<u8>,
}

impl Control {
    /// Of a session of this version.
    pub(super) fn new(version: Version) -> Self {
        Self { version, missing: Cell::new(0), warnings: Cell::new(0) }
    }

    /// A record of type `kind`.
    ///
    /// # Errors
    /// What ends the connection.
    pub(super) fn judge(&self, kind: u8, bytes: &[u8]) -> io::Result<Said> {
        match kind {
            ALERT => self.alert(bytes),
            HANDSHAKE => self.handshake(bytes).map(|()| Said::Nothing),
            _ => Err(bad("a record of an unknown type")),
        }
    }

    fn handshake(&self, bytes: &[u8]) -> io::Result<()> {
        let taken = self.missing.get().min(bytes.len());
        self.missing.set(self.missing.get() - taken);
        let mut rest = &bytes[taken..];
        while let [kind, ..] = rest {
            match *kind {
                NEW_SESSION_TICKET => {}
                // RFC 5246 section 7.4.1.1: may be ignored. It has no body.
                HELLO_REQUEST if self.version == Version::Tls12 => {}
                KEY_UPDATE => return Err(bad("its keys were changed, while the kernel has them")),
                _ => return Err(bad("a handshake behind the handshake")),
            }
            let Some((head, body)) = rest.split_at_checked(HEAD) else {
                return Err(bad("a message that is cut in its head"));
            };
            let length =
                usize::from(head[1]) << 16 | usize::from(head[2]) << 8 | usize::from(head[3]);
            if *kind == HELLO_REQUEST && length > 0 {
                return Err(bad("a wish to negotiate anew that has a body"));
            }
            let taken = length.min(body.len());
            self.missing.set(length - taken);
            rest = &body[taken..];
        }
        Ok(())
    }

    fn alert(&self, bytes: &[u8]) -> io::Result<Said> {
        let [level, description] = *bytes else { return Err(bad("an alert that is none")) };
        if description == CLOSE_NOTIFY {
            return Ok(Said::End);
        }
        let warns =
            level == WARNING && (self.version == Version::Tls12 || description == USER_CANCELED);
        if !warns {
            let text = format!("an alert of the peer: {description}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        match self.warnings.get() {
            MOST_WARNINGS.. => Err(bad("too many warnings of the peer")),
            come => {
                self.warnings.set(come + 1);
                Ok(Said::Nothing)
            }
        }
    }
}

fn bad(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use Version::*;

    use super::*;

    const NOTHING: Option<Said> = Some(Said::Nothing);

    /// What was said of each record, `None` for the end of the connection.
    fn judged(version: Version, records: &[(u8, &[u8])]) -> Vec<Option<Said>> {
        let control = Control::new(version);
        records.iter().map(|(kind, bytes)| control.judge(*kind, bytes).ok()).collect()
    }

    #[test]
    fn an_alert_is_an_end_or_a_failure() {
        let records: [(u8, &[u8]); 6] = [
            (ALERT, &[1, CLOSE_NOTIFY]),
            (ALERT, &[2, CLOSE_NOTIFY]),
            (ALERT, &[1, USER_CANCELED]),
            (ALERT, &[2, 20]),
            (ALERT, &[1]),
            (99, &[1, 2]),
        ];
        let wanted = [Some(Said::End), Some(Said::End), NOTHING, None, None, None];
        for version in [Tls12, Tls13] {
            assert_eq!(judged(version, &records), wanted);
        }
    }

    /// Of TLS 1.3 only one, which means nothing.
    #[test]
    fn four_warnings_are_borne_where_there_are_warnings() {
        // no_renegotiation
        let warnings = [(ALERT, &[WARNING, 100][..]); 5];
        let borne = [NOTHING, NOTHING, NOTHING, NOTHING, None];
        assert_eq!(judged(Tls12, &warnings), borne);
        assert_eq!(judged(Tls13, &warnings[..1]), [None]);
        let canceled = [(ALERT, &[WARNING, USER_CANCELED][..]); 5];
        for version in [Tls12, Tls13] {
            assert_eq!(judged(version, &canceled), borne);
            assert_eq!(judged(version, &[(ALERT, &[2, USER_CANCELED])]), [None]);
        }
    }

    /// What is asked is not answered; an old session goes on.
    #[test]
    fn a_wish_to_negotiate_anew_is_ignored_in_tls_1_2() {
        let asks: [u8; 4] = [HELLO_REQUEST, 0, 0, 0];
        let two = [asks, asks].concat();
        let records = [(HANDSHAKE, &asks[..]), (HANDSHAKE, &two), (ALERT, &[1, CLOSE_NOTIFY])];
        assert_eq!(judged(Tls12, &records), [NOTHING, NOTHING, Some(Said::End)]);
        assert_eq!(judged(Tls13, &records[..1]), [None]);
        assert_eq!(judged(Tls12, &[(HANDSHAKE, &[HELLO_REQUEST, 0, 0, 1, 0])]), [None]);
    }

    #[test]
    fn tickets_are_passed_over_and_keys_are_not() {
        let ticket = [&[NEW_SESSION_TICKET, 0, 1, 4][..], &[KEY_UPDATE; 260]].concat();
        let two = [&ticket[..], &ticket].concat();
        let update = [KEY_UPDATE, 0, 0, 1, 1];
        let both = [&ticket[..], &update].concat();
        let table: [(&[&[u8]], Vec<_>); 6] = [
            (&[&two], vec![NOTHING]),
            // In three records, and one more behind it in the last.
            (
                &[&ticket[..100], &ticket[100..200], &[&ticket[200..], &ticket].concat()],
                vec![NOTHING, NOTHING, NOTHING],
            ),
            (&[&update], vec![None]),
            (&[&both], vec![None]),
            (&[&[1, 0, 0, 0]], vec![None]),
            (&[&ticket[..3]], vec![None]),
        ];
        for (records, wanted) in table {
            let records: Vec<_> = records.iter().map(|bytes| (HANDSHAKE, *bytes)).collect();
            assert_eq!(judged(Tls13, &records), wanted, "{records:?}");
        }
    }
}
