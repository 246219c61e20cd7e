//! Wrong sections with the line and cure each must give, and good ones read back.

use super::super::{Config, parse};

fn file(section: &str) -> String {
    format!(
        "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:8080\"\n\
         [[upstream]]\nname = \"api\"\nservers = [\"127.0.0.1:3000\"]\n\
         [[route]]\nupstream = \"api\"\nmiddleware = [\"m\"]\n\
         [[middleware]]\nname = \"m\"\n{section}\n"
    )
}

/// The first line of `section` above.
const LINE: usize = 12;

#[test]
fn every_wrong_section_has_one_problem_with_a_cure() {
    for (section, line, what, cure) in [
        ("", LINE - 2, "does nothing", "add one of `access`"),
        ("access = {}", LINE, "without networks", "allow = ["),
        ("access = { allow = [\"10.0.0.1/8\"] }", LINE, "beyond its prefix", "10.0.0.0/8"),
        ("access = { alow = [\"::1\"], deny = [\"::1\"] }", LINE, "unknown key `alow`", "`allow`"),
        (
            "access = { deny = [\"::1\"] }\ncors = { origins = [\"*\"] }",
            LINE + 1,
            "in one",
            "make it two",
        ),
        ("basic_auth = {}", LINE, "without users", "users = ["),
        ("basic_auth = { users = [\"ada\"] }", LINE, "without a colon", "name:password"),
        ("basic_auth = { users = [\"ada:$apr1$x$y\"] }", LINE, "not bcrypt", "htpasswd -nB"),
        ("basic_auth = { users_file = \"/nowhere/x\" }", LINE, "cannot be read", "may read"),
        ("basic_auth = { users = [\"a:b\"], realm = \"\\\"\" }", LINE, "realm", "letters"),
        (
            "basic_auth = { users = [\"a:b\"], user_header = \"host\" }",
            LINE,
            "framing",
            "another field",
        ),
        ("jwt = {}", LINE, "no `keys_file`", "jwks.json"),
        ("jwt = { keys_file = \"/dev/null\" }", LINE, "not a JSON Web Key Set", "jwks_uri"),
        ("rate_limit = {}", LINE, "without `requests`", "requests = 100"),
        ("rate_limit = { requests = 0 }", LINE, "out of range", "from 1 to"),
        ("rate_limit = { requests = 5, per = \"1 minute\" }", LINE, "not a duration", "\"2m\""),
        ("rate_limit = { requests = 5, key = \"ip\" }", LINE, "unknown key `ip`", "\"client\""),
        ("rate_limit = { requests = 5, key = \"header:a b\" }", LINE, "not a name", "x-user"),
        ("concurrency = {}", LINE, "without `max`", "max = 100"),
        ("cors = {}", LINE, "without origins", "origins = ["),
        ("cors = { origins = [\"app.example.org\"] }", LINE, "not an origin", "https://"),
        ("cors = { origins = [\"https://a.test/\"] }", LINE, "not an origin", "host only"),
        (
            "cors = { origins = [\"*\"], credentials = true }",
            LINE,
            "any origin",
            "remove `credentials`",
        ),
        ("compression = { codings = [\"deflate\"] }", LINE, "unknown value `deflate`", "`zstd`"),
        ("compression = { types = [\"json\"] }", LINE, "not a media type", "application/json"),
        ("compression = { min_bytes = true }", LINE, "true or false", "64KiB"),
        ("request_id = { header = \"connection\" }", LINE, "about the connection", "x-"),
        ("security_headers = { hsts = 5 }", LINE, "is not a duration", "5s"),
        ("security_headers = { frame_options = \"a\\nb\" }", LINE, "line break", "one line"),
        ("mirror = {}", LINE, "no `upstream`", "shadow"),
        ("mirror = { upstream = \"ap\" }", LINE - 2, "unknown upstream `ap`", "`api`"),
        ("mirror = { upstream = \"api\", ratio = 5 }", LINE, "no share", "0.0 to 1.0"),
        ("compression = 5", LINE, "`compression` is a whole number", "[middleware.compression]"),
    ] {
        let errors = parse(&file(section), "m.toml").expect_err(section);
        let problems: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let [problem] = problems.as_slice() else { panic!("{section}: {problems:#?}") };
        assert!(problem.starts_with(&format!("m.toml:{line}:")), "{section}: {problem}");
        assert!(problem.contains(what) && problem.contains(cure), "{section}: {problem}");
    }
}

#[test]
fn names_are_looked_up() {
    let good = file("request_id = {}");
    for (from, to, what, cure) in [
        ("middleware = [\"m\"]", "middleware = [\"n\"]", "unknown middleware `n`", "`m`"),
        ("middleware = [\"m\"]", "middleware = [\"m\", \"m\"]", "named twice", "remove one"),
        (
            "address =",
            "protocol = \"tcp\"\nmiddleware = [\"m\"]\naddress =",
            "on a tcp listener",
            "remove",
        ),
    ] {
        let text = good.replacen(from, to, 1);
        let errors = parse(&text, "m.toml").expect_err(to).to_string();
        assert!(errors.contains(what) && errors.contains(cure), "{to}: {errors}");
    }
    let twice = good.clone() + "[[middleware]]\nname = \"m\"\nrequest_id = {}\n";
    let errors = parse(&twice, "m.toml").expect_err("two of a name").to_string();
    assert!(errors.contains("m.toml:14:") && errors.contains("its own name"), "{errors}");
    let unused = good.replacen("middleware = [\"m\"]", "", 1);
    let config = parse(&unused, "m.toml").unwrap();
    assert!(config.warnings[0].contains("no route names `m`"), "{:?}", config.warnings);
}

/// What is written out means the same when it is read back, passwords apart.
#[test]
fn the_effective_form_is_read_back() {
    let folder = std::env::temp_dir();
    let keys = folder.join(format!("underpass-jwks-{}.json", std::process::id()));
    let set = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    std::fs::write(&keys, set).unwrap();
    let jwt = format!(
        "jwt = {{ keys_file = \"{}\", issuer = [\"https://id\"], cookie = \"t\", claims = {{ x-user = \"sub\" }} }}",
        keys.display()
    );
    for section in [
        "access = { allow = [\"10.0.0.0/8\"], deny = [\"10.1.0.0/16\"] }",
        "basic_auth = { users = [\"ada:***\"], realm = \"x\", user_header = \"x-user\", remove = true }",
        &jwt,
        "rate_limit = { requests = 5, per = \"1m\", burst = 7, key = \"header:x-key\", max_keys = 100 }",
        "concurrency = { max = 5, key = \"client\" }",
        "cors = { origins = [\"https://a.test:8443\"], headers = [\"x-a\"], credentials = true }",
        "cors = { origins = [\"*\"], expose = [\"x-b\"], max_age = \"10m\" }",
        "compression = { codings = [\"gzip\"], min_bytes = \"2KiB\", event_streams = true }",
        "request_id = { header = \"x-id\", trust = true }",
        "mirror = { upstream = \"api\", ratio = 0.5, max_pending_bytes = \"64KiB\" }",
        "security_headers = { frame_options = \"\", hsts = \"1h\", hsts_subdomains = true }",
    ] {
        let config: Config = parse(&file(section), "m.toml").unwrap();
        let effective = config.effective();
        let back = parse(&effective, "effective.toml")
            .unwrap_or_else(|errors| panic!("{errors}\n{effective}"));
        assert_eq!(back.middleware, config.middleware, "{effective}");
        assert_eq!(back.routes[0].middleware, [0]);
    }
    let _ = std::fs::remove_file(keys);
}
