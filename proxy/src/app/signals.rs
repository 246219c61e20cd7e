//! Signals as messages: SIGTERM and SIGINT ask for the end, SIGHUP for a reload, SIGUSR2 for
//! a hand-over to a new binary.

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

/// What somebody outside wants of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// To finish what is open and end; a second time, to end at once.
    Stop,
    /// To go by the configuration as it is now.
    Reload,
    /// The same, because files have changed.
    Follow,
    /// To have the binary that lies in its place now take over.
    Upgrade,
}

/// The wishes that come by signals.
pub(super) fn signals() -> std::io::Result<mpsc::Receiver<Wish>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut second = signal(SignalKind::user_defined2())?;
    let (wish, wishes) = mpsc::channel(2);
    tokio::spawn(async move {
        loop {
            let wanted = tokio::select! {
                _ = terminate.recv() => Wish::Stop,
                _ = interrupt.recv() => Wish::Stop,
                _ = hangup.recv() => Wish::Reload,
                _ = second.recv() => Wish::Upgrade,
            };
            if wish.send(wanted).await.is_err() {
                return;
            }
        }
    });
    Ok(wishes)
}
