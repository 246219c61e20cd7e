//! The workers one by one: where each runs, what it has, and how connections came to it.
//!
//! Part of a scrape. Connections are those of the listeners' cells, added up the other way.

use std::fmt;

use prometheus_client::{encoding::DescriptorEncoder, metrics::MetricType};
use proxy_ebpf::seat::Choice;

use super::{
    Shared,
    export::{counter, gauge, level, sum},
    lock,
};

pub(super) fn encode(out: &mut DescriptorEncoder<'_>, shared: &Shared) -> fmt::Result {
    out.encode_descriptor("workers", "Data-plane threads", None, MetricType::Gauge)?
        .encode_gauge(&(shared.workers.len() as i64))?;
    let numbers: Vec<String> = (0..shared.workers.len()).map(|index| index.to_string()).collect();
    gauge(
        out,
        "worker_place",
        "1; the CPUs and the node of memory that a worker keeps to",
        |one| {
            shared.workers.iter().zip(&numbers).try_for_each(|(worker, number)| {
                let place = lock(&worker.place).clone();
                let node = place.node.map_or("any".to_owned(), |node| node.to_string());
                one(&[("worker", number), ("cpus", &place.to_string()), ("node", &node)], 1)
            })
        },
    )?;
    let listeners = lock(&shared.listeners);
    let of = |worker: usize| listeners.values().filter_map(move |workers| workers.get(&worker));
    counter(
        out,
        "worker_connections_accepted",
        "Connections from clients, by worker",
        None,
        |one| {
            numbers.iter().enumerate().try_for_each(|(worker, number)| {
                one(&[("worker", number)], sum(of(worker).map(|cells| &cells.accepted)))
            })
        },
    )?;
    gauge(out, "worker_connections_open", "Open connections of clients, by worker", |one| {
        numbers.iter().enumerate().try_for_each(|(worker, number)| {
            one(&[("worker", number)], level(of(worker).map(|cells| &cells.open)))
        })
    })?;
    drop(listeners);
    counter(out, "steering_choices", "How the worker of a connection was chosen", None, |one| {
        lock(&shared.steerings).iter().try_for_each(|(listener, steering)| {
            // What cannot be read now is not there, like a listener that is not steered.
            let Ok(counts) = steering.choices() else { return Ok(()) };
            Choice::ALL.iter().zip(counts).try_for_each(|(choice, count)| {
                one(&[("listener", listener), ("choice", choice.name())], count)
            })
        })
    })
}
