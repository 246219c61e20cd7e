//! The workers' threads, seen from the control plane: started together, serving together, and
//! missed when one ends that nobody asked to.

use std::{io, thread::JoinHandle, time::Duration};

use anyhow::Context as _;
use tokio::time::sleep;

use crate::worker::{
    orders::{Order, Orders},
    thread::Started,
};

/// How often is looked whether a worker has ended. It happens once in the life of a process,
/// if at all, and a thread tells nobody by itself.
const LOOK: Duration = Duration::from_millis(500);

/// All workers of the process.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    threads: Vec<Option<JoinHandle<io::Result<()>>>>,
    orders: Vec<Orders>,
}

impl Fleet {
    /// Waits until each of them serves.
    ///
    /// # Errors
    /// What the first one failed by that does not.
    pub(super) async fn assemble(started: Vec<Started>) -> anyhow::Result<Self> {
        let mut threads = Vec::with_capacity(started.len());
        let mut all_orders = Vec::with_capacity(started.len());
        for (index, Started { thread, serving, orders }) in started.into_iter().enumerate() {
            if serving.await.is_err() {
                // It is ending, or has ended.
                let why = how_it_ended(thread);
                return Err(why).with_context(|| format!("worker {index} cannot serve"));
            }
            threads.push(Some(thread));
            all_orders.push(orders);
        }
        Ok(Self { threads, orders: all_orders })
    }

    /// Gives each worker an order, in their order. One that has ended loses it.
    pub(super) fn order(&self, mut order: impl FnMut() -> Order) {
        for orders in &self.orders {
            let _ = orders.send(order());
        }
    }

    /// Resolves when all workers have closed their listening sockets, which they do when they are
    /// to take nothing new.
    pub(super) async fn closed(&self) {
        for orders in &self.orders {
            orders.closed().await;
        }
    }

    /// Resolves when one has ended, with its number and why. Not to be asked during a drain,
    /// when they are to end.
    pub(super) async fn failed(&mut self) -> (usize, anyhow::Error) {
        loop {
            let ended = |thread: &Option<JoinHandle<_>>| {
                thread.as_ref().is_some_and(JoinHandle::is_finished)
            };
            if let Some(index) = self.threads.iter().position(ended)
                && let Some(thread) = self.threads[index].take()
            {
                return (index, how_it_ended(thread));
            }
            sleep(LOOK).await;
        }
    }

    /// Waits for all to end, and tells of those that did not end well. Blocks.
    pub(super) fn join(self) {
        for (index, thread) in self.threads.into_iter().enumerate() {
            let Some(thread) = thread else { continue };
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!("worker {index} failed: {error}"),
                Err(_) => tracing::error!("worker {index} panicked"),
            }
        }
    }
}

fn how_it_ended(thread: JoinHandle<io::Result<()>>) -> anyhow::Error {
    match thread.join() {
        Ok(Ok(())) => anyhow::anyhow!("it ended"),
        Ok(Err(error)) => error.into(),
        Err(_) => anyhow::anyhow!("it panicked"),
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use tokio::sync::oneshot;

    use super::*;

    /// A worker that serves, and ends as it is told.
    fn worker(end: mpsc::Receiver<io::Result<()>>) -> Started {
        let (serves, serving) = oneshot::channel();
        let thread = thread::spawn(move || {
            serves.send(()).unwrap();
            end.recv().unwrap()
        });
        Started { thread, serving, orders: tokio::sync::mpsc::unbounded_channel().0 }
    }

    #[tokio::test]
    async fn one_that_cannot_serve_fails_the_start_by_its_reason() {
        let (end, told) = mpsc::channel();
        let (serves, serving) = oneshot::channel::<()>();
        let orders = tokio::sync::mpsc::unbounded_channel().0;
        let thread = thread::spawn(move || {
            drop(serves);
            Err(io::Error::other("no epoll set"))
        });
        let error = Fleet::assemble(vec![worker(told), Started { thread, serving, orders }]).await;
        assert_eq!(format!("{:#}", error.unwrap_err()), "worker 1 cannot serve: no epoll set");
        end.send(Ok(())).unwrap();
    }

    #[tokio::test]
    async fn one_that_ends_is_missed() {
        let ((first, of_first), (second, of_second)) = (mpsc::channel(), mpsc::channel());
        let mut fleet = Fleet::assemble(vec![worker(of_first), worker(of_second)]).await.unwrap();
        assert!(tokio::time::timeout(LOOK * 2, fleet.failed()).await.is_err(), "all are well");
        second.send(Err(io::Error::other("no luck"))).unwrap();
        let (index, why) = fleet.failed().await;
        assert_eq!((index, why.to_string().as_str()), (1, "no luck"));
        first.send(Ok(())).unwrap();
        fleet.join();
    }
}
