//! `[listener.proxy_protocol]`: whom a listener believes who its clients are.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    effective::{header, list, text},
    errors::Wrong,
    read::values,
    section::Section,
    value::{self, Words},
};

/// Peers that announce their clients, and what becomes of all others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// Whose connections begin with a header. At least one network.
    pub trusted: Vec<IpNet>,
    /// What becomes of connections from elsewhere.
    pub others: Others,
}

/// What becomes of a connection from a peer that is not trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// It is closed (the default).
    Refuse,
    /// It is served as one without a header, which a header makes a bad request.
    Serve,
}

const OTHERS: Words<Others> = &[("refuse", Others::Refuse), ("serve", Others::Serve)];

impl ProxyProtocol {
    /// Whether a peer is to be believed.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted.iter().any(|net| net.contains(&peer))
    }

    /// Reads the section of a listener, if it has one.
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        const TITLE: &str = "[listener.proxy_protocol]";
        let table = section.table("proxy_protocol", TITLE, &["trusted", "others"])?;
        let trusted = values(table.list("trusted", "\"10.0.0.0/8\"", value::network));
        if table.is_missing_or_empty("trusted") {
            let cure = "add `trusted = [\"10.0.0.0/8\"]` with the networks of your load balancers";
            let what = format!("{TITLE} trusts nobody");
            table.source.add(&table.place, Wrong::new(what, cure));
        }
        let others = table
            .parsed("others", "\"refuse\" or \"serve\"", |text| value::choice(text, OTHERS))
            .map_or(Others::Refuse, |others| others.value);
        Some(Self { trusted, others })
    }

    /// Writes the section.
    pub(super) fn write(&self, out: &mut String) {
        header(out, "[listener.proxy_protocol]");
        list(out, "trusted", &self.trusted);
        text(out, "others", value::word(&self.others, OTHERS));
    }
}
