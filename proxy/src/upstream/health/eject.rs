//! Servers that fail requests are left alone for a while: passive ejection.
//!
//! Failures in a row are counted over all workers, and a good answer forgets them; while all
//! goes well that is one read of memory that nobody writes. After its time a server is asked
//! again, and its first failure then ejects it for twice as long, up to a limit. One that has
//! been well for as long as it was ejected begins anew.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use http::StatusCode;

use super::super::{
    directory::Group,
    state::{ServerState, now},
};
use crate::{config::Ejection, error::Kind};

/// What a worker needs to take note of how requests end.
#[derive(Debug)]
pub struct Passive {
    group: Arc<Group>,
    rules: Ejection,
}

impl Passive {
    /// For the servers of a group.
    pub fn new(group: Arc<Group>, rules: Ejection) -> Self {
        Self { group, rules }
    }

    /// Its rules.
    pub fn rules(&self) -> &Ejection {
        &self.rules
    }

    /// A server has answered.
    pub fn answered(&self, server: &ServerState, status: StatusCode) {
        if self.rules.on_5xx && status.is_server_error() {
            self.count(server);
        } else {
            self.good(server);
        }
    }

    /// It is there, and was asked nothing.
    pub fn good(&self, server: &ServerState) {
        if server.condition.errors() != 0 {
            server.condition.errors.store(0, Relaxed);
        }
    }

    /// A request has failed there.
    pub fn failed(&self, server: &ServerState, kind: Kind) {
        let counts = match kind {
            Kind::Connect | Kind::ConnectTimeout | Kind::Resolve => true,
            Kind::UpstreamTls => true,
            Kind::UpstreamClosed | Kind::BadResponse(_) => true,
            Kind::ResponseTimeout => self.rules.on_timeout,
            _ => false,
        };
        if counts {
            self.count(server);
        }
    }

    fn count(&self, server: &ServerState) {
        let errors = server.condition.errors.fetch_add(1, Relaxed) + 1;
        if errors >= self.rules.consecutive_errors {
            self.group.eject(server, &self.rules, now());
        }
    }
}

impl Group {
    /// Leaves a server alone for a while, unless it is already, or too many others are.
    fn eject(&self, server: &ServerState, rules: &Ejection, now: u64) {
        let _editing = self.edit();
        let condition = &server.condition;
        if condition.ejected_for(now).is_some() {
            return;
        }
        let roster = self.roster();
        let first = || roster.iter().filter(|member| !member.spec.backup);
        let ejected = first().filter(|m| m.state.condition.ejected_for(now).is_some()).count();
        let is_backup = !first().any(|member| std::ptr::eq(&*member.state, server));
        if !is_backup && (ejected + 1) * 100 > first().count() * rules.max_percent as usize {
            return;
        }
        let time =
            time(condition.ejected_until.load(Relaxed), condition.span.load(Relaxed), rules, now);
        condition.span.store(time, Relaxed);
        condition.ejected_until.store(now + time, Relaxed);
        condition.ejections.fetch_add(1, Relaxed);
        // The next failure is to be enough.
        condition.errors.store(rules.consecutive_errors - 1, Relaxed);
        server.returns(now + time);
        self.changed();
        tracing::warn!(
            upstream = self.name(),
            server = %server.address(),
            "ejected for {time} ms: {} failures in a row",
            rules.consecutive_errors
        );
    }
}

/// For how long, in milliseconds, a server is ejected that was the last time until `until`,
/// for `span`.
fn time(until: u64, span: u64, rules: &Ejection, now: u64) -> u64 {
    let (first, most) = (rules.time.as_millis() as u64, rules.max_time.as_millis() as u64);
    match until > 0 && now.saturating_sub(until) < span {
        true => span.saturating_mul(2).min(most),
        false => first.min(most),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config;

    fn rules() -> Ejection {
        Ejection {
            consecutive_errors: 3,
            on_5xx: true,
            on_timeout: false,
            time: Duration::from_secs(10),
            max_time: Duration::from_secs(35),
            max_percent: 50,
        }
    }

    fn group(servers: usize) -> Arc<Group> {
        let server = |n| config::value::server(&format!("a:{}", n + 1)).unwrap();
        Group::new(&config::Upstream::with_defaults("u", (0..servers).map(server).collect()))
    }

    #[test]
    fn each_time_is_twice_the_last_until_it_has_been_well_as_long() {
        let rules = rules();
        assert_eq!(time(0, 0, &rules, 100), 10_000);
        assert_eq!(time(10_100, 10_000, &rules, 10_200), 20_000);
        assert_eq!(time(30_200, 20_000, &rules, 50_199), 35_000, "at most max_time");
        assert_eq!(time(30_200, 20_000, &rules, 50_200), 10_000, "well for as long");
    }

    #[test]
    fn failures_in_a_row_eject_and_a_good_answer_forgets_them() {
        let passive = Passive::new(group(2), rules());
        let roster = passive.group.roster();
        let (server, version) = (&roster[0].state, passive.group.version());
        let ejected = || server.condition.ejected_for(now()).is_some();
        for status in [500, 503, 200, 500, 500] {
            passive.answered(server, StatusCode::from_u16(status).unwrap());
        }
        // Neither is the server's fault, or is said to be.
        passive.failed(server, Kind::PoolExhausted);
        passive.failed(server, Kind::ResponseTimeout);
        assert!(!ejected());
        passive.failed(server, Kind::Connect);
        assert!(ejected() && passive.group.version() > version);
        assert!(!server.condition.is_well(now()));
        // What was under way fails as well, and that changes nothing.
        let left = server.condition.ejected_for(now());
        (0..5).for_each(|_| passive.failed(server, Kind::UpstreamClosed));
        assert!(server.condition.ejected_for(now()) <= left);
        assert_eq!(server.condition.ejections(), 1);
    }

    #[test]
    fn no_more_are_ejected_than_may_be() {
        let passive = Passive::new(group(5), rules());
        let roster = passive.group.roster();
        for member in roster.iter() {
            (0..10).for_each(|_| passive.failed(&member.state, Kind::Connect));
        }
        let gone = roster.iter().filter(|m| !m.state.condition.is_well(now())).count();
        assert_eq!(gone, 2, "half of five, rounded down");
        let alone = Passive::new(group(1), rules());
        let server = &alone.group.roster()[0].state;
        (0..10).for_each(|_| alone.failed(server, Kind::Connect));
        assert!(server.condition.is_well(now()), "the only one there is");
    }
}
