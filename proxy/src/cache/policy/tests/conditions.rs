//! Conditions of clients, ours to servers, and what a 304 or an unsafe request changes.

use http::Method;

use super::*;
use crate::cache::policy::{
    SetCookie, Validators,
    conditional::{is_not_modified, range_counts},
    freshen::{freshen, of_not_modified, storable},
    invalidate::{invalidates, is_unsafe, named},
};

#[test]
fn clients_that_have_it_are_told_so() {
    let old = date(-100);
    let older = date(-101);
    let stored = head(&format!("ETag: \"a\"|Last-Modified: {old}|Date: {}", date(0)));
    let weak = head("ETag: W/\"a\"");
    for (request, stored, not_modified) in [
        ("If-None-Match: \"a\"".to_owned(), &stored, true),
        ("If-None-Match: W/\"a\"".to_owned(), &stored, true),
        ("If-None-Match: \"a\"".to_owned(), &weak, true),
        ("If-None-Match: \"b\"".to_owned(), &stored, false),
        ("If-None-Match: \"b\", \"a\"".to_owned(), &stored, true),
        ("If-None-Match: \"x,\", W/\"y\" ,\"a\"".to_owned(), &stored, true),
        ("If-None-Match: \"b|If-None-Match: \"a\"".to_owned(), &stored, true),
        ("If-None-Match: *".to_owned(), &stored, true),
        ("If-None-Match: a".to_owned(), &stored, false),
        (format!("If-Modified-Since: {old}"), &stored, true),
        (format!("If-Modified-Since: {}", date(-50)), &stored, true),
        (format!("If-Modified-Since: {older}"), &stored, false),
        ("If-Modified-Since: yesterday".to_owned(), &stored, false),
        // The tag counts alone.
        (format!("If-None-Match: \"b\"|If-Modified-Since: {old}"), &stored, false),
        (String::new(), &stored, false),
    ] {
        let request = head(&request.replace('\u{7f}', ","));
        assert_eq!(is_not_modified(&request, StatusCode::OK, stored), not_modified, "{request:?}");
        assert!(!is_not_modified(&request, StatusCode::NOT_FOUND, stored));
    }
}

#[test]
fn a_range_counts_for_the_version_that_it_was_meant_for() {
    let old = date(-100);
    let stored = head(&format!("ETag: \"a\"|Last-Modified: {old}"));
    for (condition, counts) in [
        ("\"a\"", true),
        ("W/\"a\"", false),
        ("\"b\"", false),
        (old.as_str(), true),
        (date(-99).as_str(), false),
        ("x", false),
    ] {
        let request = fields(&[("if-range", condition)]);
        assert_eq!(range_counts(&request, &stored), counts, "{condition}");
    }
    assert!(range_counts(&HeaderMap::new(), &stored));
    assert!(!range_counts(&fields(&[("if-range", "W/\"a\"")]), &head("ETag: W/\"a\"")));
}

#[test]
fn strong_validators_are_strong() {
    let of = |text: &str| Validators::of(&head(text));
    assert!(of("ETag: \"a\"").strong().is_some());
    assert!(of("ETag: W/\"a\"").strong().is_none());
    assert!(of("ETag: a").is_empty(), "no quotes, no tag");
    let dated = |ago: i64| format!("Last-Modified: {}|Date: {}", date(-ago), date(0));
    assert!(of(&dated(60)).strong().is_some() && of(&dated(59)).strong().is_none());
    assert!(of(&format!("Last-Modified: {}", date(-999))).strong().is_none(), "no Date");
    assert!(of("ETag: \"a\"").agree_strongly(&head("ETag: \"a\"")));
    assert!(!of("ETag: \"a\"").agree_strongly(&head("ETag: \"b\"")));
    assert!(!of("ETag: \"a\"").agree_strongly(&head("")));
    assert!(!of("ETag: W/\"a\"").agree_strongly(&head("ETag: W/\"a\"")));
    assert!(of(&dated(60)).agree_strongly(&head(&dated(60))));
    assert!(!of(&dated(60)).agree_strongly(&head(&dated(61))));
}

