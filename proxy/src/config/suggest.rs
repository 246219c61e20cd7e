//! "did you mean": the nearest valid name to one that is not valid.
//!
//! Pure; used for keys, for names that do not resolve and for values of enumerations.

/// The cure for an unknown `given` among `valid`: a near miss, then all that is valid.
pub(crate) fn cure<'a>(given: &str, valid: impl IntoIterator<Item = &'a str>) -> String {
    let valid: Vec<&str> = valid.into_iter().collect();
    let list = valid.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match nearest(given, &valid) {
        Some(name) => format!("did you mean `{name}`? Valid: {list}"),
        None if valid.is_empty() => "none is defined".to_owned(),
        None => format!("valid: {list}"),
    }
}

/// The nearest of `valid`, if it is near enough for a slip of the finger.
pub(crate) fn nearest<'a>(given: &str, valid: &[&'a str]) -> Option<&'a str> {
    let plain = given.to_ascii_lowercase().replace('-', "_");
    valid
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&plain, &name.to_ascii_lowercase()), *name))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, name)| *distance <= name.len().div_ceil(3).min(4))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses_are_named_and_far_ones_are_not() {
        let valid = ["listener", "route", "upstream", "max_head_bytes"];
        assert_eq!(nearest("listeners", &valid), Some("listener"));
        assert_eq!(nearest("Upstraem", &valid), Some("upstream"));
        assert_eq!(nearest("max-header-bytes", &valid), Some("max_head_bytes"));
        assert_eq!(nearest("frobnicate", &valid), None);
        assert_eq!(cure("api", []), "none is defined");
        assert_eq!(
            cure("rout", valid),
            "did you mean `route`? Valid: `listener`, `route`, `upstream`, `max_head_bytes`"
        );
    }
}
