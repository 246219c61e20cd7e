//! Which upstream a request goes to, and 404 where there is none.

use underpass_tests::{HttpClient, Proxy, Reply, Served, Version, collect};

async fn routed() -> (Proxy, Vec<Served>) {
    let mut servers = Vec::new();
    for name in ["api", "static", "posts", "wild"] {
        servers.push(Served::always(Reply::ok(name)).await);
    }
    let mut config = "[admin]\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nname = \"v1\"\nlistener = \"web\"\nhost = \"api.example\"\npath_prefix = \"/v1\"\nupstream = \"api\"\n\
         [[route]]\nhost = \"api.example\"\nmethod = \"POST\"\nupstream = \"posts\"\n\
         [[route]]\nhost = \"*.static.example\"\nupstream = \"wild\"\n\
         [[route]]\nhost = \"static.example\"\nupstream = \"static\"\n"
        .to_owned();
    for (name, server) in ["api", "static", "posts", "wild"].iter().zip(&servers) {
        let address = server.addr();
        config += &format!("[[upstream]]\nname = \"{name}\"\nservers = [\"{address}\"]\n");
    }
    (Proxy::config(config).start(), servers)
}

#[tokio::test]
async fn host_path_and_method_choose() {
    let (proxy, _servers) = routed().await;
    let mut client = proxy.connect().await;
    let rows = [
        ("GET /v1", "api.example", "api"),
        ("GET /v1/models", "API.Example:8080", "api"),
        ("GET /v1?x", "api.example", "api"),
        ("POST /v1/x", "api.example", "api"),
        ("POST /other", "api.example", "posts"),
        ("GET /", "static.example", "static"),
        ("GET /", "a.static.example", "wild"),
        ("GET /", "b.a.static.example.", "wild"),
    ];
    for (line, host, name) in rows {
        client.send(format!("{line} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        let answer = client.read_response().await;
        assert_eq!((answer.status(), answer.text().as_str()), (200, name), "{line} {host}");
    }
}

/// The log says which route it was, by its name or by one made of its conditions.
#[tokio::test]
async fn the_access_log_names_the_route() {
    let (proxy, _servers) = routed().await;
    let rows = [
        ("GET /v1/logged", "api.example", "route=v1 upstream=api"),
        ("POST /logged", "api.example", "route=POST:api.example/ upstream=posts"),
        ("GET /a", "a.static.example", "route=*.static.example/ upstream=wild"),
        ("GET /nowhere", "other.example", "route=- upstream=-"),
    ];
    for (line, host, fields) in rows {
        let mut client = proxy.open(format!("{line} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        client.read_response().await;
        let target = line.split(' ').next_back().unwrap_or_default();
        proxy.log_line(&[&format!("target={target} host={host}"), fields]).await;
    }
}

#[tokio::test]
async fn where_no_route_fits_there_is_404() {
    let (proxy, servers) = routed().await;
    let mut client = proxy.connect().await;
    let rows = [
        ("GET /v10", "api.example"),
        ("GET /V1", "api.example"),
        ("GET /", "api.example"),
        ("GET /", "other.example"),
        ("GET /", "xstatic.example"),
        ("OPTIONS *", "other.example"),
    ];
    for (line, host) in rows {
        client.send(format!("{line} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        client.expect_status(404).await;
    }
    assert!(servers.iter().all(|server| server.seen().is_empty()));
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("underpass_errors_total", &[("kind", "no_route")]), rows.len() as f64);
}

/// Routes see the same of a request whichever version it came in.
#[tokio::test]
async fn h2_is_routed_by_its_authority() {
    let (proxy, _servers) = routed().await;
    let stream = tokio::net::TcpStream::connect(proxy.addr()).await.unwrap();
    let mut client = HttpClient::over(stream, "api.example", Version::H2).await;
    let answer = client.get("/v1/x").await;
    assert_eq!(collect(answer.into_body()).await.unwrap().0, b"api");
    assert_eq!(client.get("/elsewhere").await.status(), 404);
}

/// An absolute target beats Host only where both say the same, so Host cannot lie.
#[tokio::test]
async fn an_absolute_target_is_routed_by_its_authority() {
    let (proxy, _servers) = routed().await;
    let request = "GET http://static.example/v1 HTTP/1.1\r\nHost: static.example\r\n\r\n";
    assert_eq!(proxy.open(request).await.expect_status(200).await.text(), "static");
}
