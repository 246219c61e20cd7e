//! What a file may say about workers, and about who of them gets a connection.

use mantra_macros::req_test;

use super::*;

fn file(top: &str, listener: &str) -> String {
    format!(
        "{top}\n[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n{listener}\n\
         [[route]]\nupstream = \"api\"\n\
         [[upstream]]\nname = \"api\"\nservers = [\"127.0.0.1:3000\"]\n"
    )
}

#[req_test("REQ-EDGE-001")]
#[test]
fn workers_are_pinned_if_it_is_said_or_a_listener_goes_by_the_cpu() {
    let by_cpu = "steering = \"cpu\"";
    for (top, listener, steering, pinned) in [
        ("", "", Steering::Load, false),
        ("", "steering = \"load\"", Steering::Load, false),
        ("", "steering = \"hash\"", Steering::Hash, false),
        ("", by_cpu, Steering::Cpu, true),
        ("pin_workers = true", "", Steering::Load, true),
        ("pin_workers = true", by_cpu, Steering::Cpu, true),
        ("pin_workers = false", "", Steering::Load, false),
    ] {
        let config = parse(&file(top, listener), "a.toml").unwrap();
        assert_eq!(config.listeners[0].steering, steering, "{top} {listener}");
        assert_eq!(config.pin_workers, pinned, "{top} {listener}");
        let again = parse(&config.effective(), "effective.toml").unwrap();
        assert_eq!(again.effective(), config.effective());
        assert_eq!((again.listeners[0].steering, again.pin_workers), (steering, pinned));
    }
}

#[req_test("REQ-EDGE-001")]
#[test]
fn what_does_not_go_together_is_told_with_place_and_cure() {
    for (top, listener, parts) in [
        (
            "pin_workers = false",
            "steering = \"cpu\"",
            ["a.toml:5:12", "`steering = \"cpu\"` with `pin_workers = false`", "remove"],
        ),
        ("", "steering = \"lod\"", ["a.toml:5:12", "unknown value `lod`", "did you mean `load`"]),
        ("", "steering = 1", ["a.toml:5:12", "unknown value `1`", "`load`, `cpu`, `hash`"]),
        ("pin_workers = \"yes\"", "", ["a.toml:1:15", "is a string", "true or false"]),
        ("", "pin_workers = true", ["a.toml:5:1", "unknown key", "at the top of the file"]),
    ] {
        let errors = parse(&file(top, listener), "a.toml").unwrap_err().to_string();
        for part in parts {
            assert!(errors.contains(part), "{part:?} in {errors}");
        }
    }
}
