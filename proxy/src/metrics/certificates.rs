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
use crate::{
    acme::{Challenge, State, Status},
    tls::Tls,
};

/// Written by the control plane alone.
#[derive(Debug, Default)]
pub struct Certificates {
    succeeded: AtomicU64,
    failed: AtomicU64,
    /// Of the configuration in force.
    shown: Mutex<Vec<Arc<Tls>>>,
    orders: Arc<Status>,
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

    /// Those of the configuration in force.
    pub fn shown(&self) -> Vec<Arc<Tls>> {
        lock(&self.shown).clone()
    }

    /// What is ordered.
    pub fn orders(&self) -> &Arc<Status> {
        &self.orders
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
                    let Some(certificate) = certificate.there() else { return Ok(()) };
                    let path = files.certificate.display().to_string();
                    let listener = tls.settings.listener.as_str();
                    let labels = [("listener", listener), ("certificate", path.as_str())];
                    one(&labels, certificate.not_after)
                })
            })
        })?;
        self.encode_orders(out)
    }

    fn encode_orders(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let states = self.orders.states();
        if states.is_empty() {
            return Ok(());
        }
        let help = "Orders of certificates that have ended, by result";
        counter(out, "acme_orders", help, None, |one| {
            let [stored, failed] = self.orders.orders();
            one(&[("result", "success")], stored)?;
            one(&[("result", "failure")], failed)
        })?;
        let help = "Questions of CAs that were answered, by challenge";
        counter(out, "acme_challenges_answered", help, None, |one| {
            let answers = &self.orders.answers;
            one(&[("challenge", "http-01")], answers.answered(Challenge::Http))?;
            one(&[("challenge", "tls-alpn-01")], answers.answered(Challenge::Tls))
        })?;
        type Level = fn(&State) -> Option<i64>;
        let levels: [(&str, &str, Level); 3] = [
            ("acme_failures_in_a_row", "Orders that have failed since the last that did not", {
                |state| Some(state.failures.into())
            }),
            ("acme_certificate_missing", "Whether there is none to show for these names yet", {
                |state| Some(state.not_after.is_none().into())
            }),
            (
                "acme_next_order_timestamp_seconds",
                "When the next order is due, in seconds since 1970-01-01 UTC",
                |state| state.retry_at.max(state.renew_at),
            ),
        ];
        for (name, help, level) in levels {
            gauge(out, name, help, |one| {
                states.iter().try_for_each(|state| {
                    let names = state.names.to_string();
                    let Some(value) = level(state) else { return Ok(()) };
                    one(&[("names", names.as_str())], value)
                })
            })?;
        }
        Ok(())
    }
}
