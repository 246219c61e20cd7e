//! Servers of upstreams, one by one, in a scrape.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;

use super::export::{counter, gauge};
use crate::upstream::{
    directory::{Directory, Group},
    state::{Member, Standing, now},
};

const STANDINGS: [Standing; 4] =
    [Standing::Up, Standing::Down, Standing::Ejected, Standing::Draining];

pub(super) fn encode(out: &mut DescriptorEncoder<'_>, directory: &Directory) -> fmt::Result {
    let groups = directory.groups();
    let each = |one: &mut dyn FnMut(&Group, &str, &Member) -> fmt::Result| {
        groups.iter().try_for_each(|group| {
            let roster = group.roster();
            // One that is named twice is one server.
            let first = |at: &usize| {
                !roster[..*at].iter().any(|m| std::ptr::eq(&*m.state, &*roster[*at].state))
            };
            (0..roster.len())
                .filter(first)
                .try_for_each(|at| one(group, &roster[at].state.address().to_string(), &roster[at]))
        })
    };
    let help = "1 for how a server stands, 0 for how it does not";
    gauge(out, "server_state", help, |one| {
        each(&mut |group, server, member| {
            let standing = member.standing(now());
            STANDINGS.iter().try_for_each(|state| {
                let labels =
                    [("upstream", group.name()), ("server", server), ("state", state.name())];
                one(&labels, i64::from(*state == standing))
            })
        })
    })?;
    gauge(out, "server_connections_open", "Open connections to a server", |one| {
        each(&mut |group, server, member| {
            let labels = [("upstream", group.name()), ("server", server)];
            one(&labels, member.state.open() as i64)
        })
    })?;
    let help = "Times that a server was left alone because requests failed there";
    counter(out, "server_ejections", help, None, |one| {
        each(&mut |group, server, member| {
            let labels = [("upstream", group.name()), ("server", server)];
            one(&labels, member.state.condition.ejections())
        })
    })?;
    counter(out, "server_checks", "Checks of servers", None, |one| {
        each(&mut |group, server, member| {
            let checks = member.state.condition.checks();
            ["passed", "failed"].iter().zip(checks).try_for_each(|(result, count)| {
                let labels = [("upstream", group.name()), ("server", server), ("result", *result)];
                one(&labels, count)
            })
        })
    })
}
