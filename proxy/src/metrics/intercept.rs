//! Intercepted connections, in a scrape.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;

use super::export::{counter, gauge};
use crate::intercept::figures::{self, Came};

pub(super) fn encode(out: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help = "CONNECT requests to hosts that are intercepted, by what came of them";
    counter(out, "intercepts", help, None, |one| {
        Came::ALL
            .iter()
            .try_for_each(|came| one(&[("outcome", came.name())], figures::counted(*came)))
    })?;
    let help = "Certificates that were made for intercepted hosts";
    counter(out, "intercept_certificates_made", help, None, |one| {
        one(&[], figures::certificates())
    })?;
    let help = "Certificates for intercepted hosts that are kept";
    gauge(out, "intercept_certificates", help, |one| one(&[], figures::kept()))
}
