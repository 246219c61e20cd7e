//! Kernels and busybox from the Debian archive that this machine's apt is set up with.
//!
//! Invariant: apt works below `target/vm` only, with an own configuration that takes over
//! how the machine reaches archives (mirror, proxy) and nothing else; nothing is installed.
//! apt checks the signatures of what it downloads, with the keyring of Debian. A stamp is
//! written last, so that an unpacking cut short counts for nothing.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{
    kernels::Kernel,
    lacking::{Had, Lacking},
};
use crate::workspace::{call, output, say};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Names the newest kernel of a suite, of the flavour that is for virtual machines.
const METAPACKAGE: &str = "linux-image-cloud-amd64";

/// Packages that a kernel is spread over, before the digits of its release.
const PARTS: [&str; 3] = ["linux-image-", "linux-binary-", "linux-modules-"];

/// Longest that one call of apt may take, seconds: some tens of megabytes.
const PATIENCE: &str = "300";

/// A mirror that says nothing for so long, seconds, has failed; and how often it is tried.
const STUBBORNNESS: [&str; 3] = [
    "Acquire::http::Timeout \"30\";",
    "Acquire::https::Timeout \"30\";",
    "Acquire::Retries \"3\";",
];

/// A suite, unpacked.
#[derive(Debug)]
pub(super) struct Unpacked {
    folder: PathBuf,
}

impl Unpacked {
    /// The kernel's image.
    pub(super) fn image(&self) -> Result<PathBuf> {
        self.find(|name| name.starts_with("vmlinuz"))
    }

    /// The statically linked busybox.
    pub(super) fn busybox(&self) -> Result<PathBuf> {
        self.find(|name| name == "busybox")
    }

    /// A module, as it would be on disk uncompressed; `None` where the kernel has no such.
    pub(super) fn module(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let (plain, compressed) = (format!("{name}.ko"), format!("{name}.ko.xz"));
        let Ok(path) = self.find(|file| file == plain || file == compressed) else {
            return Ok(None);
        };
        if path.extension().is_some_and(|extension| extension == "ko") {
            return Ok(Some(fs::read(path)?));
        }
        let unpacked = Command::new(self.busybox()?).arg("xzcat").arg(&path).output()?;
        if !unpacked.status.success() || unpacked.stdout.is_empty() {
            bail!("{} cannot be decompressed", path.display());
        }
        Ok(Some(unpacked.stdout))
    }

    fn find(&self, wanted: impl Fn(&str) -> bool) -> Result<PathBuf> {
        let mut folders = vec![self.folder.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder)? {
                let entry = entry?;
                let kind = entry.file_type()?;
                if kind.is_dir() {
                    folders.push(entry.path());
                } else if kind.is_file() && wanted(&entry.file_name().to_string_lossy()) {
                    return Ok(entry.path());
                }
            }
        }
        bail!("not among the files of the packages in {}", self.folder.display())
    }
}

/// The kernel of a suite, downloaded unless it lies there already.
///
/// # Errors
/// [`Lacking`], where this machine has no apt, or that no archive within reach.
pub(super) fn fetch(kernel: &Kernel, cache: &Path, update: bool) -> Result<Had<Unpacked>> {
    let base = cache.join(kernel.suite);
    let (folder, stamp) = (base.join("unpacked"), base.join("packages"));
    if !update && stamp.exists() {
        return Ok(Had::Kept(Unpacked { folder }));
    }
    for tool in ["apt-get", "dpkg-deb"] {
        if output(Command::new(tool).arg("--version")).is_err() {
            let needs = format!("kernels come from Debian's archive, which needs {tool}");
            return Err(Lacking(needs).into());
        }
    }
    say(format_args!("vm-test: fetching Linux {} from {}", kernel.name, kernel.suite));
    let apt = Apt::set_up(&base.join("apt"), kernel.suite)?;
    let mut packages = apt.packages_of_kernel()?;
    packages.push("busybox-static".to_owned());

    let (debs, fresh) = (base.join("debs"), base.join("fresh"));
    for old in [&debs, &fresh] {
        let _ = fs::remove_dir_all(old);
        fs::create_dir_all(old)?;
    }
    call(apt.get().args(["-qq", "download"]).args(&packages).current_dir(&debs))?;
    for entry in fs::read_dir(&debs)? {
        call(Command::new("dpkg-deb").arg("--extract").arg(entry?.path()).arg(&fresh))?;
    }
    let _ = fs::remove_file(&stamp);
    let _ = fs::remove_dir_all(&folder);
    fs::rename(&fresh, &folder)?;
    fs::remove_dir_all(&debs)?;
    fs::write(&stamp, packages.join("\n"))?;
    Ok(Had::Fetched(Unpacked { folder }))
}

/// An apt that knows one suite and touches nothing of the machine's own.
struct Apt {
    configuration: PathBuf,
}

