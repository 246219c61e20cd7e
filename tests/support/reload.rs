//! Reloads of a running proxy, each waited for by what it counts.

use std::{
    fs,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{
    clock::{BOUND, eventually},
    proxy::Proxy,
};

impl Proxy {
    /// Reloads that succeeded, and that were refused.
    pub async fn reloads(&self) -> [f64; 2] {
        let metrics = self.metrics().await;
        ["success", "failure"]
            .map(|result| metrics.sum("underpass_config_reloads_total", &[("result", result)]))
    }

    /// Writes another configuration, as a rename over the file.
    pub fn write_config(&self, text: &str) {
        let path = self.config_path();
        let new = path.with_extension("new");
        fs::write(&new, text).expect("write configuration");
        fs::rename(&new, path).expect("put configuration in place");
    }

    /// Goes by another configuration, or fails.
    pub async fn reload(&mut self, text: &str) {
        self.reload_counted(text, 0).await;
    }

    /// Is asked to go by a configuration that is refused.
    pub async fn refuse(&mut self, text: &str) {
        self.reload_counted(text, 1).await;
    }

    async fn reload_counted(&mut self, text: &str, which: usize) {
        self.write_config(text);
        let mut wanted = self.reloads().await;
        wanted[which] += 1.0;
        self.signal(Signal::HUP);
        let what = ["a reload", "a reload to be refused"][which];
        eventually(what, async || {
            let now = self.reloads().await;
            assert!(now[1 - which] <= wanted[1 - which], "not {what}: {}", self.stderr());
            now == wanted
        })
        .await;
        match which {
            0 => self.until_listening(text).await,
            _ => self.look_for_listeners(),
        }
    }

    /// Waits until it has said of all listeners of this configuration where they are, which it
    /// does after it has counted the reload.
    async fn until_listening(&mut self, text: &str) {
        let config = underpass::config::parse(text, "test.toml").expect("what was reloaded");
        // Those that exchange their addresses have nothing new to say.
        self.until_told(|told| {
            config.listeners.iter().all(|listener| match listener.address.port() {
                0 => told.is_listening(|name, _| name == listener.name),
                port => told.is_listening(|_, address| address.port() == port),
            })
        })
        .await;
    }

    /// Waits until it has said so much of where it listens.
    pub async fn until_told(&mut self, enough: impl Fn(&Self) -> bool) {
        let begin = Instant::now();
        loop {
            self.look_for_listeners();
            if enough(self) {
                return;
            }
            assert!(begin.elapsed() < BOUND, "not told where it listens: {}", self.stderr());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
