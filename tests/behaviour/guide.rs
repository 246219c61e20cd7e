//! The examples of the user guide: each one that stands in a `toml` fence is a whole file, and
//! `underpass check` takes it. What they name below `/etc/underpass/` is put into a folder here.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use underpass_tests::{
    proxy::{run, scratch},
    tls::Authority,
};

#[test]
fn every_example_of_the_guide_is_valid() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide");
    let folder = scratch("d");
    fs::create_dir(&folder).expect("a folder");
    for (name, content) in FILES {
        fs::write(folder.join(name), content).expect("write a file of the examples");
    }
    let authority = Authority::new("ca");
    for (name, names) in [("site", ["site.test"]), ("wildcard", ["*.site.test"])] {
        let issued = authority.server(&names);
        fs::write(folder.join(format!("{name}.pem")), issued.certificate).expect("a certificate");
        let key = folder.join(format!("{name}.key"));
        fs::write(&key, issued.key).expect("a key");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("its mode");
    }
    fs::write(folder.join("clients-ca.pem"), authority.pem).expect("a CA");
    let ca = folder.join("ca");
    let made = run(&["record", "ca", "init", "--dir", ca.to_str().expect("UTF-8")]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let etc = format!("{}/", folder.display());
    let mut examples = 0;
    for entry in fs::read_dir(guide).expect("docs/guide") {
        let page = entry.expect("a page").path();
        let text = fs::read_to_string(&page).expect("a readable page");
        for rest in text.split("```toml\n").skip(1) {
            let example = rest.split("```").next().expect("an end of the fence");
            let path = scratch("toml");
            fs::write(&path, example.replace("/etc/underpass/", &etc)).expect("write the example");
            let output = run(&["check", "--config", path.to_str().expect("UTF-8")]);
            let _ = fs::remove_file(&path);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{}: {said}\n{example}", page.display());
            assert!(!said.contains("warning"), "{}: {said}\n{example}", page.display());
            examples += 1;
        }
    }
    let _ = fs::remove_dir_all(folder);
    assert!(examples > 0, "no examples");
}

/// What the examples read.
const FILES: &[(&str, &str)] = &[
    (
        "jwks.json",
        r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#,
    ),
    ("eab.key", "YSBrZXkgdGhhdCBib3RoIHNpZGVzIGtub3c"),
];
