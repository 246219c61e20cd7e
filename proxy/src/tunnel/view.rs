//! Tunnels as `/tunnels` shows them: plain values, with names that scripts rely on.

use std::{
    net::SocketAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use crate::splice::{Engine, KernelShare, Meter};

use super::registry::{Entry, Kind};

/// One tunnel, as it stood when the snapshot was taken.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct View {
    /// Unique in the process.
    pub id: u64,
    /// How it came to be.
    pub kind: Kind,
    /// The client's address.
    pub client: SocketAddr,
    /// The server, as it was asked for or as it is configured.
    pub upstream: String,
    /// The listener's name.
    pub listener: String,
    /// What moves the bytes.
    pub engine: Directions<EngineView>,
    /// The sides whose TLS is the kernel's (`downstream`, `upstream`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ktls: Vec<&'static str>,
    /// Bytes handed on.
    pub bytes: Directions<u64>,
    /// Bytes per second, over the last [`SAMPLE`](super::watch::SAMPLE).
    pub bytes_per_second: Directions<u64>,
    /// Unix time, seconds.
    pub started: f64,
    /// Since the last byte in either direction, seconds.
    pub idle_seconds: f64,
}

/// One value per direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Directions<T> {
    /// Client to server.
    pub to_upstream: T,
    /// Server to client.
    pub to_downstream: T,
}

/// Engine of a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct EngineView {
    /// Its name.
    pub name: Engine,
    /// Why not a faster one, where something stands in the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// How often it has changed.
    #[serde(skip_serializing_if = "is_zero")]
    pub changes: u32,
    /// Why it has changed last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<&'static str>,
    /// What BPF programs did, if they ever had this direction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<KernelShare>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Entry {
    pub(super) fn view(&self, id: u64) -> View {
        let engine = |meter: &Meter| EngineView {
            name: meter.standing().0,
            reason: meter.reason(),
            changes: meter.changes(),
            cause: meter.cause(),
            kernel: meter.kernel(),
        };
        let [up, down] = self.sample.rates();
        View {
            id,
            kind: self.info.kind,
            client: self.info.client,
            upstream: self.info.upstream.to_string(),
            listener: self.info.listener.to_string(),
            engine: Directions {
                to_upstream: engine(&self.to_upstream),
                to_downstream: engine(&self.to_downstream),
            },
            ktls: self.ktls(),
            bytes: Directions {
                to_upstream: self.to_upstream.bytes(),
                to_downstream: self.to_downstream.bytes(),
            },
            bytes_per_second: Directions { to_upstream: up, to_downstream: down },
            started: (SystemTime::now() - self.opened.elapsed())
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs_f64(),
            idle_seconds: self.idle().as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::tunnel::{Registry, tests::support::info};

    #[test]
    fn a_view_has_stable_json() {
        let registry = Registry::new();
        let _ticket = registry.open(info("192.0.2.1:4711".parse().unwrap()));
        let mut json = serde_json::to_value(registry.snapshot()).unwrap();
        let view = json[0].as_object_mut().unwrap();
        assert!(view.remove("started").unwrap().as_f64().unwrap() > 1.7e9);
        assert!(view.remove("idle_seconds").unwrap().is_number());
        assert_eq!(
            json[0],
            serde_json::json!({
                "id": 1,
                "kind": "connect",
                "client": "192.0.2.1:4711",
                "upstream": "server",
                "listener": "test",
                "engine": {"to_upstream": {"name": "copy"}, "to_downstream": {"name": "copy"}},
                "bytes": {"to_upstream": 0, "to_downstream": 0},
                "bytes_per_second": {"to_upstream": 0, "to_downstream": 0},
            })
        );
    }
}
