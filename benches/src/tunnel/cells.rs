//! What is measured: a topology, a load and what stands between, and which of them were
//! asked for. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::only;

/// Who is on which host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Topology {
    /// Client, proxy and server on one host.
    Loopback,
    /// The client on another host, the server beside the proxy.
    RemoteClient,
    /// Three hosts; `direct` is routed by the proxy's host.
    Remote,
}

/// What stands between client and server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Direct,
    Underpass {
        engine: Engine,
        bypass: bool,
    },
    /// With `option splice-auto`, where it judges by itself.
    HaProxy,
    /// With splice(2) whatever goes through, as in bulk it rarely judges so.
    HaProxySplice,
    Nginx,
}

/// `--splice`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Copy,
    Pipe,
    Kernel,
    Auto,
}

/// What goes through the tunnels. The number is that of the tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Load {
    /// As many bytes as go, from the client to the server.
    Up(u32),
    /// The same, from the server to the client.
    Down(u32),
    /// 64 bytes there and back, one message under way per tunnel.
    PingPong(u32),
    /// 50 messages a second from the server to the client, in each.
    Tokens(u32),
    /// Ping-pong on so many, beside one tunnel in bulk to the client.
    Mixed(u32),
    /// Open and silent.
    Idle(u32),
}

impl Topology {
    pub(crate) const ALL: [Self; 3] = [Self::Loopback, Self::RemoteClient, Self::Remote];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::RemoteClient => "remote-client",
            Self::Remote => "remote",
        }
    }
}

impl Target {
    /// In the order of the tables' rows.
    pub(crate) const ALL: [Self; 10] = {
        const fn ours(engine: Engine, bypass: bool) -> Target {
            Target::Underpass { engine, bypass }
        }
        [
            Self::Direct,
            ours(Engine::Copy, false),
            ours(Engine::Pipe, false),
            ours(Engine::Kernel, false),
            ours(Engine::Auto, false),
            ours(Engine::Kernel, true),
            ours(Engine::Auto, true),
            Self::HaProxy,
            Self::HaProxySplice,
            Self::Nginx,
        ]
    };

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Underpass { engine, bypass: false } => engine.name(),
            Self::Underpass { engine: Engine::Kernel, bypass: true } => "kernel+bypass",
            Self::Underpass { engine: Engine::Auto, bypass: true } => "auto+bypass",
            // Engines in userspace have nothing to do with a bypass; no row asks for it.
            Self::Underpass { engine, bypass: true } => engine.name(),
            Self::HaProxy => "haproxy",
            Self::HaProxySplice => "haproxy-splice",
            Self::Nginx => "nginx",
        }
    }

    /// A bypass wants an application on the proxy's host; memory wants a proxy, and an idle
    /// one uses no engine.
    pub(crate) fn applies(self, topology: Topology, load: Load) -> bool {
        let bypass = matches!(self, Self::Underpass { bypass: true, .. });
        let beside_idle = matches!(self, Self::Direct | Self::HaProxySplice);
        !(bypass && topology == Topology::Remote || beside_idle && matches!(load, Load::Idle(_)))
    }
}

impl Engine {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Pipe => "pipe",
            Self::Kernel => "kernel",
            Self::Auto => "auto",
        }
    }
}

impl Load {
    pub(crate) const ALL: [Self; 11] = [
        Self::Up(1),
        Self::Up(8),
        Self::Down(1),
        Self::Down(8),
        Self::PingPong(1),
        Self::PingPong(64),
        Self::PingPong(1_000),
        Self::Tokens(200),
        Self::Mixed(8),
        Self::Idle(1_000),
        Self::Idle(10_000),
    ];

    pub(crate) fn is_bulk(self) -> bool {
        matches!(self, Self::Up(_) | Self::Down(_))
    }

    /// For the head of its table.
    pub(crate) fn description(self) -> String {
        match self {
            Self::Up(n) => format!("bulk client -> server, {n} tunnel(s)"),
            Self::Down(n) => format!("bulk server -> client, {n} tunnel(s)"),
            Self::PingPong(n) => format!("ping-pong of 64 bytes, {n} tunnel(s)"),
            Self::Tokens(n) => {
                format!("token streams, {n} tunnels, 50 messages/s of 100 bytes each")
            }
            Self::Mixed(n) => format!("ping-pong on {n} tunnels beside one in bulk to the client"),
            Self::Idle(n) => format!("{n} idle tunnels"),
        }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up(n) => write!(f, "up{n}"),
            Self::Down(n) => write!(f, "down{n}"),
            Self::PingPong(n) => write!(f, "pingpong{n}"),
            Self::Tokens(n) => write!(f, "tokens{n}"),
            Self::Mixed(n) => write!(f, "mixed{n}"),
            Self::Idle(n) => write!(f, "idle{n}"),
        }
    }
}

/// `--only topology=remote,load=pingpong64|tokens,engine=auto|haproxy`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Only(only::Only);

impl Only {
    /// Reads it.
    ///
    /// # Errors
    /// If a key or a name is none.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let keys = [
            ("topology", Topology::ALL.map(|topology| topology.name().to_owned()).to_vec()),
            ("load", Load::ALL.map(|load| load.to_string()).to_vec()),
            ("engine", Target::ALL.map(|target| target.name().to_owned()).to_vec()),
        ];
        only::Only::parse(text, &keys).map(Self)
    }

    pub(crate) fn topology(&self, topology: Topology) -> bool {
        self.0.wants("topology", topology.name())
    }

    pub(crate) fn load(&self, load: Load) -> bool {
        self.0.wants("load", &load.to_string())
    }

    pub(crate) fn names_load(&self) -> bool {
        self.0.restricts("load")
    }

    pub(crate) fn target(&self, target: Target) -> bool {
        self.0.wants("engine", target.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_restricts_what_it_names() {
        let only = Only::parse("topology=remote,load=pingpong|up8,engine=auto|haproxy").unwrap();
        assert!(only.topology(Topology::Remote) && !only.topology(Topology::RemoteClient));
        assert!(only.load(Load::PingPong(64)) && only.load(Load::PingPong(1_000)));
        assert!(only.load(Load::Up(8)) && !only.load(Load::Up(1)) && !only.load(Load::Mixed(8)));
        assert!(
            only.target(Target::Underpass { engine: Engine::Auto, bypass: false })
                && only.target(Target::HaProxy)
        );
        assert!(!only.target(Target::Underpass { engine: Engine::Auto, bypass: true }));
        let one = Only::parse("load=pingpong1").unwrap();
        assert!(one.load(Load::PingPong(1)) && !one.load(Load::PingPong(1_000)));
        let all = Only::default();
        assert!(Load::ALL.into_iter().all(|load| all.load(load)));
    }

    #[test]
    fn a_filter_that_names_nothing_is_refused() {
        for wrong in ["load=pong", "engine=", "topology", "colour=red"] {
            assert!(Only::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_bypass_needs_somebody_on_the_proxys_host() {
        let bypass = Target::Underpass { engine: Engine::Kernel, bypass: true };
        assert!(bypass.applies(Topology::RemoteClient, Load::Up(1)));
        assert!(!bypass.applies(Topology::Remote, Load::Up(1)));
        assert!(!Target::Direct.applies(Topology::Loopback, Load::Idle(1_000)));
    }
}
