//! The kernel tier at start: what was asked for, what is to be had, and what is said about the
//! difference.

use std::sync::Arc;

use crate::{
    config::{Config, SpliceMode},
    splice::{Ktls, Why, kernel::Kernel, probe},
};

/// Whether some listener or upstream allows local bypass.
pub(super) fn wants_bypass(config: &Config) -> bool {
    config.listeners.iter().any(|listener| listener.local_bypass)
        || config.upstreams.iter().any(|upstream| upstream.local_bypass)
}

/// `--splice kernel` is a demand, `auto` a wish, and so is local bypass. What is not to be
/// had is told once, in one line.
///
/// Implements: REQ-TUN-002, REQ-TUN-003
pub(super) fn splice_tier(config: &Config) -> anyhow::Result<Option<Arc<Kernel>>> {
    let demanded = config.splice == SpliceMode::Kernel;
    let bypass = wants_bypass(config);
    if matches!(config.splice, SpliceMode::Copy | SpliceMode::Pipe) {
        if bypass {
            let mode = config.splice;
            tracing::warn!("no local bypass: it needs --splice auto or kernel, not {mode:?}");
        }
        return Ok(None);
    }
    let tier = probe::kernel_tier().and_then(|kernel| {
        let able = kernel.abilities();
        let bypasses = bypass && (able.bypass.is_ok() || able.half_bypass.is_ok());
        match &able.redirect {
            Err(reason) if demanded || !bypasses => Err(reason.clone()),
            _ => Ok(kernel),
        }
    });
    let kernel = match tier {
        Ok(kernel) => kernel,
        Err(reason) if demanded => {
            anyhow::bail!("--splice kernel: {reason}; --splice auto serves without it")
        }
        Err(reason) if bypass => {
            tracing::warn!("no local bypass, tunnels stay in userspace: {reason}");
            return Ok(None);
        }
        Err(reason) => {
            tracing::info!("tunnels stay in userspace: {reason}");
            return Ok(None);
        }
    };
    let able = kernel.abilities();
    if let Err(reason) = &able.redirect {
        tracing::info!("no redirects between the proxy's own sockets: {reason}");
    }
    match (&able.bypass, &able.half_bypass) {
        _ if !bypass => {}
        (Ok(()), Ok(())) => {}
        (Err(reason), Err(_)) => tracing::warn!("no local bypass: {reason}"),
        (Err(reason), Ok(())) => {
            tracing::warn!("no local bypass between two applications: {reason}");
        }
        (Ok(()), Err(reason)) => {
            tracing::warn!("no local bypass from a server to a remote client: {reason}");
        }
    }
    Ok(Some(kernel))
}

/// What of TLS the kernel takes over, where that is asked for and tunnels are to be spliced;
/// otherwise nothing is tried. What is not to be had is told where TLS is spoken.
///
/// Implements: REQ-EDGE-006
pub(super) fn ktls_tier(config: &Config) -> Ktls {
    if !config.ktls || config.splice == SpliceMode::Copy {
        return Ktls::none(Why::TlsOff);
    }
    probe::ktls().unwrap_or_else(|reason| {
        let listens = config.listeners.iter().any(|listener| listener.tls.is_some());
        if listens || config.upstreams.iter().any(|upstream| upstream.tls.is_some()) {
            tracing::info!("tunnels inside TLS are copied: {reason}");
        }
        Ktls::none(Why::TlsKernel)
    })
}
