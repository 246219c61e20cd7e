//! What is wrong with `[acme]` and `names`, and what is told of them.

use std::fs;

use super::{Config, parse};

const AGREED: &str = "agree_to_terms = true\nstorage = \"store\"\n";

/// A file with these keys in `[acme]`, and this list of certificates.
fn read(acme: &str, certificates: &str) -> Result<Config, String> {
    let text = format!(
        "{acme}\n\
         [[listener]]\nname = \"plain\"\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [listener.tls]\ncertificates = [{certificates}]\n\
         [[route]]\nupstream = \"one\"\n\
         [[upstream]]\nname = \"one\"\nservers = [\"127.0.0.1:1\"]\n"
    );
    parse(&text, "f.toml").map_err(|errors| errors.to_string())
}

fn good(acme: &str) -> Config {
    read(&format!("[acme]\n{AGREED}{acme}"), "{ names = [\"A.test\", \"b.test\"] }")
        .unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn names_are_enough_and_what_is_in_force_reads_back_without_secrets() {
    let key = std::env::temp_dir().join(format!("underpass-eab-{}", std::process::id()));
    fs::write(&key, "YSBrZXkgdGhhdCBib3RoIHNpZGVzIGtub3c=\n").unwrap();
    let config = good(&format!(
        "contact = [\"mailto:a@b.test\"]\nrenew_before = \"8h\"\nchallenge = \"tls-alpn-01\"\n\
         eab_key_id = \"kid-1\"\neab_key_file = \"{}\"\n",
        key.display()
    ));
    let acme = config.acme.as_ref().unwrap();
    assert!(acme.directory.starts_with("https://acme-v02.api.letsencrypt.org/"));
    assert_eq!(acme.contact, ["a@b.test"]);
    assert_eq!(&*acme.binding.as_ref().unwrap().key, b"a key that both sides know");
    let files = &config.listeners[1].tls.as_ref().unwrap().settings.certificates[0];
    assert_eq!(files.ordered.as_ref().unwrap().to_string(), "a.test, b.test");
    let effective = config.effective();
    assert!(!effective.contains("YSBr"), "{effective}");
    let again = parse(&effective, "effective.toml").unwrap_or_else(|e| panic!("{e}\n{effective}"));
    assert_eq!(again.effective(), effective);
    fs::remove_file(key).unwrap();
}

#[test]
fn wrong_ones_have_one_problem_with_a_cure() {
    let names = "{ names = [\"a.test\"] }";
    for (acme, certificates, what, cure) in [
        ("", names, "no CA to order it from", "add [acme]"),
        ("[acme]\nstorage = \"s\"", names, "not agreed to", "agree_to_terms = true"),
        ("[acme]\nagree_to_terms = false\nstorage = \"s\"", names, "not agreed to", "read them"),
        ("[acme]\nagree_to_terms = true", names, "no `storage`", "/var/lib/underpass/acme"),
        ("directory = \"http://ca.test/d\"", names, "no URL with https", "letsencrypt"),
        ("directory = \"https://u:p@ca.test/d\"", names, "names no host", "letsencrypt"),
        ("contact = [\"me\"]", names, "no address of mail", "ops@example.org"),
        ("challenge = \"dns-01\"", names, "unknown value", "`http-01`, `tls-alpn-01`"),
        ("renew_before = 30", names, "not a duration", "unit"),
        ("ca = \"/nowhere.pem\"", names, "cannot be read", "in PEM"),
        ("eab_key_id = \"k\"", names, "without the other", "write both"),
        ("eab_key_id = \"k\"\neab_key_file = \"/nowhere\"", names, "cannot be read", "readable"),
        ("", "{ names = [] }", "for no name", "remove the entry"),
        ("", "{ names = [\"*.a.test\"] }", "looks into DNS", "write each name"),
        ("", "{ names = [\"192.0.2.1\"] }", "no name that a CA", "www.example.org"),
        ("", "{ names = [\"localhost\"] }", "no name that a CA", "www.example.org"),
        ("", "{ names = [\"a..test\"] }", "no name that a CA", "www.example.org"),
        ("", "{ names = [\"../../etc/a.test\"] }", "no name that a CA", "www.example.org"),
        ("", "{ names = [\"b\u{fc}cher.test\"] }", "no name that a CA", "punycode"),
        ("", "{ names = [\"a.test\"], cert = \"a.pem\" }", "certificate in files", "remove one"),
    ] {
        let acme = match acme.starts_with("[acme]") || certificates == names && acme.is_empty() {
            true => acme.to_owned(),
            false => format!("[acme]\n{AGREED}{acme}"),
        };
        let said = read(&acme, certificates).map(|_| ()).expect_err(&acme);
        assert_eq!(said.lines().count(), 1, "{acme} {certificates}: {said}");
        assert!(said.contains(what) && said.contains(cure), "{acme} {certificates}: {said}");
    }
}

#[test]
fn what_is_hardly_meant_is_warned_about() {
    assert_eq!(good("").warnings, Vec::<String>::new());
    let text = |listener: &str| {
        format!(
            "[acme]\n{AGREED}\n{listener}\n[[route]]\nupstream = \"one\"\n\
             [[upstream]]\nname = \"one\"\nservers = [\"127.0.0.1:1\"]\n"
        )
    };
    let tls = "[listener.tls]\ncertificates = [{ names = [\"a.test\"] }]";
    let listener = "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n";
    for (listener, warning) in [
        (listener.to_owned(), "no certificate that has `names`"),
        (format!("{listener}{tls}"), "no listener for plain HTTP"),
    ] {
        let warnings = parse(&text(&listener), "f.toml").unwrap().warnings;
        assert!(warnings.len() == 1 && warnings[0].contains(warning), "{warnings:?}");
    }
}
