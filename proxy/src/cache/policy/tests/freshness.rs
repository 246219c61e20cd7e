//! What may be stored, how long it is fresh, and what may be done with it then.

use super::*;
use crate::cache::policy::{
    SetCookie,
    reuse::{Reuse, Wishes},
};

/// Whether it is stored and fresh three seconds later.
fn is_fresh(text: &str, rules: &Rules) -> bool {
    terms_of(200, text, false, rules).is_ok_and(|terms| terms.is_fresh(later(3)))
}

#[mantra_macros::req_test("REQ-CACHE-004")]
#[test]
fn lifetimes_are_read_by_the_letter() {
    let future = date(3600);
    let past = date(-3600);
    let (date_now, expires, expired) =
        (format!("Date: {}", date(0)), format!("Expires: {future}"), format!("Expires: {past}"));
    let rules = Rules::default();
    for (text, fresh) in [
        ("Cache-Control: max-age=3600".to_owned(), true),
        ("Cache-Control: max-age=0".to_owned(), false),
        ("Cache-Control: max-age=3".to_owned(), false),
        ("Cache-Control: MaX-aGe=3600".to_owned(), true),
        ("Cache-Control: max-age=2147483648".to_owned(), true),
        ("Cache-Control: max-age=99999999999999999999".to_owned(), true),
        ("Cache-Control: max-age=\"3600\"".to_owned(), true),
        ("Cache-Control: max-age='3600'".to_owned(), false),
        ("Cache-Control: max-age =3600".to_owned(), false),
        ("Cache-Control: max-age= 3600".to_owned(), false),
        ("Cache-Control: max-age=3600.0".to_owned(), false),
        ("Cache-Control: max-age=-3600".to_owned(), false),
        ("Cache-Control: max-age=3600s".to_owned(), false),
        ("Cache-Control: max-age".to_owned(), false),
        ("Cache-Control: max-age=0003600".to_owned(), true),
        ("Cache-Control: foobar, max-age=3600".to_owned(), true),
        ("Cache-Control: foobar=\"max-age=3600\"".to_owned(), false),
        ("Cache-Control: foobar=\"max-age=1, max-age=3600\", max-age=1".to_owned(), false),
        ("Cache-Control: extension=\"max-age=1\", max-age=3600".to_owned(), true),
        ("Cache-Control: max-age=1, max-age=3600".to_owned(), false),
        ("Cache-Control: max-age=3600, max-age=1".to_owned(), true),
        ("Cache-Control: a=b|Cache-Control: max-age=3600".to_owned(), true),
        ("Cache-Control: s-maxage=3600, max-age=1".to_owned(), true),
        ("Cache-Control: s-maxage=1, max-age=3600".to_owned(), false),
        ("Surrogate-Control: max-age=3600".to_owned(), false),
        ("Pragma: cache".to_owned(), false),
        (format!("{expires}|{date_now}"), true),
        (format!("{expired}|{date_now}"), false),
        (format!("{date_now}|Expires: {}", date(0)), false),
        (expires.clone(), true),
        (format!("Cache-Control: max-age=3600|{expired}|{date_now}"), true),
        (format!("Cache-Control: max-age=0|{expires}|{date_now}"), false),
        (format!("Cache-Control: s-maxage=0|{expires}|{date_now}"), false),
        // What is no date has passed.
        (format!("Expires: 0|{date_now}"), false),
        (format!("Expires: x|{date_now}"), false),
        (format!("Expires: {future}|Expires: {past}|{date_now}"), true),
        (format!("Expires: {past}|Expires: {future}|{date_now}"), false),
        (format!("Expires: {future}|Date: {}", date(7200)), false),
        // Age.
        (format!("Cache-Control: max-age=3600|Age: 1800|{date_now}"), true),
        (format!("Cache-Control: max-age=3600|Age: 3600|{date_now}"), false),
        (format!("Cache-Control: max-age=3600|Age: 2147483648|{date_now}"), false),
        (format!("Cache-Control: max-age=3600|Age: 99999999999999999999999|{date_now}"), false),
        (format!("Cache-Control: max-age=3600|Age: abc|{date_now}"), true),
        (format!("Cache-Control: max-age=3600|Age: -7200|{date_now}"), true),
        (format!("Cache-Control: max-age=3600|Age: 7200.0|{date_now}"), true),
        (format!("Cache-Control: max-age=3600|Age: 7200, 0|{date_now}"), false),
        (format!("Cache-Control: max-age=3600|Age: 0, 7200|{date_now}"), true),
        (format!("Cache-Control: max-age=3600|Age: 7200|Age: 0|{date_now}"), false),
        (format!("Cache-Control: max-age=3600|Age: 0|Age: 7200|{date_now}"), true),
        (format!("Cache-Control: max-age=3600|Date: {}", date(-7200)), false),
        (format!("Cache-Control: max-age=3600|Date: {}", date(7200)), true),
        // Nothing said.
        (format!("Last-Modified: {past}|{date_now}"), false),
        (String::new(), false),
    ] {
        assert_eq!(is_fresh(&text, &rules), fresh, "{text}");
    }
}

