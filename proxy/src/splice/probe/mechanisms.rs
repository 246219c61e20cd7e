//! The mechanisms of the kernel tier, in the order in which they are tried, and what may be
//! used of them after that.

use std::{sync::Arc, thread};

use proxy_ebpf::Protection;

use super::{
    super::{
        kernel::{Abilities, Kernel},
        without::without,
    },
    Row, bypass, redirect,
};

pub(super) const LOCAL_BYPASS: &str = "tunnels past the proxy (local_bypass = true)";
pub(super) const ENGINE_KERNEL: &str = "tunnels moved by BPF";

/// What was tried, and what follows from it.
pub(super) struct Trial {
    pub(super) rows: Vec<Row>,
    pub(super) abilities: Abilities,
}

/// Tries everything, and tells the programs' holder what may be used.
///
/// Implements: REQ-TUN-002, REQ-TUN-003
pub(super) fn run(kernel: &Arc<Kernel>) -> Trial {
    // A thread and a runtime of its own: whoever asks may be on another one.
    let tried = thread::scope(|scope| {
        let probe = thread::Builder::new().name("probe".to_owned());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let probe = probe.spawn_scoped(scope, move || runtime.block_on(all(kernel)));
        let probe = probe.map_err(|error| error.to_string())?;
        probe.join().map_err(|_| "the probe failed".to_owned())
    });
    let trial = tried.unwrap_or_else(|reason| Trial {
        rows: Vec::new(),
        abilities: Abilities {
            bypass: Err(reason.clone()),
            half_bypass: Err(reason.clone()),
            redirect: Err(reason),
        },
    });
    if !without(Protection::Probe) {
        kernel.set_abilities(trial.abilities.clone());
    }
    trial
}

async fn all(kernel: &Arc<Kernel>) -> Trial {
    let mut rows = Vec::new();
    let mut row = |name, purpose, result: &Result<(), String>| {
        rows.push(Row::new(name, purpose, result.clone()));
    };

    let needs_pass = bypass::needs_pass(kernel);
    kernel.set_needs_pass(needs_pass == Ok(true));

    const BYPASS: &str = "bypass_redirect";
    let mut basis = bypass::redirect(kernel).await;
    let mut told = behind(BYPASS, &basis, bypass::fionread(kernel)).await;
    let mut one_queue = behind(BYPASS, &basis, bypass::one_queue(kernel)).await;
    let right = needs_pass == Ok(false) && told.is_ok();
    if right && one_queue.is_err() && bypass::tells_of_received(kernel, true) == Ok(true) {
        // For this alone. Everything else is tried with it.
        kernel.set_needs_pass(true);
        basis = bypass::redirect(kernel).await;
        told = behind(BYPASS, &basis, bypass::fionread(kernel)).await;
        one_queue = behind(BYPASS, &basis, bypass::one_queue(kernel)).await;
    }
    let gate = behind(BYPASS, &basis, bypass::gate(kernel)).await;
    let slow_reader = behind(BYPASS, &basis, bypass::slow_reader(kernel)).await;
    let half_close = behind(BYPASS, &basis, bypass::half_close(kernel)).await;
    let half_bypass = bypass::half_bypass(kernel).await;
    let splices = behind(BYPASS, &basis, bypass::splices(kernel)).await;
    let queue = needs_pass.clone().map(|_| ());
    let fionread = queue.clone().and(told);
    row(BYPASS, "local bypass: intact, both ways", &basis);
    row("bypass_gate", "local bypass: nothing is overtaken", &gate);
    row("bypass_slow_reader", "local bypass: a slow reader holds its sender back", &slow_reader);
    row("bypass_half_close", "local bypass: the end comes last", &half_close);
    row("bypass_one_queue", "local bypass: a read that comes short is the last", &one_queue);
    row("half_bypass", "from a local server out on our connection", &half_bypass);
    row("fionread", "local bypass: FIONREAD is right", &fionread);
    row("splice_read", "local bypass: splice(2) sees what is there", &splices);

    const SKB: &str = "skb_redirect";
    let basis_skb = redirect::redirect(kernel).await;
    let early = behind(SKB, &basis_skb, async { redirect::early_data(kernel) }).await;
    let half_close_skb = behind(SKB, &basis_skb, redirect::half_close(kernel)).await;
    let slow_reader_skb = behind(SKB, &basis_skb, redirect::slow_reader(kernel)).await;
    row(SKB, "between our own sockets: intact", &basis_skb);
    row("skb_early_data", "between our own: what came before arrives once", &early);
    row("skb_half_close", "between our own: the end comes last", &half_close_skb);
    row("skb_slow_reader", "between our own: a slow reader holds back", &slow_reader_skb);

    // What splice(2) does is for the operator to know: a program does not show that it will.
    let abilities = Abilities {
        bypass: basis.and(gate).and(slow_reader).and(half_close).and(fionread).and(one_queue),
        half_bypass: half_bypass.and(queue),
        redirect: basis_skb.and(early).and(half_close_skb).and(slow_reader_skb),
    };
    row("local_bypass", LOCAL_BYPASS, &abilities.bypass);
    row("engine_kernel", ENGINE_KERNEL, &abilities.redirect);
    if needs_pass == Ok(true)
        && let Some(row) = rows.iter_mut().find(|row| row.name == "fionread" && row.available)
    {
        row.note = Some("with up_pass, which this kernel needs for it");
    }
    Trial { rows, abilities }
}

/// What builds on something that does not work is not tried.
async fn behind(
    name: &str,
    basis: &Result<(), String>,
    trial: impl Future<Output = Result<(), String>>,
) -> Result<(), String> {
    match basis {
        Ok(()) => trial.await,
        Err(_) => Err(format!("{name} does not work")),
    }
}
