//! The same job in each proxy's language.

use std::{net::SocketAddr, path::Path};

/// Connections that each is sized for, and as many kept ones to the origin.
const CONNECTIONS: usize = 8192;
const KEPT: usize = 1024;

pub(crate) fn underpass(listen: SocketAddr, origin: SocketAddr, workers: usize) -> String {
    format!(
        "workers = {workers}
drain_timeout = \"1s\"
[log]
access = \"off\"
[[listener]]
name = \"web\"
address = \"{listen}\"
limits = {{ idle_timeout = \"600s\" }}
[[route]]
upstream = \"origin\"
[[upstream]]
name = \"origin\"
servers = [\"{origin}\"]
max_idle_connections = {KEPT}
"
    )
}

/// What streams is in a `location` without buffering, as its manual says for that.
pub(super) fn nginx(
    folder: &Path,
    listen: SocketAddr,
    origin: SocketAddr,
    workers: usize,
) -> String {
    let folder = folder.display();
    let pass = "proxy_pass http://origin;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Host $http_host;";
    format!(
        "daemon off;
worker_processes {workers};
worker_rlimit_nofile 65536;
pid {folder}/pid;
error_log stderr crit;
events {{ worker_connections {CONNECTIONS}; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  keepalive_requests 1000000000;
  keepalive_timeout 600s;
  # Bodies stream: none is limited, none goes through a file.
  client_max_body_size 0;
  proxy_request_buffering off;
  proxy_max_temp_file_size 0;
  upstream origin {{
    server {origin};
    keepalive {KEPT};
    keepalive_requests 1000000000;
    keepalive_time 1d;
  }}
  server {{
    listen {listen} reuseport backlog=4096;
    location / {{
      {pass}
    }}
    location /tokens/ {{
      proxy_buffering off;
      {pass}
    }}
  }}
}}
"
    )
}

/// Answers are sent on as they come (`http-no-delay`), idle connections to the origin are
/// used for whatever comes next (`http-reuse always`): both are what the others do.
pub(super) fn haproxy(listen: SocketAddr, origin: SocketAddr, workers: usize) -> String {
    format!(
        "global
  nbthread {workers}
  maxconn {CONNECTIONS}
defaults
  mode http
  http-reuse always
  option http-no-delay
  option forwardfor
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  timeout http-keep-alive 600s
frontend in
  bind {listen} backlog 4096
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  default_backend out
backend out
  server one {origin}
"
    )
}