#[test]
fn dates_are_dates() {
    for (text, valid) in [
        ("Thu, 18 Aug 2050 02:01:18 GMT", true),
        ("THU, 18 AUG 2050 02:01:18 gMT", true),
        ("Thursday, 18-Aug-50 02:01:18 GMT", true),
        ("Thu Aug 18 02:01:18 2050", true),
        ("Sun, 21 Nov 2286 04:46:39 GMT", true),
        ("Thu Aug  8 02:01:18 2050", true),
        ("Mon, 18 Aug 2050 02:01:18 GMT", true),
        ("Xyz, 18 Aug 2050 02:01:18 GMT", false),
        ("Thu, 18 Aug 2050 02:01:18 UTC", false),
        ("Thu, 18 Aug 2050 02:01:18 AEST", false),
        ("Thu, 18 Aug 50 02:01:18 GMT", false),
        ("Thu 18 Aug 2050 02:01:18 GMT", false),
        ("Thu, 18  Aug  2050 02:01:18 GMT", false),
        ("Thu, 18-Aug-2050 02:01:18 GMT", false),
        ("Thu, 18 Aug 2050 02.01.18 GMT", false),
        ("Thu, 18 Aug 2050 2:01:18 GMT", false),
        ("Thu, 31 Feb 2050 02:01:18 GMT", false),
        ("0", false),
        ("", false),
    ] {
        assert_eq!(Moment::parse(text.as_bytes()).is_some(), valid, "{text}");
        for _ in 0..2 {
            assert_eq!(Moment::parse_again(text.as_bytes()), Moment::parse(text.as_bytes()));
        }
    }
    assert_eq!(NOW.field(), "Thu, 01 Jan 2026 00:00:00 GMT");
    assert_eq!(Moment::parse(NOW.field().as_bytes()), Some(NOW));
}

#[test]
fn what_may_not_be_stored_says_why() {
    let rules = Rules::default();
    let fresh = "Cache-Control: max-age=3600|";
    for (status, text, authorized, refusal) in [
        (200, "Cache-Control: no-store, max-age=3600", false, Some(Refusal::NoStore)),
        (200, "Cache-Control: No-StOrE", false, Some(Refusal::NoStore)),
        (200, "Cache-Control: private, max-age=3600", false, Some(Refusal::Private)),
        (200, "Cache-Control: private=\"x\", max-age=3600", false, Some(Refusal::Private)),
        (200, "Cache-Control: x=\"private\", max-age=3600", false, None),
        (200, &format!("{fresh}Set-Cookie: a=b"), false, Some(Refusal::SetCookie)),
        (200, &format!("{fresh}Vary: *"), false, Some(Refusal::VaryAny)),
        (200, &format!("{fresh}Vary: a, *"), false, Some(Refusal::VaryAny)),
        (200, fresh, true, Some(Refusal::Authorization)),
        (200, "Cache-Control: max-age=3600, public", true, None),
        (200, "Cache-Control: max-age=3600, must-revalidate", true, None),
        (200, "Cache-Control: s-maxage=3600", true, None),
        (200, "Cache-Control: max-age=3600, proxy-revalidate", true, Some(Refusal::Authorization)),
        (206, fresh, false, Some(Refusal::Status)),
        (304, fresh, false, Some(Refusal::Status)),
        (412, fresh, false, Some(Refusal::Status)),
        (416, fresh, false, Some(Refusal::Status)),
        (404, fresh, false, None),
        (599, fresh, false, None),
        (599, "Cache-Control: max-age=3600, must-understand", false, Some(Refusal::Status)),
        (200, "Cache-Control: max-age=3600, must-understand, no-store", false, None),
        (200, "", false, Some(Refusal::NoFreshness)),
        (200, "ETag: \"a\"", false, None),
        (200, "Cache-Control: no-cache", false, Some(Refusal::NoFreshness)),
        (200, "Cache-Control: no-cache|ETag: \"a\"", false, None),
        (302, "ETag: \"a\"", false, Some(Refusal::NoFreshness)),
        (302, fresh, false, None),
        (500, "ETag: \"a\"", false, Some(Refusal::NoFreshness)),
    ] {
        let got = terms_of(status, text, authorized, &rules).err();
        assert_eq!(got, refusal, "{status} {text} {authorized}");
    }
}

