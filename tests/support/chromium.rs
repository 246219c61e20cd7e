//! A browser without a window, to open a page and see what it became.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// What browsers of this kind are called.
const NAMES: &[&str] = &["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// Longest time that a page may take. A browser starts slowly on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser that has a page open, until this is dropped.
#[derive(Debug)]
pub struct Visit(Child);

impl Drop for Visit {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn browser() -> Option<&'static str> {
    let runs = |name: &&&str| {
        let output = Command::new(name).arg("--version").output();
        output.is_ok_and(|output| output.status.success())
    };
    NAMES.iter().find(runs).copied()
}

/// Opens a page, whoever has signed for it. `None`: there is no browser.
///
/// # Panics
/// If it cannot be started.
pub fn visit(url: &str, profile: &Path) -> Option<Visit> {
    let child = Command::new(browser()?)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"])
        // Without it some end when the page is there.
        .args(["--remote-debugging-port=0", "--ignore-certificate-errors"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start the browser");
    Some(Visit(child))
}

/// The document that a file has become after its scripts have run. `None`: there is no browser.
///
/// # Panics
/// If it gives none.
pub fn document(page: &Path, profile: &Path) -> Option<String> {
    dump(&format!("file://{}", page.display()), profile, &[])
}

/// The same of a page that goes on asking its server, after its second round.
///
/// # Panics
/// If it gives none.
pub fn live_document(url: &str, profile: &Path) -> Option<String> {
    // Milliseconds of the page's own clock, which waits for answers.
    dump(url, profile, &["--virtual-time-budget=1500"])
}

fn dump(url: &str, profile: &Path, more: &[&str]) -> Option<String> {
    let mut child = Command::new(browser()?)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", "--no-first-run"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(more)
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("start the browser");
    let mut stdout = child.stdout.take().expect("stdout");
    let reader = std::thread::spawn(move || std::io::read_to_string(&mut stdout));
    let begin = Instant::now();
    while child.try_wait().expect("wait").is_none() {
        if begin.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            panic!("the browser has not ended in {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Some(reader.join().expect("a reader").expect("UTF-8"))
}
