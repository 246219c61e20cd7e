//! `[listener.trusted_proxies]`: proxies in front that tell of their clients in a field.

use std::net::IpAddr;

use http::HeaderName;
use ipnet::IpNet;

use super::{
    effective::{header, list, text},
    errors::Wrong,
    middleware::read::field,
    read::values,
    section::Section,
    value,
};

/// Whom a listener believes, and what it reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedProxies {
    /// Where they are. At least one network.
    pub networks: Vec<IpNet>,
    /// The field with the list of addresses.
    pub field: HeaderName,
}

/// What the field is called unless told otherwise.
const FIELD: HeaderName = HeaderName::from_static("x-forwarded-for");

impl TrustedProxies {
    /// Whether this is the address of one.
    pub fn has(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|net| net.contains(&address))
    }

    /// Reads the section of a listener, if it has one.
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        const TITLE: &str = "[listener.trusted_proxies]";
        let table = section.table("trusted_proxies", TITLE, &["networks", "field"])?;
        let networks = values(table.list("networks", "\"10.0.0.0/8\"", value::network));
        if table.is_missing_or_empty("networks") {
            let cure = "add `networks = [\"10.0.0.0/8\"]` with those of your proxies";
            table.source.add(&table.place, Wrong::new(format!("{TITLE} trusts nobody"), cure));
        }
        let field =
            table.parsed("field", "\"x-forwarded-for\"", field).map_or(FIELD, |field| field.value);
        Some(Self { networks, field })
    }

    /// Writes the section.
    pub(super) fn write(&self, out: &mut String) {
        header(out, "[listener.trusted_proxies]");
        list(out, "networks", &self.networks);
        text(out, "field", &self.field);
    }
}