#[test]
fn we_ask_for_our_version_and_know_when_another_is_meant() {
    let validators = Validators::of(&head(&format!("ETag: \"a\"|Last-Modified: {}", date(-5))));
    let mut request = head("If-None-Match: \"mine\"|If-Range: \"mine\"|Range: bytes=0-1|Accept: x");
    validators.ask(&mut request);
    assert_eq!(
        request,
        head(&format!("Accept: x|If-None-Match: \"a\"|If-Modified-Since: {}", date(-5)))
    );
    for (said, confirmed) in [
        ("ETag: \"a\"".to_owned(), true),
        ("ETag: W/\"a\"".to_owned(), true),
        ("ETag: \"b\"".to_owned(), false),
        (String::new(), true),
        (format!("Last-Modified: {}", date(-5)), true),
        (format!("Last-Modified: {}", date(-6)), false),
    ] {
        assert_eq!(validators.are_confirmed(&head(&said)), confirmed, "{said}");
    }
}

#[test]
fn a_304_changes_the_fields_but_not_those_of_the_bytes() {
    let mut stored =
        head("X: 1|X: 2|Y: 1|Content-Length: 5|Content-Type: a/b|Cache-Control: max-age=1");
    let said = head(
        "X: 3|Content-Length: 0|Content-Type: c/d|Content-Encoding: gzip|Cache-Control: max-age=9|\
         Age: 5|Set-Cookie: a=b|X-Cache: HIT|Keep-Alive: 1|ETag: \"z\"",
    );
    freshen(&mut stored, said, SetCookie::Refuse);
    let wanted =
        head("X: 3|Y: 1|Content-Length: 5|Content-Type: a/b|Cache-Control: max-age=9|ETag: \"z\"");
    assert_eq!(stored, wanted);
    assert_eq!(of_not_modified(&stored), head("X: 3|Y: 1|Cache-Control: max-age=9|ETag: \"z\""));
    for (was, says, is) in [
        ("W/\"a\"", "\"a\"", "W/\"a\""),
        ("\"a\"", "W/\"a\"", "\"a\""),
        ("\"a\"", "\"a\"", "\"a\""),
    ] {
        let mut stored = head(&format!("ETag: {was}|X: 1"));
        freshen(&mut stored, head(&format!("ETag: {says}|X: 2")), SetCookie::Refuse);
        assert_eq!(stored, head(&format!("ETag: {is}|X: 2")));
    }
    let mut fields =
        head("Connection: close|Transfer-Encoding: chunked|Set-Cookie: a|Trailer: t|A: 1");
    let mut kept = fields.clone();
    storable(&mut fields, SetCookie::Strip);
    assert_eq!(fields, head("A: 1"));
    storable(&mut kept, SetCookie::Store);
    assert_eq!(kept, head("Set-Cookie: a|A: 1"));
}

#[test]
fn unsafe_requests_make_their_target_and_what_the_answer_names_worthless() {
    for (method, wanted) in [
        (Method::GET, false),
        (Method::HEAD, false),
        (Method::OPTIONS, false),
        (Method::POST, true),
        (Method::PUT, true),
        (Method::DELETE, true),
        (Method::PATCH, true),
        (Method::from_bytes(b"M-SEARCH").unwrap(), true),
    ] {
        assert_eq!(is_unsafe(&method), wanted, "{method}");
    }
    assert!(invalidates(StatusCode::OK) && invalidates(StatusCode::SEE_OTHER));
    assert!(!invalidates(StatusCode::NOT_FOUND) && !invalidates(StatusCode::BAD_GATEWAY));
    for (reference, target) in [
        ("/a?b#c", Some("/a?b")),
        ("http://h/a", Some("/a")),
        ("http://H:80/a", None),
        ("https://h/a", None),
        ("http://evil/a", None),
        ("//h/a", Some("/a")),
        ("//evil/a", None),
        ("c", Some("/dir/c")),
        ("./c", Some("/dir/c")),
        ("../c", Some("/c")),
        ("../../c", Some("/c")),
        ("?q", Some("/dir/page?q")),
        ("javascript:x", None),
        ("", None),
    ] {
        let got = named(&fields(&[("location", reference)]), "http", "h", "/dir/page?old");
        assert_eq!(got, target.into_iter().collect::<Vec<_>>(), "{reference}");
    }
    let both = head("Location: /a|Content-Location: /b");
    assert_eq!(named(&both, "http", "h", "/"), ["/a", "/b"]);
}
