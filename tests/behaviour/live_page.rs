//! The live page of the admin endpoint, as a browser shows it.

use std::fs;

use mantra_macros::req_test;
use underpass_tests::{
    Proxy, Served, chromium,
    proxy::scratch,
    skip,
    tls::{Authority, Folder},
};

/// The page after it has asked for everything, if there is a browser.
fn page(proxy: &Proxy) -> Option<String> {
    let profile = scratch("profile");
    let document = chromium::live_document(&format!("http://{}/", proxy.admin()), &profile);
    let _ = fs::remove_dir_all(profile);
    if document.is_none() {
        skip::say("the live page: there is no browser");
    }
    document
}

#[req_test("REQ-EDGE-006")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_shown_with_their_names_and_their_end() {
    let (authority, folder) = (Authority::new("ca"), Folder::default());
    folder.put("site", &authority.server(&["a.test", "b.test"]));
    let server = Served::ok().await;
    let with = |tls: &str| {
        Proxy::config(format!(
            "[admin]\naddress = \"127.0.0.1:0\"\n\
             [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n{tls}\
             [[route]]\nupstream = \"api\"\n\
             [[upstream]]\nname = \"api\"\nservers = [\"{}\"]\n",
            server.addr()
        ))
        .start()
    };
    let tls = format!("[listener.tls]\ncertificates = [{}]\n", folder.entry("site"));
    let Some(shown) = page(&with(&tls)) else { return };
    let (_, section) = shown.split_once("id=\"certificates-section\"").expect("a section");
    let (opening, section) = section.split_once('>').expect("a tag");
    assert!(!opening.contains("hidden"), "{shown}");
    let (section, _) = section.split_once("</section>").expect("its end");
    for text in ["a.test, b.test", "<td>web</td>", " days)", "from a file"] {
        assert!(section.contains(text), "{text}: {section}");
    }
    // Without any there is nothing to show.
    let shown = page(&with("")).expect("there is a browser");
    assert!(shown.contains("id=\"certificates-section\" hidden"), "{shown}");
    assert!(shown.contains(">ready</p>"), "{shown}");
}
