//! The page at `/`: what there is to try, as commands to copy. Pure.
//!
//! Invariant: the client's `Host` gets into a command only if it is made of characters
//! that mean nothing to a shell or to HTML.

use http::{
    HeaderMap, StatusCode,
    header::{ACCEPT, HOST},
};

use super::answer::{Answer, text, typed};

/// Title and command; `{host}` is where the client found us.
const COMMANDS: [(&str, &str); 12] = [
    ("A plain answer", "curl http://{host}/hello"),
    ("The same over HTTP/2", "curl --http2-prior-knowledge http://{host}/hello"),
    ("The request as the origin sees it", "curl http://{host}/headers"),
    ("Your own bytes, streamed back", "curl -d 'any text' http://{host}/echo"),
    ("100 MB, never held in memory", "curl -o /dev/null 'http://{host}/download?bytes=100000000'"),
    (
        "A slow stream of chunks, with trailers",
        "curl -iN -H 'Connection: TE' -H 'TE: trailers' http://{host}/slow",
    ),
    ("Server-sent events, a token each", "curl -N http://{host}/sse"),
    (
        "A language model's stream, typed events",
        "curl -N -d '{\"stream\":true}' http://{host}/v1/messages",
    ),
    (
        "A language model's stream, chunks of a choice",
        "curl -N -d '{\"stream\":true}' http://{host}/v1/chat/completions",
    ),
    ("A WebSocket that echoes", "websocat ws://{host}/ws"),
    (
        "The same without a WebSocket client: 101, and the tunnel is open",
        "curl -iN --http1.1 -H 'Connection: Upgrade' -H 'Upgrade: websocket' \
         -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' \
         http://{host}/ws",
    ),
    ("Any status", "curl -i http://{host}/status/503"),
];

const TITLE: &str = "Underpass: the demo origin";

pub(super) fn index(headers: &HeaderMap) -> Answer {
    let host = host(headers);
    let accepts = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accepts.contains("text/html") {
        typed("text/html; charset=utf-8", html(host).into())
    } else {
        text(StatusCode::OK, plain(host))
    }
}

/// The `Host` of the request if it is harmless; a placeholder that is, otherwise.
fn host(headers: &HeaderMap) -> &str {
    let harmless = |host: &&str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]_".contains(&byte);
        !host.is_empty() && !host.starts_with('-') && host.bytes().all(fits)
    };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    host.filter(harmless).unwrap_or("localhost")
}

fn commands(host: &str) -> impl Iterator<Item = (&'static str, String)> {
    COMMANDS.into_iter().map(move |(title, command)| {
        // Brackets of an IPv6 address are a pattern to curl unless it is told otherwise.
        let command = match command.strip_prefix("curl ") {
            Some(rest) if host.contains('[') => format!("curl -g {rest}"),
            _ => command.to_owned(),
        };
        (title, command.replace("{host}", host))
    })
}

fn plain(host: &str) -> String {
    let mut page = format!("{TITLE}\n\n");
    for (title, command) in commands(host) {
        page.push_str(&format!("# {title}\n{command}\n\n"));
    }
    page
}

fn html(host: &str) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{TITLE}</title>\n\
         <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;\
         padding:0 1rem;color-scheme:light dark}}pre{{padding:.6rem .8rem;border:1px solid #8886;\
         border-radius:.4rem;overflow-x:auto}}h2{{font-size:1rem;margin:1.2rem 0 .3rem}}</style>\n\
         <h1>{TITLE}</h1>\n"
    );
    for (title, command) in commands(host) {
        page.push_str(&format!("<h2>{title}</h2>\n<pre>{}</pre>\n", escape(&command)));
    }
    page
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_hostile_host_does_not_get_into_a_command() {
        for (sent, shown) in [
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("[::1]:8080", "[::1]:8080"),
            ("x;rm -rf ~", "localhost"),
            ("x$(id)", "localhost"),
            ("<script>", "localhost"),
            ("-o/tmp/x", "localhost"),
            ("", "localhost"),
        ] {
            let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static(sent))]);
            assert_eq!(host(&headers), shown, "{sent}");
        }
        assert!(plain("[::1]:80").contains("curl -g http://[::1]:80/hello\n"));
    }
}
