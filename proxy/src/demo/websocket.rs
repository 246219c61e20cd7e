//! `/ws`: a WebSocket that sends back every message (RFC 6455).
//!
//! Invariant: a message that is larger than [`MAX_MESSAGE_BYTES`] ends the connection; at
//! most one message is held.

use futures_util::{SinkExt, StreamExt};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE},
};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};

use super::answer::{Answer, not_allowed, text};

const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// Answers the opening handshake (RFC 6455 4.2).
pub(super) fn upgrade(mut request: Request<Incoming>) -> Answer {
    if request.method() != Method::GET {
        return not_allowed("GET");
    }
    let headers = request.headers();
    let asks = request.version() == Version::HTTP_11
        && has_token(headers, UPGRADE, "websocket")
        && has_token(headers, CONNECTION, "upgrade");
    let key = headers.get(SEC_WEBSOCKET_KEY).cloned();
    let known = headers.get(SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13");
    let (true, true, Some(key)) = (asks, known, key) else {
        let advice = "a WebSocket lives here: Upgrade: websocket, Sec-WebSocket-Version: 13\n";
        let mut answer = text(StatusCode::UPGRADE_REQUIRED, advice);
        let headers = answer.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return answer;
    };
    let accept = derive_accept_key(key.as_bytes());
    let accept = HeaderValue::try_from(accept).expect("base64 is a header value");
    tokio::spawn(echo(hyper::upgrade::on(&mut request)));

    let mut answer = Response::new("".into());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    answer
}

/// Ends when the client does, or with the connection if the handshake did not come through.
async fn echo(upgraded: OnUpgrade) {
    let upgraded = match upgraded.await {
        Ok(upgraded) => TokioIo::new(upgraded),
        Err(error) => return tracing::debug!("demo: websocket: {error}"),
    };
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES));
    let mut socket = WebSocketStream::from_raw_socket(upgraded, Role::Server, Some(config)).await;
    // Pings and the closing handshake are answered by the library as it reads.
    while let Some(received) = socket.next().await {
        let echoed = match received {
            Ok(message) if message.is_text() || message.is_binary() => socket.send(message).await,
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = echoed {
            return tracing::debug!("demo: websocket: {error}");
        }
    }
}

fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    let lists = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|one| one.trim().eq_ignore_ascii_case(token))
}
