//! `underpass doctor`: what this machine offers, each mechanism tried, with the reason
//! where it is not to be had.
//!
//! Always ends well: a machine without BPF is no failure, the proxy serves there too.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    process::ExitCode,
};

use crate::splice::probe::{self, Report};

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print JSON instead of a table
    #[arg(long)]
    pub(super) json: bool,
}

/// Probes and prints.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let report = probe::report();
    let text = if args.json {
        let mut text = serde_json::to_string_pretty(&report)?;
        text.push('\n');
        text
    } else {
        table(&report)
    };
    // A reader that has seen enough (`| head`) is no error.
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn table(report: &Report) -> String {
    let yes_no = |yes| if yes { "yes" } else { "no" };
    let mut text = format!(
        "underpass {} on Linux {}{}, privileged for BPF: {}\n\n",
        report.version,
        report.kernel,
        if report.wsl { " (WSL)" } else { "" },
        yes_no(report.privileged),
    );
    let name = report.mechanisms.iter().map(|row| row.name.len()).max().unwrap_or_default();
    let purpose = report.mechanisms.iter().map(|row| row.purpose.len()).max().unwrap_or_default();
    for row in &report.mechanisms {
        let _ = write!(text, "{:name$}  {:purpose$}  ", row.name, row.purpose);
        let _ = match &row.reason {
            None => match row.note {
                None => writeln!(text, "{}", yes_no(row.available)),
                Some(note) => writeln!(text, "{}, {note}", yes_no(row.available)),
            },
            Some(reason) => writeln!(text, "no because {reason}"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::splice::probe::Row;

    #[test]
    fn the_table_is_aligned_and_names_reasons() {
        let row = |name, reason: Option<&str>| Row {
            name,
            purpose: "x",
            available: reason.is_none(),
            reason: reason.map(str::to_owned),
            note: None,
        };
        let report = Report {
            version: "1",
            kernel: "6".to_owned(),
            wsl: true,
            privileged: false,
            mechanisms: vec![row("long_name", None), row("short", Some("it is not"))],
        };
        let text = table(&report);
        assert_eq!(
            text,
            "underpass 1 on Linux 6 (WSL), privileged for BPF: no\n\n\
             long_name  x  yes\n\
             short      x  no because it is not\n"
        );
    }
}
