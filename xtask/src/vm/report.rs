//! What a virtual machine said, and whether that is a success.
//!
//! Invariant: success has to be said. A run that ends without its marks, without a test
//! that passed, or with something missing that its kernel is not excused from, is a failure.

use super::{guest::MARK, kernels::Kernel};

/// Gathered line by line.
#[derive(Debug, Default)]
pub(super) struct Report {
    release: Option<String>,
    doctor: Option<String>,
    status: Option<i32>,
    passed: usize,
    failed: Vec<String>,
    skipped: Vec<String>,
}

impl Report {
    /// Takes a line in. Returns whether it is worth showing: a test that passed is not.
    pub(super) fn line(&mut self, line: &str) -> bool {
        if let Some((_, said)) = line.split_once(MARK) {
            match said.split_once(' ') {
                Some(("kernel", release)) => self.release = Some(release.to_owned()),
                Some(("doctor", report)) => self.doctor = Some(report.to_owned()),
                Some(("exit", status)) => self.status = status.parse().ok(),
                _ => {}
            }
        } else if let Some((_, skipped)) = line.split_once("skipped: ") {
            self.skipped.push(skipped.to_owned());
        } else if let Some(test) = line.strip_prefix("test ") {
            if test.ends_with(" ... ok") {
                self.passed += 1;
                return false;
            }
            if let Some(name) = test.strip_suffix(" ... FAILED") {
                self.failed.push(name.to_owned());
            }
        }
        true
    }

    /// One line for the table at the end.
    pub(super) fn summary(&self) -> String {
        let release = self.release.as_deref().unwrap_or("not booted");
        let (failed, skips) = (self.failed.len(), self.skipped.len());
        format!("{release}: {} passed, {failed} failed, {skips} kinds of skip", self.passed)
    }

    /// Everything that makes it a failure.
    pub(super) fn faults(&self, kernel: &Kernel) -> Vec<String> {
        let mut faults = Vec::new();
        match &self.release {
            None => return vec!["init was not reached".to_owned()],
            Some(release) if !kernel.is(release) => {
                faults.push(format!("{release} is not a {}", kernel.name));
            }
            Some(_) => {}
        }
        match self.status {
            None => faults.push("the tests did not end".to_owned()),
            Some(137) => faults.push("the tests did not end in time".to_owned()),
            Some(0) if self.passed == 0 => faults.push("no test ran".to_owned()),
            Some(0) => {}
            Some(status) => faults.push(format!("the tests ended with status {status}")),
        }
        faults.extend(self.failed.iter().map(|name| format!("failed: {name}")));
        faults.extend(self.missing(kernel));
        for skipped in &self.skipped {
            let (what, reason) = skipped.split_once(": ").unwrap_or((skipped, ""));
            if !kernel.may_lack(what, reason) {
                faults.push(format!("a skip that this kernel is not excused from: {skipped}"));
            }
        }
        faults
    }

    /// What `doctor` did not find, and should have.
    fn missing(&self, kernel: &Kernel) -> Vec<String> {
        let report = self.doctor.as_deref().unwrap_or_default();
        let Ok(report) = serde_json::from_str::<serde_json::Value>(report) else {
            return vec![format!("doctor's report cannot be read: {report:?}")];
        };
        let rows = report["mechanisms"].as_array().map(Vec::as_slice).unwrap_or_default();
        if rows.is_empty() {
            return vec!["doctor's report has no mechanisms".to_owned()];
        }
        let missing = rows.iter().filter(|row| row["available"] != true).filter_map(|row| {
            let name = row["name"].as_str().unwrap_or_default();
            let reason = row["reason"].as_str().unwrap_or_default();
            let excused = kernel.may_lack(name, reason);
            (!excused).then(|| format!("doctor does not find {name}: {reason}"))
        });
        missing.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::kernels::KERNELS;

    const DOCTOR: &str = r#"doctor {"mechanisms":[{"name":"engine_copy","available":true}]}"#;

    fn faults(lines: &[&str]) -> Vec<String> {
        let mut report = Report::default();
        for line in lines {
            report.line(&line.replace("> ", MARK));
        }
        let kernel = KERNELS.iter().find(|kernel| kernel.name == "5.10").unwrap();
        report.faults(kernel)
    }

    #[test]
    fn success_has_to_be_said() {
        let doctor = format!("> {DOCTOR}");
        let good = ["> kernel 5.10.0", &doctor, "test a ... ok", "> exit 0"];
        assert!(faults(&good).is_empty());
        for without in 0..good.len() {
            let mut lines = good.to_vec();
            lines.remove(without);
            assert_eq!(faults(&lines).len(), 1, "without {}", good[without]);
        }
    }

    #[test]
    fn what_is_missing_needs_an_excuse() {
        let doctor = format!("> {DOCTOR}");
        let ktls = |reason: &str| {
            let row = format!(r#"{{"name":"ktls","available":false,"reason":"{reason}"}}"#);
            format!(r#"> doctor {{"mechanisms":[{row}]}}"#)
        };
        let table = [
            ("test b ... FAILED", doctor.clone(), 1),
            ("skipped: V6: no IPv6", doctor.clone(), 1),
            ("skipped: ktls: no module `tls`", doctor.clone(), 0),
            ("", ktls("no module `tls`"), 0),
            ("", ktls("broken"), 1),
        ];
        for (line, doctor, wanted) in table {
            let lines = ["> kernel 5.10.0", &doctor, "test a ... ok", line, "> exit 0"];
            assert_eq!(faults(&lines).len(), wanted, "{line}, {doctor}: {:?}", faults(&lines));
        }
    }
}
