//! Records that are not data, as they come while the kernel has the keys. Pure.
//!
//! The kernel shows them as they are and goes by none. close_notify is the end, tickets are of no
//! use to anybody any more, and what would change the keys ends the connection: the kernel
//! could not read what comes behind it.

use std::{cell::Cell, io};

use super::sys::{ALERT, HANDSHAKE};

/// AlertDescription of RFC 8446 section 6.
const CLOSE_NOTIFY: u8 = 0;
const USER_CANCELED: u8 = 90;

/// HandshakeType of RFC 8446 section 4.
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
#[derive(Debug, Default)]
pub(super) struct Control {
    /// Bytes missing of a ticket.
    missing: Cell<usize>,
}

impl Control {
    /// A record of type `kind`.
    ///
    /// # Errors
    /// What ends the connection.
    pub(super) fn judge(&self, kind: u8, bytes: &[u8]) -> io::Result<Said> {
        match kind {
            ALERT => alert(bytes),
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
                KEY_UPDATE => return Err(bad("its keys were changed, while the kernel has them")),
                _ => return Err(bad("a handshake behind the handshake")),
            }
            let Some((head, body)) = rest.split_at_checked(HEAD) else {
                return Err(bad("a message that is cut in its head"));
            };
            let length =
                usize::from(head[1]) << 16 | usize::from(head[2]) << 8 | usize::from(head[3]);
            let taken = length.min(body.len());
            self.missing.set(length - taken);
            rest = &body[taken..];
        }
        Ok(())
    }
}

fn alert(bytes: &[u8]) -> io::Result<Said> {
    match bytes {
        [_, CLOSE_NOTIFY] => Ok(Said::End),
        [_, USER_CANCELED] => Ok(Said::Nothing),
        [_, description] => {
            let text = format!("an alert of the peer: {description}");
            Err(io::Error::new(io::ErrorKind::InvalidData, text))
        }
        _ => Err(bad("an alert that is none")),
    }
}

fn bad(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was said of each record, `None` for the end of the connection.
    fn judged(records: &[(u8, &[u8])]) -> Vec<Option<Said>> {
        let control = Control::default();
        records.iter().map(|(kind, bytes)| control.judge(*kind, bytes).ok()).collect()
    }

    #[test]
    fn an_alert_is_an_end_or_a_failure() {
        let nothing = || Some(Said::Nothing);
        let records: [(u8, &[u8]); 6] = [
            (ALERT, &[1, CLOSE_NOTIFY]),
            (ALERT, &[2, CLOSE_NOTIFY]),
            (ALERT, &[1, USER_CANCELED]),
            (ALERT, &[2, 20]),
            (ALERT, &[1]),
            (99, &[1, 2]),
        ];
        let wanted = [Some(Said::End), Some(Said::End), nothing(), None, None, None];
        assert_eq!(judged(&records), wanted);
    }

    #[test]
    fn tickets_are_passed_over_and_keys_are_not() {
        let ticket = [&[NEW_SESSION_TICKET, 0, 1, 4][..], &[KEY_UPDATE; 260]].concat();
        let two = [&ticket[..], &ticket].concat();
        let update = [KEY_UPDATE, 0, 0, 1, 1];
        let both = [&ticket[..], &update].concat();
        let good = || Some(Said::Nothing);
        let table: [(&[&[u8]], Vec<_>); 6] = [
            (&[&two], vec![good()]),
            // In three records, and one more behind it in the last.
            (
                &[&ticket[..100], &ticket[100..200], &[&ticket[200..], &ticket].concat()],
                vec![good(), good(), good()],
            ),
            (&[&update], vec![None]),
            (&[&both], vec![None]),
            (&[&[1, 0, 0, 0]], vec![None]),
            (&[&ticket[..3]], vec![None]),
        ];
        for (records, wanted) in table {
            let records: Vec<_> = records.iter().map(|bytes| (HANDSHAKE, *bytes)).collect();
            assert_eq!(judged(&records), wanted, "{records:?}");
        }
    }
}