#[test]
fn routes_may_say_more() {
    let hour = Duration::from_secs(3600);
    let with = |change: fn(&mut Rules)| {
        let mut rules = Rules::default();
        change(&mut rules);
        rules
    };
    let modified = format!("Last-Modified: {}|Date: {}", date(-100_000), date(0));
    let default = with(|rules| rules.default_ttl = Some(Duration::from_secs(3600)));
    assert!(is_fresh("", &default) && !is_fresh("Cache-Control: max-age=1", &default));
    assert!(
        terms_of(500, "", false, &default).is_err() && terms_of(302, "", false, &default).is_err()
    );
    let heuristic = with(|rules| rules.heuristic = 0.1);
    assert!(is_fresh(&modified, &heuristic));
    assert_eq!(terms_of(404, &modified, false, &heuristic).unwrap().lifetime_ms, 10_000_000);
    assert!(terms_of(500, &modified, false, &heuristic).is_err());
    assert!(terms_of(500, &format!("{modified}|Cache-Control: public"), false, &heuristic).is_ok());
    let long = format!("Last-Modified: {}|Date: {}", date(-1_000_000_000), date(0));
    assert_eq!(terms_of(200, &long, false, &heuristic).unwrap().lifetime(), hour * 24);
    let capped = with(|rules| rules.max_ttl = Some(Duration::from_secs(2)));
    assert!(!is_fresh("Cache-Control: max-age=3600", &capped));
    let forced = with(|rules| rules.override_ttl = Some(Duration::from_secs(3600)));
    assert!(is_fresh("Cache-Control: max-age=0", &forced));
    assert!(!is_fresh("Cache-Control: no-store", &forced), "what forbids goes first");
    let negative = with(|rules| {
        rules.status_ttl = vec![
            (StatusCode::NOT_FOUND, Duration::from_secs(9)),
            (StatusCode::BAD_GATEWAY, Duration::from_secs(5)),
        ];
    });
    assert_eq!(terms_of(404, "", false, &negative).unwrap().lifetime_ms, 9000);
    assert_eq!(terms_of(502, "", false, &negative).unwrap().lifetime_ms, 5000);
    assert_eq!(
        terms_of(404, "Cache-Control: max-age=1", false, &negative).unwrap().lifetime_ms,
        1000
    );
    for cookies in [SetCookie::Strip, SetCookie::Store] {
        let rules = Rules { set_cookie: cookies, ..Rules::default() };
        assert!(is_fresh("Cache-Control: max-age=9|Set-Cookie: a=b", &rules));
    }
}

#[test]
fn the_field_for_caches_of_our_kind_goes_first_where_it_counts() {
    let rules = Rules { cdn_cache_control: true, ..Rules::default() };
    let now = date(0);
    for (text, fresh) in [
        ("CDN-Cache-Control: max-age=3600", true),
        ("CDN-Cache-Control: max-age=99999999999", true),
        ("CDN-Cache-Control: max-age=0|Cache-Control: max-age=3600", false),
        ("CDN-Cache-Control: max-age=3600|Cache-Control: no-store", true),
        ("CDN-Cache-Control: foobar, max-age=3600", true),
        ("CDN-Cache-Control: private|Cache-Control: max-age=3600", false),
        ("CDN-Cache-Control: no-cache|Cache-Control: max-age=3600", false),
        ("CDN-Cache-Control: no-store|Cache-Control: max-age=3600", false),
        ("CDN-Cache-Control: max-age=3600, no-store=?0", true),
        // Not valid: as if it were not there.
        ("CDN-Cache-Control: max-age =3600|Cache-Control: max-age=1", false),
        ("CDN-Cache-Control: max-age= 100|Cache-Control: max-age=1", false),
        ("CDN-Cache-Control: MaX-aGe=1|Cache-Control: max-age=3600", true),
        ("CDN-Cache-Control: max-age=1,|Cache-Control: max-age=3600", true),
        ("CDN-Cache-Control: &|Cache-Control: max-age=3600", true),
        // A lifetime that is no number is none.
        ("CDN-Cache-Control: max-age=\"3600\"|Cache-Control: max-age=3600", false),
        ("CDN-Cache-Control: max-age=1.5|Cache-Control: max-age=3600", false),
        ("CDN-Cache-Control: max-age=-1|Cache-Control: max-age=3600", false),
    ] {
        assert_eq!(is_fresh(text, &rules), fresh, "{text}");
    }
    assert!(!is_fresh(
        &format!("CDN-Cache-Control: public|Expires: {}|Date: {now}", date(9)),
        &rules
    ));
    let text = "CDN-Cache-Control: max-age=3600|Cache-Control: max-age=1";
    assert!(!is_fresh(text, &Rules::default()), "unless it is asked for");
}

