//! Which of several answers is chosen (`Vary`).

use super::*;
use crate::cache::policy::vary::Chosen;

fn is_for(vary: &str, stored: &str, asked: &str) -> bool {
    Chosen::of(&head(vary), &head(stored), &[]).is_for(&head(asked))
}

#[test]
fn a_variant_is_for_requests_with_the_same_values() {
    for (vary, stored, asked, same) in [
        ("", "A: 1", "A: 2", true),
        ("Vary: A", "A: 1", "A: 1", true),
        ("Vary: A", "A: 1", "A: 2", false),
        ("Vary: a", "A: 1", "A: 2", false),
        ("Vary: A", "A: 1", "", false),
        ("Vary: A", "", "A: 1", false),
        ("Vary: A", "", "", true),
        ("Vary: A", "", "A:", false),
        ("Vary: A", "A: 1, 2", "A: 1,2", true),
        ("Vary: A", "A: 1, 2", "A: 1|A: 2", true),
        ("Vary: A", "A: 1, 2", "A: 2, 1", false),
        ("Vary: A", "A: x", "A: X", false),
        ("Vary: A, B", "A: 1|B: 2", "A: 1|B: 2|C: 3", true),
        ("Vary: A, B", "A: 1|B: 2", "A: 1|B: 3", false),
        ("Vary: A|Vary: B", "A: 1|B: 2", "A: 1|B: 3", false),
        ("Vary: A,, A", "A: 1", "A: 1", true),
    ] {
        assert_eq!(is_for(vary, stored, asked), same, "{vary}: {stored} / {asked}");
    }
}

#[test]
fn fields_that_a_route_ignores_choose_nothing() {
    let ignored = [HeaderName::from_static("user-agent")];
    let chosen = Chosen::of(&head("Vary: User-Agent, A"), &head("User-Agent: x|A: 1"), &ignored);
    assert!(chosen.is_for(&head("User-Agent: y|A: 1")) && !chosen.is_for(&head("A: 2")));
    let parts = chosen.parts().map(|(name, value)| (name.clone(), value.map(<[u8]>::to_vec)));
    assert_eq!(Chosen::from_parts(parts.collect()), chosen);
}

#[test]
fn one_that_varies_by_too_much_is_not_stored() {
    let names: Vec<String> = (0..33).map(|n| format!("x{n}")).collect();
    let text = format!("Cache-Control: max-age=9|Vary: {}", names.join(", "));
    assert_eq!(terms(&text).unwrap_err(), Refusal::VaryAny);
    let text = format!("Cache-Control: max-age=9|Vary: {}", names[1..].join(", "));
    assert!(terms(&text).is_ok());
    assert_eq!(terms("Cache-Control: max-age=9|Vary: a b").unwrap_err(), Refusal::VaryAny);
}
