//! `/certificates`: what is shown to clients, until when, and what becomes of orders.

use serde::Serialize;

use super::State;
use crate::acme;

/// One certificate of one listener.
#[derive(Debug, Serialize)]
pub(super) struct View {
    listener: String,
    /// Its file.
    certificate: String,
    names: Vec<String>,
    /// In Unix time; `null`: there is none yet.
    not_before: Option<i64>,
    not_after: Option<i64>,
    /// Where it is ordered by ACME.
    #[serde(skip_serializing_if = "Option::is_none")]
    acme: Option<Order>,
}

#[derive(Debug, Serialize)]
struct Order {
    /// An order is under way.
    ordering: bool,
    /// When the next one is due, failures aside.
    renew_at: Option<i64>,
    /// After a failure: not before this.
    retry_at: Option<i64>,
    failures: u32,
    error: Option<String>,
}

/// All of them, in the order of the configuration.
pub(super) fn view(state: &State) -> Vec<View> {
    let certificates = state.metrics.certificates();
    let orders = certificates.orders().states();
    let mut views = Vec::new();
    for tls in certificates.shown() {
        let live = tls.live();
        let pairs = tls.settings.certificates.iter().zip(live.chooser.certificates());
        views.extend(pairs.map(|(files, shown)| {
            let shown = shown.there();
            let names = match (&files.ordered, shown) {
                (Some(names), _) => names.iter().map(str::to_owned).collect(),
                (None, Some(shown)) => {
                    let addresses = shown.addresses.iter().map(ToString::to_string);
                    shown.names.iter().map(ToString::to_string).chain(addresses).collect()
                }
                (None, None) => Vec::new(),
            };
            let order = |names: &acme::Names| {
                orders.iter().find(|state| state.names == *names).map(Order::of)
            };
            View {
                listener: tls.settings.listener.clone(),
                certificate: files.certificate.display().to_string(),
                names,
                not_before: shown.map(|shown| shown.not_before),
                not_after: shown.map(|shown| shown.not_after),
                acme: files.ordered.as_ref().and_then(order),
            }
        }));
    }
    views
}

impl Order {
    fn of(state: &acme::State) -> Self {
        Self {
            ordering: state.ordering,
            renew_at: state.renew_at,
            retry_at: state.retry_at,
            failures: state.failures,
            error: state.error.clone(),
        }
    }
}
