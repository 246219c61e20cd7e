//! What the machine offers, when a skip is justified, and connections to try it on.

use std::{
    env, fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::PathBuf,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use aya::{maps::MapInfo, programs::loaded_programs};
use underpass::splice::{
    kernel::{self, Kernel},
    probe,
};
use underpass_tests::{clock::scaled, skip};

/// Longest wait for something that takes milliseconds.
pub(crate) const PATIENCE: Duration = scaled(Duration::from_secs(10));

/// From this kernel on every program here loads.
const OLDEST_KERNEL: (u32, u32) = (5, 10);

/// The programs, or nothing where the machine cannot have them. A machine that can and
/// does not fails the test.
pub(crate) fn kernel() -> Option<Arc<Kernel>> {
    if let Some(reason) = lacking() {
        skip::say(&reason);
        return None;
    }
    match Kernel::load() {
        Ok(kernel) => Some(Arc::new(kernel)),
        Err(reason) => panic!("this machine has all it takes, and yet: {reason}"),
    }
}

/// What the machine lacks for these tests, if anything.
pub(crate) fn lacking() -> Option<String> {
    let report = probe::report();
    if !report.privileged {
        return Some("needs CAP_BPF and CAP_NET_ADMIN".to_owned());
    }
    let numbers = report.kernel.split(|c: char| !c.is_ascii_digit());
    let mut numbers = numbers.map(|number| number.parse().unwrap_or(0));
    let kernel = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if kernel < OLDEST_KERNEL {
        return Some(format!("kernel {} is older than {OLDEST_KERNEL:?}", report.kernel));
    }
    if let Err(reason) = kernel::embedded() {
        // `cargo xtask test` tried to build the programs, and says so where it could not.
        let tried = env::var("UNDERPASS_TEST_WITHOUT_BPF");
        assert!(tried.is_ok(), "{reason}");
        return Some(reason.to_owned());
    }
    None
}

/// An established connection over loopback.
pub(crate) fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (near, _) = listener.accept().unwrap();
    for stream in [&near, &far] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
    }
    (near, far)
}

/// Sends bytes that say where they stand, and checks that the same arrive.
pub(crate) fn send(from: &mut TcpStream, to: &mut TcpStream, bytes: usize) {
    let sent: Vec<u8> = (0..bytes as u32).flat_map(u32::to_be_bytes).take(bytes).collect();
    let mut read = vec![0; bytes];
    std::thread::scope(|scope| {
        scope.spawn(|| from.write_all(&sent).unwrap());
        to.read_exact(&mut read).unwrap();
    });
    assert!(read == sent, "the bytes arrived changed");
}

/// Waits until `done` says so. Polled: the kernel frees programs and maps after a grace
/// period that it tells nobody about.
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether any of these programs or maps is loaded.
///
/// Maps are looked at only once no program is left, and no others than these: opening the
/// program array of a process that is going, at the moment when the kernel empties it, makes
/// the kernel do that twice, and it then keeps the empty array (seen on 6.18, and once on 6.1).
/// It does so a moment after the last program is gone, so that moment is waited for.
pub(crate) fn any_loaded<'a>(
    programs: impl IntoIterator<Item = &'a u32>,
    maps: impl IntoIterator<Item = &'a u32>,
) -> bool {
    let wanted: Vec<u32> = programs.into_iter().copied().collect();
    if loaded_programs().flatten().any(|program| wanted.contains(&program.id())) {
        return true;
    }
    std::thread::sleep(scaled(Duration::from_millis(200)));
    maps.into_iter().any(|id| MapInfo::from_id(*id).is_ok())
}

/// A copy of a binary where every user can start it. Removed when dropped.
pub(crate) struct Copied(PathBuf);

impl Copied {
    pub(crate) fn of(binary: &PathBuf) -> Self {
        let name = binary.file_name().unwrap().to_string_lossy();
        let copy = env::temp_dir().join(format!("{name}-{}", std::process::id()));
        fs::copy(binary, &copy).unwrap();
        Self(copy)
    }

    pub(crate) fn command(&self) -> Command {
        Command::new(&self.0)
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
