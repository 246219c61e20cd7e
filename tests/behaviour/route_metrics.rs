//! What each route does, in the metrics.

use mantra_macros::req_test;
use underpass_tests::{Proxy, Refusing, Served, eventually};

#[req_test("REQ-CTRL-006")]
#[tokio::test]
async fn requests_durations_and_errors_are_counted_by_route() {
    let (origin, refusing) = (Served::ok().await, Refusing::bind());
    let proxy = Proxy::config(format!(
        "[admin]\naddress = \"127.0.0.1:0\"\n[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nname = \"api\"\npath_prefix = \"/api\"\nupstream = \"good\"\n\
         [[route]]\npath_prefix = \"/bad\"\nupstream = \"bad\"\n\
         [[route]]\nname = \"moved\"\npath = \"/old\"\nredirect = {{ to = \"/new\" }}\n\
         [[route]]\nname = \"unused\"\nhost = \"other.test\"\nrespond = {{ status = 404 }}\n\
         [[upstream]]\nname = \"good\"\nservers = [\"{}\"]\n\
         [[upstream]]\nname = \"bad\"\nservers = [\"{}\"]\n",
        origin.addr(),
        refusing.addr()
    ))
    .start();
    for (target, status) in
        [("/api/1", 200), ("/api/2", 200), ("/bad", 502), ("/old", 302), ("/nowhere", 404)]
    {
        let request = format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n");
        proxy.open(request).await.expect_status(status).await;
    }
    let count = async |name: &str, labels: &[(&str, &str)]| {
        proxy.metrics().await.sum(&format!("underpass_route_{name}"), labels)
    };
    eventually("four requests with a route", async || count("requests_total", &[]).await == 4.0)
        .await;
    for (route, status, wanted) in [
        ("api", "2xx", 2.0),
        ("api", "5xx", 0.0),
        ("/bad", "5xx", 1.0),
        ("moved", "3xx", 1.0),
        ("unused", "4xx", 0.0),
    ] {
        let labels = [("route", route), ("status", status)];
        assert_eq!(count("requests_total", &labels).await, wanted, "{route} {status}");
    }
    assert_eq!(count("errors_total", &[]).await, 1.0);
    assert_eq!(count("errors_total", &[("route", "/bad"), ("side", "upstream")]).await, 1.0);
    assert_eq!(count("request_duration_seconds_count", &[("route", "api")]).await, 2.0);
}