#[test]
fn stale_answers_are_used_within_what_is_allowed() {
    use Reuse::*;
    let usual = Rules {
        stale_while_revalidate: Some(Duration::from_secs(5)),
        stale_if_error: Some(Duration::from_secs(50)),
        ..Rules::default()
    };
    let plain = Rules::default();
    for (text, rules, after, reuse, errors) in [
        ("max-age=10", &plain, 5, Fresh, true),
        ("max-age=10", &plain, 10, Validate, false),
        ("max-age=10, stale-while-revalidate=5", &plain, 14, WhileRevalidate, false),
        ("max-age=10, stale-while-revalidate=5", &plain, 15, Validate, false),
        ("max-age=10, stale-if-error=5", &plain, 14, Validate, true),
        ("max-age=10, stale-if-error=5", &plain, 15, Validate, false),
        ("max-age=10", &usual, 14, WhileRevalidate, true),
        ("max-age=10", &usual, 59, Validate, true),
        ("max-age=10, stale-while-revalidate=0", &usual, 14, Validate, true),
        ("max-age=10, must-revalidate", &usual, 10, Validate, false),
        ("max-age=10, proxy-revalidate, stale-if-error=9", &usual, 10, Validate, false),
        ("s-maxage=10", &usual, 10, Validate, false),
        ("s-maxage=10, stale-while-revalidate=5", &plain, 10, WhileRevalidate, false),
        ("no-cache, max-age=10", &usual, 1, Validate, false),
    ] {
        let terms =
            terms_of(200, &format!("ETag: \"a\"|Cache-Control: {text}"), false, rules).unwrap();
        let at = later(after);
        assert_eq!(terms.reuse(at, &Wishes::default()), reuse, "{text} after {after}");
        assert_eq!(terms.serves_errors(at), errors, "{text} after {after}");
    }
}

#[test]
fn wishes_of_clients_count_where_they_are_heeded() {
    use Reuse::*;
    let heed = Rules { request_directives: true, ..Rules::default() };
    let terms = terms("Cache-Control: max-age=100").unwrap();
    for (wish, at, reuse) in [
        ("Cache-Control: no-cache", 1, Validate),
        ("Cache-Control: max-age=0", 1, Validate),
        ("Cache-Control: max-age=10", 10, Fresh),
        ("Cache-Control: max-age=10", 11, Validate),
        ("Cache-Control: min-fresh=50", 50, Fresh),
        ("Cache-Control: min-fresh=51", 50, Validate),
        ("Cache-Control: max-stale", 999, Fresh),
        ("Cache-Control: max-stale=10", 110, Fresh),
        ("Cache-Control: max-stale=10", 111, Validate),
        ("Cache-Control: max-stale=x", 101, Validate),
        ("Pragma: no-cache", 1, Validate),
        ("Pragma: no-cache|Cache-Control: x", 1, Fresh),
    ] {
        let wishes = Wishes::of(&head(wish), &heed);
        assert_eq!(terms.reuse(later(at), &wishes), reuse, "{wish} at {at}");
        let unheeded = Wishes::of(&head(wish), &Rules::default());
        assert_eq!(unheeded, Wishes::default());
    }
    let strict = terms_of(200, "Cache-Control: max-age=10, must-revalidate", false, &heed).unwrap();
    let wishes = Wishes::of(&head("Cache-Control: max-stale"), &heed);
    assert_eq!(strict.reuse(later(20), &wishes), Validate);
    let wishes = Wishes::of(&head("Cache-Control: only-if-cached, no-store"), &heed);
    assert!(wishes.only_if_cached() && wishes.no_store() && !wishes.allows_joining());
}

#[test]
fn ages_count_the_way_and_the_time_here() {
    let headers = head(&format!("Cache-Control: max-age=100|Age: 10|Date: {}", date(-12)));
    let answer = Answer {
        status: StatusCode::OK,
        headers: &headers,
        asked: NOW,
        received: later(3),
        authorized: false,
    };
    let terms = Terms::of(&answer, &Rules::default()).unwrap();
    // Apparent: 15; told, and the time to get it: 13.
    assert_eq!(terms.age(later(3)).as_secs(), 15);
    assert_eq!(terms.age(later(10)).as_secs(), 22);
    // From the future: the clock has been put back since it was stored.
    assert!(!terms.is_fresh(Moment(NOW.0 - 60_000)));
}
