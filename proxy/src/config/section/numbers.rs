//! Numbers of a section: whole ones, shares and sizes, each within its range.

use toml::de::DeValue;

use super::{
    super::{
        errors::{Placed, Wrong},
        value,
    },
    Section, kind,
};

impl Section<'_> {
    /// A whole number in a range.
    pub(in crate::config) fn number(
        &self,
        key: &str,
        least: usize,
        most: usize,
    ) -> Option<Placed<usize>> {
        let (value, place) = self.get(key)?;
        let number = integer(value).and_then(|n| usize::try_from(n).ok());
        match number.filter(|n| (least..=most).contains(n)) {
            Some(number) => Some(Placed::new(number, place)),
            None => {
                let what = match value {
                    DeValue::Integer(n) => format!("`{key} = {}` is out of range", n.as_str()),
                    other => format!("`{key}` is {}", kind(other)),
                };
                let cure = format!("write a whole number from {least} to {most}");
                self.source.add(&place, Wrong::new(what, cure));
                None
            }
        }
    }

    /// A whole number in a range around zero.
    pub(in crate::config) fn signed(&self, key: &str, most: i64) -> Option<Placed<i64>> {
        let (value, place) = self.get(key)?;
        match integer(value).filter(|number| (-most..=most).contains(number)) {
            Some(number) => Some(Placed::new(number, place)),
            None => {
                let cure = format!("write a whole number from -{most} to {most}");
                let what = match value {
                    DeValue::Integer(n) => format!("`{key} = {}` is out of range", n.as_str()),
                    other => format!("`{key}` is {}", kind(other)),
                };
                self.source.add(&place, Wrong::new(what, cure));
                None
            }
        }
    }

    /// A share: 0.0 to 1.0.
    pub(in crate::config) fn ratio(&self, key: &str) -> Option<f64> {
        let (value, place) = self.get(key)?;
        let number = match value {
            DeValue::Float(number) => number.as_str().parse().ok(),
            DeValue::Integer(number) => number.as_str().parse().ok(),
            _ => None,
        };
        let within = number.filter(|number| (0.0..=1.0).contains(number));
        if within.is_none() {
            let cure = "write a number from 0.0 to 1.0; 0.01 is one in a hundred";
            self.source.add(&place, Wrong::new(format!("`{key}` is no share"), cure));
        }
        within
    }

    /// As [`Self::size`], within bounds that are both included.
    pub(in crate::config) fn size_within(&self, key: &str, least: u64, most: u64) -> Option<u64> {
        let size = self.size(key)?;
        if (least..=most).contains(&size.value) {
            return Some(size.value);
        }
        let (least, most) = (value::show_size(least), value::show_size(most));
        let cure = format!("write a size from \"{least}\" to \"{most}\"");
        self.add(&size.place, Wrong::new(format!("`{key}` is out of range"), cure));
        None
    }

    /// Bytes: a whole number, or a string with a unit.
    pub(in crate::config) fn size(&self, key: &str) -> Option<Placed<u64>> {
        let (value, place) = self.get(key)?;
        let size = match (value, integer(value)) {
            (_, Some(number)) => value::size(&number.to_string()),
            (DeValue::String(text), _) => value::size(text),
            _ => {
                self.mistyped(key, value, &place, "a size such as \"64KiB\"");
                return None;
            }
        };
        match size {
            Ok(size) => Some(Placed::new(size, place)),
            Err(wrong) => {
                self.source.add(&place, wrong);
                None
            }
        }
    }
}

pub(super) fn integer(value: &DeValue<'_>) -> Option<i64> {
    let number = value.as_integer()?;
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}