impl Apt {
    fn set_up(folder: &Path, suite: &str) -> Result<Self> {
        let text = folder.to_str().context("the workspace's path is not UTF-8")?;
        for below in
            ["etc/apt.conf.d", "etc/preferences.d", "state/lists/partial", "cache/archives/partial"]
        {
            fs::create_dir_all(folder.join(below))?;
        }
        fs::write(folder.join("state/status"), "")?;
        let mirror = mirror()?;
        let source = format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n");
        fs::write(folder.join("etc/sources.list"), source)?;

        let mut lines = vec![
            format!("Dir::Etc \"{text}/etc\";"),
            format!("Dir::State \"{text}/state\";"),
            format!("Dir::State::status \"{text}/state/status\";"),
            format!("Dir::Cache \"{text}/cache\";"),
            "APT::Architecture \"amd64\";".to_owned(),
            "APT::Architectures \"amd64\";".to_owned(),
            // The user of apt's sandbox has no access to the workspace.
            "APT::Sandbox::User \"root\";".to_owned(),
        ];
        // How this machine gets at archives. Indices of other kinds are no concern here.
        let machine = output(Command::new("apt-config").arg("dump"))?;
        let access = machine.lines().filter(|line| {
            line.starts_with("Acquire::") && !line.starts_with("Acquire::IndexTargets")
        });
        lines.extend(access.map(str::to_owned));
        lines.extend(STUBBORNNESS.map(str::to_owned));
        let configuration = folder.join("apt.conf");
        fs::write(&configuration, lines.join("\n") + "\n")?;

        let apt = Self { configuration };
        call(apt.get().args(["-qq", "update", "--error-on=any"])).map_err(|error| {
            Lacking(format!("{suite} of Debian's archive cannot be reached: {error:#}"))
        })?;
        Ok(apt)
    }

    /// `apt-get`, ended where it takes too long.
    fn get(&self) -> Command {
        let mut command = self.command("timeout");
        command.args(["--kill-after=5", PATIENCE, "apt-get"]);
        command
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", &self.configuration).env("LC_ALL", "C");
        command
    }

    /// The packages that the newest kernel consists of, as far as it is to be booted.
    fn packages_of_kernel(&self) -> Result<Vec<String>> {
        let mut found = vec![METAPACKAGE.to_owned()];
        let mut at = 0;
        while at < found.len() {
            let depends = output(self.command("apt-cache").args(["depends", &found[at]]))?;
            for name in depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: ")) {
                if is_part(name) && !found.iter().any(|known| known == name) {
                    found.push(name.to_owned());
                }
            }
            at += 1;
        }
        found.remove(0);
        if found.is_empty() {
            bail!("{METAPACKAGE} names no kernel");
        }
        Ok(found)
    }
}

fn is_part(package: &str) -> bool {
    PARTS.iter().any(|part| {
        let rest = package.strip_prefix(part).unwrap_or_default();
        rest.starts_with(|c: char| c.is_ascii_digit())
    })
}

/// Where this machine gets Debian itself from: not its security updates, nor other vendors.
fn mirror() -> Result<String> {
    let format = "$(REPO_URI) $(RELEASE) $(COMPONENT)";
    let targets = output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        format,
        "Created-By: Packages",
    ]))?;
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    mirror_among(&targets, &release).ok_or_else(|| {
        Lacking("this machine's apt has no archive of Debian among its sources".to_owned()).into()
    })
}

fn mirror_among(targets: &str, os_release: &str) -> Option<String> {
    let value = |key: &str| {
        let line = os_release.lines().find_map(|line| line.strip_prefix(key));
        line.map(|value| value.trim_matches('"').to_owned())
    };
    if value("ID=").as_deref() != Some("debian") {
        return None;
    }
    let codename = value("VERSION_CODENAME=").unwrap_or_default();
    let suites = [codename.as_str(), "stable", "oldstable", "testing", "unstable", "sid"];
    targets.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (uri, suite, component) = (words.next()?, words.next()?, words.next()?);
        (suites.contains(&suite) && component == "main").then(|| uri.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_where_debian_itself_comes_from() {
        let targets = "http://security.test/debian bookworm-security main\n\
                       http://other.test/apt bookworm contrib\n\
                       http://mirror.test/debian/ bookworm main\n";
        let debian = "ID=debian\nVERSION_CODENAME=bookworm\n";
        let found = mirror_among(targets, debian);
        assert_eq!(found.as_deref(), Some("http://mirror.test/debian/"));
        assert_eq!(mirror_among(targets, "ID=other\nVERSION_CODENAME=bookworm\n"), None);
    }

    #[test]
    fn parts_of_a_kernel_are_told_from_what_else_it_depends_on() {
        assert!(is_part("linux-image-6.1.0-50-cloud-amd64"));
        assert!(is_part("linux-modules-7.2.13+deb14-cloud-amd64"));
        assert!(!is_part("linux-base-cloud-amd64") && !is_part("linux-image-cloud-amd64"));
    }
}
