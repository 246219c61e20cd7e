//! A new process takes over the sockets of the one that serves, and sockets come from a service
//! manager.

use std::{fs, net::SocketAddr, path::PathBuf};

use underpass_tests::{Proxy, ProxyBuilder, proxy::scratch};

mod activation;
mod systemd;
mod take_over;

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

/// A configuration that several processes are started with, one after the other.
struct Site {
    config: PathBuf,
    /// Where they meet.
    path: PathBuf,
}

impl Site {
    /// Two listeners, `web` and `raw`, and an admin endpoint, in front of these servers.
    fn new(top: &str, web: SocketAddr, raw: SocketAddr) -> Self {
        let site = Self { config: scratch("toml"), path: scratch("sock") };
        let any = "127.0.0.1:0";
        let text = format!(
            "{top}\nhandover = \"{}\"\n[admin]\naddress = \"{any}\"\n\
             [[listener]]\nname = \"web\"\naddress = \"{any}\"\n\
             [[listener]]\nname = \"raw\"\naddress = \"{any}\"\nprotocol = \"tcp\"\n\
             [[route]]\nupstream = \"web\"\n\
             [[route]]\nlistener = \"raw\"\nupstream = \"raw\"\n\
             [[upstream]]\nname = \"web\"\nservers = [\"{web}\"]\n\
             [[upstream]]\nname = \"raw\"\nservers = [\"{raw}\"]\n",
            site.path.display(),
        );
        fs::write(&site.config, text).unwrap();
        site
    }

    fn process(&self) -> ProxyBuilder {
        Proxy::command(&["run", "--config", self.config.to_str().unwrap()], 3)
    }

    fn successor(&self) -> ProxyBuilder {
        self.process().args(["--take-over"])
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.config);
        let _ = fs::remove_file(&self.path);
    }
}
