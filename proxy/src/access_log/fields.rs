//! The fields of a line: their names, which are stable, and what an exchange has of each.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use super::{End, Exchange, timestamp::Rfc3339};

/// A field, by its name in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field(Name);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Time,
    Listener,
    Client,
    Method,
    Target,
    Host,
    Version,
    Status,
    Route,
    Upstream,
    Server,
    Resends,
    Cache,
    RequestBytes,
    ResponseBytes,
    TtfbSeconds,
    DurationSeconds,
    End,
    RequestId,
    TraceId,
    Error,
    ErrorDetail,
    Tunnel,
    EngineUp,
    EngineDown,
    TunnelEnd,
    TlsVersion,
    TlsCipher,
    TlsSni,
}

/// All of them, in the order of a line that has them all.
const ALL: [(&str, Name); 29] = [
    ("time", Name::Time),
    ("listener", Name::Listener),
    ("client", Name::Client),
    ("method", Name::Method),
    ("target", Name::Target),
    ("host", Name::Host),
    ("version", Name::Version),
    ("status", Name::Status),
    ("route", Name::Route),
    ("upstream", Name::Upstream),
    ("server", Name::Server),
    ("resends", Name::Resends),
    ("cache", Name::Cache),
    ("request_bytes", Name::RequestBytes),
    ("response_bytes", Name::ResponseBytes),
    ("ttfb_seconds", Name::TtfbSeconds),
    ("duration_seconds", Name::DurationSeconds),
    ("end", Name::End),
    ("request_id", Name::RequestId),
    ("trace_id", Name::TraceId),
    ("error", Name::Error),
    ("error_detail", Name::ErrorDetail),
    ("tunnel", Name::Tunnel),
    ("engine_up", Name::EngineUp),
    ("engine_down", Name::EngineDown),
    ("tunnel_end", Name::TunnelEnd),
    ("tls_version", Name::TlsVersion),
    ("tls_cipher", Name::TlsCipher),
    ("tls_server_name", Name::TlsSni),
];

/// What a line has of a field.
pub(super) enum Value<'a> {
    None,
    Time(Rfc3339),
    Text(&'a str),
    Address(SocketAddr),
    Number(u64),
    Seconds(Duration),
}

impl Field {
    /// All fields, in their order.
    pub fn all() -> Vec<Self> {
        ALL.iter().map(|(_, name)| Self(*name)).collect()
    }

    /// The names of all fields, in their order.
    pub fn names() -> impl Iterator<Item = &'static str> {
        ALL.iter().map(|(name, _)| *name)
    }

    /// By its name.
    pub fn named(name: &str) -> Option<Self> {
        ALL.iter().find(|(known, _)| *known == name).map(|(_, name)| Self(*name))
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        ALL[self.0 as usize].0
    }

    /// Whether a line of text says `-` where there is nothing. What few exchanges have is left
    /// out.
    pub(super) fn is_always_shown(self) -> bool {
        use Name::*;
        !matches!(
            self.0,
            Resends
                | Cache
                | RequestId
                | TraceId
                | Error
                | ErrorDetail
                | Tunnel
                | EngineUp
                | EngineDown
                | TunnelEnd
                | TlsVersion
                | TlsCipher
                | TlsSni
        )
    }
}

/// What an exchange that ended at `now` has of a field.
pub(super) fn value<'a>(field: Field, now: SystemTime, exchange: &Exchange<'a>) -> Value<'a> {
    let request = exchange.request.as_ref();
    let text = |text: Option<&'a str>| text.map_or(Value::None, Value::Text);
    let fault = match exchange.end {
        End::Error(kind) => Some(kind),
        _ => None,
    };
    match field.0 {
        Name::Time => Value::Time(Rfc3339(now)),
        Name::Listener => Value::Text(exchange.listener),
        Name::Client => Value::Address(exchange.client),
        Name::Method => text(request.map(|request| request.method)),
        Name::Target => text(request.map(|request| request.target)),
        Name::Host => text(exchange.host),
        Name::Version => text(request.map(|request| version(request.version))),
        Name::Status => {
            request.map_or(Value::None, |request| Value::Number(u64::from(request.status)))
        }
        Name::Route => text(exchange.route),
        Name::Upstream => text(exchange.upstream),
        Name::Server => exchange.server.map_or(Value::None, Value::Address),
        Name::Resends if exchange.resends == 0 => Value::None,
        Name::Resends => Value::Number(u64::from(exchange.resends)),
        Name::Cache => text(exchange.cache),
        Name::RequestBytes => Value::Number(exchange.request_bytes),
        Name::ResponseBytes => Value::Number(exchange.response_bytes),
        Name::TtfbSeconds => exchange.ttfb.map_or(Value::None, Value::Seconds),
        Name::DurationSeconds => Value::Seconds(exchange.duration),
        Name::End => Value::Text(match exchange.end {
            End::Complete => "complete",
            End::ClientGone => "client_gone",
            End::Error(_) => "error",
            End::Tunnel { .. } => "tunnel",
        }),
        Name::RequestId => text(exchange.request_id),
        Name::TraceId => text(exchange.trace_id),
        Name::Error => text(fault.map(|kind| kind.name())),
        Name::ErrorDetail => text(fault.and_then(|kind| kind.detail())),
        Name::TlsVersion => text(exchange.tls.map(|tls| tls.version)),
        Name::TlsCipher => text(exchange.tls.map(|tls| tls.cipher)),
        Name::TlsSni => text(exchange.tls.and_then(|tls| tls.server_name.as_deref())),
        Name::Tunnel | Name::EngineUp | Name::EngineDown | Name::TunnelEnd => {
            let End::Tunnel { kind, engine_up, engine_down, end } = exchange.end else {
                return Value::None;
            };
            Value::Text(match field.0 {
                Name::Tunnel => kind,
                Name::EngineUp => engine_up,
                Name::EngineDown => engine_down,
                _ => end,
            })
        }
    }
}

fn version(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_09 => "HTTP/0.9",
        http::Version::HTTP_10 => "HTTP/1.0",
        http::Version::HTTP_2 => "HTTP/2",
        http::Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_a_name_of_its_own() {
        for (index, (name, field)) in ALL.iter().enumerate() {
            assert_eq!(Field::named(name), Some(Field(*field)));
            assert_eq!(Field(*field).name(), *name);
            assert_eq!(*field as usize, index);
        }
        assert_eq!(Field::named("times"), None);
    }
}
