//! The thread of a worker: its runtime, the listeners that it serves, its end.
//!
//! Invariant: a worker says that it serves when everything is there that it will ever need
//! while nobody has connected (runtime, epoll sets, sockets), so that "ready" means all of them.

use std::{
    io, mem,
    rc::Rc,
    sync::Arc,
    thread::{Builder, JoinHandle},
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};

use super::{
    Process, Worker,
    orders::{Change, Order, Orders, Share},
};
use crate::{access_log, connection::parked, drain, lend, magazine, placement::Place, record};

/// A worker that has been started.
#[derive(Debug)]
pub struct Started {
    /// Its thread, with what it ended by.
    pub thread: JoinHandle<io::Result<()>>,
    /// Resolves when it serves; an error if it ended before.
    pub serving: oneshot::Receiver<()>,
    /// Where it is told what to do.
    pub orders: Orders,
}

/// Starts the thread of a worker. It ends after the drain, when its connections have.
///
/// # Errors
/// If there is no thread to be had.
pub fn spawn(
    (index, place): (usize, Place),
    process: Arc<Process>,
    told: (access_log::Writer, Option<record::Lane>),
    drain: drain::Watch,
    (shares, doors): (Vec<Share>, Vec<u64>),
) -> io::Result<Started> {
    let process_workers = process.snapshot.load().config.workers;
    let (serves, serving) = oneshot::channel();
    let (orders, ordered) = mpsc::unbounded_channel();
    // Before anything is touched: memory comes from where the thread runs.
    let visit = place.visit();
    if let Err(error) = &visit {
        tracing::warn!("worker {index} cannot keep to CPU {place}: {error}");
        process.admin.metrics.placed(index, &Place::default());
    }
    let thread = Builder::new().name(format!("worker-{index}")).spawn(move || {
        let _magazines = magazine::open();
        lend::get_ready();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(tokio::runtime::LocalOptions::default())?;
        crate::splice::pipe_pool::set_budget(pipe_budget(process_workers));
        runtime.block_on(async move {
            let worker = Rc::new(Worker::new(process, told, drain, index)?);
            worker.prepare(shares)?;
            let snapshot = worker.process.snapshot.load_full();
            worker.apply(Change { snapshot, doors });
            serve(worker, ordered, serves).await
        })
    })?;
    drop(visit);
    Ok(Started { thread, serving, orders })
}

/// Pipes that one worker may have: an eighth of its share of the descriptors, two each.
/// The rest is for connections.
fn pipe_budget(workers: usize) -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let share = limit.map_or(usize::MAX, |limit| limit as usize / workers.max(1));
    (share / 16).min(crate::splice::OPEN_PIPES)
}

async fn serve(
    worker: Rc<Worker>,
    mut ordered: mpsc::UnboundedReceiver<Order>,
    serves: oneshot::Sender<()>,
) -> io::Result<()> {
    for run in [0, 1, 2] {
        let worker = Rc::clone(&worker);
        tokio::task::spawn_local(async move {
            match run {
                0 => worker.watchdog.run().await,
                1 => worker.sweep().await,
                _ => worker.follow().await,
            }
        });
    }
    tokio::task::spawn_local(Rc::clone(&worker.upstream_parking).watch());
    tokio::task::spawn_local(parked::watch(Rc::clone(&worker)));
    tokio::task::spawn_local(parked::expire(Rc::clone(&worker)));
    // All of them have begun, and have what they need, when this task comes round again.
    tokio::task::yield_now().await;
    // Whoever started the workers may have given up because of another one.
    let _ = serves.send(());
    let mut drain = worker.drain.clone();
    tokio::select! {
        () = drain.leaving() => {}
        // Who gives the orders is gone; the drain has begun, or begins now.
        () = worker.obey(&mut ordered) => drain.leaving().await,
    }
    let accepting = mem::take(&mut *worker.accepting.borrow_mut());
    for (_, run) in accepting {
        // The loop ends with the drain, and its socket is closed then.
        let _ = run.await;
    }
    // Whoever gives orders knows by this that all are closed.
    drop(ordered);
    while worker.connections.get() > 0 && !worker.is_forced() {
        tokio::select! {
            () = worker.last_gone.notified() => {}
            () = async { worker.drain.clone().forced().await } => {}
        }
    }
    // After the deadline each connection sees the flag when it is polled next; tunnels
    // have a short grace of their own to tell both sides.
    let grace = async {
        while worker.connections.get() > 0 {
            worker.last_gone.notified().await;
        }
    };
    let _ = tokio::time::timeout(Duration::from_millis(900), grace).await;
    Ok(())
}
