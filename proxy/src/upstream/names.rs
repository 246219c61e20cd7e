//! Names of servers to addresses, by DNS and on the control plane: no worker waits for it.
//!
//! One task per name of an upstream. An answer holds for its TTL, then it is asked for again;
//! each of its addresses is a server of its own. What cannot be had leaves the last answer
//! in place, and before the first one the name itself is the server, which the system resolves
//! for each connection.
//!
//! Implements: REQ-EDGE-002

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use hickory_resolver::{
    TokioResolver,
    config::{LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts},
    net::{NetError, runtime::TokioRuntimeProvider},
};
use tokio::task::JoinHandle;

use super::directory::{Directory, Group};
use crate::config::Dns;

/// First and longest pause after an answer that could not be had.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Addresses of one name that become servers. More is a mistake somewhere.
const MOST_ADDRESSES: usize = 256;

/// One name that is followed.
struct Following {
    /// Kept, so that no other group gets its address while that stands for it.
    _group: Arc<Group>,
    dns: Dns,
    task: JoinHandle<()>,
}

impl Drop for Following {
    /// A task whose handle is gone would go on, and have its answers in force.
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Follows the names of all upstreams as long as the process lives.
pub async fn supervise(directory: Arc<Directory>) {
    let mut changes = directory.changes();
    // By the address of the upstream's group, and name.
    let mut running: HashMap<(usize, String), Following> = HashMap::new();
    loop {
        changes.borrow_and_update();
        let mut before = std::mem::take(&mut running);
        for group in directory.groups() {
            let config = group.config();
            let Some(dns) = &config.dns else { continue };
            let names = config.servers.iter().map(|server| &server.address.host);
            for name in names.filter(|name| name.parse::<IpAddr>().is_err()) {
                let id = (Arc::as_ptr(&group) as usize, name.clone());
                let known = before.remove(&id).filter(|known| known.dns == *dns);
                running.entry(id).or_insert_with(|| {
                    known.unwrap_or_else(|| {
                        let follow = follow(Arc::clone(&group), name.clone(), dns.clone());
                        let (dns, task) = (dns.clone(), tokio::spawn(follow));
                        Following { _group: Arc::clone(&group), dns, task }
                    })
                });
            }
        }
        // What is left is followed no more.
        drop(before);
        if changes.changed().await.is_err() {
            return;
        }
    }
}

async fn follow(group: Arc<Group>, name: String, dns: Dns) {
    let mut resolver = None;
    let mut pause = PAUSE.0;
    let mut known: Option<Vec<IpAddr>> = None;
    loop {
        let wait = match ask(&mut resolver, &dns, &name).await {
            Ok((addresses, until)) => {
                if known.as_ref() != Some(&addresses) {
                    tracing::info!(upstream = group.name(), name, "resolves to {addresses:?}");
                    group.resolved(&name, &addresses);
                }
                known = Some(addresses);
                pause = PAUSE.0;
                let left = until.saturating_duration_since(Instant::now());
                left.clamp(dns.min_ttl, dns.max_ttl)
            }
            Err(error) => {
                // The system may have other name servers by now: on a laptop it often has.
                resolver = None;
                if pause == PAUSE.0 {
                    let upstream = group.name();
                    tracing::warn!(upstream, name, "no answer, what was known stays: {error}");
                }
                let wait = pause;
                pause = (pause * 2).min(PAUSE.1);
                wait.min(dns.max_ttl)
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// The addresses of a name in an order of their own, and until when they hold.
async fn ask(
    known: &mut Option<TokioResolver>,
    dns: &Dns,
    name: &str,
) -> Result<(Vec<IpAddr>, Instant), String> {
    let resolver = match known {
        Some(resolver) => resolver,
        None => known.insert(resolver(dns).map_err(|error| format!("no DNS: {error}"))?),
    };
    let answer = resolver.lookup_ip(name).await.map_err(|error| error.to_string())?;
    let mut addresses: Vec<IpAddr> = answer.iter().collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(MOST_ADDRESSES);
    match addresses.is_empty() {
        true => Err("it has no address".to_owned()),
        false => Ok((addresses, answer.valid_until())),
    }
}

fn resolver(dns: &Dns) -> Result<TokioResolver, NetError> {
    let mut builder = match dns.servers.as_slice() {
        [] => TokioResolver::builder_tokio()?,
        servers => {
            let server = |address: &std::net::SocketAddr| {
                let mut server = NameServerConfig::udp_and_tcp(address.ip());
                server.connections.iter_mut().for_each(|how| how.port = address.port());
                server
            };
            let config = ResolverConfig::from_name_servers(servers.iter().map(server).collect());
            let mut builder =
                TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
            *builder.options_mut() = ResolverOpts::default();
            builder
        }
    };
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.timeout = dns.timeout;
    // What is kept, and for how long, is decided here.
    options.cache_size = 0;
    builder.build()
}
