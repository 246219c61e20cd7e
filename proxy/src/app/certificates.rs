//! Certificates whose files change while the process serves.
//!
//! They are always looked after, `watch` or not: whoever renews certificates is a program that
//! runs every few weeks and knows nothing of this process, and one that is forgotten shows when
//! it is too late. Nothing else of the configuration is read again, so nothing else can go
//! wrong: a listener shows the new ones from its next handshake on, or keeps what it has.
//!
//! Implements: REQ-EDGE-006

use std::sync::Arc;

use super::control::Control;
use crate::{
    acme::Plan,
    config::{Config, Sources},
    tls::{Live, Tls, live::Faults},
};

/// TLS of all listeners.
pub(super) fn of(config: &Config) -> Vec<Arc<Tls>> {
    config.listeners.iter().filter_map(|listener| listener.tls.clone()).collect()
}

/// The files that all listeners have read.
pub(super) fn sources(config: &Config) -> Sources {
    let mut sources = Sources::default();
    of(config).iter().for_each(|tls| sources.extend(&tls.live().sources));
    sources
}

/// Whether something is missing that is shown now: only what is ordered can be.
fn lacks(now: &Live, next: &Live) -> bool {
    let pairs = now.chooser.certificates().iter().zip(next.chooser.certificates());
    pairs.into_iter().any(|(now, next)| now.there().is_some() && next.there().is_none())
}

/// What is to be ordered, and by whom.
pub(super) fn plan(config: &Config) -> Plan {
    let mut wanted: Vec<_> = of(config)
        .iter()
        .flat_map(|tls| tls.settings.certificates.iter().filter_map(|files| files.ordered.clone()))
        .collect();
    wanted.sort();
    wanted.dedup();
    Plan { settings: config.acme.clone(), wanted }
}

impl Control {
    /// Reads the files of those listeners whose files have changed. Returns what was read, wrong
    /// or not, so that the next change is waited for.
    pub(super) async fn renew_certificates(&self) -> Sources {
        let config = self.config();
        let metrics = self.process.admin.metrics.certificates();
        let mut sources = Sources::default();
        for tls in of(&config) {
            let reading = Arc::clone(&tls);
            let read = tokio::task::spawn_blocking(move || {
                let live = reading.live();
                live.sources.have_changed().then(|| Live::load(&reading.settings))
            });
            let listener = &tls.settings.listener;
            match read.await {
                Ok(None) => {}
                Ok(Some(Ok(live))) if lacks(&tls.live(), &live) => {
                    metrics.refused();
                    tracing::error!(
                        "listener `{listener}`: a certificate that was ordered is gone or damaged, \
                         the one before stays"
                    );
                    sources.extend(&live.sources);
                    continue;
                }
                Ok(Some(Ok(live))) => {
                    for (_, warning) in &live.warnings {
                        tracing::warn!("listener `{listener}`: {warning}");
                    }
                    tls.replace(live);
                    metrics.replaced();
                    tracing::info!("listener `{listener}` shows its new certificates");
                }
                Ok(Some(Err(Faults { wrong, sources: read }))) => {
                    let wrong: Vec<_> = wrong.iter().map(|(_, wrong)| wrong.to_string()).collect();
                    let wrong = wrong.join(" | ");
                    metrics.refused();
                    tracing::error!(
                        "new certificates of listener `{listener}` refused, the ones before stay: {wrong}"
                    );
                    sources.extend(&read);
                    continue;
                }
                // Its panic has been told by the hook.
                Err(_) => metrics.refused(),
            }
            sources.extend(&tls.live().sources);
        }
        sources
    }
}
