//! What the proxy does, seen from outside: one file per behaviour, scripted peers on real
//! sockets, every test with a proxy process of its own.
//!
//! Tests that hold for both downstream versions or for every splice engine run over all of
//! them by `over_versions!` and `over_engines!`.

mod access_log;
mod admin_api;
mod backpressure;
mod balancing;
mod broken_upstream;
mod cancellation;
mod command_line;
mod connection_limits;
mod curl;
mod demo;
mod descriptors;
mod drain;
mod endpoints;
mod forward_policy;
mod forward_proxy;
mod forwarding_fields;
mod framing;
mod grpc;
mod guide;
mod h2_upstream;
mod health;
mod hop_by_hop;
mod http10;
mod interim;
mod keep_alive;
mod message_limits;
mod middleware;
mod names;
mod nginx_origin;
mod no_delay;
mod parked_upstream;
mod parking;
mod proxy_protocol;
mod record;
mod refused_upgrade;
mod reload;
mod retry;
mod route_actions;
mod route_changes;
mod route_matching;
mod route_metrics;
mod routes;
mod sni;
mod streaming;
mod strict_bodies;
mod strict_h2;
mod strict_requests;
mod strict_responses;
mod targets;
mod tcp_listener;
mod tracing;
mod trailers;
mod trusted_proxies;
mod tunnel_bytes;
mod tunnel_end;
mod tunnel_table;
mod upgrade;
mod upstream_errors;
mod upstream_limits;
mod upstream_retry;
mod websocket;
mod workers;
