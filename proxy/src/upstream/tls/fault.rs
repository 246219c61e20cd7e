//! What a handshake with a server has failed of, in words for people. Pure.

use std::{
    io,
    time::{Duration, SystemTime},
};

use rustls::{CertificateError, Error, pki_types::UnixTime};

use crate::access_log::timestamp::Rfc3339;

/// What was wrong. The name that was meant is in it where that matters.
pub fn of(error: &io::Error) -> String {
    match error.get_ref().and_then(|error| error.downcast_ref::<Error>()) {
        Some(Error::InvalidCertificate(error)) => certificate(error),
        Some(Error::NoApplicationProtocol) => "the server does not offer HTTP/2".to_owned(),
        Some(Error::AlertReceived(alert)) => format!("the server refuses: {alert:?}"),
        Some(error) => error.to_string(),
        None => format!("the connection ended: {error}"),
    }
}

fn certificate(error: &CertificateError) -> String {
    use CertificateError::*;
    match error {
        Expired => "the server's certificate has expired".to_owned(),
        ExpiredContext { not_after, .. } => {
            format!("the server's certificate expired at {}", date(*not_after))
        }
        NotValidYet => "the server's certificate is not valid yet".to_owned(),
        NotValidYetContext { not_before, .. } => {
            format!("the server's certificate is not valid before {}", date(*not_before))
        }
        NotValidForName => "the server's certificate is for another name".to_owned(),
        NotValidForNameContext { expected, presented } => format!(
            "the server's certificate is for {}, not for {}",
            presented.join(", "),
            expected.to_str()
        ),
        UnknownIssuer => "the server's certificate is signed by nobody who is trusted: by itself, \
                          or by an authority that `ca` has to name"
            .to_owned(),
        BadSignature => {
            "the server's certificate is not signed by the authority that it names".to_owned()
        }
        Revoked => "the server's certificate has been revoked".to_owned(),
        UnknownRevocationStatus => {
            "`crl` has no list of the authority that signed the server's certificate".to_owned()
        }
        other => format!("the server's certificate: {other}"),
    }
}

fn date(time: UnixTime) -> String {
    Rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs())).to_string()
}
