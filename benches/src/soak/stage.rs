//! Who takes part in a soak: the origin, and the proxy with a listener of each kind.

use std::{
    net::{SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context as _;

use super::{load::Targets, sample::Watched};
use crate::{
    launch::{self, Scratch},
    run::Settings,
    server::{Server, underpass},
};

/// Idle connections, of clients and in pools, are given up after so long: then nothing
/// should be left.
pub(crate) const IDLE: Duration = Duration::from_secs(5);

/// Started, and ended when dropped.
#[derive(Debug)]
pub(crate) struct Stage {
    child: Child,
    _origin: Server,
    _scratch: Scratch,
    pub(crate) targets: Targets,
    pub(crate) watched: Watched,
}

impl Stage {
    /// Starts them.
    ///
    /// # Errors
    /// If one does not start.
    pub(crate) fn start(
        settings: &Settings,
        workers: usize,
        local_bypass: bool,
    ) -> anyhow::Result<Self> {
        let origin = Server::origin()?;
        // Nobody listens there any more, and nobody will: requests that go there fail.
        let nobody = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let scratch = Scratch::new(nobody, &configuration(origin.address, nobody, workers))?;
        let mut command = Command::new(underpass(settings)?);
        command.args(["run", "--config"]).arg(&scratch.file).stdin(Stdio::null());
        if local_bypass {
            command.arg("--local-bypass");
        }
        let (child, listeners) = launch::announced_all(command, "underpass", &None, 4)?;
        let of = |name: &str| -> anyhow::Result<SocketAddr> {
            let found = listeners.iter().find(|(one, _)| one == name);
            Ok(found.with_context(|| format!("no listener `{name}`"))?.1)
        };
        let targets = Targets {
            web: of("web")?,
            forward: of("forward")?,
            raw: of("raw")?,
            origin: origin.address,
        };
        let watched = Watched { pid: child.id(), admin: of("admin")?, origin: origin.address };
        Ok(Self { child, _origin: origin, _scratch: scratch, targets, watched })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        launch::terminate(&mut self.child);
    }
}

/// Access lines are written, to where they take no room.
fn configuration(origin: SocketAddr, nobody: SocketAddr, workers: usize) -> String {
    let idle = IDLE.as_secs();
    format!(
        "workers = {workers}
drain_timeout = \"1s\"
[admin]
address = \"127.0.0.1:0\"
[log]
access = \"/dev/null\"
[limits]
idle_timeout = \"{idle}s\"
[[listener]]
name = \"web\"
address = \"127.0.0.1:0\"
[[listener]]
name = \"forward\"
address = \"127.0.0.1:0\"
protocol = \"forward\"
[[listener]]
name = \"raw\"
address = \"127.0.0.1:0\"
protocol = \"tcp\"
[[route]]
listener = \"web\"
path_prefix = \"/nobody\"
upstream = \"nobody\"
[[route]]
listener = \"web\"
upstream = \"origin\"
[[route]]
listener = \"raw\"
upstream = \"origin\"
[[upstream]]
name = \"origin\"
servers = [\"{origin}\"]
idle_timeout = \"{idle}s\"
[[upstream]]
name = \"nobody\"
servers = [\"{nobody}\"]
"
    )
}
