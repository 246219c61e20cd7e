//! Certificates that are shown: until when they are good, and what became of new ones.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use prometheus_client::encoding::DescriptorEncoder;

use super::{
    export::{counter, gauge},
    lock,
};
use crate::tls::Tls;

/// Written by the control plane alone.
#[derive(Debug, Default)]
pub struct Certificates {
    succeeded: AtomicU64,
    failed: AtomicU64,
    /// Of the configuration in force.
    shown: Mutex<Vec<Arc<Tls>>>,
}

impl Certificates {
    /// Files have changed, and a listener shows what they hold now.
    pub fn replaced(&self) {
        self.succeeded.fetch_add(1, Relaxed);
    }

    /// Files have changed and are of no use: a listener shows what it had.
    pub fn refused(&self) {
        self.failed.fetch_add(1, Relaxed);
    }

    /// Those of another configuration are shown.
    pub fn are(&self, shown: Vec<Arc<Tls>>) {
        *lock(&self.shown) = shown;
    }

    pub(super) fn encode(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Certificates that were read again because their files had changed, by result";
        counter(out, "tls_certificate_reloads", help, None, |one| {
            one(&[("result", "success")], self.succeeded.load(Relaxed))?;
            one(&[("result", "failure")], self.failed.load(Relaxed))
        })?;
        let help = "When a certificate that is shown expires, in seconds since 1970-01-01 UTC";
        gauge(out, "tls_certificate_not_after_timestamp_seconds", help, |one| {
            lock(&self.shown).iter().try_for_each(|tls| {
                let live = tls.live();
                let files = tls.settings.certificates.iter();
                files.zip(live.chooser.certificates()).try_for_each(|(files, certificate)| {
                    let path = files.certificate.display().to_string();
                    let listener = tls.settings.listener.as_str();
                    let labels = [("listener", listener), ("certificate", path.as_str())];
                    one(&labels, certificate.not_after)
                })
            })
        })
    }
}
